use proptest::prelude::*;

use super::*;
use crate::experiment::decision::{Decision, Reason};
use crate::experiment::id::{ArmId, ExperimentId, KeyHash, PolicyVersion, SequenceKey};

fn decode(reference: Reference<'_>) -> Result<Subject, String> {
    let text = match reference {
        Reference::DecisionId(text) => text,
        Reference::Key { experiment, key } => {
            let mut hash = [0; 16];
            hash[0] = key.len() as u8;
            return Ok(Subject::Key(ExperimentId::of(experiment), KeyHash(hash)));
        }
    };
    let counter = text
        .strip_prefix('d')
        .and_then(|digits| digits.parse().ok());
    Ok(Subject::Decision(Decision {
        sequence: SequenceKey {
            origin: 1,
            worker: 0,
            counter: counter.ok_or("the decision id is forged or was changed")?,
        },
        at: Timestamp::default(),
        experiment: ExperimentId(1),
        epoch: 1,
        arm: ArmId(1),
        policy_version: PolicyVersion([0; 6]),
        propensity: 1.0,
        reason: Reason::Sampled,
    }))
}

fn parse_with(body: &[u8], content_type: Option<&str>) -> Result<Vec<Item>, BodyError> {
    parse(
        body,
        content_type,
        Limits::default(),
        Timestamp::default(),
        decode,
    )
}

fn read(body: &str) -> Result<Vec<Item>, BodyError> {
    parse_with(body.as_bytes(), Some("application/json"))
}

fn error_of(item: &str) -> String {
    read(item).unwrap().remove(0).unwrap_err()
}

fn counters(items: &[Item]) -> Vec<Option<u64>> {
    let counter = |item: &Item| {
        item.as_ref().ok().and_then(|claim| match claim.decision {
            Subject::Decision(decision) => Some(decision.sequence.counter),
            Subject::Key(..) => None,
        })
    };
    items.iter().map(counter).collect()
}

#[test]
fn an_object_an_array_and_lines_are_read_alike() {
    let one = r#" {"decision_id":"d1",
        "reward":1} "#;
    assert_eq!(counters(&read(one).unwrap()), [Some(1)]);
    let array = r#"
        [ {"decision_id":"d1","reward":1} , {"decision_id":"d2","label":"a, ]\"}"} ] "#;
    assert_eq!(counters(&read(array).unwrap()), [Some(1), Some(2)]);
    let lines =
        "{\"decision_id\":\"d1\",\"reward\":1}\r\n\n{\"decision_id\":\"d2\",\"reward\":0.5}\n";
    for content_type in [
        None,
        Some("application/x-ndjson; charset=utf-8"),
        Some("text/plain"),
    ] {
        let items = parse_with(lines.as_bytes(), content_type).unwrap();
        assert_eq!(counters(&items), [Some(1), Some(2)]);
    }
}

