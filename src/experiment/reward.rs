//! What a reward may be and how several of one decision make one.

use serde::{Deserialize, Serialize};

use super::decision::Label;

/// The kind of number a reward is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum RewardKind {
    /// 0 or 1.
    Binary,
    /// A number in [min, max].
    Bounded {
        /// Least reward.
        min: f64,
        /// Greatest reward.
        max: f64,
    },
    /// Any number of magnitude at most [`MAX_REAL_REWARD`].
    Real,
}

/// Greatest magnitude of a `real` reward, so that a billion of them sum exactly in fixed point.
pub const MAX_REAL_REWARD: f64 = 1e9;

impl RewardKind {
    /// Whether `value` may be the reward of a decision; the error says what may.
    pub fn check(self, value: f64) -> Result<(), RewardOutOfRange> {
        let allowed = match self {
            Self::Binary => value == 0.0 || value == 1.0,
            Self::Bounded { min, max } => (min..=max).contains(&value),
            Self::Real => value.abs() <= MAX_REAL_REWARD,
        };
        if allowed {
            Ok(())
        } else {
            Err(RewardOutOfRange { kind: self, value })
        }
    }

    /// The word in policy files and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Binary => "binary",
            Self::Bounded { .. } => "bounded",
            Self::Real => "real",
        }
    }
}

/// The value is no reward of this kind.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RewardOutOfRange {
    kind: RewardKind,
    value: f64,
}

impl std::error::Error for RewardOutOfRange {}

impl std::fmt::Display for RewardOutOfRange {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let value = self.value;
        match self.kind {
            RewardKind::Binary => write!(
                formatter,
                "reward {value} is not 0 or 1 (the reward is binary)"
            ),
            RewardKind::Bounded { min, max } => {
                write!(formatter, "reward {value} is not in [{min}, {max}]")
            }
            RewardKind::Real => write!(
                formatter,
                "reward {value} is not a number of magnitude at most {MAX_REAL_REWARD:e}"
            ),
        }
    }
}

/// How several rewards of one decision make one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Aggregate {
    /// The first counts, others are duplicates.
    First,
    /// The one with the latest `at`, then arrival; the earlier contribution is undone.
    Last,
    /// Sum over distinct ids.
    Sum,
    /// Mean over distinct ids.
    Mean,
    /// Greatest over distinct ids.
    Max,
}

impl Aggregate {
    /// The word in policy files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Last => "last",
            Self::Sum => "sum",
            Self::Mean => "mean",
            Self::Max => "max",
        }
    }
}

/// Whether more is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Goal {
    /// More is better.
    Maximize,
    /// Less is better.
    Minimize,
}

/// When a reward enters the posterior.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Learn {
    /// As soon as it is accepted.
    Arrival,
    /// When the window of its decision closes, together with the defaults.
    Close,
}

/// `[reward]`, validated.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RewardRule {
    /// Kind and range.
    pub kind: RewardKind,
    /// How long after the decision a reward counts, in milliseconds.
    pub window: u64,
    /// Credited when the window closes without a reward.
    pub default: Option<f64>,
    /// How several rewards make one.
    pub aggregate: Aggregate,
    /// Whether more is better.
    pub goal: Goal,
    /// When rewards are learned.
    pub learn: Learn,
    /// Credited to a decision whose arm failed to answer.
    pub on_failure: Option<f64>,
}

/// How a posted label and the arm's prediction make a reward.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Compare {
    /// 1 if they are equal, else 0.
    Equals,
    /// `max - |label - prediction|`, clamped to the reward's range; needs `bounded`.
    AbsoluteError,
    /// 1 if they differ by at most this much, else 0.
    Within(f64),
}

impl std::fmt::Display for Compare {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Equals => formatter.write_str("equals"),
            Self::AbsoluteError => formatter.write_str("absolute_error"),
            Self::Within(tolerance) => write!(formatter, "within {tolerance}"),
        }
    }
}

