//! Lines: round trips, what they look like, what is refused.

use proptest::prelude::*;
use serde_json::Value;

use super::super::decode::{RecordError, decode};
use super::*;
use crate::clock::Timestamp;
use crate::experiment::decision::{Label, Outcome};

fn line(event: &Event) -> String {
    let mut encoder = encoder();
    encoder.encode(
        &Event::PolicyAdopted(Box::new(samples::policy())),
        &mut Vec::new(),
    );
    let mut lines = Vec::new();
    encoder.encode(event, &mut lines);
    String::from_utf8(lines).unwrap()
}

#[test]
fn every_sample_survives_the_round_trip_on_one_line() {
    for event in samples::groups().into_iter().flatten() {
        let text = line(&event);
        assert_eq!(decode(text.as_bytes()).unwrap(), event, "{text}");
        assert!(text.ends_with("}\n") && text.lines().count() == 1, "{text}");
        let json: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["v"], 1, "{text}");
        assert!(json["at"].is_string(), "{text}");
    }
}

#[test]
fn the_page_shows_real_lines() {
    let page = include_str!("../../../docs/journal.md");
    for event in [
        &samples::groups()[0][0],
        &samples::groups()[1][2],
        &Event::Decided(samples::logged(1)),
        &Event::Ended(samples::outcome(1)),
        &Event::Rewarded(Box::new(samples::rewarded(1))),
    ] {
        let text = line(event);
        assert!(page.contains(text.trim_end()), "not in the page: {text}");
    }
    for event in [contexts::usual_decision(), contexts::usual_reward()] {
        let text = contexts::line(contexts::policy(), &event);
        assert!(page.contains(text.trim_end()), "not in the page: {text}");
    }
    let text = shadows::line(&shadows::usual());
    assert!(page.contains(text.trim_end()), "not in the page: {text}");
    let shown = page.lines().filter(|line| line.starts_with("{\"type\""));
    for text in shown.filter(|line| !line.contains("\"type\":\"commit\"")) {
        decode(text.as_bytes()).unwrap();
    }
}

#[test]
fn unknown_fields_are_ignored_and_other_spellings_read() {
    let event = Event::Decided(samples::logged(1));
    let mut json: Value = serde_json::from_str(&line(&event)).unwrap();
    json["added_later"] = serde_json::json!({"a": [1, null]});
    // serde_json sorts the keys, so the type is not first any more.
    let text = serde_json::to_string_pretty(&json).unwrap();
    assert_eq!(decode(text.as_bytes()).unwrap(), event);
}

#[test]
fn what_a_newer_release_wrote_is_told() {
    for text in [
        r#"{"type":"decision","v":2,"at":"2026-11-24T06:00:00.123Z"}"#,
        r#"{"type":"sealed","v":1,"at":"2026-11-24T06:00:00.123Z"}"#,
        r#"{"v":3,"type":"sealed"}"#,
    ] {
        let error = decode(text.as_bytes()).unwrap_err();
        assert!(matches!(error, RecordError::Newer { .. }), "{text}");
        assert!(error.to_string().contains("newer release"), "{error}");
    }
}

#[test]
fn malformed_lines_are_refused() {
    let good = line(&Event::Decided(samples::logged(1)));
    for (from, to) in [
        ("\"id\":\"E", "\"id\":\"A"),
        ("\"id\":", "\"no\":"),
        ("\"allocation_version\":\"12\"", "\"allocation_version\":12"),
        (
            "\"allocation_version\":\"12\"",
            "\"allocation_version\":\"-1\"",
        ),
        ("\"unit\":\"0", "\"unit\":\"x"),
        ("\"unit\":\"0", "\"unit\":\""),
    ] {
        assert!(good.contains(from), "{from}");
        assert!(
            decode(good.replacen(from, to, 1).as_bytes()).is_err(),
            "{to}"
        );
    }
    for text in [
        "",
        "{}",
        "null",
        "[]",
        "{\"type\":\"decision\",\"v\":1,",
        "\0",
    ] {
        assert!(decode(text.as_bytes()).is_err(), "{text}");
    }
}

#[test]
fn a_value_that_is_not_finite_is_null_and_reads_back_as_not_a_number() {
    let mut rewarded = samples::rewarded(1);
    rewarded.value = f64::NAN;
    let text = line(&Event::Rewarded(Box::new(rewarded)));
    assert!(text.contains("\"reward\":null"), "{text}");
    let Event::Rewarded(read) = decode(text.as_bytes()).unwrap() else {
        panic!("{text}");
    };
    assert!(read.value.is_nan());
}

#[test]
fn a_line_can_be_read_when_its_key_is_gone() {
    let event = Event::Decided(samples::logged(1));
    let mut lines = Vec::new();
    let other = Keys::derive(&[99; 32], &[]);
    Encoder::new(other, Directory::default()).encode(&event, &mut lines);
    assert_eq!(decode(&lines).unwrap(), event);
}

fn any_label() -> impl Strategy<Value = Label> {
    prop_oneof![
        any::<f64>()
            .prop_filter("JSON has no other numbers", |number| number.is_finite())
            .prop_map(Label::Number),
        any::<String>().prop_map(|text| Label::Text(text.into())),
        any::<bool>().prop_map(Label::Boolean),
    ]
}

proptest! {
    #[test]
    fn floats_and_texts_survive_exactly(
        bits in any::<u64>(),
        label in any_label(),
        id in any::<String>(),
        millis in 0_u64..253_402_207_200_000,
    ) {
        let mut rewarded = samples::rewarded(1);
        rewarded.value = f64::from_bits(bits);
        prop_assume!(rewarded.value.is_finite());
        rewarded.label = Some(label.clone());
        rewarded.id = Some(id.into());
        rewarded.at = Some(Timestamp::from_millis(millis));
        rewarded.received = Timestamp::from_millis(millis);
        let value = rewarded.value;
        let event = Event::Rewarded(Box::new(rewarded));
        let read = decode(line(&event).as_bytes()).unwrap();
        let Event::Rewarded(reward) = &read else { panic!("{read:?}") };
        prop_assert_eq!(reward.value.to_bits(), value.to_bits());
        prop_assert_eq!(&read, &event);
        let outcome = Outcome { prediction: Some(label), ..samples::outcome(1) };
        let event = Event::Ended(outcome);
        prop_assert_eq!(decode(line(&event).as_bytes()).unwrap(), event);
    }

    #[test]
    fn no_line_makes_it_panic(bytes in any::<Vec<u8>>(), at in 0_usize..400, byte in any::<u8>()) {
        prop_assert!(decode(&bytes).is_err());
        let mut text = line(&Event::Decided(samples::logged(1))).into_bytes();
        let at = at % text.len();
        text[at] = byte;
        decode(&text).ok();
    }
}
