//! The context of a decision: what a policy file looks at besides the arms, and how that becomes numbers.
//!
//! A [`Context`] is kept as it was found, by name, so that the journal can be read by people and encoded anew when the
//! policy file changes. [`ContextRule::encode`] makes the feature vector x of it, with x₀ = 1 for the intercept. It is a pure function of
//! the rule and the context: standardisation follows from sums over what was seen, and is the policies' business.
//! Not here: finding the values in a request (`proxy::context`).

use std::hash::Hasher;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher24;

/// A text is kept up to this many bytes (fewer at a character's edge).
pub const MAX_TEXT: usize = 128;

/// A scaled number is taken at the nearest end of ± this, so that no request can overrule all others.
pub const MAX_MAGNITUDE: f64 = 1e6;

/// Most numbers that a context makes, the intercept included, whatever the settings say.
pub const MAX_DIMENSION: usize = 1024;

/// A value as it was found in a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// There was none, or one of another kind.
    Missing,
    /// A finite number; of a text of which the length is asked for, its characters.
    Number(f64),
    /// A truth value.
    Boolean(bool),
    /// A text, at most [`MAX_TEXT`] bytes.
    Text(Box<str>),
}

/// What was found in a request, in the order of its rule's features.
#[derive(Debug, Clone, PartialEq)]
pub struct Context {
    /// The features' names; one list for all contexts of a rule.
    pub names: Arc<[Box<str>]>,
    /// One for each name.
    pub values: Box<[Value]>,
}

impl Context {
    /// The value of a feature.
    pub fn get(&self, name: &str) -> Option<&Value> {
        let place = self.names.iter().position(|other| **other == *name)?;
        self.values.get(place)
    }
}

/// `[context]`, validated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Feature>", into = "Vec<Feature>")]
pub struct ContextRule {
    features: Vec<Feature>,
    names: Arc<[Box<str>]>,
    dimension: usize,
}

/// One thing to look at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Feature {
    /// Its name: unique in the file, and the key in `context` of `POST /-/decisions`.
    pub name: Box<str>,
    /// Where a request has it.
    pub source: Source,
    /// How it becomes numbers.
    pub encoding: Encoding,
}

/// Where a request has a feature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A request header (lower case).
    Header(Box<str>),
    /// A query parameter.
    Query(Box<str>),
    /// A cookie.
    Cookie(Box<str>),
    /// A JSON pointer into the request's body.
    Json(Box<str>),
    /// The body itself; its length in bytes.
    Body,
    /// The unit's key.
    Unit,
}

/// How a value becomes numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// One number, scaled.
    Number(Scale),
    /// The length of a text in characters (of a body in bytes), scaled.
    Length(Scale),
    /// 1 or 0.
    Boolean,
    /// One place for each known text, and one for all others.
    OneHot(Vec<Box<str>>),
    /// A place by the text's hash, out of this many, ≥ 1.
    Hashed(usize),
}

/// x = (v − center) / scale, or with `log`, x = (ln(1 + v) − center) / scale.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Scale {
    /// Taken from the number.
    pub center: f64,
    /// Divides the rest; > 0.
    pub scale: f64,
    /// Whether the logarithm of 1 + v is taken first (v below 0 counts as 0).
    pub log: bool,
    /// What a missing number counts as, before all this.
    pub missing: f64,
}

impl Scale {
    fn is_sound(self) -> bool {
        let finite = self.center.is_finite() && self.missing.is_finite();
        finite && self.scale.is_finite() && self.scale > 0.0
    }

    fn apply(self, value: f64) -> f64 {
        let value = if self.log {
            libm::log1p(value.max(0.0))
        } else {
            value
        };
        ((value - self.center) / self.scale).clamp(-MAX_MAGNITUDE, MAX_MAGNITUDE)
    }
}

impl Encoding {
    /// How many numbers it makes.
    pub fn width(&self) -> usize {
        match self {
            Self::Number(_) | Self::Length(_) | Self::Boolean => 1,
            Self::OneHot(texts) => texts.len() + 1,
            Self::Hashed(places) => *places,
        }
    }

    /// The value that a text stands for: of a header, a query parameter, a cookie, or a unit.
    pub fn read_text(&self, text: &str) -> Value {
        let trimmed = text.trim();
        match self {
            Self::Number(_) => number(trimmed.parse().ok()),
            Self::Length(_) => Value::Number(text.chars().count() as f64),
            Self::Boolean => match trimmed {
                "true" | "1" => Value::Boolean(true),
                "false" | "0" => Value::Boolean(false),
                _ => Value::Missing,
            },
            Self::OneHot(_) | Self::Hashed(_) => Value::Text(kept(text)),
        }
    }

    /// The value that a number stands for. As a category it is written as JSON writes it.
    pub fn read_number(&self, value: f64) -> Value {
        match self {
            Self::Number(_) => number(Some(value)),
            Self::Length(_) => Value::Missing,
            Self::Boolean => match value {
                1.0 => Value::Boolean(true),
                0.0 => Value::Boolean(false),
                _ => Value::Missing,
            },
            Self::OneHot(_) | Self::Hashed(_) => Value::Text(kept(&value.to_string())),
        }
    }

    /// The value that a JSON value stands for. A number or truth value may be a category, and is then written as JSON writes it.
    pub fn read_json(&self, value: &serde_json::Value) -> Value {
        use serde_json::Value as Json;
        match (self, value) {
            (_, Json::String(text)) => self.read_text(text),
            (Self::Number(_), Json::Number(given)) => number(given.as_f64()),
            (Self::Boolean, Json::Bool(truth)) => Value::Boolean(*truth),
            (Self::OneHot(_) | Self::Hashed(_), Json::Number(_) | Json::Bool(_)) => {
                Value::Text(kept(&value.to_string()))
            }
            _ => Value::Missing,
        }
    }

