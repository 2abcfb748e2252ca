//! What people and programs are shown.

use serde_json::Value;

use super::*;
use crate::engine::event::{Rewarded, Verdict};
use crate::experiment::decision::{Ending, Label, Outcome};

/// All that a decision can have.
fn eventful() -> (LoggedDecision, MemoryStorage) {
    let logged = drawn(3, None);
    let decision = logged.decision;
    let rewarded = Rewarded {
        decision,
        received: at(61_000),
        at: None,
        metric: None,
        id: None,
        value: 1.0,
        label: Some(Label::Number(5.0)),
        context: None,
        verdict: Verdict::Accepted,
    };
    let second = Rewarded {
        received: at(7_500_000),
        at: Some(at(1)),
        metric: Some(name("revenue")),
        id: Some("order \u{1b}[31m".into()),
        value: f64::NAN,
        label: Some(Label::Text("five".into())),
        verdict: Verdict::Unscored,
        ..rewarded.clone()
    };
    // The same words in another decision's reward.
    let mut mention = rewarded.clone();
    mention.decision.sequence = sequence(2);
    mention.label = Some(Label::Text(id_of(&decision).into()));
    let storage = journal(&[
        Event::Decided(logged.clone()),
        Event::Ended(Outcome {
            decision,
            at: at(1_013),
            ending: Ending::Answered,
            status: Some(200),
            latency_micros: 12_345,
            prediction: Some(Label::Number(5.0)),
        }),
        Event::Rewarded(Box::new(rewarded)),
        Event::Rewarded(Box::new(mention)),
        Event::Rewarded(Box::new(second)),
    ]);
    (logged, storage)
}

#[test]
fn people_see_all_of_it_aligned() {
    let (logged, storage) = eventful();
    let inspection = look(&id_of(&logged.decision), &storage);
    let text = render(&inspection, false);
    let (arm, other) = ("c", "a");
    assert_eq!(inspection.arm(logged.decision.arm), arm);
    let Redraw::Drawn {
        chance: Chance::Uniform(uniform),
        ..
    } = inspection.redraw
    else {
        panic!("{:?}", inspection.redraw);
    };
    let expected = format!(
        "\
decision     {}
signature    valid
experiment   stars · epoch 3 · policy 010101010101
arm          c · sampled with probability 0.75
time         2026-11-24T06:00:01.003Z
sequence     origin 000000000000004d · worker 1 · counter 3

journal      recorded · allocation 5
outcome      answered with status 200 · 12.345 ms · prediction 5.0
rewards      accepted 1.0 · label 5.0 · 59.997 s after the decision
             unscored · label \"five\" · metric revenue · id \"order \\u{{1b}}[31m\" · 2.1 h after the decision · client's time 2026-11-24T06:00:00.001Z

draw         from allocation 5 of 2026-11-24T06:00:00.005Z
             by {uniform:?}, the uniform number of its sequence key
               {other}  0.25  [0.000000, 0.250000)
               b  0.0
             ▸ c  0.75  [0.250000, 1.000000)

ok           the signature is valid, and the draw, made again, gives the same arm and propensity
",
        inspection.id
    );
    assert_eq!(text, expected);
    let painted = render(&inspection, true);
    assert!(painted.contains("\x1b[32mvalid\x1b[0m"), "{painted}");
    let mut plain = painted.clone();
    for code in ["\x1b[0m", "\x1b[1m", "\x1b[32m", "\x1b[34m"] {
        plain = plain.replace(code, "");
    }
    assert_eq!(plain, text);
}

#[test]
fn programs_see_all_of_it_under_stable_names() {
    let (logged, storage) = eventful();
    let id = id_of(&logged.decision);
    let json: Value = serde_json::from_str(&to_json(&look(&id, &storage))).unwrap();
    let keys =
        |value: &Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
    let mut top = [
        "decision_id",
        "ok",
        "problems",
        "signature",
        "decision",
        "record",
        "outcome",
        "rewards",
        "policy",
        "allocation",
        "draw",
    ];
    top.sort_unstable();
    assert_eq!(keys(&json), top);
    assert_eq!(
        (&json["ok"], &json["signature"]),
        (&true.into(), &"valid".into())
    );
    assert_eq!(json["decision"]["arm"], "c");
    assert_eq!(json["decision"]["propensity"], 0.75);
    assert_eq!(json["record"]["allocation_version"], "5");
    assert_eq!(json["outcome"]["latency_micros"], 12_345);
    assert_eq!(json["rewards"].as_array().unwrap().len(), 2);
    assert_eq!(json["rewards"][1]["status"], "unscored");
    assert_eq!(json["rewards"][1]["reward"], Value::Null);
    assert_eq!(json["policy"]["arms"][2]["arm_id"], "0000000c");
    assert_eq!(json["allocation"]["arms"][0]["probability"], 0.25);
    assert_eq!(
        (&json["draw"]["arm"], &json["draw"]["same"]),
        (&"c".into(), &true.into())
    );
    assert!(json["draw"]["uniform"].is_f64());
    let forged = format!("{}A{}", &id[..70], &id[71..]);
    let forged = if forged == id {
        format!("{}B{}", &id[..70], &id[71..])
    } else {
        forged
    };
    let json: Value = serde_json::from_str(&to_json(&look(&forged, &storage))).unwrap();
    assert_eq!(json["ok"], false);
    assert_eq!(json["problems"][0]["code"], "forged");
}

#[test]
fn progress_is_told_segment_by_segment() {
    let events: Vec<Event> = (0..20)
        .map(|counter| Event::Decided(drawn(counter, None)))
        .collect();
    let (logged, storage) = (drawn(7, None), journal(&events));
    let segments = storage.contents().len() as u64;
    assert!(segments > 1);
    let mut steps = Vec::new();
    let id = id_of(&logged.decision);
    inspect(&id, &secret(), &storage, &mut |step| steps.push(step)).unwrap();
    let all = (1..=segments).collect::<Vec<_>>();
    let (first, second) = steps.split_at(segments as usize);
    let done = |steps: &[Step]| steps.iter().map(|step| step.done).collect::<Vec<_>>();
    assert_eq!(done(first), all);
    assert!(first.iter().all(|step| step.looking_for == "the decision"));
    // The second look ends where the decision stands.
    let place = storage
        .contents()
        .iter()
        .position(|bytes| memchr::memmem::find(bytes, &id.as_bytes()[40..64]).is_some());
    assert_eq!(done(second), all[..=place.unwrap()]);
    assert!(second.len() < first.len());
}
