//! Whole processes over real sockets: a `pointsman` of its own for each test, with its own ports, directories and upstreams.

pub mod frames;
pub mod http;
pub mod python;
pub mod streams;
pub mod tls;
pub mod upstream;

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use pointsman::journal::{FileStorage, Storage};
use serde_json::Value;
use tempfile::TempDir;

use http::{Answer, Client};
use upstream::Upstream;

/// Waits for something that will happen, without saying how soon. Gives up after a minute, so that a hang is an error.
pub fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    for _ in 0..3_000 {
        if let Some(value) = attempt() {
            return value;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("never happened: {what}");
}

/// A folder with settings, policies and data, and the process that serves it.
pub struct Proxy {
    pub directory: TempDir,
    pub proxy: SocketAddr,
    pub admin: SocketAddr,
    /// What the server finds in its environment, besides.
    pub environment: Vec<(&'static str, PathBuf)>,
    child: Option<Child>,
}

impl Proxy {
    /// A folder with these policy files; nothing runs yet.
    pub fn prepare(policies: &[(&str, &str)], settings: &str) -> Self {
        let directory = TempDir::new().unwrap();
        fs::create_dir(directory.path().join("policies")).unwrap();
        let (proxy, admin) = (free_address(), free_address());
        let mut this = Self {
            directory,
            proxy,
            admin,
            environment: Vec::new(),
            child: None,
        };
        for (name, text) in policies {
            this.write_policy(name, text);
        }
        let text = format!(
            "[listen]\nproxy = \"{proxy}\"\nadmin = \"{admin}\"\n[data]\ndir = \"{}\"\n[shutdown]\ndrain_delay = \"0s\"\n{settings}",
            this.directory.path().join("data").display()
        );
        fs::write(this.directory.path().join("pointsman.toml"), text).unwrap();
        this.child = None;
        this
    }

    /// Starts a server on these policies and waits until it is ready.
    pub fn start(policies: &[(&str, &str)]) -> Self {
        let mut this = Self::prepare(policies, "");
        this.run();
        this
    }

    /// A server with one experiment called `stars` whose arms are these upstreams, in order.
    pub fn stars(policy: &str, upstreams: &[&Upstream]) -> Self {
        Self::start(&[("stars", &stars(policy, upstreams))])
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman"));
        command
            .arg("serve")
            .arg("--config")
            .arg(self.directory.path().join("pointsman.toml"))
            .arg("--policies")
            .arg(self.policies())
            .env("POINTSMAN_LOG", "warn,pointsman=info")
            .env("POINTSMAN_LOG_FORMAT", "text")
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs the server and waits until it is ready.
    pub fn run(&mut self) {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.log_path())
            .unwrap();
        let child = self
            .command()
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        eventually("the server is ready", || {
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                panic!("the server ended with {status}:\n{}", self.log());
            }
            let answer = Client::connect(self.admin).ok()?.get("/-/ready")?;
            (answer.status == 200).then_some(())
        });
    }

    pub fn policies(&self) -> PathBuf {
        self.directory.path().join("policies")
    }

    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Writes a policy file the way an editor does: aside, then renamed.
    pub fn write_policy(&self, name: &str, text: &str) {
        let aside = self.directory.path().join(format!("{name}.aside"));
        fs::write(&aside, text).unwrap();
        fs::rename(aside, self.policies().join(format!("{name}.toml"))).unwrap();
    }

    pub fn client(&self) -> Client {
        Client::connect(self.proxy).unwrap()
    }

    pub fn admin(&self) -> Client {
        Client::connect(self.admin).unwrap()
    }

    /// The admin API's word on an experiment.
    pub fn experiment(&self, name: &str) -> Value {
        let answer = self
            .admin()
            .get(&format!("/api/v1/experiments/{name}"))
            .unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// One field of each arm of an experiment, in order.
    pub fn arms(&self, experiment: &str, field: &str) -> Vec<f64> {
        let experiment = self.experiment(experiment);
        experiment["arms"]
            .as_array()
            .unwrap()
            .iter()
            .map(|arm| arm[field].as_f64().unwrap())
            .collect()
    }

    /// Waits until the snapshot holds this many rewards, and gives those of each arm.
    pub fn rewards(&self, experiment: &str, total: f64) -> Vec<f64> {
        eventually("the snapshot has every reward", || {
            let rewards = self.arms(experiment, "rewards");
            (rewards.iter().sum::<f64>() == total).then_some(rewards)
        })
    }

    pub fn reload(&self) -> Answer {
        self.admin().post("/-/reload", "").unwrap()
    }

    pub fn reward(&self, body: &str) -> Answer {
        self.client().post("/-/rewards", body).unwrap()
    }

    pub fn process_id(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.process_id().to_string())
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Ends the process as a power cut would end it, as far as a process can tell.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Waits for the process to end by itself.
    pub fn wait(&mut self) -> i32 {
        let status = self.child.take().unwrap().wait().unwrap();
        status.code().unwrap_or(-1)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let killed = child.kill().and_then(|()| child.wait());
            if std::thread::panicking() {
                eprintln!("ended {killed:?}; the server's log:\n{}", self.log());
            }
        }
    }
}

/// An address that nobody listens on, and that no other test gets: below the ephemeral ports, each number once in a process.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 10_000 + (std::process::id() % 1_000) as u16 * 20;
    eventually("a port is free", || {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed);
        TcpListener::bind(("127.0.0.1", port))
            .ok()?
            .local_addr()
            .ok()
    })
}

/// The text of a policy file for `POST /v1/stars` over these upstreams: arms `a`, `b`, ….
pub fn stars(policy: &str, upstreams: &[&Upstream]) -> String {
    let endpoints: Vec<String> = upstreams
        .iter()
        .map(|upstream| upstream.address.to_string())
        .collect();
    stars_at(
        policy,
        &endpoints.iter().map(String::as_str).collect::<Vec<_>>(),
    )
}

/// Like [`stars`], by address.
pub fn stars_at(policy: &str, endpoints: &[&str]) -> String {
    use std::fmt::Write;
    let mut text = format!("[match]\npath = \"/v1/stars\"\n{policy}\n");
    if !policy.contains("[reward]") {
        text.push_str("[reward]\nkind = \"binary\"\nwindow = \"1h\"\n");
    }
    for (name, endpoint) in ["a", "b", "c", "d"].iter().zip(endpoints) {
        let weight = policy
            .lines()
            .find_map(|line| line.strip_prefix(&format!("# weight {name} = ")))
            .unwrap_or("1");
        write!(
            text,
            "[[arm]]\nname = \"{name}\"\nendpoints = [\"http://{endpoint}\"]\nweight = {weight}\n"
        )
        .unwrap();
    }
    text
}

/// Every line of the live journal segments, as JSON.
pub fn journal(data: &Path) -> Vec<Value> {
    let storage = FileStorage::existing(data.join("journal"));
    let mut text = String::new();
    for segment in storage.list().unwrap() {
        let mut bytes = Vec::new();
        storage.read(segment, &mut bytes).unwrap();
        text.push_str(&String::from_utf8(bytes).unwrap());
    }
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}
