//! One process takes the place of another under load; sockets come from outside; the service manager hears of it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::harness::http::Client;
use crate::harness::upstream::Upstream;
use crate::harness::{Proxy, eventually, stars};

const SUM: &str = "[policy.thompson]\n[reward]\nkind = \"real\"\nwindow = \"1h\"\n";

/// Starts the successor of a server, and gives its process and where its log is.
pub(crate) fn successor(proxy: &Proxy, name: &str) -> (Child, std::path::PathBuf) {
    let log = proxy.directory.path().join(name);
    let mut command = proxy.command();
    command.arg("--take-over");
    let child = command
        .stdout(Stdio::null())
        .stderr(fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    (child, log)
}

/// Waits until a log says something.
pub(crate) fn says(log: &std::path::Path, what: &str) {
    eventually(what, || {
        fs::read_to_string(log)
            .unwrap_or_default()
            .contains(what)
            .then_some(())
    });
}

/// Ends a successor cleanly.
pub(crate) fn end(mut child: Child) {
    let process = child.id().to_string();
    Command::new("kill").arg(&process).status().unwrap();
    assert!(child.wait().unwrap().success());
}

/// What the clients saw.
#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    /// The sum of the acknowledged rewards of each arm's decisions, and their number.
    counted: Mutex<BTreeMap<String, (u64, f64)>>,
    decisions: AtomicU64,
    refused_rewards: AtomicU64,
}

impl Seen {
    /// Decides on one connection for as long as it is kept, or on a new one each time, and posts what the decision earns.
    fn work(&self, address: SocketAddr, keeps: bool, turn: u64) {
        let (mut client, mut turn) = (None, turn);
        while !self.stop.load(Ordering::Relaxed) {
            turn += 1;
            let answer = ask(&mut client, address, keeps, "/v1/stars", "{}");
            assert_eq!(answer.status, 200, "{answer:?}");
            self.decisions.fetch_add(1, Ordering::Relaxed);
            let value = (turn % 8) as f64 / 4.0;
            let body = json!({"decision_id": answer.decision(), "reward": value}).to_string();
            let mut tries = 0;
            let posted = loop {
                tries += 1;
                let posted = ask(&mut client, address, keeps, "/-/rewards", &body);
                if posted.status != 503 {
                    break posted;
                }
                assert_eq!(posted.header("retry-after"), Some("1"), "{posted:?}");
                self.refused_rewards.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(10));
            };
            assert_eq!(posted.statuses(), ["accepted"], "after {tries} tries");
            let mut counted = self.counted.lock().unwrap();
            let arm = counted.entry(answer.arm()).or_default();
            *arm = (arm.0 + 1, arm.1 + value);
        }
    }

    fn wait(&self, more: u64) {
        let before = self.decisions.load(Ordering::Relaxed);
        eventually("clients decide", || {
            (self.decisions.load(Ordering::Relaxed) >= before + more).then_some(())
        });
    }
}

/// Sends a request; every answer must be whole. A kept connection is given up where an answer says so.
fn ask(
    kept: &mut Option<Client>,
    address: SocketAddr,
    keeps: bool,
    path: &str,
    body: &str,
) -> crate::harness::http::Answer {
    let mut client = kept
        .take()
        .unwrap_or_else(|| Client::connect(address).expect("nobody is refused"));
    let answer = client.post(path, body).expect("every request is answered");
    if keeps && answer.header("connection") != Some("close") {
        *kept = Some(client);
    }
    answer
}

