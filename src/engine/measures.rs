//! Named secondary outcomes, summed: what is reported of an arm beside its reward, and never learned from.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::experiment::id::Name;
use crate::stats::moments::Moments;

/// Most names of an experiment that are summed.
pub const MAX_METRICS: usize = 32;

/// The named outcomes of an arm in an epoch. Additive.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measures {
    sums: BTreeMap<Name, Moments>,
    unsummed: u64,
}

impl Measures {
    /// Count and sum of each name.
    pub fn iter(&self) -> impl Iterator<Item = (&Name, &Moments)> {
        self.sums.iter()
    }

    /// Accepted outcomes that are in the journal alone, because their name came when the experiment had [`MAX_METRICS`] others.
    pub fn unsummed(&self) -> u64 {
        self.unsummed
    }

    /// Adds an outcome, if its name is one of `names` or can become one.
    pub(super) fn add(&mut self, names: &mut BTreeSet<Name>, name: &Name, value: f64) {
        if names.len() < MAX_METRICS && !names.contains(name) {
            names.insert(name.clone());
        }
        if names.contains(name) {
            self.sums.entry(name.clone()).or_default().add(value, 1);
        } else {
            self.unsummed += 1;
        }
    }
}