#[test]
fn a_decision_is_named_by_its_id_or_by_experiment_and_key() {
    let body = r#"{"experiment":"stars","key":"order-\u0034711","reward":1}"#;
    let claim = read(body).unwrap().remove(0).unwrap();
    let mut hash = [0; 16];
    hash[0] = 10;
    let stars = ExperimentId::of(&Name::new("stars").unwrap());
    assert_eq!(claim.decision, Subject::Key(stars, KeyHash(hash)));
    assert!(any_by_key(&read(body).unwrap()));
    assert!(!any_by_key(
        &read(r#"{"decision_id":"d1","reward":1}"#).unwrap()
    ));
    let longest = format!(
        r#"{{"experiment":"stars","key":"{}","reward":1}}"#,
        "x".repeat(MAX_KEY_BYTES)
    );
    assert!(read(&longest).unwrap()[0].is_ok());
    for (item, part) in [
        (r#"{"reward":1}"#, "missing field `decision_id`"),
        (
            r#"{"decision_id":"","reward":1}"#,
            "missing field `decision_id`",
        ),
        (r#"{"key":"k","reward":1}"#, "\"experiment\" and \"key\""),
        (
            r#"{"experiment":"stars","reward":1}"#,
            "\"experiment\" and \"key\"",
        ),
        (
            r#"{"decision_id":"d1","experiment":"stars","key":"k","reward":1}"#,
            "excludes",
        ),
        (r#"{"decision_id":"d1","key":"k","reward":1}"#, "excludes"),
        (
            r#"{"experiment":"a b","key":"k","reward":1}"#,
            "\"experiment\": a name is",
        ),
        (r#"{"experiment":"stars","key":"","reward":1}"#, "0 bytes"),
        (r#"{"experiment":"stars","key":7,"reward":1}"#, "expected a"),
        (&longest.replace("xx", "xxx"), "384 bytes"),
    ] {
        assert!(error_of(item).contains(part), "{item}: {}", error_of(item));
    }
}

#[test]
fn an_item_carries_what_was_posted() {
    let body = r#"{"decision_id":"d7","reward":-2.5e-3,"metric":"clicks","id":"é\n","at":"2026-01-31T13:00:00.250+01:00"}"#;
    let claim = read(body).unwrap().remove(0).unwrap();
    assert_eq!(claim.posted, Posted::Reward(-0.0025));
    assert_eq!(claim.metric, Some(Name::new("clicks").unwrap()));
    assert_eq!(claim.id.as_deref(), Some("é\n"));
    assert_eq!(claim.at.unwrap().to_string(), "2026-01-31T12:00:00.250Z");
    for (label, expected) in [
        ("5", Label::Number(5.0)),
        ("\"five\"", Label::Text("five".into())),
        ("true", Label::Boolean(true)),
    ] {
        let body = format!("{{\"decision_id\":\"d1\",\"label\":{label}}}");
        let claim = read(&body).unwrap().remove(0).unwrap();
        assert_eq!(claim.posted, Posted::Label(expected));
    }
}

#[test]
fn a_bad_item_says_what_is_wrong_and_spoils_no_other() {
    let bad = [
        (r#"{"decision_id":"d1","reward":NaN}"#, "not JSON"),
        (r#"{"decision_id":"d1","reward":-Infinity}"#, "not JSON"),
        (r#"{"decision_id":"d1","reward":1e999}"#, "out of range"),
        (
            r#"{"decision_id":"d1","reward":"1"}"#,
            "expected a number as reward",
        ),
        (
            r#"{"decision_id":"d1","reward":true}"#,
            "expected a number as reward",
        ),
        (
            r#"{"decision_id":"d1","reward":[1]}"#,
            "expected a number as reward",
        ),
        (r#"{"decision_id":"d1","reward":null}"#, "is missing"),
        (r#"{"decision_id":"d1"}"#, "is missing"),
        (r#"{"reward":1}"#, "missing field `decision_id`"),
        (
            r#"{"decision_id":"d1","reward":1,"label":2}"#,
            "exclude each other",
        ),
        (
            r#"{"decision_id":"d1","reward":1,"reward":2}"#,
            "duplicate field `reward`",
        ),
        (
            r#"{"decision_id":"d1","reward":1,"rewards":2}"#,
            "expected one of `decision_id`",
        ),
        (r#"{"decision_id":"forged","reward":1}"#, "forged"),
        (r#"{"decision_id":17,"reward":1}"#, "invalid type"),
        (r#"{"decision_id":"d1","label":{"a":1}}"#, "as label"),
        (r#"{"decision_id":"d1","reward":1,"id":""}"#, "1 to 128"),
        (
            r#"{"decision_id":"d1","reward":1,"metric":"a b"}"#,
            "\"metric\": a name is",
        ),
        (
            r#"{"decision_id":"d1","reward":1,"at":"yesterday"}"#,
            "RFC 3339",
        ),
        (
            r#"{"decision_id":"d1","reward":1,"at":"2026-01-31T13:00:00"}"#,
            "RFC 3339",
        ),
        (
            r#"{"decision_id":"d1","reward":1,"at":"1960-01-31T13:00:00Z"}"#,
            "since 1970",
        ),
        (
            r#"{"decision_id":"d1","reward":1,"at":"2026-01-31T13:00:00+01:00[Europe/Berlin]"}"#,
            "RFC 3339",
        ),
        ("17", "invalid type"),
        ("nonsense", "not JSON"),
        (r#"{"decision_id":"d1" "reward":1}"#, "not JSON"),
    ];
    for (item, expected) in bad {
        let error = error_of(item);
        assert!(error.contains(expected), "{item}: {error}");
        let array = format!(
            "[{{\"decision_id\":\"d1\",\"reward\":1}},{item},{{\"decision_id\":\"d3\",\"reward\":1}}]"
        );
        assert_eq!(
            counters(&read(&array).unwrap()),
            [Some(1), None, Some(3)],
            "{item}"
        );
    }
    let long = format!(
        "{{\"decision_id\":\"d1\",\"reward\":1,\"id\":\"{}\"}}",
        "x".repeat(129)
    );
    assert!(error_of(&long).contains("129 bytes"));
    let quoting = format!(
        "{{\"decision_id\":\"d1\",\"reward\":\"{}\"}}",
        "é".repeat(9999)
    );
    assert!(error_of(&quoting).len() < 310);
    let latin = parse_with(b"{\"decision_id\":\"d1\",\"label\":\"\xe9\"}", None).unwrap();
    assert!(latin[0].as_ref().unwrap_err().contains("UTF-8"));
}

#[test]
fn a_body_without_items_is_refused_as_a_whole() {
    for empty in ["", " \n ", "[]", " [ ] "] {
        assert_eq!(read(empty).unwrap_err(), BodyError::Empty, "{empty:?}");
    }
    for unreadable in [
        "[",
        "[{}",
        "[{},]",
        "[,{}]",
        "[{}] {}",
        "[{}}",
        "[{\"a]",
        "{\"decision_id\":\"d1\"",
        "[{} {}]",
    ] {
        let error = read(unreadable).unwrap_err();
        assert!(
            matches!(error, BodyError::Unreadable { .. }),
            "{unreadable}: {error}"
        );
        assert_eq!(error.status(), 400);
    }
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(read(&format!("[{}]", deep(63))).unwrap()[0].is_err());
    assert!(
        read(&format!("[{}]", deep(64)))
            .unwrap_err()
            .to_string()
            .contains("nest too deeply")
    );
    let many = format!("[{}]", vec!["{}"; 10_001].join(","));
    assert_eq!(read(&many).unwrap_err().status(), 413);
    assert_eq!(
        parse_with("{}\n".repeat(10_001).as_bytes(), None)
            .unwrap_err()
            .status(),
        413
    );
    assert_eq!(read(&" ".repeat((4 << 20) + 1)).unwrap_err().status(), 413);
}

#[test]
fn answers_keep_the_order_and_tell_the_status() {
    let accepted = Answer::Judged(Verdict::Accepted);
    let late = Answer::Judged(Verdict::Late);
    let invalid = Answer::Invalid("not \"a\" number".to_owned());
    assert_eq!(
        status(&[accepted.clone(), late.clone(), Answer::Unlearned]),
        200
    );
    assert_eq!(status(&[accepted.clone(), invalid.clone()]), 207);
    assert_eq!(status(&[invalid.clone(), invalid.clone()]), 400);
    assert_eq!(
        render(&[accepted, invalid, late, Answer::Unlearned]),
        r#"{"results":[{"status":"accepted"},{"status":"invalid","error":"not \"a\" number"},{"status":"late"},{"status":"accepted","learned":false}]}"#
    );
}

proptest! {
    #[test]
    fn no_body_is_too_strange(body in prop::collection::vec(any::<u8>(), 0..200), lines in any::<bool>()) {
        let content_type = lines.then_some("application/x-ndjson");
        parse_with(&body, content_type).ok();
    }

    #[test]
    fn bodies_of_brackets_and_quotes_are_taken_apart_or_refused(body in "[\\[\\]{}\",:\\\\a1 \n]{0,40}") {
        read(&body).ok();
    }
}