/// Upgrades to a WebSocket, of which an upstream echoes what comes.
fn websocket(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    stream
        .write_all(b"GET /v1/socket HTTP/1.1\r\nhost: it\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
        .unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    stream
}

fn echo(stream: &mut TcpStream, text: &[u8]) {
    stream.write_all(text).unwrap();
    let mut back = vec![0; text.len()];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(back, text);
}

/// An upstream that upgrades, and then echoes.
fn echoing() -> Upstream {
    Upstream::behaving(|_, stream| {
        stream
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
            .unwrap();
        let mut bytes = [0; 256];
        while let Ok(length) = stream.read(&mut bytes)
            && length > 0
        {
            stream.write_all(&bytes[..length]).unwrap();
        }
        false
    })
}

/// What the admin API has counted is what the clients were told.
fn compare(proxy: &Proxy, seen: &Seen) {
    let counted = seen.counted.lock().unwrap();
    let total: u64 = counted.values().map(|(rewards, _)| rewards).sum();
    proxy.rewards("stars", total as f64);
    let (rewards, sums) = (
        proxy.arms("stars", "rewards"),
        proxy.arms("stars", "reward_sum"),
    );
    for (index, arm) in ["a", "b"].into_iter().enumerate() {
        let expected = counted.get(arm).copied().unwrap_or_default();
        assert_eq!(
            (rewards[index], sums[index]),
            (expected.0 as f64, expected.1),
            "{arm}"
        );
    }
    let decisions: f64 = eventually("every decision is in the snapshot", || {
        let decisions = proxy.arms("stars", "decisions").iter().sum();
        (decisions >= seen.decisions.load(Ordering::Relaxed) as f64).then_some(decisions)
    });
    assert_eq!(decisions, seen.decisions.load(Ordering::Relaxed) as f64);
}

#[test]
fn a_running_server_is_replaced_under_load_and_nobody_notices() {
    let (a, b, sockets) = (Upstream::json("{}"), Upstream::json("{}"), echoing());
    let socket = stars("[policy.fixed]\n", &[&sockets]).replace("/v1/stars", "/v1/socket");
    let mut proxy = Proxy::start(&[("stars", &stars(SUM, &[&a, &b])), ("socket", &socket)]);
    let (address, seen) = (proxy.proxy, Seen::default());
    let mut tunnel = websocket(address);
    echo(&mut tunnel, b"before");
    let child = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..6)
            .map(|client| {
                let seen = &seen;
                scope.spawn(move || seen.work(address, client % 2 == 0, client))
            })
            .collect();
        seen.wait(100);
        let (child, log) = successor(&proxy, "successor.log");
        says(&log, "waiting for the data directory");
        // The old process cannot end before the tunnel does: the successor alone serves meanwhile.
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(700));
            echo(&mut tunnel, b"in flight");
            let ready = Client::connect(proxy.admin)
                .unwrap()
                .get("/-/ready")
                .unwrap();
            assert_eq!(
                (ready.status, &ready.json()["journal_writable"]),
                (200, &json!(false))
            );
        }
        let order = proxy
            .admin()
            .post("/api/v1/experiments/stars/pause", "")
            .unwrap();
        assert_eq!((order.status, proxy.reload().status), (503, 503));
        drop(tunnel);
        assert_eq!(proxy.wait(), 0, "{}", proxy.log());
        says(&log, "ready");
        seen.wait(100);
        seen.stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().unwrap();
        }
        child
    });
    assert!(seen.refused_rewards.load(Ordering::Relaxed) > 0);
    assert_eq!(proxy.reload().status, 200);
    compare(&proxy, &seen);
    // And once more, as the successor can be replaced, too.
    let (second, log) = successor(&proxy, "second.log");
    assert!(wait(child).success());
    says(&log, "ready");
    compare(&proxy, &seen);
    end(second);
    // What was journalled is what was served.
    proxy.run();
    compare(&proxy, &seen);
}

fn wait(mut child: Child) -> std::process::ExitStatus {
    child.wait().unwrap()
}

#[test]
fn a_successor_with_other_policies_is_refused_and_the_old_process_is_undisturbed() {
    let a = Upstream::json("{}");
    let proxy = Proxy::stars("[policy.thompson]\n", &[&a]);
    let other = proxy.directory.path().join("other");
    fs::create_dir(&other).unwrap();
    let text = stars("[policy.thompson]\nfloor = 0.1\n", &[&a]);
    fs::write(other.join("stars.toml"), text).unwrap();
    let refused = || {
        let output = Command::new(env!("CARGO_BIN_EXE_pointsman"))
            .args(["serve", "--take-over", "--config"])
            .arg(proxy.directory.path().join("pointsman.toml"))
            .arg("--policies")
            .arg(&other)
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{told}");
        told
    };
    let told = refused();
    assert!(told.contains("serves other policies"), "{told}");
    // And where the running process cannot reload its own.
    proxy.write_policy("broken", "[match]\n");
    let told = refused();
    assert!(told.contains("cannot be reloaded"), "{told}");
    let id = proxy.client().post("/v1/stars", "{}").unwrap().decision();
    let body = json!({"decision_id": id, "reward": 1}).to_string();
    assert_eq!(proxy.reward(&body).statuses(), ["accepted"]);
    assert_eq!(proxy.client().get("/-/ready").unwrap().status, 200);
}

