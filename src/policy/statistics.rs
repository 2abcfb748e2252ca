//! What the fold has to keep for a policy, beyond the counts and sums that every experiment keeps.
//!
//! A policy names it ([`Policy::statistics`](super::Policy::statistics)) and the journal's `policy` records carry it, so that the fold
//! knows what to add up without knowing any policy. Not here: the sums themselves (`engine::learned`) and what is made of them.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::document::{self, Field, Kind, Section};

/// `half_life`, for policies that may forget.
pub const HALF_LIFE: Field = Field {
    key: "half_life",
    kind: Kind::Duration { zero: false },
    default: document::Default::Off,
    doc: "A reward weighs half as much once its decision is this old, a quarter at twice that, and so on: for a world that drifts. \
          At least the reward's window. Priors never fade.",
};

/// `sliding_window`, for policies that may forget.
pub const SLIDING_WINDOW: Field = Field {
    key: "sliding_window",
    kind: Kind::Duration { zero: false },
    default: document::Default::Off,
    doc: "Only decisions that are no older than this count: for a world that changes at once. Better several times the reward's window. \
          At most one of half_life and sliding_window.",
};

/// Buckets of decision time in a half-life or a window.
const BUCKETS: u64 = 32;

/// What has lost all but 2^-24 (6e-8) of its weight is dropped.
const HALF_LIVES: u64 = 24;

/// What an experiment's fold keeps of each arm, besides counts and sums over the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statistics {
    /// How long the past counts.
    #[serde(default, skip_serializing_if = "Memory::is_forever")]
    pub memory: Memory,
    /// With `Some(γ)`: importance-weighted sums, each credit weighing 1 / (p + γ) with p its logged propensity, γ ≥ 0
    /// (Neu 2015, eq. 2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub importance: Option<f64>,
    /// With a regression: sums over contexts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regression: Option<Regression>,
}

impl Statistics {
    /// Counts and sums over the epoch are enough.
    pub const SCALAR: Self = Self {
        memory: Memory::Forever,
        importance: None,
        regression: None,
    };

    /// Whether anything is kept beyond counts and sums over the epoch.
    pub fn is_scalar(&self) -> bool {
        *self == Self::SCALAR
    }
}

impl From<Memory> for Statistics {
    /// Counts and sums, as far back as the memory goes.
    fn from(memory: Memory) -> Self {
        Self {
            memory,
            ..Self::SCALAR
        }
    }
}

/// Which sums over contexts are kept.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Regression {
    /// Σ x xᵀ, Σ r x, Σ r²: additive.
    Linear,
    /// Mean and precision of each weight of a logistic regression, updated with each credit (Chapelle and Li 2011, algorithm 3), from this prior
    /// precision. Depends a little on the order of credits.
    Logistic {
        /// Prior precision of each weight, > 0.
        precision: f64,
    },
}

/// How long the past counts, in decision time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Memory {
    /// As long as the epoch.
    #[default]
    Forever,
    /// A credit loses half of its weight in this many milliseconds, > 0.
    HalfLife(u64),
    /// A credit counts fully for this many milliseconds, > 0, then not at all.
    SlidingWindow(u64),
}

impl Memory {
    /// What [`HALF_LIFE`] and [`SLIDING_WINDOW`] say in a policy's table. Giving both is reported; that they are not shorter than the
    /// reward's window is for the configuration to check.
    pub fn read(section: &Section<'_>) -> Self {
        match (
            section.duration(HALF_LIFE.key),
            section.duration(SLIDING_WINDOW.key),
        ) {
            (Some(_), Some(_)) => {
                section.reject_key(
                    SLIDING_WINDOW.key,
                    "the past fades by `half_life` or ends with `sliding_window`, not both",
                    "leave one of them out: `half_life` suits a world that drifts, `sliding_window` one that changes at once",
                );
                Self::Forever
            }
            (Some(span), None) => Self::HalfLife(span),
            (None, Some(span)) => Self::SlidingWindow(span),
            (None, None) => Self::Forever,
        }
    }

    /// Whether nothing is forgotten.
    pub fn is_forever(&self) -> bool {
        *self == Self::Forever
    }

