//! How much a simulated life has seen, so that it can be told what it proves.

use super::*;

/// How often things happened, in one life or many.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Seen(BTreeMap<&'static str, u64>);

impl Seen {
    const ALL: [&'static str; 23] = [
        "accepted reward",
        "aborted adoption",
        "adoption",
        "allocation",
        "clock step back",
        "clock step forward",
        "decision",
        "default",
        "drop",
        "duplicate",
        "failed commit",
        "failed start",
        "failure",
        "kill",
        "late reward",
        "power cut",
        "refused post",
        "retried post",
        "start",
        "checkpoint",
        "start from a checkpoint",
        "stop",
        "group in two places",
    ];

    pub(super) fn count(&mut self, what: &'static str, times: u64) {
        assert!(Self::ALL.contains(&what), "{what}");
        *self.0.entry(what).or_default() += times;
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (what, times) in &other.0 {
            *self.0.entry(what).or_default() += times;
        }
    }

    /// Everything that should be seen, and how often it was.
    pub(super) fn counts(&self) -> impl Iterator<Item = (&'static str, &u64)> {
        Self::ALL
            .iter()
            .map(|what| (*what, self.0.get(what).unwrap_or(&0)))
    }
}