    /// Writes the value's numbers over zeros.
    fn write(&self, name: &str, value: &Value, places: &mut [f64]) {
        match (self, value) {
            (Self::Number(scale) | Self::Length(scale), Value::Number(number)) => {
                places[0] = scale.apply(*number);
            }
            (Self::Number(scale) | Self::Length(scale), _) => {
                places[0] = scale.apply(scale.missing);
            }
            (Self::Boolean, Value::Boolean(true)) => places[0] = 1.0,
            (Self::OneHot(texts), Value::Text(text)) => {
                let known = texts.iter().position(|known| known == text);
                places[known.unwrap_or(texts.len())] = 1.0;
            }
            (Self::Hashed(count), Value::Text(text)) => {
                places[hash(name, text) as usize % count] = 1.0;
            }
            // A missing truth value counts as false; a missing category has no place.
            _ => {}
        }
    }
}

fn number(value: Option<f64>) -> Value {
    value
        .filter(|value| value.is_finite())
        .map_or(Value::Missing, Value::Number)
}

fn kept(text: &str) -> Box<str> {
    let end = (0..=text.len().min(MAX_TEXT))
        .rev()
        .find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or(0)).unwrap_or_default().into()
}

/// Not keyed: the same text has the same place on every machine and in every release.
fn hash(name: &str, text: &str) -> u64 {
    let mut hasher = SipHasher24::new();
    hasher.write(&(name.len() as u64).to_le_bytes());
    hasher.write(name.as_bytes());
    hasher.write(text.as_bytes());
    hasher.finish()
}

impl ContextRule {
    /// The rule of these features, in this order.
    pub fn new(features: Vec<Feature>) -> Self {
        let names = features
            .iter()
            .map(|feature| feature.name.clone())
            .collect();
        let width = |feature: &Feature| feature.encoding.width();
        let dimension = 1 + features.iter().map(width).sum::<usize>();
        Self {
            features,
            names,
            dimension,
        }
    }

    /// What is looked at.
    pub fn features(&self) -> &[Feature] {
        &self.features
    }

    /// How many numbers a context makes, the intercept included.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// Whether a value is in the request's body.
    pub fn needs_body(&self) -> bool {
        self.features
            .iter()
            .any(|feature| matches!(feature.source, Source::Json(_) | Source::Body))
    }

    /// The context of these values, one for each feature.
    pub fn context(&self, values: Box<[Value]>) -> Context {
        Context {
            names: Arc::clone(&self.names),
            values,
        }
    }

    /// A context in which all is missing.
    pub fn nothing(&self) -> Context {
        self.context(vec![Value::Missing; self.features.len()].into())
    }

    /// Writes the feature vector over `encoded`: [`ContextRule::dimension`] numbers, the first of them 1. A feature that the context does not have
    /// counts as missing.
    pub fn encode(&self, context: &Context, encoded: &mut Vec<f64>) {
        encoded.clear();
        encoded.resize(self.dimension, 0.0);
        encoded[0] = 1.0;
        let same = Arc::ptr_eq(&context.names, &self.names) || context.names == self.names;
        let mut start = 1;
        for (index, feature) in self.features.iter().enumerate() {
            let value = if same {
                context.values.get(index)
            } else {
                context.get(&feature.name)
            };
            let end = start + feature.encoding.width();
            let value = value.unwrap_or(&Value::Missing);
            feature
                .encoding
                .write(&feature.name, value, &mut encoded[start..end]);
            start = end;
        }
    }

    /// What each number of the feature vector is, for people: `intercept`, then the features, of a category with its text.
    pub fn columns(&self) -> Vec<String> {
        let mut columns = vec!["intercept".to_owned()];
        for Feature { name, encoding, .. } in &self.features {
            match encoding {
                Encoding::Number(_) | Encoding::Length(_) | Encoding::Boolean => {
                    columns.push(name.to_string());
                }
                Encoding::OneHot(texts) => {
                    columns.extend(texts.iter().map(|text| format!("{name}={text}")));
                    columns.push(format!("{name}=other"));
                }
                Encoding::Hashed(places) => {
                    columns.extend((0..*places).map(|place| format!("{name}#{place}")));
                }
            }
        }
        columns
    }
}

/// Features that no policy file can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "no rule for contexts: at most {MAX_DIMENSION} numbers, hashed ones with a place at least, scaled ones by a finite number above 0"
)]
pub struct InvalidRule;

impl TryFrom<Vec<Feature>> for ContextRule {
    type Error = InvalidRule;

    /// For rules that were read: [`ContextRule::new`] takes what was checked.
    fn try_from(features: Vec<Feature>) -> Result<Self, InvalidRule> {
        let total = features.iter().try_fold(1_usize, |total, feature| {
            let width = feature.encoding.width();
            (width > 0).then(|| total.checked_add(width))?
        });
        let scaled = features.iter().all(|feature| match feature.encoding {
            Encoding::Number(scale) | Encoding::Length(scale) => scale.is_sound(),
            _ => true,
        });
        let fits = total.is_some_and(|total| total <= MAX_DIMENSION);
        (fits && scaled)
            .then(|| Self::new(features))
            .ok_or(InvalidRule)
    }
}

impl From<ContextRule> for Vec<Feature> {
    fn from(rule: ContextRule) -> Self {
        rule.features
    }
}

#[cfg(test)]
mod tests;