    /// How wide a bucket of decision time is, in milliseconds; 0 if nothing is forgotten.
    pub fn bucket_width(self) -> u64 {
        match self {
            Self::Forever => 0,
            Self::HalfLife(span) | Self::SlidingWindow(span) => span.div_ceil(BUCKETS).max(1),
        }
    }

    /// How many buckets may count at a time.
    pub fn buckets(self) -> u64 {
        match self {
            Self::Forever => 1,
            Self::HalfLife(_) => BUCKETS * HALF_LIVES + 2,
            Self::SlidingWindow(_) => BUCKETS + 2,
        }
    }

    /// The bucket of a decision; 0 if nothing is forgotten.
    pub fn bucket(self, at: Timestamp) -> u64 {
        match self.bucket_width() {
            0 => 0,
            width => at.as_millis() / width,
        }
    }

    /// The oldest bucket that still counts at `now`.
    pub fn oldest(self, now: Timestamp) -> u64 {
        let span = match self {
            Self::Forever => return 0,
            Self::HalfLife(span) => span.saturating_mul(HALF_LIVES),
            Self::SlidingWindow(span) => span,
        };
        now.as_millis().saturating_sub(span) / self.bucket_width()
    }

    /// What a bucket counts at `now`, in [0, 1]: under a half-life as its middle does, under a window as far as it lies within.
    pub fn weight(self, bucket: u64, now: Timestamp) -> f64 {
        let width = self.bucket_width() as f64;
        let start = bucket as f64 * width;
        let now = now.as_millis() as f64;
        match self {
            Self::Forever => 1.0,
            Self::HalfLife(span) => {
                let age = (now - (start + 0.5 * width)).max(0.0);
                libm::exp2(-age / span as f64)
            }
            Self::SlidingWindow(span) => {
                let edge = now - span as f64;
                ((start + width - edge) / width).clamp(0.0, 1.0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn a_half_life_halves() {
        let memory = Memory::HalfLife(3200);
        assert_eq!(memory.bucket_width(), 100);
        let bucket = memory.bucket(at(10_000));
        assert_eq!(memory.weight(bucket, at(10_050)), 1.0);
        assert_eq!(memory.weight(bucket, at(10_050 + 3200)), 0.5);
        assert_eq!(memory.weight(bucket, at(10_050 + 6400)), 0.25);
        // A clock that was set back makes nothing count more than once.
        assert_eq!(memory.weight(bucket, at(0)), 1.0);
        assert!(memory.weight(memory.oldest(at(1_000_000)), at(1_000_000)) < 1e-7);
    }

    #[test]
    fn a_window_slides() {
        let memory = Memory::SlidingWindow(3200);
        let bucket = memory.bucket(at(10_000));
        assert_eq!(memory.weight(bucket, at(10_050)), 1.0);
        assert_eq!(memory.weight(bucket, at(13_200)), 1.0);
        assert_eq!(memory.weight(bucket, at(13_250)), 0.5);
        assert_eq!(memory.weight(bucket, at(13_300)), 0.0);
        assert!(memory.oldest(at(13_300)) > bucket);
        assert!(memory.oldest(at(13_299)) <= bucket);
    }

    #[test]
    fn nothing_is_forgotten_unless_asked_for() {
        assert_eq!(Memory::Forever.bucket(at(123_456)), 0);
        assert_eq!(Memory::Forever.oldest(at(123_456)), 0);
        assert_eq!(Memory::Forever.weight(0, at(u64::MAX)), 1.0);
    }

    #[test]
    fn the_journal_reads_what_it_wrote() {
        for (statistics, text) in [
            (Statistics::SCALAR, "{}"),
            (
                Statistics {
                    memory: Memory::HalfLife(5),
                    importance: Some(0.25),
                    regression: Some(Regression::Linear),
                },
                r#"{"memory":{"half_life":5},"importance":0.25,"regression":"linear"}"#,
            ),
            (
                Statistics {
                    memory: Memory::SlidingWindow(7),
                    importance: None,
                    regression: Some(Regression::Logistic { precision: 1.0 }),
                },
                r#"{"memory":{"sliding_window":7},"regression":{"logistic":{"precision":1.0}}}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&statistics).unwrap(), text);
            let read: Statistics = serde_json::from_str(text).unwrap();
            assert_eq!(read, statistics);
        }
    }
}
