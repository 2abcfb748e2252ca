//! An operator's orders.

use super::super::decode::decode;
use super::*;
use crate::engine::orders::{Order, Ordered};
use crate::experiment::id::{ArmId, ExperimentId};

fn ordered(order: Order, reason: Option<&str>) -> Event {
    let Event::PolicyRetired { at, .. } = samples::groups().concat().pop().unwrap() else {
        panic!("the last sample");
    };
    Event::Ordered(Box::new(Ordered {
        at,
        experiment: samples::policy().experiment,
        order,
        reason: reason.map(Into::into),
    }))
}

/// The events, in the groups in which the fixture has them.
pub(super) fn groups() -> Vec<Vec<Event>> {
    let unnamed = Event::Ordered(Box::new(Ordered {
        at: samples::decision(1).at,
        experiment: ExperimentId(0xffff_ffff),
        order: Order::Disable(ArmId(0xffff_ffff)),
        reason: None,
    }));
    vec![
        vec![Event::PolicyAdopted(Box::new(samples::policy()))],
        vec![ordered(
            Order::Pause,
            Some("maintenance of \"a\"\n\u{2028}"),
        )],
        vec![ordered(Order::Resume, None)],
        vec![
            ordered(Order::Disable(ArmId(0xb)), Some("out of memory")),
            ordered(Order::Enable(ArmId(0xb)), None),
            ordered(Order::Reset(ArmId(0xa)), None),
        ],
        vec![unnamed],
    ]
}

#[test]
fn an_order_that_is_none_is_an_error() {
    let mut line = Vec::new();
    encoder().encode(&ordered(Order::Disable(ArmId(0xb)), None), &mut line);
    let text = String::from_utf8(line).unwrap();
    assert!(decode(text.as_bytes()).is_ok());
    for (right, wrong) in [
        ("\"disable\"", "\"pause\""),
        ("\"disable\"", "\"remove\""),
        ("\"arm_id\"", "\"arm_name\""),
    ] {
        let line = text.replace(right, wrong);
        assert_ne!(line, text);
        let error = decode(line.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("`order`"), "{error}");
    }
}
