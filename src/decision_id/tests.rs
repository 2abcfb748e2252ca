use proptest::prelude::*;

use super::*;

fn keys() -> Keys {
    Keys::derive(&[7; 32], &[[8; 32]])
}

fn example() -> Decision {
    Decision {
        sequence: SequenceKey {
            origin: 0x0123_4567_89ab_cdef,
            worker: 3,
            counter: 42,
        },
        at: Timestamp::from_millis(1_795_500_000_123),
        experiment: ExperimentId(0xdead_beef),
        epoch: 1,
        arm: ArmId(0x0bad_cafe),
        policy_version: PolicyVersion([0x10, 0x20, 0x30, 0x40, 0x50, 0x60]),
        propensity: 0.25,
        reason: Reason::Sampled,
    }
}

/// A token with this payload, properly signed.
fn sign(payload: [u8; PAYLOAD]) -> DecisionId {
    let mut token = [0; TOKEN];
    token[..PAYLOAD].copy_from_slice(&payload);
    token[PAYLOAD..].copy_from_slice(&keys().sign.mac(&payload));
    DecisionId(to_base64url(&token))
}

fn any_decision() -> impl Strategy<Value = Decision> {
    (
        (any::<u64>(), any::<u16>(), 0..=MAX_48),
        (0..=MAX_48, any::<u32>(), any::<u16>(), any::<u32>()),
        (any::<[u8; 6]>(), f64::MIN_POSITIVE..=1.0, 0_u8..5),
    )
        .prop_map(|(sequence, experiment, drawn)| Decision {
            sequence: SequenceKey {
                origin: sequence.0,
                worker: sequence.1,
                counter: sequence.2,
            },
            at: Timestamp::from_millis(experiment.0),
            experiment: ExperimentId(experiment.1),
            epoch: experiment.2,
            arm: ArmId(experiment.3),
            policy_version: PolicyVersion(drawn.0),
            propensity: drawn.1,
            reason: Reason::from_code(drawn.2).unwrap(),
        })
}

proptest! {
    #[test]
    fn a_decision_survives_the_round_trip(decision in any_decision()) {
        let id = keys().encode(&decision);
        prop_assert_eq!(keys().decode(id.as_str()), Ok(decision));
        prop_assert_eq!(decode_unverified(id.as_bytes()), Ok(decision));
        prop_assert!(id.as_str().bytes().all(|byte| ALPHABET.contains(&byte)));
    }

    #[test]
    fn no_text_makes_it_panic(text in any::<Vec<u8>>()) {
        prop_assert!(keys().decode(&text).is_err());
    }

    #[test]
    fn eighty_random_characters_are_refused(bytes in any::<[u8; 32]>(), more in any::<[u8; 28]>()) {
        let mut token = [0; TOKEN];
        token[..32].copy_from_slice(&bytes);
        token[32..].copy_from_slice(&more);
        prop_assert!(keys().decode(to_base64url(&token)).is_err());
    }
}

#[test]
fn any_flipped_bit_is_refused() {
    let id = keys().encode(&example());
    let token = from_base64url(id.as_bytes()).unwrap();
    for bit in 0..TOKEN * 8 {
        let mut flipped = token;
        flipped[bit / 8] ^= 1 << (bit % 8);
        let error = keys().decode(to_base64url(&flipped)).unwrap_err();
        let expected = match bit / 8 {
            0 if bit % 8 >= 4 => InvalidDecisionId::Format {
                found: flipped[0] >> 4,
            },
            1 => InvalidDecisionId::UnknownKey,
            _ => InvalidDecisionId::Forged,
        };
        assert_eq!(error, expected, "bit {bit}");
    }
}

#[test]
fn any_changed_character_is_refused() {
    let id = keys().encode(&example());
    for position in 0..LENGTH {
        for byte in 0..=u8::MAX {
            let mut text = *id.as_bytes();
            if text[position] == byte {
                continue;
            }
            text[position] = byte;
            assert!(keys().decode(text).is_err(), "{byte} at {position}");
        }
    }
}

#[test]
fn the_reason_of_a_refusal_is_told() {
    let id = keys().encode(&example());
    let longer = format!("{id}=");
    for text in ["", &id.as_str()[..79], longer.as_str()] {
        let found = text.len();
        assert_eq!(
            keys().decode(text),
            Err(InvalidDecisionId::Length { found })
        );
    }
    let plus = id.as_str().replacen('E', "+", 1);
    assert_eq!(
        keys().decode(&plus),
        Err(InvalidDecisionId::Alphabet { position: 1 })
    );
    let stranger = Keys::derive(&[9; 32], &[]);
    assert_ne!(stranger.sign.id, keys().sign.id);
    assert_eq!(
        keys().decode(stranger.encode(&example()).as_str()),
        Err(InvalidDecisionId::UnknownKey)
    );
}

#[test]
fn signed_nonsense_is_refused() {
    let with = |change: fn(&mut [u8; PAYLOAD])| {
        let mut payload = write_payload(&example(), keys().sign.id);
        change(&mut payload);
        keys().decode(sign(payload).as_str())
    };
    assert_eq!(with(|_| ()), Ok(example()));
    assert_eq!(
        with(|payload| payload[0] = 0x15),
        Err(InvalidDecisionId::Fields)
    );
    for propensity in [0.0, -0.0, -0.5, 1.0 + f64::EPSILON, f64::NAN, f64::INFINITY] {
        let mut payload = write_payload(&example(), keys().sign.id);
        payload[16..24].copy_from_slice(&f64::to_be_bytes(propensity));
        assert_eq!(
            keys().decode(sign(payload).as_str()),
            Err(InvalidDecisionId::Fields),
            "{propensity}"
        );
    }
}

#[test]
fn keys_rotate_and_old_ids_stay_valid() {
    let old = Keys::derive(&[1; 32], &[]);
    let rotated = Keys::derive(&[2; 32], &[[1; 32]]);
    let retired = Keys::derive(&[2; 32], &[]);
    let id = old.encode(&example());
    assert_eq!(rotated.decode(id.as_str()), Ok(example()));
    let resigned = rotated.encode(&example());
    assert_ne!(resigned, id);
    assert_eq!(resigned.sequence_part(), id.sequence_part());
    assert_eq!(id.sequence_part(), &id.as_bytes()[40..64]);
    assert!(retired.decode(id.as_str()).is_err());
    assert!(old.decode(rotated.encode(&example()).as_str()).is_err());
}

#[test]
fn keys_are_never_printed() {
    assert_eq!(format!("{:?}", keys()), "Keys(..)");
}

/// The vectors of `docs/decision-id.md`. They are never edited: a token must verify for as long as its window is open.
#[test]
fn tokens_are_golden() {
    let page = include_str!("../../docs/decision-id.md");
    let holdout = Decision {
        propensity: 1.0,
        reason: Reason::Holdout,
        ..example()
    };
    for (decision, golden) in [
        (
            example(),
            "EEXerb7vC63K_hAgMEBQYD_QAAAAAAAAAaIMI8N7AAEBI0VniavN7wADAAAAAAAqTL3-2SMjMibPj2i1",
        ),
        (
            holdout,
            "EkXerb7vC63K_hAgMEBQYD_wAAAAAAAAAaIMI8N7AAEBI0VniavN7wADAAAAAAAq9piDaMGOOw6si2A3",
        ),
    ] {
        assert_eq!(keys().encode(&decision).as_str(), golden);
        assert!(page.contains(golden), "{golden} is not in the page");
    }
}
