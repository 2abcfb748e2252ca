//! Shadows: what they see, what they are worth, and that no client ever notices them.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use pointsman::decision_id::decode_unverified;
use pointsman::secret;
use serde_json::{Value, json};

use crate::harness::http::{Answer, Client};
use crate::harness::upstream::Upstream;
use crate::harness::{Proxy, eventually, free_address, journal, stars, stars_at};

const LABEL: &str = "[label]\nprediction = \"/stars\"\ncompare = \"equals\"\n";
/// All traffic goes to arm `a`.
const ONLY_A: &str = "# weight b = 0\n# weight c = 0\n# weight d = 0\n";

fn policy(shadow: &str) -> String {
    format!("[policy.thompson]\n{ONLY_A}{LABEL}[shadow]\n{shadow}")
}

fn ask(proxy: &Proxy) -> Answer {
    let answer = proxy.client().post("/v1/stars", "{\"text\": \"fine\"}");
    let answer = answer.unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    answer
}

fn label(proxy: &Proxy, id: &str, stars: u32) {
    let body = json!({"decision_id": id, "label": stars}).to_string();
    assert_eq!(proxy.reward(&body).statuses(), ["accepted"]);
}

/// The journal's `shadow` lines.
fn shadows(proxy: &Proxy) -> Vec<Value> {
    let mut lines = journal(&proxy.data());
    lines.retain(|line| line["type"] == "shadow");
    lines
}

fn shadow_lines(proxy: &Proxy, count: usize) -> Vec<Value> {
    eventually("the shadows are in the journal", || {
        let lines = shadows(proxy);
        (lines.len() >= count).then_some(lines)
    })
}

/// What the admin API says of the shadows of each arm.
fn shown(proxy: &Proxy) -> Vec<Value> {
    let experiment = proxy.experiment("stars");
    let arms = experiment["arms"].as_array().unwrap();
    arms.iter().map(|arm| arm["shadow"].clone()).collect()
}

fn eventually_shown(proxy: &Proxy, wanted: &[Value]) {
    eventually("the snapshot has the shadows", || {
        (shown(proxy) == wanted).then_some(())
    });
}

/// `pointsman_shadow_total` of an arm and an outcome.
fn total(proxy: &Proxy, arm: &str, outcome: &str) -> u64 {
    let text = proxy.admin().get("/metrics").unwrap().text();
    let name = format!(
        "pointsman_shadow_total{{experiment=\"stars\",arm=\"{arm}\",outcome=\"{outcome}\"}} "
    );
    let line = text.lines().find_map(|line| line.strip_prefix(&name));
    line.unwrap_or_else(|| panic!("no {name} in {text}"))
        .parse()
        .unwrap()
}

fn eventually_total(proxy: &Proxy, arm: &str, outcome: &str, wanted: u64) {
    eventually("the copies are counted", || {
        (total(proxy, arm, outcome) == wanted).then_some(())
    });
}

/// Keeps those who wait until it is opened.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    fn wait(&self) {
        let open = self.0.0.lock().unwrap();
        drop(self.0.1.wait_while(open, |open| !*open).unwrap());
    }

    /// An upstream that answers when this is open.
    fn upstream(&self, body: &str) -> Upstream {
        let (gate, body) = (self.clone(), body.to_owned());
        Upstream::behaving(move |_, stream| {
            gate.wait();
            respond(stream, &body)
        })
    }
}

fn respond(stream: &mut TcpStream, body: &str) -> bool {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).is_ok() && stream.write_all(body.as_bytes()).is_ok()
}

