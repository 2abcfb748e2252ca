//! Syncs that take long, hang or fail: no reward is acknowledged before the sync that covers it has ended well, and decisions do not care.
//!
//! A small library stands before `fsync` and `fdatasync` of the server (`sync_shim.c`, compiled here with the C compiler that Rust links with).
//! It keeps a log, so that what is asserted is an order of events and not a time.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc::{TryRecvError, channel};
use std::time::Duration;

use pointsman::clock::Stopwatch;
use serde_json::json;
use tempfile::TempDir;

use crate::harness::http::Client;
use crate::harness::upstream::Upstream;
use crate::harness::{Proxy, eventually, stars};

/// A server whose syncs do what they are told.
struct Rig {
    proxy: Proxy,
    shim: TempDir,
}

impl Rig {
    fn new() -> Self {
        let shim = TempDir::new().unwrap();
        let library = shim.path().join("shim.so");
        let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/sync_shim.c");
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([&library, &source])
            .arg("-ldl")
            .status()
            .unwrap();
        assert!(
            compiled.success(),
            "cc could not compile {}",
            source.display()
        );
        let upstream = Upstream::json("{}");
        let text = stars("[policy.thompson]\n", &[&upstream, &upstream]);
        let mut proxy = Proxy::prepare(&[("stars", &text)], "");
        proxy.environment = vec![
            ("LD_PRELOAD", library),
            ("SYNC_SHIM", shim.path().to_owned()),
        ];
        proxy.run();
        let rig = Self { proxy, shim };
        assert!(
            rig.log().contains("se"),
            "the shim does not see the server's syncs"
        );
        rig
    }

    fn tell(&self, name: &str, text: &str) {
        fs::write(self.shim.path().join(name), text).unwrap();
    }

    fn untell(&self, name: &str) {
        fs::remove_file(self.shim.path().join(name)).unwrap();
    }

    fn log(&self) -> String {
        fs::read_to_string(self.shim.path().join("log")).unwrap_or_default()
    }

    fn decide(&self) -> String {
        self.proxy
            .client()
            .post("/v1/stars", "{}")
            .unwrap()
            .decision()
    }
}

fn reward(decision: &str) -> String {
    json!({"decision_id": decision, "reward": 1}).to_string()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[test]
fn while_a_sync_hangs_decisions_are_answered_and_rewards_are_not() {
    let rig = Rig::new();
    let decision = rig.decide();
    rig.tell("hold", "");
    let (told, answer) = channel();
    let mut client = rig.proxy.client();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            told.send(client.post("/-/rewards", &reward(&decision)).unwrap())
                .unwrap();
        });
        eventually("a sync hangs", || rig.log().ends_with('s').then_some(()));
        for _ in 0..200 {
            assert_eq!(
                rig.proxy.client().post("/v1/stars", "{}").unwrap().status,
                200
            );
        }
        assert!(rig.log().ends_with('s'), "the sync ended early");
        assert_eq!(answer.try_recv().err(), Some(TryRecvError::Empty));
        rig.untell("hold");
        assert_eq!(answer.recv().unwrap().statuses(), ["accepted"]);
    });
}

/// Sixty clients that each wait for an answer of their own do not wait for sixty syncs.
#[test]
fn one_sync_covers_all_rewards_that_wait() {
    let rig = Rig::new();
    let ids: Vec<_> = (0..60).map(|_| rig.decide()).collect();
    rig.tell("hold", "");
    std::thread::scope(|scope| {
        let posts: Vec<_> = ids
            .iter()
            .map(|id| scope.spawn(|| rig.proxy.reward(&reward(id)).statuses()))
            .collect();
        eventually("a sync hangs", || rig.log().ends_with('s').then_some(()));
        // Those that come later still get syncs of their own, of which there may be a few.
        std::thread::sleep(Duration::from_millis(500));
        let before = rig.log().len();
        rig.untell("hold");
        for post in posts {
            assert_eq!(post.join().unwrap(), ["accepted"]);
        }
        let since = rig.log()[before..].to_owned();
        let syncs = since.matches('e').count();
        assert!((1..=12).contains(&syncs), "{syncs} syncs: {since}");
    });
}

#[test]
fn no_reward_is_acknowledged_before_its_sync_has_ended() {
    let rig = Rig::new();
    rig.tell("delay", "400");
    let (mut rewards, mut decisions) = (Vec::new(), Vec::new());
    let mut client = rig.proxy.client();
    for _ in 0..5 {
        let ids: Vec<_> = (0..20)
            .map(|_| {
                let watch = Stopwatch::start();
                let decision = rig.decide();
                decisions.push(watch.elapsed());
                decision
            })
            .collect();
        let before = rig.log().len();
        let watch = Stopwatch::start();
        let answer = client.post("/-/rewards", &reward(&ids[0])).unwrap();
        rewards.push(watch.elapsed());
        assert_eq!(answer.statuses(), ["accepted"]);
        let since = rig.log()[before..].to_owned();
        assert!(
            since.contains("se"),
            "acknowledged without a whole sync of its own: {since}"
        );
    }
    println!(
        "syncs delayed by 400 ms: a reward takes {:?}, a decision {:?} (medians)",
        median(rewards),
        median(decisions)
    );
}

#[test]
fn while_syncs_fail_no_reward_is_acknowledged_and_decisions_go_on_and_it_heals() {
    let mut rig = Rig::new();
    let ids: Vec<_> = (0..5).map(|_| rig.decide()).collect();
    assert_eq!(rig.proxy.reward(&reward(&ids[0])).statuses(), ["accepted"]);
    rig.tell("fail", "");
    for _ in 0..3 {
        for id in &ids[1..] {
            let answer = rig.proxy.reward(&reward(id));
            assert_eq!(answer.status, 503, "{answer:?}");
            assert!(answer.header("retry-after").is_some(), "{answer:?}");
            assert_eq!(
                rig.proxy.client().post("/v1/stars", "{}").unwrap().status,
                200
            );
        }
    }
    let failed = rig.log();
    assert!(
        failed.contains("sf") && !failed[failed.find('f').unwrap()..].contains('e'),
        "{failed}"
    );
    rig.untell("fail");
    for id in &ids[1..] {
        eventually("the disk is well again", || {
            let answer = rig.proxy.reward(&reward(id));
            (answer.status == 200).then(|| answer.statuses())
        });
    }
    rig.proxy.rewards("stars", 5.0);
    rig.proxy.kill();
    rig.proxy.run();
    assert_eq!(rig.proxy.arms("stars", "rewards").iter().sum::<f64>(), 5.0);
    for id in &ids {
        let mut client = Client::connect(rig.proxy.proxy).unwrap();
        assert_eq!(
            client.post("/-/rewards", &reward(id)).unwrap().statuses(),
            ["duplicate"]
        );
    }
}
