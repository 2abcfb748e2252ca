//! Bodies of `POST /-/rewards` and their answers: bytes in, bytes out.
//!
//! A body is one object, a JSON array, or JSON lines. What is wrong with one item is that item's error and the others are taken;
//! only a body that cannot be taken apart into items is refused as a whole. Items are cut out by a scanner that knows strings
//! and brackets alone, so that an item that is no JSON (Python writes `NaN`) does not spoil its neighbours.
//!
//! Not here: HTTP (status codes are plain numbers), who may post, and what becomes of a reward (`engine::attribute`).

mod split;

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

use crate::clock::Timestamp;
use crate::engine::attribute::{Claim, Posted};
use crate::engine::event::Verdict;
use crate::engine::keys::Subject;
use crate::experiment::decision::Label;
use crate::experiment::id::{MAX_KEY_BYTES, Name};
use split::items;

/// Bounds of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a body.
    pub bytes: usize,
    /// Items of a body.
    pub items: usize,
    /// How deep brackets may nest.
    pub depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 4 << 20,
            items: 10_000,
            depth: 64,
        }
    }
}

/// Longest idempotency key, in bytes.
const MAX_ID_BYTES: usize = 128;

/// Longest error of an item, in bytes: what clients post is quoted in it.
const MAX_ERROR_BYTES: usize = 300;

/// Why a body is refused as a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// More bytes than allowed.
    #[error("the body has more than {limit} bytes: post the rewards in several requests")]
    TooLong {
        /// Bytes allowed.
        limit: usize,
    },
    /// More items than allowed.
    #[error("the body has more than {limit} rewards: post them in several requests")]
    TooMany {
        /// Items allowed.
        limit: usize,
    },
    /// No item.
    #[error(
        "the body holds no reward: post one object, an array, or JSON lines of {{\"decision_id\": \"…\", \"reward\": 1.0}}"
    )]
    Empty,
    /// It cannot be taken apart.
    #[error("the body is not readable at byte {offset}: {problem}")]
    Unreadable {
        /// Where.
        offset: usize,
        /// What is wrong, and what was expected.
        problem: String,
    },
}

impl BodyError {
    /// The HTTP status: 413 for what is too large, else 400.
    pub const fn status(&self) -> u16 {
        match self {
            Self::TooLong { .. } | Self::TooMany { .. } => 413,
            Self::Empty | Self::Unreadable { .. } => 400,
        }
    }
}

/// One item: a claim, or why it is none.
pub type Item = Result<Claim<Subject>, String>;

/// How an item names its decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reference<'a> {
    /// By its id, as posted.
    DecisionId(&'a str),
    /// By the client's own key.
    Key {
        /// The experiment that the decision belongs to.
        experiment: &'a Name,
        /// The key: 1 to 256 bytes.
        key: &'a str,
    },
}

/// Whether any item names its decision by the client's own key.
pub fn any_by_key(items: &[Item]) -> bool {
    let by_key = |item: &Item| {
        item.as_ref()
            .is_ok_and(|claim| matches!(claim.decision, Subject::Key(..)))
    };
    items.iter().any(by_key)
}

/// Takes a body apart. `decode` checks a decision id and reads it, or hashes a key; `received` is the server's time of receipt.
///
/// # Errors
///
/// [`BodyError`] when there are no items to speak of; an item's own errors are in its place.
pub fn parse(
    body: &[u8],
    content_type: Option<&str>,
    limits: Limits,
    received: Timestamp,
    decode: impl Fn(Reference<'_>) -> Result<Subject, String>,
) -> Result<Vec<Item>, BodyError> {
    if body.len() > limits.bytes {
        return Err(BodyError::TooLong {
            limit: limits.bytes,
        });
    }
    let pieces = items(body, is_json_lines(content_type), limits)?;
    if pieces.is_empty() {
        return Err(BodyError::Empty);
    }
    let item = |piece: &[u8]| item(piece, received, &decode).map_err(truncated);
    Ok(pieces.into_iter().map(item).collect())
}

fn is_json_lines(content_type: Option<&str>) -> bool {
    let essence = content_type.and_then(|value| value.split(';').next());
    essence.is_some_and(|essence| {
        let essence = essence.trim();
        [
            "application/x-ndjson",
            "application/ndjson",
            "application/jsonl",
        ]
        .iter()
        .any(|known| essence.eq_ignore_ascii_case(known))
    })
}

/// An item as posted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PostedItem<'a> {
    #[serde(borrow, default)]
    decision_id: Cow<'a, str>,
    #[serde(borrow, default)]
    experiment: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    key: Option<Cow<'a, str>>,
    #[serde(default)]
    reward: Option<Number>,
    #[serde(default)]
    label: Option<PostedLabel>,
    #[serde(borrow, default)]
    metric: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    at: Option<Cow<'a, str>>,
}