#[test]
fn one_label_scores_every_arm_that_answered() {
    let a = Upstream::json("{\"stars\": 4}");
    let (b, c) = (
        Upstream::json("{\"stars\": 5}"),
        Upstream::json("{\"stars\": 2}"),
    );
    let proxy = Proxy::stars(&policy(""), &[&a, &b, &c]);
    let id = ask(&proxy).decision();
    let lines = shadow_lines(&proxy, 2);
    for line in &lines {
        assert_eq!(
            (&line["id"], &line["ending"], &line["status"]),
            (&json!(id), &json!("answered"), &json!(200))
        );
        assert!(line["latency_micros"].as_u64().unwrap() > 0, "{line}");
    }
    let predictions: BTreeSet<_> = lines
        .iter()
        .map(|line| {
            (
                line["arm"].as_str().unwrap(),
                line["prediction"].to_string(),
            )
        })
        .collect();
    assert_eq!(
        predictions,
        BTreeSet::from([("b", "5.0".to_owned()), ("c", "2.0".to_owned())])
    );
    label(&proxy, &id, 5);
    let (right, wrong) = (
        json!({"answers": 1, "scored": 1, "mean": 1.0}),
        json!({"answers": 1, "scored": 1, "mean": 0.0}),
    );
    eventually_shown(&proxy, &[Value::Null, right, wrong]);
    assert_eq!(proxy.arms("stars", "decisions"), [1.0, 0.0, 0.0]);
    assert_eq!(proxy.arms("stars", "rewards"), [1.0, 0.0, 0.0]);
    assert_eq!(
        ["answered", "failed", "skipped"].map(|outcome| total(&proxy, "b", outcome)),
        [1, 0, 0]
    );
}

#[test]
fn a_shadow_sees_the_request_and_is_told_what_it_is() {
    let (a, b) = (Upstream::json("{}"), Upstream::json("{\"stars\": 1}"));
    let proxy = Proxy::stars(&policy("arms = [\"b\"]\n"), &[&a, &b, &a]);
    let headers = [
        ("content-type", "text/x"),
        ("accept-encoding", "gzip"),
        ("x-pointsman-shadow", "forged"),
    ];
    let mut client = proxy.client();
    let sized = client
        .send("PUT", "/v1/stars?q=%20", &headers, b"abc")
        .unwrap();
    // A body of unknown length, in pieces, and only if it is wanted.
    client.raw(b"POST /v1/stars HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\n");
    client.raw(b"transfer-encoding: chunked\r\n\r\n");
    assert_eq!(client.receive_head().unwrap().0, 100);
    client.raw(b"3\r\nabc\r\n");
    client.raw(b"4\r\ndefg\r\n0\r\n\r\n");
    let chunked = client.receive(false).unwrap();
    let bare = client.get("/v1/stars").unwrap();
    assert!([sized.status, chunked.status, bare.status] == [200; 3]);
    shadow_lines(&proxy, 3);
    let mut seen = b.received();
    seen.sort_by_key(|request| request.head.clone());
    let starts: Vec<_> = seen
        .iter()
        .map(|request| request.head.lines().next().unwrap())
        .collect();
    assert_eq!(
        starts,
        [
            "GET /v1/stars HTTP/1.1",
            "POST /v1/stars HTTP/1.1",
            "PUT /v1/stars?q=%20 HTTP/1.1"
        ]
    );
    let bodies: Vec<_> = seen.iter().map(|request| &request.body[..]).collect();
    assert_eq!(bodies, [&b""[..], b"abcdefg", b"abc"]);
    for request in &seen {
        assert_eq!(
            request.header("x-pointsman-shadow"),
            Some("b"),
            "{request:?}"
        );
        assert_eq!(
            request.header("accept-encoding"),
            Some("identity"),
            "{request:?}"
        );
        assert!(request.header("transfer-encoding").is_none(), "{request:?}");
        assert!(request.header("expect").is_none(), "{request:?}");
    }
    assert_eq!(seen[2].header("content-type"), Some("text/x"));
    for request in a.received() {
        assert_eq!(request.header("x-pointsman-shadow"), None, "{request:?}");
        let same = seen
            .iter()
            .any(|copy| copy.header("x-request-id") == request.header("x-request-id"));
        assert!(same, "{request:?}");
    }
}

#[test]
fn a_request_that_is_looked_into_is_shadowed_too() {
    let (a, b) = (Upstream::json("{}"), Upstream::json("{}"));
    let context = "[context.size]\ntype = \"length\"\nbody = true\n";
    let policy = policy("body_limit = 4\n") + context;
    let proxy = Proxy::stars(&policy, &[&a, &b]);
    let mut client = proxy.client();
    assert_eq!(client.post("/v1/stars", "12345").unwrap().status, 200);
    assert_eq!(total(&proxy, "b", "skipped"), 1);
    assert_eq!(client.post("/v1/stars", "1234").unwrap().status, 200);
    shadow_lines(&proxy, 1);
    assert_eq!(b.received()[0].body, b"1234");
}

