//! Contexts and their probabilities in a line: `"context":{"category":"clothing","length":120.0}` and
//! `"probabilities":{"minilm-l6":0.25,"minilm-l3":0.75}`.
//!
//! A missing value is left out. Arms are keyed by name, because ten arms with their ids beside would double a decision's line: the id
//! is the hash of experiment, name and version ([`ArmId::of`]), so the name alone gives it back where there is no version; an arm whose
//! id is not that is keyed `name@id`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use super::decode::RecordError;
use super::scalar::{parse_hex, write_hex, write_json};
use crate::engine::event::PolicyAdopted;
use crate::experiment::context::{Context, ContextRule, Value};
use crate::experiment::id::{ArmId, ExperimentId, Name};

/// Between an arm's name and its id; no name has it.
const ID_MARK: char = '@';

/// `,"context":{…}`
pub(super) fn write_context(line: &mut Vec<u8>, context: &Context) {
    line.extend_from_slice(b",\"context\":{");
    let mut separator: &[u8] = b"";
    for (name, value) in context.names.iter().zip(&context.values) {
        if is_missing(value) {
            continue;
        }
        line.extend_from_slice(separator);
        separator = b",";
        write_json(line, &**name);
        line.push(b':');
        match value {
            Value::Missing => {}
            Value::Number(number) => write_json(line, number),
            Value::Boolean(truth) => write_json(line, truth),
            Value::Text(text) => write_json(line, &**text),
        }
    }
    line.push(b'}');
}

/// A number that is not finite has no JSON, and counts as missing.
fn is_missing(value: &Value) -> bool {
    match value {
        Value::Missing => true,
        Value::Number(number) => !number.is_finite(),
        Value::Boolean(_) | Value::Text(_) => false,
    }
}

/// An arm's key among the probabilities, with the quotes and the colon.
pub(super) fn arm_key(experiment: &Name, arm: ArmId, name: &Name, version: &str) -> Box<[u8]> {
    let mut key = format!("\"{name}").into_bytes();
    if !version.is_empty() || ArmId::of(experiment, name, "") != arm {
        write_id(&mut key, arm);
    }
    key.extend_from_slice(b"\":");
    key.into_boxed_slice()
}

/// The key of an arm whose name is not known.
pub(super) fn write_unnamed_key(line: &mut Vec<u8>, arm: ArmId) {
    line.push(b'"');
    write_id(line, arm);
    line.extend_from_slice(b"\":");
}

fn write_id(line: &mut Vec<u8>, arm: ArmId) {
    line.push(ID_MARK as u8);
    write_hex(line, u128::from(arm.0), 8);
}

/// A context as a line has it.
pub(super) struct ContextItem<'a>(pub(super) Vec<(Cow<'a, str>, Value)>);

/// Probabilities as a line has them.
pub(super) struct ProbabilitiesItem<'a>(pub(super) Vec<(Cow<'a, str>, f64)>);

#[derive(Deserialize)]
#[serde(transparent)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

struct ValueItem(Value);

impl<'de: 'a, 'a> Deserialize<'de> for ContextItem<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Vec<(Cow<'de, str>, Value)>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object of numbers, texts and truth values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some((Key(name), ValueItem(value))) = map.next_entry()? {
                    pairs.push((name, value));
                }
                Ok(pairs)
            }
        }
        deserializer.deserialize_map(Pairs).map(Self)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for ProbabilitiesItem<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Vec<(Cow<'de, str>, f64)>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object of probabilities by arm")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some((Key(arm), probability)) = map.next_entry::<_, Option<f64>>()? {
                    pairs.push((arm, probability.unwrap_or(f64::NAN)));
                }
                Ok(pairs)
            }
        }
        deserializer.deserialize_map(Pairs).map(Self)
    }
}

impl<'de> Deserialize<'de> for ValueItem {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Scalar;
        impl Visitor<'_> for Scalar {
            type Value = Value;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a number, a text or a truth value")
            }

            fn visit_bool<E: Error>(self, truth: bool) -> Result<Value, E> {
                Ok(Value::Boolean(truth))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Value, E> {
                Ok(Value::Number(number as f64))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Value, E> {
                Ok(Value::Number(number as f64))
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<Value, E> {
                Ok(Value::Number(number))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
                Ok(Value::Text(text.into()))
            }

            fn visit_unit<E: Error>(self) -> Result<Value, E> {
                Ok(Value::Missing)
            }
        }
        deserializer.deserialize_any(Scalar).map(Self)
    }
}

