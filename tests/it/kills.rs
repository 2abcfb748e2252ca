//! A server that is killed again and again under load, and clients that post until they are answered: nothing is lost, nothing doubled.
//!
//! ```sh
//! POINTSMAN_KILLS=200 cargo test --release --test it kills -- --ignored --nocapture
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use pointsman::decision_id::decode_unverified;
use pointsman::engine::event::{Event, Verdict};
use pointsman::experiment::id::SequenceKey;
use pointsman::journal::{FileStorage, scan};
use serde_json::{Value, json};

use crate::harness::Proxy;
use crate::harness::upstream::Upstream;

/// Threads that decide and post.
const CLIENTS: usize = 6;

const EXPERIMENTS: [&str; 3] = ["first", "sum", "last"];

fn policy(aggregate: &str, upstream: &Upstream) -> String {
    let arm = |name| {
        format!(
            "[[arm]]\nname = \"{name}\"\nendpoints = [\"http://{}\"]\n",
            upstream.address
        )
    };
    format!(
        "[match]\npath = \"/v1/{aggregate}\"\n[policy.thompson]\n[reward]\nkind = \"real\"\nwindow = \"1d\"\naggregate = \"{aggregate}\"\n{}{}",
        arm("a"),
        arm("b")
    )
}

/// Sends a request on a connection of its own; `None` if anything goes wrong before its answer's last byte.
fn send(address: SocketAddr, path: &str, body: &str) -> Option<(u16, String, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .ok()?;
    let length = body.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: it\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8(answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let whole = header(head, "content-length")?.parse() == Ok(body.len());
    whole.then(|| (status, head.to_owned(), body.to_owned()))
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// A reward of a decision, by the client's id where its experiment has such.
type Key = (SequenceKey, Option<String>);

/// What the clients know.
#[derive(Default)]
struct Known {
    /// Values of acknowledged rewards, in the order in which each client posted them.
    acknowledged: Mutex<Vec<(&'static str, Key, f64)>>,
    retries: AtomicU64,
    duplicates: AtomicU64,
    stop: AtomicBool,
}

impl Known {
    /// Decides, and posts what the decision earns, until it is told to stop.
    fn work(&self, address: SocketAddr, client: usize) {
        let mut turn = client;
        while !self.stop.load(Ordering::Relaxed) {
            turn += 1;
            let experiment = EXPERIMENTS[turn % EXPERIMENTS.len()];
            let Some((200, head, _)) = send(address, &format!("/v1/{experiment}"), "{}") else {
                std::thread::sleep(Duration::from_millis(5));
                continue;
            };
            let decision = header(&head, "x-pointsman-decision").unwrap();
            let values = [turn % 16, (turn + 5) % 16].map(|quarters| quarters as f64 / 4.0);
            if experiment == "first" {
                self.post(address, experiment, decision, &[(None, values[0])]);
            } else if turn.is_multiple_of(2) {
                self.post(
                    address,
                    experiment,
                    decision,
                    &[(Some("a"), values[0]), (Some("b"), values[1])],
                );
            } else {
                self.post(address, experiment, decision, &[(Some("a"), values[0])]);
                self.post(address, experiment, decision, &[(Some("b"), values[1])]);
            }
        }
    }

    /// Posts until it is answered.
    fn post(
        &self,
        address: SocketAddr,
        experiment: &'static str,
        decision: &str,
        items: &[(Option<&str>, f64)],
    ) {
        let body: Value = items
            .iter()
            .map(|(id, value)| {
                let mut item = json!({"decision_id": decision, "reward": value});
                if let Some(id) = id {
                    item["id"] = json!(id);
                }
                item
            })
            .collect();
        let mut tries = 0;
        let answer = loop {
            tries += 1;
            match send(address, "/-/rewards", &body.to_string()) {
                Some((200, _, answer)) => break answer,
                Some((503, ..)) | None => std::thread::sleep(Duration::from_millis(5)),
                Some(other) => panic!("{other:?}"),
            }
        };
        self.retries.fetch_add(tries - 1, Ordering::Relaxed);
        let answer: Value = serde_json::from_str(&answer).unwrap();
        let sequence = decode_unverified(decision).unwrap().sequence;
        for (index, (id, value)) in items.iter().enumerate() {
            let status = answer["results"][index]["status"].as_str().unwrap();
            let repeated = status == "duplicate" && tries > 1;
            assert!(
                status == "accepted" || repeated,
                "{status} after {tries} tries: {answer}"
            );
            self.duplicates
                .fetch_add(u64::from(repeated), Ordering::Relaxed);
            let key = (sequence, id.map(str::to_owned));
            self.acknowledged
                .lock()
                .unwrap()
                .push((experiment, key, *value));
        }
    }
}

/// Kills the server `kills` times under load.
fn kill_under_load(kills: u64) {
    let upstream = Upstream::json("{}");
    let texts = EXPERIMENTS.map(|aggregate| policy(aggregate, &upstream));
    let policies: Vec<_> = EXPERIMENTS
        .into_iter()
        .zip(texts.iter().map(String::as_str))
        .collect();
    let mut proxy = Proxy::start(&policies);
    let (address, known) = (proxy.proxy, Known::default());
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let known = &known;
            scope.spawn(move || known.work(address, client));
        }
        for kill in 0..kills {
            // At many different places of a commit.
            std::thread::sleep(Duration::from_micros(40_000 + kill * 7_919 % 60_000));
            proxy.kill();
            proxy.run();
        }
        known.stop.store(true, Ordering::Relaxed);
    });
    check(&mut proxy, &known, kills);
}