#[test]
fn a_label_may_come_before_the_shadows_answer() {
    let gate = Gate::default();
    let (a, b) = (
        Upstream::json("{\"stars\": 5}"),
        gate.upstream("{\"stars\": 5}"),
    );
    let proxy = Proxy::stars(&policy(""), &[&a, &b]);
    let id = ask(&proxy).decision();
    label(&proxy, &id, 5);
    assert_eq!(shadows(&proxy), [] as [Value; 0]);
    gate.open();
    eventually_shown(
        &proxy,
        &[Value::Null, json!({"answers": 1, "scored": 1, "mean": 1.0})],
    );
}

#[test]
fn shadows_that_hang_refuse_or_never_end_are_no_clients_business() {
    let gate = Gate::default();
    let hanging = gate.upstream("{}");
    let cut = Arc::new(AtomicBool::new(false));
    let endless = {
        let cut = Arc::clone(&cut);
        Upstream::behaving(move |_, stream| {
            let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n";
            let piece = vec![b' '; 65_536];
            if stream.write_all(head).is_ok() {
                while stream.write_all(&piece).is_ok() {}
            }
            cut.store(true, Ordering::Relaxed);
            false
        })
    };
    let a = Upstream::json("{\"stars\": 5}");
    let refusing = free_address().to_string();
    let endpoints =
        [a.address, hanging.address, endless.address].map(|address| address.to_string());
    let text = stars_at(
        &policy("timeout = \"500ms\"\nconcurrency = 100\n"),
        &[&endpoints[0], &endpoints[1], &endpoints[2], &refusing],
    );
    let proxy = Proxy::start(&[("stars", &text)]);
    // The hanging one answers nothing before the clients have their answers.
    let ids: BTreeSet<_> = (0..10).map(|_| ask(&proxy).decision()).collect();
    for (arm, ending, status) in [
        ("b", "failed", Value::Null),
        ("c", "answered", json!(200)),
        ("d", "failed", Value::Null),
    ] {
        let lines = eventually("every copy has its end", || {
            let mut lines = shadows(&proxy);
            lines.retain(|line| line["arm"] == arm);
            (lines.len() == ids.len()).then_some(lines)
        });
        assert!(
            lines
                .iter()
                .all(|line| ids.contains(line["id"].as_str().unwrap())),
            "{lines:?}"
        );
        for line in &lines {
            assert_eq!(
                (&line["ending"], &line["status"]),
                (&json!(ending), &status),
                "{line}"
            );
            assert_eq!(line["prediction"], Value::Null, "{line}");
        }
        eventually_total(&proxy, arm, ending, 10);
        assert_eq!(total(&proxy, arm, "skipped"), 0);
    }
    eventually("the endless response was cut", || {
        cut.load(Ordering::Relaxed).then_some(())
    });
    eventually_shown(
        &proxy,
        &[
            Value::Null,
            Value::Null,
            json!({"answers": 10, "scored": 0, "mean": null}),
            Value::Null,
        ],
    );
    assert_eq!(proxy.arms("stars", "failures"), [0.0; 4]);
    gate.open();
}

#[test]
fn no_more_copies_are_under_way_than_the_file_allows() {
    let gate = Gate::default();
    let (a, b) = (Upstream::json("{}"), gate.upstream("{}"));
    let proxy = Proxy::stars(&policy("concurrency = 2\ntimeout = \"60s\"\n"), &[&a, &b]);
    (0..5).for_each(|_| drop(ask(&proxy)));
    eventually("two copies have arrived", || {
        (b.received().len() == 2).then_some(())
    });
    assert_eq!(total(&proxy, "b", "skipped"), 3);
    // A reload does not make room.
    let text = stars(&policy("concurrency = 2\ntimeout = \"59s\"\n"), &[&a, &b]);
    proxy.write_policy("stars", &text);
    assert_eq!(proxy.reload().status, 200);
    drop(ask(&proxy));
    assert_eq!(total(&proxy, "b", "skipped"), 4);
    gate.open();
    eventually_total(&proxy, "b", "answered", 2);
    // Their places are free again. A place may be given back a moment after its copy is counted.
    eventually("there is room again", || {
        drop(ask(&proxy));
        (b.received().len() > 2).then_some(())
    });
    shadow_lines(&proxy, 3);
}

