//! Decisions without a context that were not drawn from what their allocation says.

use serde_json::{Value as Json, json};

use super::super::decode::{Decoder, decode};
use super::*;
use crate::experiment::decision::{LoggedContext, LoggedDecision};
use crate::experiment::id::{ArmId, ExperimentId};

fn decided(counter: u64, own: &[(u32, f64)]) -> LoggedDecision {
    let own = own.iter().map(|(arm, own)| (ArmId(*arm), *own));
    LoggedDecision {
        context: LoggedContext::of(None, own.collect()),
        ..samples::logged(counter)
    }
}

/// The events, in the groups in which the fixture has them.
pub(super) fn groups() -> Vec<Vec<Event>> {
    let mut alone = decided(3, &[(0xa, 1.0)]);
    alone.unit = None;
    let mut unnamed = decided(4, &[(0xa, 0.5), (0xffff_ffff, 0.5)]);
    unnamed.decision.experiment = ExperimentId(0xffff_fffe);
    vec![
        vec![Event::PolicyAdopted(Box::new(samples::policy()))],
        vec![
            Event::Decided(samples::logged(1)),
            Event::Decided(decided(2, &[(0xa, 0.1 + 0.2), (0xb, 1.0 - (0.1 + 0.2))])),
        ],
        vec![Event::Decided(alone), Event::Decided(unnamed)],
    ]
}

#[test]
fn probabilities_stand_without_a_context() {
    let mut encoder = encoder();
    let mut decoder = Decoder::default();
    for event in groups().concat() {
        let mut line = Vec::new();
        encoder.encode(&event, &mut line);
        assert_eq!(decoder.decode(&line).unwrap(), event);
        assert_eq!(decode(&line).unwrap(), event);
        // And as another program would spell it.
        let text = String::from_utf8(line).unwrap();
        let spaced = text.replace("\":", "\": ");
        let json: Json = serde_json::from_str(&text).unwrap();
        assert_eq!(decode(spaced.as_bytes()).unwrap(), event);
        let Event::Decided(logged) = event else {
            continue;
        };
        assert_eq!(json.get("context"), None);
        assert_eq!(
            json.get("probabilities").is_some(),
            logged.context.is_some()
        );
        if let Some(logged) = logged.context {
            assert_eq!(logged.found(), None);
        }
    }
    assert_eq!(LoggedContext::of(None, Vec::new()), None);
}

#[test]
fn an_arm_is_called_by_name_and_by_its_id_where_that_is_not_its_names() {
    let mut lines = Vec::new();
    let mut encoder = encoder();
    for event in &groups().concat()[..3] {
        lines.clear();
        encoder.encode(event, &mut lines);
    }
    let json: Json = serde_json::from_slice(&lines).unwrap();
    let probabilities = json!({
        "minilm-l6@0000000a": 0.1 + 0.2,
        "minilm-l3@0000000b": 1.0 - (0.1 + 0.2),
    });
    assert_eq!(json["probabilities"], probabilities);
}