/// What was acknowledged is in the journal and in what the admin API tells, once, and nothing else is.
fn check(proxy: &mut Proxy, known: &Known, kills: u64) {
    let acknowledged = known.acknowledged.lock().unwrap();
    let distinct: BTreeSet<_> = acknowledged.iter().map(|(_, key, _)| key).collect();
    assert_eq!(distinct.len(), acknowledged.len());
    proxy.kill();
    let mut journalled: BTreeMap<Key, u64> = BTreeMap::new();
    let found = scan(
        &FileStorage::existing(proxy.data().join("journal")),
        |event| {
            if let Event::Rewarded(rewarded) = event
                && rewarded.verdict == Verdict::Accepted
            {
                let id = rewarded.id.as_ref().map(ToString::to_string);
                *journalled
                    .entry((rewarded.decision.sequence, id))
                    .or_default() += 1;
            }
        },
    )
    .unwrap();
    let lost = distinct
        .iter()
        .filter(|key| !journalled.contains_key(**key))
        .count();
    let doubled = journalled.values().filter(|times| **times > 1).count();
    let invented = journalled
        .keys()
        .filter(|key| !distinct.contains(key))
        .count();
    let told = format!(
        "{kills} kills: {} rewards acknowledged, {lost} lost, {doubled} doubled, {invented} never acknowledged; {} retries, {} answered duplicate; {} segments, {} groups found twice\n",
        acknowledged.len(),
        known.retries.load(Ordering::Relaxed),
        known.duplicates.load(Ordering::Relaxed),
        found.report.segments,
        found.report.repeated_groups,
    );
    std::io::stdout().write_all(told.as_bytes()).unwrap();
    assert_eq!((lost, doubled, invented), (0, 0, 0));
    assert_eq!(
        (found.report.missing_groups, found.report.misnumbered_groups),
        (0, 0)
    );
    assert!(acknowledged.len() as u64 > kills && known.retries.load(Ordering::Relaxed) > 0);
    proxy.run();
    for experiment in EXPERIMENTS {
        let mut earned: BTreeMap<SequenceKey, f64> = BTreeMap::new();
        for (_, (sequence, _), value) in acknowledged.iter().filter(|(of, ..)| *of == experiment) {
            let sum = earned.entry(*sequence).or_default();
            *sum = if experiment == "sum" {
                *sum + value
            } else {
                *value
            };
        }
        proxy.rewards(experiment, earned.len() as f64);
        let sums: f64 = proxy.arms(experiment, "reward_sum").iter().sum();
        assert_eq!(sums, earned.values().sum::<f64>(), "{experiment}");
    }
}

#[test]
fn ten_kills_under_load_lose_and_double_nothing() {
    kill_under_load(10);
}

#[test]
#[ignore = "takes minutes: set POINTSMAN_KILLS"]
fn many_kills_under_load_lose_and_double_nothing() {
    let kills = std::env::var("POINTSMAN_KILLS").map_or(200, |text| text.parse().unwrap());
    kill_under_load(kills);
}