#[test]
fn what_is_too_long_or_breaks_off_is_not_copied_and_passes_all_the_same() {
    let (a, b) = (Upstream::json("{}"), Upstream::json("{}"));
    let proxy = Proxy::stars(&policy("body_limit = 10\n"), &[&a, &b]);
    let mut client = proxy.client();
    assert_eq!(client.post("/v1/stars", "0123456789").unwrap().status, 200);
    eventually_total(&proxy, "b", "answered", 1);
    assert_eq!(client.post("/v1/stars", "0123456789x").unwrap().status, 200);
    assert_eq!(total(&proxy, "b", "skipped"), 1);
    client.raw(
        b"POST /v1/stars HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n6\r\nabcdef\r\n",
    );
    client.raw(b"5\r\nghijk\r\n0\r\n\r\n");
    assert_eq!(client.receive(false).unwrap().status, 200);
    eventually_total(&proxy, "b", "skipped", 2);
    let mut leaving = Client::connect(proxy.proxy).unwrap();
    leaving.raw(b"POST /v1/stars HTTP/1.1\r\nhost: h\r\ncontent-length: 9\r\n\r\nabc");
    drop(leaving);
    eventually_total(&proxy, "b", "skipped", 3);
    let bodies = |upstream: &Upstream| -> Vec<String> {
        upstream
            .received()
            .iter()
            .map(|request| String::from_utf8(request.body.clone()).unwrap())
            .collect()
    };
    assert_eq!(bodies(&a), ["0123456789", "0123456789x", "abcdefghijk"]);
    assert_eq!(bodies(&b), ["0123456789"]);
}

