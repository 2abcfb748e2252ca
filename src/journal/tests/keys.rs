//! Decisions with the client's own key.

use super::super::decode::decode;
use super::*;
use crate::experiment::decision::{LoggedDecision, Reason};
use crate::experiment::id::KeyHash;

const KEY: KeyHash = KeyHash([
    0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff,
]);

fn keyed(counter: u64) -> LoggedDecision {
    LoggedDecision {
        key: Some(KEY),
        ..samples::logged(counter)
    }
}

/// The events, in the groups in which the fixture has them.
pub(super) fn groups() -> Vec<Vec<Event>> {
    let mut fallback = keyed(2);
    fallback.decision.reason = Reason::Fallback;
    fallback.decision.propensity = 1.0;
    fallback.unit = None;
    fallback.instead_of = Some(samples::decision(1).sequence);
    vec![
        vec![Event::PolicyAdopted(Box::new(samples::policy()))],
        vec![Event::Decided(keyed(1)), Event::Decided(fallback)],
        vec![Event::Rewarded(Box::new(samples::rewarded(1)))],
    ]
}

#[test]
fn a_key_that_is_no_hash_is_an_error() {
    let mut line = Vec::new();
    encoder().encode(&Event::Decided(keyed(1)), &mut line);
    let text = String::from_utf8(line).unwrap();
    assert!(text.contains(",\"key\":\"00112233445566778899aabbccddeeff\""));
    assert!(decode(text.as_bytes()).is_ok());
    for wrong in ["00112233445566778899aabbccddeef", "", "x-request-id-0001"] {
        let line = text.replace("00112233445566778899aabbccddeeff", wrong);
        let error = decode(line.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("`key`"), "{error}");
    }
}
