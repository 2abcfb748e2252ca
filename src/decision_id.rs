//! The decision id: a signed, self-contained token of 80 URL-safe characters. Any replica that knows the key can
//! check it and credit a reward without a look-up, and a decision that is never rewarded costs no memory.
//!
//! Bytes and golden vectors are in `docs/decision-id.md`. 60 bytes are exactly 80 base64url characters (RFC 4648,
//! section 5) without padding and without spare bits, so a decision has exactly one spelling under a key.
//! The MAC is keyed BLAKE3 cut to 96 bits: it proves that the decision was made under this secret. It says nothing about
//! who may post rewards, and hides nothing: the fields can be read by anyone.

use std::fmt;
use std::hint::black_box;

use crate::clock::Timestamp;
use crate::experiment::decision::{Decision, Reason};
use crate::experiment::id::{ArmId, ExperimentId, PolicyVersion, SequenceKey};

/// Characters in a decision id.
pub const LENGTH: usize = 80;
/// Bytes that are signed.
const PAYLOAD: usize = 48;
/// Bytes of payload and MAC.
const TOKEN: usize = 60;
/// The high nibble of the first byte.
const FORMAT: u8 = 1;
/// Greatest number that 48 bits hold.
const MAX_48: u64 = (1 << 48) - 1;

/// The characters of bytes 30 to 48.
const SEQUENCE_PART: std::ops::Range<usize> = 40..64;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// The value of each character; 64 for those outside the alphabet.
const VALUES: [u8; 256] = {
    let mut values = [64; 256];
    let mut index = 0;
    while index < ALPHABET.len() {
        values[ALPHABET[index] as usize] = index as u8;
        index += 1;
    }
    values
};

/// A decision id as text.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct DecisionId([u8; LENGTH]);

impl DecisionId {
    /// The 80 characters.
    pub fn as_str(&self) -> &str {
        // The alphabet is ASCII, so the default is never taken.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The 80 characters as bytes.
    pub const fn as_bytes(&self) -> &[u8; LENGTH] {
        &self.0
    }

    /// Characters 41 to 64, epoch and sequence key: they name the decision whatever key has signed it.
    pub fn sequence_part(&self) -> &[u8] {
        &self.0[SEQUENCE_PART]
    }
}

impl fmt::Display for DecisionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl fmt::Debug for DecisionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "DecisionId({})", self.as_str())
    }
}

/// Why a text is no decision id of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDecisionId {
    /// Not 80 characters.
    #[error("a decision id has 80 characters, this has {found}")]
    Length {
        /// Bytes that were given.
        found: usize,
    },
    /// A character outside the base64url alphabet.
    #[error("character {position} of the decision id is not one of A-Z a-z 0-9 - _")]
    Alphabet {
        /// Counted from 1.
        position: usize,
    },
    /// A format that this release does not know.
    #[error("decision id of format {found}; this release knows format 1")]
    Format {
        /// The format it claims.
        found: u8,
    },
    /// Signed with a key that is not in the secret file.
    #[error("the decision id was signed with a key that is not in the secret file")]
    UnknownKey,
    /// The MAC does not fit: changed, or made by someone without the key.
    #[error("the decision id is forged or was changed")]
    Forged,
    /// Signed by us, and yet its fields make no sense: an unknown reason or a propensity outside (0, 1].
    #[error("the decision id's fields make no sense")]
    Fields,
}

/// One key, as derived from a line of the secret file.
#[derive(Clone)]
struct Key {
    id: u8,
    mac: [u8; 32],
}

impl Key {
    fn derive(secret: &[u8; 32]) -> Self {
        Self {
            id: blake3::derive_key("pointsman 2026-11 number of a decision id key v1", secret)[0],
            mac: blake3::derive_key("pointsman 2026-11 MAC of a decision id v1", secret),
        }
    }

    fn mac(&self, payload: &[u8; PAYLOAD]) -> [u8; TOKEN - PAYLOAD] {
        let mut mac = [0; TOKEN - PAYLOAD];
        mac.copy_from_slice(&blake3::keyed_hash(&self.mac, payload).as_bytes()[..TOKEN - PAYLOAD]);
        mac
    }
}

/// The keys of decision ids: the first signs, all verify.
#[derive(Clone)]
pub struct Keys {
    sign: Key,
    verify: Vec<Key>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Keys(..)")
    }
}

impl Keys {
    /// Keys derived from `first`, which signs and verifies, and `others`, which only verify.
    pub fn derive(first: &[u8; 32], others: &[[u8; 32]]) -> Self {
        let sign = Key::derive(first);
        let verify = std::iter::once(sign.clone())
            .chain(others.iter().map(Key::derive))
            .collect();
        Self { sign, verify }
    }

    /// Signs a decision. No allocation of memory. Of the time and the counter 48 bits are kept.
    pub fn encode(&self, decision: &Decision) -> DecisionId {
        let mut token = [0; TOKEN];
        let payload = write_payload(decision, self.sign.id);
        token[..PAYLOAD].copy_from_slice(&payload);
        token[PAYLOAD..].copy_from_slice(&self.sign.mac(&payload));
        DecisionId(to_base64url(&token))
    }

    /// Checks a decision id and reads it.
    ///
    /// # Errors
    ///
    /// See [`InvalidDecisionId`]. The MAC is compared in constant time, before any field is looked at.
    pub fn decode(&self, text: impl AsRef<[u8]>) -> Result<Decision, InvalidDecisionId> {
        let (payload, mac) = split(text.as_ref())?;
        let mut known = false;
        let mut genuine = false;
        // Two keys may share a number (1 in 256), so all that bear it are tried.
        for key in self.verify.iter().filter(|key| key.id == payload[1]) {
            known = true;
            genuine |= equal_in_constant_time(&key.mac(&payload), &mac);
        }
        match (known, genuine) {
            (_, true) => read_payload(&payload),
            (true, false) => Err(InvalidDecisionId::Forged),
            (false, false) => Err(InvalidDecisionId::UnknownKey),
        }
    }
}

