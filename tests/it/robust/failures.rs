//! When an arm fails: the sampled decision stands, and the baseline answers where it may.

use std::io::Write;

use serde_json::{Value, json};

use super::{OK, endings, lines, one_arm, with_baseline};
use crate::harness::http::Answer;
use crate::harness::upstream::Upstream;
use crate::harness::{Proxy, eventually, free_address};

/// A decision's sequence key, which its id holds from byte 32 to 48 (docs/decision-id.md).
fn sequence(id: &str) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let digit = |byte| ALPHABET.iter().position(|known| *known == byte).unwrap();
    let bits = id.bytes().fold(String::new(), |bits, byte| {
        format!("{bits}{:06b}", digit(byte))
    });
    let number = u128::from_str_radix(&bits[32 * 8..48 * 8], 2).unwrap();
    format!("{number:032x}")
}

/// The two decisions of a request whose arm failed and that the baseline answered.
fn assert_fallback(proxy: &Proxy, answer: &Answer) {
    assert_eq!(
        (
            answer.status,
            answer.arm().as_str(),
            answer.header("x-pointsman-reason")
        ),
        (200, "a", Some("fallback"))
    );
    let decisions = lines(proxy, "decision", 2);
    let told: Vec<_> = decisions
        .iter()
        .map(|line| {
            (
                line["arm"].as_str().unwrap(),
                line["reason"].as_str().unwrap(),
                line["propensity"].as_f64().unwrap(),
            )
        })
        .collect();
    assert_eq!(told, [("b", "sampled", 1.0), ("a", "fallback", 1.0)]);
    assert_eq!(decisions[1]["id"], answer.decision());
    assert_eq!(decisions[0]["instead_of"], Value::Null);
    let first = sequence(decisions[0]["id"].as_str().unwrap());
    assert_eq!(decisions[1]["instead_of"], first, "{decisions:?}");
    let outcomes = lines(proxy, "outcome", 2);
    for (outcome, (arm, ending)) in outcomes.iter().zip([("b", "failed"), ("a", "answered")]) {
        assert_eq!(
            (&outcome["arm"], &outcome["ending"]),
            (&json!(arm), &json!(ending))
        );
    }
    // The fallback's reward is recorded and teaches nothing.
    let body = json!({"decision_id": answer.decision(), "reward": 1}).to_string();
    assert_eq!(proxy.reward(&body).statuses(), ["ignored"]);
    eventually("the failure is tallied", || {
        (proxy.arms("stars", "failures") == [0.0, 1.0]).then_some(())
    });
    assert_eq!(proxy.arms("stars", "decisions"), [0.0, 1.0]);
}

#[test]
fn an_arm_that_refuses_connections_is_answered_for_by_the_baseline() {
    let a = Upstream::raw(OK);
    let proxy = with_baseline("", &[a.address], &[free_address()]);
    let answer = proxy.client().post("/v1/stars", "{\"x\": 1}").unwrap();
    assert_fallback(&proxy, &answer);
    assert_eq!(a.received()[0].body, b"{\"x\": 1}");
}

#[test]
fn what_may_be_sent_twice_goes_to_the_baseline_when_the_arm_leaves_without_an_answer() {
    let a = Upstream::raw(OK);
    let b = Upstream::behaving(|_, _| false);
    let proxy = with_baseline("", &[a.address], &[b.address]);
    let answer = proxy.client().get("/v1/stars").unwrap();
    assert_fallback(&proxy, &answer);
    // What may not, does not.
    let answer = proxy.client().post("/v1/stars", "{}").unwrap();
    assert_eq!((answer.status, answer.arm().as_str()), (502, "b"));
    assert_eq!(a.received().len(), 1);
}

#[test]
fn what_may_be_sent_twice_goes_to_the_baseline_when_the_arm_does_not_answer_in_time() {
    let a = Upstream::raw(OK);
    let b = Upstream::behaving(|_, _| {
        std::thread::park();
        false
    });
    let tables = "[upstream]\nresponse_timeout = \"500ms\"\n";
    let proxy = with_baseline(tables, &[a.address], &[b.address]);
    let answer = proxy.client().get("/v1/stars").unwrap();
    assert_fallback(&proxy, &answer);
    assert_eq!(
        b.received().len(),
        1,
        "an arm that is slow is not asked more"
    );
    assert_eq!(proxy.client().post("/v1/stars", "").unwrap().status, 504);
    assert_eq!(a.received().len(), 1);
}

#[test]
fn an_arms_own_error_is_passed_on_and_counts_as_its_failure() {
    let a = Upstream::raw(OK);
    let b = Upstream::raw(b"HTTP/1.1 500 Oops\r\ncontent-length: 4\r\n\r\noops");
    let proxy = with_baseline("", &[a.address], &[b.address]);
    let answer = proxy.client().post("/v1/stars", "{}").unwrap();
    assert_eq!(
        (answer.status, answer.text().as_str(), answer.arm().as_str()),
        (500, "oops", "b")
    );
    assert_eq!(endings(&proxy, 1), ["failed"]);
    assert!(a.received().is_empty());
}

#[test]
fn when_the_baseline_fails_too_both_decisions_say_so() {
    let proxy = with_baseline("", &[free_address()], &[free_address()]);
    let answer = proxy.client().post("/v1/stars", "{}").unwrap();
    assert_eq!((answer.status, answer.arm().as_str()), (502, "a"));
    assert_eq!(endings(&proxy, 2), ["failed", "failed"]);
}

#[test]
fn a_clients_own_bad_body_is_a_400_and_charges_nobody() {
    let (a, b) = (Upstream::raw(OK), Upstream::raw(OK));
    let proxy = with_baseline("", &[a.address], &[b.address]);
    let bodies: [&[u8]; 4] = [
        b"zz\r\n",
        b"5\r\nabcdeXX",
        b"ffffffffffffffffff\r\n",
        b"5\nabcde\n0\n\n",
    ];
    for body in bodies {
        let mut client = proxy.client();
        client.raw(b"POST /v1/stars HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
        client.raw(body);
        let answer = client.receive(false).unwrap();
        assert_eq!(
            (answer.status, answer.header("connection")),
            (400, Some("close")),
            "{}",
            String::from_utf8_lossy(body)
        );
    }
    assert_eq!(endings(&proxy, 4), ["aborted"; 4]);
    assert_eq!(proxy.arms("stars", "failures"), [0.0, 0.0]);
    assert!(a.received().is_empty() && b.received().is_empty());
}

#[test]
fn an_endpoint_that_comes_back_is_used_again() {
    let address = free_address();
    let proxy = one_arm("", "", &[address]);
    let ask = || proxy.client().post("/v1/stars", "{}").unwrap().status;
    assert_eq!(ask(), 502);
    let listener = std::net::TcpListener::bind(address).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut reader = std::io::BufReader::new(stream);
                while crate::harness::upstream::read_request(&mut reader).is_some() {
                    reader.get_mut().write_all(OK).unwrap();
                }
            });
        }
    });
    eventually("it serves again", || (ask() == 200).then_some(()));
}