#[test]
fn which_requests_are_shadowed_follows_from_their_decisions() {
    let (a, b) = (Upstream::json("{}"), Upstream::json("{}"));
    let proxy = Proxy::stars(&policy("fraction = 0.5\nconcurrency = 1000\n"), &[&a, &b]);
    let ids: Vec<_> = (0..60).map(|_| ask(&proxy).decision()).collect();
    let secret = secret::load_or_create(&proxy.data().join("secret"))
        .unwrap()
        .secret;
    let keys = secret.draw_keys();
    let wanted: BTreeSet<_> = ids
        .iter()
        .filter(|id| keys.shadow(decode_unverified(id).unwrap().sequence) < 0.5)
        .cloned()
        .collect();
    assert!((10..50).contains(&wanted.len()), "{}", wanted.len());
    eventually_total(&proxy, "b", "answered", wanted.len() as u64);
    let shadowed: BTreeSet<_> = shadow_lines(&proxy, wanted.len())
        .iter()
        .map(|line| line["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(shadowed, wanted);
    assert_eq!(total(&proxy, "b", "skipped"), 0);
}

#[test]
fn only_sampled_decisions_are_shadowed_and_no_arm_shadows_itself() {
    let (a, c) = (
        Upstream::json("{\"stars\": 5}"),
        Upstream::json("{\"stars\": 5}"),
    );
    let refusing = free_address().to_string();
    let (a_address, c_address) = (a.address.to_string(), c.address.to_string());
    let policy = format!("[policy.thompson]\n# weight a = 0\n# weight c = 0\n{LABEL}[shadow]\n");
    let text = stars_at(&policy, &[&a_address, &refusing, &c_address]);
    let proxy = Proxy::start(&[("stars", &text)]);
    let answer = ask(&proxy);
    assert_eq!(
        (answer.arm(), answer.header("x-pointsman-reason")),
        ("a".to_owned(), Some("fallback"))
    );
    let lines = shadow_lines(&proxy, 2);
    let sampled = journal(&proxy.data())
        .into_iter()
        .find(|line| line["type"] == "decision" && line["reason"] == "sampled")
        .unwrap();
    assert_eq!(sampled["arm"], "b");
    let arms: BTreeSet<_> = lines
        .iter()
        .map(|line| line["arm"].as_str().unwrap())
        .collect();
    assert_eq!(arms, BTreeSet::from(["a", "c"]));
    assert!(
        lines.iter().all(|line| line["id"] == sampled["id"]),
        "{lines:?}"
    );
    assert_eq!(
        total(&proxy, "b", "skipped") + total(&proxy, "b", "failed"),
        0
    );
}

#[test]
fn the_same_scores_after_a_kill() {
    let a = Upstream::json("{\"stars\": 4}");
    let (b, c) = (
        Upstream::json("{\"stars\": 5}"),
        Upstream::json("{\"stars\": 2}"),
    );
    let mut proxy = Proxy::stars(&policy("learn = true\n"), &[&a, &b, &c]);
    let ids: Vec<_> = (0..12).map(|_| ask(&proxy).decision()).collect();
    shadow_lines(&proxy, 24);
    for (id, stars) in ids.iter().zip([5, 2, 4].into_iter().cycle()).take(9) {
        label(&proxy, id, stars);
    }
    let score = |answers: u64, scored: u64| json!({"answers": answers, "scored": scored, "mean": 1.0 / 3.0});
    eventually_shown(&proxy, &[Value::Null, score(12, 9), score(12, 9)]);
    let posteriors = |proxy: &Proxy| {
        let experiment = proxy.experiment("stars");
        [1, 2].map(|arm| experiment["arms"][arm]["posterior"].clone())
    };
    let before = (shown(&proxy), posteriors(&proxy));
    for _ in 0..2 {
        proxy.kill();
        proxy.run();
        assert_eq!((shown(&proxy), posteriors(&proxy)), before);
    }
    // What a shadow predicted before the kill is scored after it.
    for (id, stars) in ids[9..].iter().zip([5, 2, 4]) {
        label(&proxy, id, stars);
    }
    eventually_shown(&proxy, &[Value::Null, score(12, 12), score(12, 12)]);
}

#[test]
fn scores_are_learned_only_if_the_file_says_so() {
    let (a, b) = (
        Upstream::json("{\"stars\": 5}"),
        Upstream::json("{\"stars\": 5}"),
    );
    for (learn, posterior) in [(false, (1.0, 1.0)), (true, (4.0, 1.0))] {
        let proxy = Proxy::stars(&policy(&format!("learn = {learn}\n")), &[&a, &b]);
        for _ in 0..3 {
            label(&proxy, &ask(&proxy).decision(), 5);
        }
        eventually_shown(
            &proxy,
            &[Value::Null, json!({"answers": 3, "scored": 3, "mean": 1.0})],
        );
        let arm = proxy.experiment("stars")["arms"][1].clone();
        let (alpha, beta) = posterior;
        assert_eq!(
            (&arm["posterior"]["alpha"], &arm["posterior"]["beta"]),
            (&json!(alpha), &json!(beta))
        );
        assert_eq!((&arm["decisions"], &arm["rewards"]), (&json!(0), &json!(0)));
        assert_eq!(proxy.arms("stars", "rewards"), [3.0, 0.0]);
        assert_eq!(proxy.arms("stars", "allocation"), [1.0, 0.0]);
    }
}

#[test]
fn without_a_label_rule_endings_and_latencies_are_journalled() {
    let a = Upstream::json("{}");
    let b = Upstream::raw(b"HTTP/1.1 503 Later\r\ncontent-length: 11\r\n\r\n{\"stars\":5}");
    let proxy = Proxy::stars(&format!("[policy.fixed]\n{ONLY_A}[shadow]\n"), &[&a, &b]);
    drop(ask(&proxy));
    let line = shadow_lines(&proxy, 1).remove(0);
    assert_eq!(
        (&line["ending"], &line["status"], &line["prediction"]),
        (&json!("failed"), &json!(503), &Value::Null)
    );
    assert_eq!(total(&proxy, "b", "failed"), 1);
    assert!(proxy.log().contains("no [label]"), "{}", proxy.log());
}
