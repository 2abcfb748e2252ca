//! Chance as a function of keys. Nothing here is random: the same key and input give the same number on every
//! machine and in every release (golden vectors below), so any draw that was ever made can be made again.
//!
//! Decisions and units are hashed with SipHash-2-4 (Aumasson and Bernstein, 2012), a keyed pseudo-random function: without the key
//! nobody can choose a unit that falls on a wanted arm. The keys are derived from the secret with BLAKE3's key derivation.
//! This is not a source of entropy; the secret itself is made by `secret`.

use std::fmt;
use std::hash::Hasher;

use siphasher::sip::SipHasher24;
use siphasher::sip128::{Hasher128, SipHasher24 as WideHasher};

use crate::experiment::id::{ArmId, ExperimentId, KeyHash, SequenceKey, UnitHash};

/// The keys of all draws. Rotation of the keys that sign decision ids does not change them.
#[derive(Clone)]
pub struct DrawKeys {
    sequence: [u8; 16],
    shadow: [u8; 16],
    unit: [u8; 16],
    rendezvous: u64,
    reward_key: [u8; 16],
}

impl fmt::Debug for DrawKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("DrawKeys(..)")
    }
}

impl DrawKeys {
    /// Derives the keys from a 32-byte root.
    pub fn derive(root: &[u8; 32]) -> Self {
        fn derive<const LENGTH: usize>(context: &str, root: &[u8; 32]) -> [u8; LENGTH] {
            let mut start = [0; LENGTH];
            start.copy_from_slice(&blake3::derive_key(context, root)[..LENGTH]);
            start
        }
        Self {
            sequence: derive("pointsman 2026-11 uniform of a decision v1", root),
            shadow: derive("pointsman 2026-11 shadow of a decision v1", root),
            unit: derive("pointsman 2026-11 hash of a unit v1", root),
            rendezvous: u64::from_le_bytes(derive(
                "pointsman 2026-11 rendezvous of a unit v1",
                root,
            )),
            reward_key: derive("pointsman 2026-11 hash of a reward key v1", root),
        }
    }

    /// The uniform number in [0, 1) of a decision that is not sticky.
    pub fn uniform(&self, sequence: SequenceKey) -> f64 {
        uniform(&self.sequence, sequence)
    }

    /// The number in [0, 1) that says whether a decision's request is shadowed: if it is below the fraction. It has nothing to do
    /// with the one that draws the arm, so that what is shadowed is a fair sample of what every arm serves.
    pub fn shadow(&self, sequence: SequenceKey) -> f64 {
        uniform(&self.shadow, sequence)
    }

    /// The hash of `unit` in `experiment`; a new `salt` makes all units anew.
    pub fn unit_hash(&self, experiment: ExperimentId, salt: &str, unit: &[u8]) -> UnitHash {
        let mut hasher = SipHasher24::new_with_key(&self.unit);
        hasher.write(&experiment.0.to_le_bytes());
        hasher.write(&(salt.len() as u64).to_le_bytes());
        hasher.write(salt.as_bytes());
        hasher.write(unit);
        UnitHash(hasher.finish())
    }

    /// The hash of a client's own `key` for a decision in `experiment`: 128 bits, so that two keys never meet by chance, and
    /// keyed, so that who reads the journal cannot try keys.
    pub fn key_hash(&self, experiment: ExperimentId, key: &[u8]) -> KeyHash {
        let mut hasher = WideHasher::new_with_key(&self.reward_key);
        hasher.write(&experiment.0.to_le_bytes());
        hasher.write(key);
        KeyHash(u128::from(hasher.finish128()).to_be_bytes())
    }

    /// Weighted rendezvous hashing: the arm with the least `-ln(u) / p`, where u is the uniform number of (unit, arm).
    ///
    /// Each arm wins with probability p over units, and when p changes a unit moves only to an arm whose share grew relative
    /// to its old one (weighted highest-random-weight hashing, Thaler and Ravishankar 1998; exponential form as in
    /// Efraimidis and Spirakis 2006). Arms with p = 0 never win. `None` when every p is 0.
    ///
    /// The unit's own hash is keyed, so who does not know the key knows nothing of the seed, hence nothing of the numbers. For each arm the
    /// seed is only mixed (`mix`): its number is uniform because the seed is and the mix is a bijection, and numbers of different arms are
    /// as independent as those of `SplitMix64`, whose sequence from this seed they are. The second key keeps the numbers apart from
    /// any other use of a unit's hash.
    pub fn rendezvous(
        &self,
        unit: UnitHash,
        arms: impl Iterator<Item = (ArmId, f64)>,
    ) -> Option<usize> {
        let seed = unit.0 ^ self.rendezvous;
        let mut best = None;
        let mut least = f64::INFINITY;
        for (index, (arm, probability)) in arms.enumerate() {
            if probability <= 0.0 {
                continue;
            }
            let uniform = open_unit_interval(mix(seed, arm));
            // −ln u ≥ 2 (1 − u) / (1 + u): an arm that this already puts behind needs no logarithm.
            if 2.0 * (1.0 - uniform) >= least * probability * (1.0 + uniform) {
                continue;
            }
            // `libm`, because the logarithms of platforms differ in their last bit.
            let score = -libm::log(uniform) / probability;
            if score < least || best.is_none() {
                least = score;
                best = Some(index);
            }
        }
        best
    }
}

fn uniform(key: &[u8; 16], sequence: SequenceKey) -> f64 {
    let mut hasher = SipHasher24::new_with_key(key);
    hasher.write(&sequence.origin.to_le_bytes());
    hasher.write(&sequence.worker.to_le_bytes());
    hasher.write(&sequence.counter.to_le_bytes());
    unit_interval(hasher.finish())
}

/// The number at place `arm` of the `SplitMix64` sequence that starts at `seed` (Steele, Lea and Flood, "Fast splittable
/// pseudorandom number generators", 2014, with Stafford's thirteenth mix): two multiplications, each followed by a fold that carries
/// the high bits down. Not keyed: the seed must be secret.
fn mix(seed: u64, arm: ArmId) -> u64 {
    let state = seed.wrapping_add(u64::from(arm.0).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

/// 53 bits of a hash as a number in [0, 1).
pub fn unit_interval(hash: u64) -> f64 {
    (hash >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
}

/// 52 bits of a hash as a number in (0, 1), so that its logarithm is finite.
fn open_unit_interval(hash: u64) -> f64 {
    ((hash >> 12) as f64 + 0.5) * (1.0 / (1_u64 << 52) as f64)
}

#[cfg(test)]
mod tests;
