//! In what proportions the client sends which kind of review.

use std::fmt;
use std::str::FromStr;

use crate::reviews::Domain;

/// Relative weights of the three kinds of review, not all zero.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mix([f64; 3]);

impl Default for Mix {
    /// Three parts clothing, one part electronics, one part movies.
    fn default() -> Self {
        Self([0.6, 0.2, 0.2])
    }
}

impl Mix {
    /// The share of `domain`, in `[0, 1]`.
    pub fn share(&self, domain: Domain) -> f64 {
        self.0[domain as usize] / self.0.iter().sum::<f64>()
    }

    /// The kind of review at `position`, a number in `[0, 1)`.
    pub fn domain_at(&self, position: f64) -> Domain {
        let mut passed = 0.0;
        for domain in Domain::ALL {
            passed += self.share(domain);
            if position < passed {
                return domain;
            }
        }
        // Rounding can leave the sum of the shares just below 1.
        Domain::ALL
            .into_iter()
            .rev()
            .find(|domain| self.share(*domain) > 0.0)
            .unwrap_or(Domain::Clothing)
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = "expected parts like Clothing=0.6,Electronics=0.2,Movies=0.2";
        let mut weights = [None; 3];
        for part in text.split(',') {
            let (name, weight) = part
                .split_once('=')
                .ok_or_else(|| format!("{part:?}: {expected}"))?;
            let domain = Domain::ALL
                .into_iter()
                .find(|domain| domain.name().eq_ignore_ascii_case(name.trim()))
                .ok_or_else(|| {
                    format!(
                        "no reviews of {:?}: choose from Clothing, Electronics, Movies",
                        name.trim()
                    )
                })?;
            let weight: f64 = weight
                .trim()
                .parse()
                .ok()
                .filter(|weight: &f64| weight.is_finite() && *weight >= 0.0)
                .ok_or_else(|| {
                    format!("{part:?}: the weight must be a number of at least 0; {expected}")
                })?;
            if weights[domain as usize].replace(weight).is_some() {
                return Err(format!("{} is named twice", domain.name()));
            }
        }
        let weights = weights.map(Option::unwrap_or_default);
        if weights.iter().sum::<f64>() <= 0.0 {
            return Err("all weights are zero".to_owned());
        }
        Ok(Self(weights))
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = Domain::ALL
            .into_iter()
            .filter(|domain| self.share(*domain) > 0.0)
            .map(|domain| format!("{} {:.0} %", domain.name(), self.share(domain) * 100.0))
            .collect();
        formatter.write_str(&parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_normalise_and_may_be_zero() {
        let mix: Mix = "clothing=3, Movies=1".parse().unwrap();
        assert_eq!(mix.share(Domain::Clothing), 0.75);
        assert_eq!(mix.share(Domain::Electronics), 0.0);
        assert_eq!(mix.domain_at(0.0), Domain::Clothing);
        assert_eq!(mix.domain_at(0.749), Domain::Clothing);
        assert_eq!(mix.domain_at(0.75), Domain::Movies);
        assert_eq!(mix.domain_at(0.999_999), Domain::Movies);
        assert_eq!(mix.to_string(), "clothing 75 %, movies 25 %");
    }

    #[test]
    fn wrong_mixes_say_what_is_right() {
        for (text, expected) in [
            ("", "expected parts like"),
            ("Clothing", "expected parts like"),
            ("Toys=1", "choose from Clothing, Electronics, Movies"),
            ("Clothing=-1", "at least 0"),
            ("Clothing=NaN", "at least 0"),
            ("Clothing=1,clothing=2", "twice"),
            ("Clothing=0", "all weights are zero"),
        ] {
            let message = text.parse::<Mix>().unwrap_err();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }
}
