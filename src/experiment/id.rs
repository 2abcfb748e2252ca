//! Identities: names as people write them, and the fixed-size hashes of names that travel in decision ids.
//!
//! The hashes are the same on every replica and after every restart, because they depend on the names alone.
//! Two names with the same hash cannot be told apart, so the configuration refuses them (see `config`).

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Longest name of an experiment or arm, in bytes.
pub const MAX_NAME_LENGTH: usize = 63;

/// A checked name: `[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}`, the grammar of SageMaker's endpoint and variant names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(Arc<str>);

impl Name {
    /// Checks `text`; the error says what a name may be.
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        let alphanumeric = text.bytes().filter(u8::is_ascii_alphanumeric).count();
        let well_formed = text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && text
                .as_bytes()
                .first()
                .is_some_and(u8::is_ascii_alphanumeric)
            && text
                .as_bytes()
                .last()
                .is_some_and(u8::is_ascii_alphanumeric);
        if well_formed && alphanumeric <= MAX_NAME_LENGTH && text.len() <= 2 * MAX_NAME_LENGTH {
            Ok(Self(Arc::from(text)))
        } else {
            Err(InvalidName)
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.as_str().to_owned()
    }
}

impl TryFrom<String> for Name {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        Self::new(&text)
    }
}

/// The text is not a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a name is letters, digits and inner hyphens, at most 63 letters and digits: [a-zA-Z0-9](-*[a-zA-Z0-9]){{0,62}}"
)]
pub struct InvalidName;

/// First bytes of the BLAKE3 hash of a domain and the parts, each part preceded by its length.
fn name_hash(domain: &str, parts: &[&str]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(domain.as_bytes());
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    *hasher.finalize().as_bytes()
}

fn first_word(hash: [u8; 32]) -> u32 {
    u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]])
}

/// The named hash of an experiment's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ExperimentId(pub u32);

impl ExperimentId {
    /// The id of the experiment called `name`.
    pub fn of(name: &Name) -> Self {
        Self(first_word(name_hash(
            "pointsman experiment v1",
            &[name.as_str()],
        )))
    }
}

/// The named hash of an arm: its experiment, its name and its version, so that a new model behind an old name is a new arm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ArmId(pub u32);

impl ArmId {
    /// The id of arm `name` at `version` (empty when the file gives none) in `experiment`.
    pub fn of(experiment: &Name, name: &Name, version: &str) -> Self {
        Self(first_word(name_hash(
            "pointsman arm v1",
            &[experiment.as_str(), name.as_str(), version],
        )))
    }
}

/// The first 12 hex digits of the BLAKE3 hash of a policy file's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PolicyVersion(pub [u8; 6]);

impl PolicyVersion {
    /// The version of a policy file with this name and text.
    pub fn of(name: &Name, text: &str) -> Self {
        let hash = name_hash("pointsman policy v1", &[name.as_str(), text]);
        Self([hash[0], hash[1], hash[2], hash[3], hash[4], hash[5]])
    }
}

impl fmt::Display for PolicyVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

/// What makes a decision unique for ever: no other decision, on any machine, after any crash, has the same three numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "(u64, u16, u64)", into = "(u64, u16, u64)")]
pub struct SequenceKey {
    /// A random number of the process start, journalled and synced before the listeners open.
    pub origin: u64,
    /// Which worker of that process decided.
    pub worker: u16,
    /// The worker's own counter; below 2^48.
    pub counter: u64,
}

impl From<SequenceKey> for (u64, u16, u64) {
    fn from(key: SequenceKey) -> Self {
        (key.origin, key.worker, key.counter)
    }
}

impl From<(u64, u16, u64)> for SequenceKey {
    fn from((origin, worker, counter): (u64, u16, u64)) -> Self {
        Self {
            origin,
            worker,
            counter,
        }
    }
}

impl SequenceKey {
    /// From the three numbers as one: origin, worker and counter from high to low bits.
    pub fn from_number(number: u128) -> Self {
        Self {
            origin: (number >> 64) as u64,
            worker: (number >> 48) as u16,
            counter: number as u64 & ((1 << 48) - 1),
        }
    }
}

/// Keyed hash of a unit within its experiment. The unit's own text is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UnitHash(pub u64);

/// Keyed hash of a client's own key for a decision, within the experiment. The key's own text is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyHash(pub [u8; 16]);

/// Longest key that a client may choose for a decision, in bytes.
pub const MAX_KEY_BYTES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_grammar() {
        for good in ["a", "A1", "a-b", "a--b", "x".repeat(63).as_str(), "9"] {
            assert!(Name::new(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "-a",
            "a-",
            "a_b",
            "a.b",
            "é",
            "x".repeat(64).as_str(),
            "a b",
        ] {
            assert!(Name::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn named_hashes_are_golden() {
        let name = Name::new("star-rating").unwrap();
        let arm = Name::new("minilm-l6").unwrap();
        assert_eq!(
            ExperimentId::of(&name),
            ExperimentId::of(&Name::new("star-rating").unwrap())
        );
        assert_ne!(ArmId::of(&name, &arm, ""), ArmId::of(&name, &arm, "2"));
        assert_eq!(format!("{:08x}", ExperimentId::of(&name).0), "e7341d08");
        assert_eq!(format!("{:08x}", ArmId::of(&name, &arm, "").0), "d27d7ddb");
        assert_eq!(PolicyVersion::of(&name, "text").to_string(), "7476b9697824");
    }
}