/// `[label]`, validated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LabelRule {
    /// JSON pointer (RFC 6901) of the prediction in the arm's response; of JSON lines, in the first line.
    pub prediction: String,
    /// How label and prediction are compared.
    pub compare: Compare,
}

impl LabelRule {
    /// The reward of `label` for `prediction`. `None` when the two cannot be compared (a text with a number under
    /// `within` or `absolute_error`).
    pub fn score(&self, kind: RewardKind, prediction: &Label, label: &Label) -> Option<f64> {
        let error = match (prediction, label) {
            (Label::Number(a), Label::Number(b)) => Some((a - b).abs()),
            _ => None,
        };
        match self.compare {
            Compare::Equals => Some(f64::from(u8::from(
                error.map_or(prediction == label, |error| error == 0.0),
            ))),
            Compare::Within(tolerance) => {
                error.map(|error| f64::from(u8::from(error <= tolerance)))
            }
            Compare::AbsoluteError => {
                let RewardKind::Bounded { min, max } = kind else {
                    return None;
                };
                error.map(|error| (max - error).clamp(min, max))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(compare: Compare, kind: RewardKind, prediction: &Label, label: &Label) -> Option<f64> {
        let rule = LabelRule {
            prediction: "/label".to_owned(),
            compare,
        };
        rule.score(kind, prediction, label)
    }

    fn text(text: &str) -> Label {
        Label::Text(text.into())
    }

    #[test]
    fn equals_compares_numbers_as_numbers_and_never_across_kinds() {
        let equals = |prediction: &Label, label: &Label| {
            score(Compare::Equals, RewardKind::Binary, prediction, label)
        };
        for (prediction, label, wanted) in [
            (Label::Number(5.0), Label::Number(5.0), 1.0),
            (Label::Number(0.0), Label::Number(-0.0), 1.0),
            (Label::Number(5.0), Label::Number(4.0), 0.0),
            (text("spam"), text("spam"), 1.0),
            (text("spam"), text("Spam"), 0.0),
            (Label::Boolean(true), Label::Boolean(true), 1.0),
            (Label::Number(5.0), text("5"), 0.0),
            (Label::Number(1.0), Label::Boolean(true), 0.0),
        ] {
            let what = format!("{prediction:?} {label:?}");
            assert_eq!(equals(&prediction, &label), Some(wanted), "{what}");
        }
    }

    #[test]
    fn within_takes_its_bound_and_needs_numbers() {
        let within = |prediction: &Label, label: &Label| {
            score(Compare::Within(1.0), RewardKind::Binary, prediction, label)
        };
        for (label, wanted) in [(4.0, 1.0), (5.0, 1.0), (3.0, 1.0), (5.25, 0.0), (2.0, 0.0)] {
            let scored = within(&Label::Number(4.0), &Label::Number(label));
            assert_eq!(scored, Some(wanted), "{label}");
        }
        assert_eq!(within(&Label::Number(4.0), &text("4")), None);
        assert_eq!(within(&Label::Boolean(true), &Label::Number(1.0)), None);
    }

    #[test]
    fn an_absolute_error_counts_down_from_the_greatest_reward_to_the_least() {
        let stars = RewardKind::Bounded { min: 1.0, max: 5.0 };
        let error = |prediction: &Label, label: &Label| {
            score(Compare::AbsoluteError, stars, prediction, label)
        };
        for (prediction, label, wanted) in [
            (4.0, 4.0, 5.0),
            (4.0, 2.5, 3.5),
            (2.5, 4.0, 3.5),
            (1.0, 5.0, 1.0),
            (-100.0, 5.0, 1.0),
        ] {
            let scored = error(&Label::Number(prediction), &Label::Number(label));
            assert_eq!(scored, Some(wanted), "{prediction} {label}");
        }
        assert_eq!(error(&text("4"), &Label::Number(4.0)), None);
    }
}