/// Reads a decision id without checking its signature: for the journal, which has its own checksums and must be
/// readable after its keys are gone, and for people. Never for anything that a client sent.
///
/// # Errors
///
/// All of [`InvalidDecisionId`] but `UnknownKey` and `Forged`.
pub fn decode_unverified(text: impl AsRef<[u8]>) -> Result<Decision, InvalidDecisionId> {
    let (payload, _) = split(text.as_ref())?;
    read_payload(&payload)
}

/// Length, alphabet and format; then payload and MAC.
fn split(text: &[u8]) -> Result<([u8; PAYLOAD], [u8; TOKEN - PAYLOAD]), InvalidDecisionId> {
    let text: &[u8; LENGTH] = text
        .try_into()
        .map_err(|_| InvalidDecisionId::Length { found: text.len() })?;
    let token = from_base64url(text)?;
    let mut payload = [0; PAYLOAD];
    let mut mac = [0; TOKEN - PAYLOAD];
    payload.copy_from_slice(&token[..PAYLOAD]);
    mac.copy_from_slice(&token[PAYLOAD..]);
    let format = payload[0] >> 4;
    if format == FORMAT {
        Ok((payload, mac))
    } else {
        Err(InvalidDecisionId::Format { found: format })
    }
}

fn write_payload(decision: &Decision, key: u8) -> [u8; PAYLOAD] {
    let mut payload = [0; PAYLOAD];
    let sequence = decision.sequence;
    let time = decision.at.as_millis().min(MAX_48);
    payload[0] = FORMAT << 4 | decision.reason.code();
    payload[1] = key;
    payload[2..6].copy_from_slice(&decision.experiment.0.to_be_bytes());
    payload[6..10].copy_from_slice(&decision.arm.0.to_be_bytes());
    payload[10..16].copy_from_slice(&decision.policy_version.0);
    payload[16..24].copy_from_slice(&decision.propensity.to_be_bytes());
    payload[24..30].copy_from_slice(&time.to_be_bytes()[2..]);
    payload[30..32].copy_from_slice(&decision.epoch.to_be_bytes());
    payload[32..40].copy_from_slice(&sequence.origin.to_be_bytes());
    payload[40..42].copy_from_slice(&sequence.worker.to_be_bytes());
    payload[42..48].copy_from_slice(&sequence.counter.to_be_bytes()[2..]);
    payload
}

fn read_payload(payload: &[u8; PAYLOAD]) -> Result<Decision, InvalidDecisionId> {
    // Big-endian number of the bytes from `start` up to `end`, at most 8 of them.
    let number = |start: usize, end: usize| {
        payload[start..end]
            .iter()
            .fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
    };
    let propensity = f64::from_bits(number(16, 24));
    let reason = Reason::from_code(payload[0] & 0x0f).ok_or(InvalidDecisionId::Fields)?;
    if !(propensity > 0.0 && propensity <= 1.0) {
        return Err(InvalidDecisionId::Fields);
    }
    let mut policy_version = [0; 6];
    policy_version.copy_from_slice(&payload[10..16]);
    Ok(Decision {
        sequence: SequenceKey {
            origin: number(32, 40),
            worker: number(40, 42) as u16,
            counter: number(42, 48),
        },
        at: Timestamp::from_millis(number(24, 30)),
        experiment: ExperimentId(number(2, 6) as u32),
        epoch: number(30, 32) as u16,
        arm: ArmId(number(6, 10) as u32),
        policy_version: PolicyVersion(policy_version),
        propensity,
        reason,
    })
}

/// Whether two MACs are equal, in a time that does not depend on where they differ.
fn equal_in_constant_time(a: &[u8; TOKEN - PAYLOAD], b: &[u8; TOKEN - PAYLOAD]) -> bool {
    let difference = a
        .iter()
        .zip(b)
        .fold(0, |difference, (a, b)| difference | (a ^ b));
    black_box(difference) == 0
}

fn to_base64url(token: &[u8; TOKEN]) -> [u8; LENGTH] {
    let mut text = [0; LENGTH];
    for (three, four) in token.chunks_exact(3).zip(text.chunks_exact_mut(4)) {
        let bits = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        four[0] = ALPHABET[(bits >> 18) as usize & 63];
        four[1] = ALPHABET[(bits >> 12) as usize & 63];
        four[2] = ALPHABET[(bits >> 6) as usize & 63];
        four[3] = ALPHABET[bits as usize & 63];
    }
    text
}

fn from_base64url(text: &[u8; LENGTH]) -> Result<[u8; TOKEN], InvalidDecisionId> {
    let mut token = [0; TOKEN];
    // The bit of value 64 is set when any character is outside the alphabet.
    let mut seen = 0;
    for (four, three) in text.chunks_exact(4).zip(token.chunks_exact_mut(3)) {
        let mut bits = 0;
        for character in four {
            let value = VALUES[usize::from(*character)];
            seen |= value;
            bits = bits << 6 | u32::from(value & 63);
        }
        three.copy_from_slice(&bits.to_be_bytes()[1..]);
    }
    if seen & 64 == 0 {
        return Ok(token);
    }
    let position = text
        .iter()
        .position(|character| VALUES[usize::from(*character)] == 64)
        .map_or(0, |index| index + 1);
    Err(InvalidDecisionId::Alphabet { position })
}

#[cfg(test)]
mod tests;
