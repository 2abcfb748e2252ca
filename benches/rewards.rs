//! Durable rewards a second over HTTP: a server process, clients on keep-alive connections that each wait for their answer, in bodies of 100
//! rewards and one by one. Beside it, what a lone write and sync costs on the same disk.
//!
//! `cargo bench --bench rewards -- [DIRECTORY] [CPUS]`: the directory is on the disk to be measured; the server gets the cores in CPUS
//! (as for `taskset`, which must be there), else it shares all of them with the clients.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pointsman::clock::{Clock, Stopwatch, SystemClock};
use pointsman::decision_id::Keys;
use pointsman::experiment::decision::{Decision, Reason};
use pointsman::experiment::id::{ArmId, ExperimentId, Name, PolicyVersion, SequenceKey};
use pointsman::secret;

const POLICY: &str = "\
[match]
path = \"/v1/bench\"
[policy.thompson]
[reward]
kind = \"binary\"
window = \"1h\"
[[arm]]
name = \"a\"
endpoints = [\"http://127.0.0.1:1\"]
[[arm]]
name = \"b\"
endpoints = [\"http://127.0.0.1:1\"]
";

/// A server, and what its decision ids are signed with.
struct Server {
    child: Child,
    proxy: SocketAddr,
    keys: Keys,
    /// For replicas of our own making, each with decisions of its own.
    origins: u64,
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address")
}

impl Server {
    fn start(directory: &Path, cpus: Option<&str>) -> Self {
        let (policies, data) = (directory.join("policies"), directory.join("data"));
        fs::create_dir_all(&policies).expect("a directory");
        fs::write(policies.join("bench.toml"), POLICY).expect("a disk");
        let (proxy, admin) = (free_address(), free_address());
        let settings = format!(
            "[listen]\nproxy = \"{proxy}\"\nadmin = \"{admin}\"\n[data]\ndir = \"{}\"\n[workers]\ncount = 2\n",
            data.display()
        );
        let file = directory.join("pointsman.toml");
        fs::write(&file, settings).expect("a disk");
        let binary = env!("CARGO_BIN_EXE_pointsman");
        let mut command = match cpus {
            Some(cpus) => {
                let mut command = Command::new("taskset");
                command.args(["-c", cpus, binary]);
                command
            }
            None => Command::new(binary),
        };
        let child = command
            .args(["serve".as_ref(), "--config".as_ref(), file.as_os_str()])
            .args(["--policies".as_ref(), policies.as_os_str()])
            .env("POINTSMAN_LOG", "warn")
            .stdout(Stdio::null())
            .spawn()
            .expect("a server");
        while TcpStream::connect(proxy).is_err() {
            std::thread::sleep(Duration::from_millis(20));
        }
        let secret = secret::load(&data.join("secret")).expect("a secret");
        let keys = secret.decision_keys();
        Self {
            child,
            proxy,
            keys,
            origins: 0,
        }
    }

    /// User and system time of the process so far, in seconds.
    fn cpu(&self) -> f64 {
        let stat =
            fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        let fields: Vec<_> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        let ticks = |index: usize| {
            fields
                .get(index)
                .and_then(|field| field.parse::<f64>().ok())
                .unwrap_or(f64::NAN)
        };
        (ticks(11) + ticks(12)) / 100.0
    }

    /// Whole requests with `rewards` rewards each, for decisions that were never rewarded.
    fn requests(&mut self, count: u64, rewards: u64) -> Vec<Vec<u8>> {
        self.origins += 1;
        let name = Name::new("bench").expect("a name");
        let arms = ["a", "b"].map(|arm| ArmId::of(&name, &Name::new(arm).expect("a name"), ""));
        let id = |counter: u64| {
            self.keys.encode(&Decision {
                sequence: SequenceKey {
                    origin: self.origins,
                    worker: 0,
                    counter,
                },
                at: SystemClock.now(),
                experiment: ExperimentId::of(&name),
                epoch: 1,
                arm: arms[counter as usize % 2],
                policy_version: PolicyVersion::of(&name, POLICY),
                propensity: 0.5,
                reason: Reason::Sampled,
            })
        };
        (0..count)
            .map(|request| {
                let items: Vec<_> = (0..rewards)
                    .map(|item| format!("{{\"decision_id\":\"{}\",\"reward\":1}}", id(request * rewards + item)))
                    .collect();
                let body = if rewards == 1 { items[0].clone() } else { format!("[{}]", items.join(",")) };
                format!(
                    "POST /-/rewards HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                )
                .into_bytes()
            })
            .collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Posts, and counts what was accepted. Gives how long each answer took.
fn post(address: SocketAddr, requests: &[Vec<u8>]) -> (usize, Vec<Duration>) {
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_nodelay(true).expect("a socket");
    let mut reader = BufReader::new(stream);
    let (mut accepted, mut times) = (0, Vec::with_capacity(requests.len()));
    let (mut line, mut body) = (String::new(), Vec::new());
    for request in requests {
        let watch = Stopwatch::start();
        reader.get_mut().write_all(request).expect("a server");
        let mut length = 0;
        loop {
            line.clear();
            reader.read_line(&mut line).expect("an answer");
            let head = line.trim_end().to_ascii_lowercase();
            if let Some(text) = head.strip_prefix("content-length:") {
                length = text.trim().parse().expect("a number");
            }
            if head.is_empty() {
                break;
            }
        }
        body.resize(length, 0);
        reader.read_exact(&mut body).expect("an answer");
        times.push(watch.elapsed());
        let wanted = b"\"accepted\"";
        accepted += body
            .windows(wanted.len())
            .filter(|window| window == wanted)
            .count();
    }
    (accepted, times)
}

fn measure(server: &mut Server, clients: usize, rewards: u64, requests: u64) -> String {
    let requests = server.requests(requests, rewards);
    let (cpu, span) = (server.cpu(), Stopwatch::start());
    let address = server.proxy;
    let done: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = requests
            .chunks(requests.len().div_ceil(clients))
            .map(|requests| scope.spawn(move || post(address, requests)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("a client"))
            .collect()
    });
    let (seconds, cpu) = (span.elapsed().as_secs_f64(), server.cpu() - cpu);
    let accepted: usize = done.iter().map(|(accepted, _)| accepted).sum();
    assert_eq!(
        accepted as u64,
        requests.len() as u64 * rewards,
        "not everything was accepted"
    );
    let mut times: Vec<_> = done.into_iter().flat_map(|(_, times)| times).collect();
    times.sort_unstable();
    let millis = |share: usize| times[(times.len() - 1) * share / 100].as_secs_f64() * 1e3;
    format!(
        "{clients} clients, {rewards} rewards a body: {:.0} durable rewards/s; answered in {:.2} ms (median), {:.2} ms (99th percentile); {:.2} µs of the server's CPU a reward",
        accepted as f64 / seconds,
        millis(50),
        millis(99),
        cpu * 1e6 / accepted as f64
    )
}

/// The median time of a write of so many bytes and its sync, alone on the disk.
fn lone_sync(directory: &Path, bytes: usize) -> f64 {
    let mut file = File::create(directory.join("sync")).expect("a disk");
    let bytes = vec![b'x'; bytes];
    let mut times: Vec<_> = (0..300)
        .map(|_| {
            let watch = Stopwatch::start();
            file.write_all(&bytes).expect("a disk");
            file.sync_data().expect("a disk");
            watch.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e3
}

fn main() {
    let mut arguments = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench");
    let scratch = arguments
        .next()
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let cpus = arguments.next();
    let directory = tempfile::tempdir_in(scratch).expect("a directory to write in");
    let mut out = std::io::stdout();
    for bytes in [200, 20_000, 200_000] {
        let millis = lone_sync(directory.path(), bytes);
        writeln!(
            out,
            "a lone write of {bytes} bytes and its sync: {millis:.2} ms (median)"
        )
        .expect("a terminal");
    }
    let mut server = Server::start(directory.path(), cpus.as_deref());
    // Warm.
    measure(&mut server, 8, 100, 200);
    for (clients, rewards, requests) in [
        (8, 100, 12_000),
        (16, 100, 12_000),
        (64, 1, 64_000),
        (1, 1, 4_000),
    ] {
        let told = measure(&mut server, clients, rewards, requests);
        writeln!(out, "{told}").expect("a terminal");
    }
}