fn item(
    piece: &[u8],
    received: Timestamp,
    decode: &impl Fn(Reference<'_>) -> Result<Subject, String>,
) -> Item {
    let text = std::str::from_utf8(piece).map_err(|_| "the item is not UTF-8".to_owned())?;
    let posted: PostedItem<'_> = serde_json::from_str(text).map_err(|error| describe(&error))?;
    let decision = subject(&posted, decode);
    let value = match (posted.reward, posted.label) {
        (Some(Number(reward)), None) => Posted::Reward(reward),
        (None, Some(PostedLabel(label))) => Posted::Label(label),
        (Some(_), Some(_)) => return Err("\"reward\" and \"label\" exclude each other".to_owned()),
        (None, None) => return Err("\"reward\" (a number) or \"label\" is missing".to_owned()),
    };
    let metric = match posted.metric {
        Some(metric) => Some(Name::new(&metric).map_err(|error| format!("\"metric\": {error}"))?),
        None => None,
    };
    if let Some(id) = &posted.id
        && (id.is_empty() || id.len() > MAX_ID_BYTES)
    {
        return Err(format!(
            "\"id\" has {} bytes; 1 to {MAX_ID_BYTES} are allowed",
            id.len()
        ));
    }
    let at = posted.at.as_deref().map(time).transpose()?;
    Ok(Claim {
        decision: decision?,
        received,
        at,
        metric,
        id: posted.id.map(Into::into),
        posted: value,
    })
}

/// The decision that the item names in one of the two ways.
fn subject(
    posted: &PostedItem<'_>,
    decode: &impl Fn(Reference<'_>) -> Result<Subject, String>,
) -> Result<Subject, String> {
    match (&*posted.decision_id, &posted.experiment, &posted.key) {
        ("", Some(experiment), Some(key)) => {
            let experiment =
                &Name::new(experiment).map_err(|error| format!("\"experiment\": {error}"))?;
            if key.is_empty() || key.len() > MAX_KEY_BYTES {
                return Err(format!(
                    "\"key\" has {} bytes; 1 to {MAX_KEY_BYTES} are allowed",
                    key.len()
                ));
            }
            decode(Reference::Key { experiment, key })
        }
        ("", None, None) => {
            Err("missing field `decision_id`, or `experiment` and `key`".to_owned())
        }
        ("", ..) => Err("a reward by key has \"experiment\" and \"key\"".to_owned()),
        (id, None, None) => decode(Reference::DecisionId(id)),
        _ => Err("\"decision_id\" excludes \"experiment\" and \"key\"".to_owned()),
    }
}

fn time(text: &str) -> Result<Timestamp, String> {
    let malformed = || {
        format!("\"at\": {text:?} is not an RFC 3339 time since 1970, such as 2026-01-31T12:00:00Z")
    };
    // Times that name a zone in brackets or leave the offset out are not RFC 3339, though jiff reads the former.
    if text.contains('[') {
        return Err(malformed());
    }
    let time: jiff::Timestamp = text.parse().map_err(|_| malformed())?;
    u64::try_from(time.as_millisecond())
        .map(Timestamp::from_millis)
        .map_err(|_| malformed())
}

/// serde's words, without the line, which is always the first of the item.
fn describe(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let text = text.strip_suffix(&place).unwrap_or(&text);
    match error.classify() {
        serde_json::error::Category::Data => text.to_owned(),
        _ => format!(
            "the item is not JSON at its character {}: {text}",
            error.column()
        ),
    }
}

fn truncated(mut error: String) -> String {
    if error.len() > MAX_ERROR_BYTES {
        let boundary = (0..=MAX_ERROR_BYTES)
            .rev()
            .find(|end| error.is_char_boundary(*end));
        error.truncate(boundary.unwrap_or(0));
        error.push('…');
    }
    error
}

/// A finite JSON number.
#[derive(Debug)]
struct Number(f64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_any(ScalarVisitor("a number as reward"))? {
            Label::Number(number) => Ok(Self(number)),
            Label::Text(text) => Err(de::Error::invalid_type(
                de::Unexpected::Str(&text),
                &"a number as reward",
            )),
            Label::Boolean(truth) => Err(de::Error::invalid_type(
                de::Unexpected::Bool(truth),
                &"a number as reward",
            )),
        }
    }
}

/// A number, a text or a truth value.
#[derive(Debug)]
struct PostedLabel(Label);

impl<'de> Deserialize<'de> for PostedLabel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_any(ScalarVisitor("a number, a string or a boolean as label"))
            .map(Self)
    }
}

struct ScalarVisitor(&'static str);

impl Visitor<'_> for ScalarVisitor {
    type Value = Label;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Label, E> {
        Ok(Label::Boolean(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Label, E> {
        Ok(Label::Number(value as f64))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Label, E> {
        Ok(Label::Number(value as f64))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Label, E> {
        Ok(Label::Number(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Label, E> {
        Ok(Label::Text(value.into()))
    }
}

/// What became of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Journalled with this verdict.
    Judged(Verdict),
    /// Accepted and counted; but the policy, which learns from contexts, could not learn from it, because its decision's context was
    /// lost.
    Unlearned,
    /// Not taken; the text says why.
    Invalid(String),
}

/// The HTTP status of an answer: 200 when no item is invalid, 207 when some are, 400 when all are.
pub fn status(answers: &[Answer]) -> u16 {
    let invalid = answers
        .iter()
        .filter(|answer| matches!(answer, Answer::Invalid(_)))
        .count();
    match invalid {
        0 => 200,
        some if some < answers.len() => 207,
        _ => 400,
    }
}

/// The answer's body: `{"results":[{"status":"accepted"},…]}`, in the order of the items.
pub fn render(answers: &[Answer]) -> String {
    let mut body = String::with_capacity(16 + 24 * answers.len());
    body.push_str("{\"results\":[");
    for (index, answer) in answers.iter().enumerate() {
        if index > 0 {
            body.push(',');
        }
        match answer {
            Answer::Judged(verdict) => {
                body.push_str("{\"status\":\"");
                body.push_str(verdict.as_str());
                body.push_str("\"}");
            }
            Answer::Unlearned => {
                body.push_str("{\"status\":\"accepted\",\"learned\":false}");
            }
            Answer::Invalid(error) => {
                body.push_str("{\"status\":\"invalid\",\"error\":");
                body.push_str(&serde_json::Value::from(error.as_str()).to_string());
                body.push('}');
            }
        }
    }
    body.push_str("]}");
    body
}

#[cfg(test)]
mod tests;
