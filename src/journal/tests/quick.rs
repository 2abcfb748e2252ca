//! The quick reader reads what our writer writes, and never anything else than the parser that takes all JSON.

use proptest::prelude::*;

use super::super::context::Memo;
use super::super::decode::Decoder;
use super::super::quick::{Seconds, read};
use super::*;
use crate::experiment::decision::Label;

/// A line of every sample, of decisions with contexts among them, and the policies that are told before.
fn lines() -> (Vec<Event>, Vec<String>) {
    let policies = vec![
        Event::PolicyAdopted(Box::new(samples::policy())),
        Event::PolicyAdopted(Box::new(contexts::policy())),
    ];
    let mut encoder = encoder();
    let mut line = |event: &Event| {
        let mut line = Vec::new();
        encoder.encode(event, &mut line);
        String::from_utf8(line).unwrap()
    };
    // Their names are learned.
    for policy in &policies {
        line(policy);
    }
    let mut events: Vec<Event> = samples::groups().into_iter().flatten().collect();
    events.push(contexts::usual_decision());
    events.push(contexts::usual_reward());
    let lines = events.iter().map(line).collect();
    (policies, lines)
}

/// A decoder, and a quick reader, that know the policies.
fn readers(policies: &[Event]) -> (Decoder, Memo) {
    let (mut decoder, mut memo) = (Decoder::default(), Memo::default());
    for policy in policies {
        let Event::PolicyAdopted(adopted) = policy else {
            unreachable!()
        };
        memo.adopt(adopted);
        let mut line = Vec::new();
        encoder().encode(policy, &mut line);
        decoder.decode(&line).unwrap();
    }
    (decoder, memo)
}

#[test]
fn our_own_lines_are_read_quickly() {
    let (policies, lines) = lines();
    let (mut decoder, mut memo) = readers(&policies);
    let mut seconds = Seconds::default();
    let mut quick = 0;
    for line in &lines {
        let expected = decoder.decode_any(line.as_bytes()).unwrap();
        let read = read(line.as_bytes(), &mut seconds, &mut memo);
        let common = ["decision", "outcome", "reward"]
            .iter()
            .any(|kind| line.starts_with(&format!("{{\"type\":\"{kind}\"")));
        assert_eq!(read.is_some(), common && !line.contains('\\'), "{line}");
        if let Some(read) = read {
            assert_eq!(read, expected, "{line}");
            quick += 1;
        }
    }
    assert!(quick > 10);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// A byte is changed, put in or taken out.
    #[test]
    fn it_reads_nothing_else_than_the_parser(
        which in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        byte in prop_oneof![any::<u8>(), prop::sample::select(b"0123456789.-+eE{}[],:\"\\ntrue".to_vec())],
        change in 0..3,
    ) {
        let (policies, lines) = lines();
        let (mut decoder, mut memo) = readers(&policies);
        let mut line = which.get(&lines).clone().into_bytes();
        let at = at.index(line.len());
        match change {
            0 => line[at] = byte,
            1 => line.insert(at, byte),
            _ => { line.remove(at); }
        }
        if let Some(quick) = read(&line, &mut Seconds::default(), &mut memo) {
            let slow = decoder.decode_any(&line);
            let text = String::from_utf8_lossy(&line);
            prop_assert!(slow.is_ok(), "{}: {:?}", text, slow);
            prop_assert_eq!(quick, slow.unwrap(), "{}", text);
        }
    }

    #[test]
    fn numbers_have_the_same_bits(bits in any::<u64>(), label in any::<f64>()) {
        let mut rewarded = samples::rewarded(1);
        rewarded.value = f64::from_bits(bits);
        rewarded.label = Some(Label::Number(label));
        prop_assume!(rewarded.value.is_finite() && label.is_finite());
        let event = Event::Rewarded(Box::new(rewarded));
        let mut line = Vec::new();
        encoder().encode(&event, &mut line);
        let quick = read(&line, &mut Seconds::default(), &mut Memo::default());
        prop_assert_eq!(quick, Some(event));
    }
}