#[test]
fn a_process_that_is_killed_while_it_is_replaced_is_replaced() {
    let (a, sockets) = (Upstream::json("{}"), echoing());
    let socket = stars("[policy.fixed]\n", &[&sockets]).replace("/v1/stars", "/v1/socket");
    let mut proxy = Proxy::start(&[
        ("stars", &stars("[policy.thompson]\n", &[&a])),
        ("socket", &socket),
    ]);
    let early = proxy.client().post("/v1/stars", "{}").unwrap().decision();
    let mut tunnel = websocket(proxy.proxy);
    echo(&mut tunnel, b"open");
    let (child, log) = successor(&proxy, "successor.log");
    says(&log, "waiting for the data directory");
    eventually("the old process drains", || {
        proxy.log().contains("draining").then_some(())
    });
    let during = proxy.client().post("/v1/stars", "{}").unwrap().decision();
    let reward = |id: &str| json!({"decision_id": id, "reward": 1}).to_string();
    assert_eq!(proxy.reward(&reward(&during)).status, 503);
    proxy.kill();
    says(&log, "ready");
    for id in [early, during] {
        assert_eq!(proxy.reward(&reward(&id)).statuses(), ["accepted"]);
    }
    proxy.rewards("stars", 2.0);
    end(child);
}

#[test]
fn a_successor_that_is_stopped_before_its_time_writes_what_it_has_decided() {
    let (a, sockets) = (Upstream::json("{}"), echoing());
    let socket = stars("[policy.fixed]\n", &[&sockets]).replace("/v1/stars", "/v1/socket");
    let mut proxy = Proxy::start(&[
        ("stars", &stars("[policy.thompson]\n", &[&a])),
        ("socket", &socket),
    ]);
    let mut tunnel = websocket(proxy.proxy);
    echo(&mut tunnel, b"open");
    let (mut child, log) = successor(&proxy, "successor.log");
    says(&log, "waiting for the data directory");
    eventually("the old process drains", || {
        proxy.log().contains("draining").then_some(())
    });
    assert_eq!(proxy.client().post("/v1/stars", "{}").unwrap().status, 200);
    let process = child.id().to_string();
    Command::new("kill").arg(process).status().unwrap();
    says(&log, "draining");
    echo(&mut tunnel, b"still open");
    drop(tunnel);
    assert_eq!(proxy.wait(), 0, "{}", proxy.log());
    assert_eq!(child.wait().unwrap().code(), Some(1));
    proxy.run();
    assert_eq!(proxy.arms("stars", "decisions"), [1.0]);
}

#[test]
fn nobody_to_take_over_from_is_an_ordinary_start() {
    let a = Upstream::json("{}");
    let proxy = Proxy::prepare(&[("stars", &stars("[policy.fixed]\n", &[&a]))], "");
    let (child, log) = successor(&proxy, "successor.log");
    says(&log, "there is no process to take over from");
    says(&log, "ready");
    assert_eq!(proxy.client().post("/v1/stars", "{}").unwrap().status, 200);
    end(child);
}

#[test]
fn sockets_come_with_the_start_and_outlive_the_process() {
    let a = Upstream::json("{}");
    let proxy = Proxy::prepare(&[("stars", &stars("[policy.fixed]\n", &[&a]))], "");
    // The manager's sockets, at another address than the settings'.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    for _ in 0..2 {
        // A client that comes while nobody is there waits.
        let mut early = Client::connect(address).unwrap();
        early.raw(b"POST /v1/stars HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n");
        let serve = proxy.command();
        let mut shell = Command::new("sh");
        shell
            .args(["-c", "exec 3<&0; export LISTEN_PID=$$; exec \"$@\"", "sh"])
            .arg(serve.get_program())
            .args(serve.get_args())
            .env("LISTEN_FDS", "1")
            .env("LISTEN_FDNAMES", "proxy")
            .stdin(Stdio::from(OwnedFd::from(listener.try_clone().unwrap())))
            .stderr(Stdio::null());
        let child = shell.spawn().unwrap();
        assert_eq!(early.receive(false).unwrap().status, 200);
        assert!(TcpStream::connect(proxy.proxy).is_err());
        end(child);
    }
}

#[test]
fn the_service_manager_is_told() {
    let a = Upstream::json("{}");
    let mut proxy = Proxy::prepare(&[("stars", &stars("[policy.fixed]\n", &[&a]))], "");
    let path = proxy.directory.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    proxy.environment = vec![("NOTIFY_SOCKET", path), ("WATCHDOG_USEC", "200000".into())];
    let hear = |wanted: &str| loop {
        let mut bytes = [0; 256];
        let length = manager.recv(&mut bytes).unwrap();
        let told = String::from_utf8_lossy(&bytes[..length]).into_owned();
        if told.starts_with(wanted) {
            break;
        }
        // Nothing but signs of life in between.
        assert_eq!(told, "WATCHDOG=1", "instead of {wanted}");
    };
    proxy.run();
    hear("READY=1");
    hear("WATCHDOG=1");
    hear("WATCHDOG=1");
    proxy.signal("HUP");
    hear("RELOADING=1\nMONOTONIC_USEC=");
    hear("READY=1");
    proxy.signal("TERM");
    hear("STOPPING=1");
    assert_eq!(proxy.wait(), 0);
}