/// What earlier lines have told, so that later ones can share it. Nothing is read otherwise without it.
#[derive(Debug, Default)]
pub(super) struct Memo {
    experiments: HashMap<ExperimentId, Told>,
    /// The names of the last context that no policy has told.
    names: Option<Arc<[Box<str>]>>,
}

#[derive(Debug)]
struct Told {
    rule: Option<Arc<ContextRule>>,
    /// Arms without a version.
    arms: Vec<(Name, ArmId)>,
}

impl Memo {
    /// Takes note of a policy.
    pub(super) fn adopt(&mut self, policy: &PolicyAdopted) {
        let plain = policy.arms.iter().filter(|(arm, name, version)| {
            version.is_empty() && ArmId::of(&policy.name, name, "") == *arm
        });
        let told = Told {
            rule: policy.context.clone(),
            arms: plain.map(|(arm, name, _)| (name.clone(), *arm)).collect(),
        };
        self.experiments.insert(policy.experiment, told);
    }

    /// The context of a decision of `experiment`: in the order of its rule, what is left out being missing; or, if there is no rule
    /// that has all these names, just what is there.
    pub(super) fn context(
        &mut self,
        experiment: ExperimentId,
        ContextItem(found): ContextItem<'_>,
    ) -> Context {
        let told = self.experiments.get(&experiment);
        let rule = told.and_then(|told| told.rule.as_deref());
        let Some((rule, places)) = rule.and_then(|rule| Some((rule, places(rule, &found)?))) else {
            return self.unruled(found);
        };
        let mut context = rule.nothing();
        for (place, (_, value)) in places.into_iter().zip(found) {
            context.values[place] = value;
        }
        context
    }

    fn unruled(&mut self, found: Vec<(Cow<'_, str>, Value)>) -> Context {
        let same = |names: &&Arc<[Box<str>]>| {
            names.len() == found.len()
                && names
                    .iter()
                    .zip(&found)
                    .all(|(name, (other, _))| **name == **other)
        };
        let names = match self.names.as_ref().filter(same) {
            Some(names) => Arc::clone(names),
            None => found.iter().map(|(name, _)| (**name).into()).collect(),
        };
        self.names = Some(Arc::clone(&names));
        let values = found.into_iter().map(|(_, value)| value).collect();
        Context { names, values }
    }

    /// The probabilities of a decision of `experiment`, which its line calls `name`.
    ///
    /// # Errors
    ///
    /// A key that is no arm.
    pub(super) fn probabilities(
        &self,
        experiment: ExperimentId,
        name: &str,
        ProbabilitiesItem(found): &ProbabilitiesItem<'_>,
    ) -> Result<Vec<(ArmId, f64)>, RecordError> {
        let told = self.experiments.get(&experiment);
        let told = told.map_or(&[][..], |told| &told.arms);
        let mut next = told.iter();
        let mut probabilities = Vec::with_capacity(found.len());
        for (key, probability) in found {
            let known = next
                .find(|(arm, _)| arm.as_str() == &**key)
                .or_else(|| told.iter().find(|(arm, _)| arm.as_str() == &**key));
            let arm = match known {
                Some((_, arm)) => *arm,
                None => arm_of(name, key)?,
            };
            probabilities.push((arm, *probability));
        }
        Ok(probabilities)
    }
}

fn arm_of(experiment: &str, key: &str) -> Result<ArmId, RecordError> {
    if let Some((_, id)) = key.split_once(ID_MARK) {
        return Ok(ArmId(parse_hex("probabilities", id, 8)? as u32));
    }
    let name = |text| {
        Name::new(text).map_err(|_| RecordError::Field {
            field: "probabilities",
            expected: "an object with the arms' names, or name@id, as keys",
        })
    };
    Ok(ArmId::of(&name(experiment)?, &name(key)?, ""))
}

/// Where in the rule's order each value belongs. Lines have that order, so that the next one is mostly right behind.
fn places(rule: &ContextRule, found: &[(Cow<'_, str>, Value)]) -> Option<Vec<usize>> {
    let features = rule.features();
    let mut next = 0;
    let place = |(name, _): &(Cow<'_, str>, Value)| {
        let is_it = |place: &usize| *features[*place].name == **name;
        let place = (next..features.len())
            .find(is_it)
            .or_else(|| (0..next).find(is_it))?;
        next = place + 1;
        Some(place)
    };
    found.iter().map(place).collect()
}
