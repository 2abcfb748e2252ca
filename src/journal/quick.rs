//! Reads the lines that are most of a journal (decisions, outcomes, rewards) as our own writer spells them: fields in its order, no escapes.
//! Several times faster than a parser that takes all JSON. Whatever is spelled otherwise is left to that one, so nothing is refused here.

use std::borrow::Cow;

use super::context::{ContextItem, Memo, ProbabilitiesItem};
use super::scalar::{parse_decimal, parse_hex, parse_time};
use crate::clock::Timestamp;
use crate::decision_id::{LENGTH, decode_unverified};
use crate::engine::event::{Event, Rewarded, Verdict};
use crate::experiment::context::Value;
use crate::experiment::decision::{
    Decision, Ending, Label, LoggedContext, LoggedDecision, Outcome,
};
use crate::experiment::id::{KeyHash, Name, SequenceKey, UnitHash};

/// Characters of a time up to the second: `2026-11-24T06:00:00`.
const SECOND: usize = 19;

/// Seconds that are remembered.
const SECONDS: usize = 8;

/// The last seconds that were read: outcomes and rewards have times of their own, and within them most lines share one with the last.
#[derive(Debug, Default)]
pub(super) struct Seconds([([u8; SECOND], u64); SECONDS]);

impl Seconds {
    /// Reads a time.
    fn read(&mut self, text: &str) -> Option<Timestamp> {
        let bytes = text.as_bytes();
        let (second, fraction) = bytes.split_at_checked(SECOND)?;
        let [
            b'.',
            hundreds @ b'0'..=b'9',
            tens @ b'0'..=b'9',
            ones @ b'0'..=b'9',
            b'Z',
        ] = fraction
        else {
            return None;
        };
        let digit = |byte: &u8| u64::from(byte - b'0');
        let millis = 100 * digit(hundreds) + 10 * digit(tens) + digit(ones);
        let (known, start) = &mut self.0[usize::from(second[SECOND - 1]) % SECONDS];
        if known != second {
            let time = parse_time("at", text).ok()?;
            *start = time.as_millis().checked_sub(millis)?;
            *known = second.try_into().ok()?;
        }
        Some(Timestamp::from_millis(*start + millis))
    }
}

/// Reads a line; `None` if it is of another type, or spelled otherwise.
pub(super) fn read(line: &[u8], seconds: &mut Seconds, memo: &mut Memo) -> Option<Event> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let rest = line.strip_prefix(b"{\"type\":\"")?;
    let mut fields = Fields(rest);
    if fields.skip(b"decision\",\"v\":1") {
        decided(fields, memo)
    } else if fields.skip(b"outcome\",\"v\":1") {
        ended(fields, seconds)
    } else if fields.skip(b"reward\",\"v\":1") {
        rewarded(fields, seconds, memo)
    } else {
        None
    }
}

fn decided(mut fields: Fields<'_>, memo: &mut Memo) -> Option<Event> {
    fields.text(b",\"at\":\"")?;
    let (decision, experiment) = fields.identity()?;
    fields.number(b",\"propensity\":")?;
    fields.text(b",\"reason\":\"")?;
    fields.whole(b",\"epoch\":")?;
    fields.text(b",\"policy_version\":\"")?;
    let version = fields.text(b",\"allocation_version\":\"")?;
    let unit = fields.optional_text(b",\"unit\":\"").ok()?;
    let instead_of = fields.optional_text(b",\"instead_of\":\"").ok()?;
    let key = fields.optional_text(b",\"key\":\"").ok()?;
    let context = if fields.skip(b",\"context\":") {
        let context = ContextItem(fields.object(Fields::value)?);
        Some(memo.context(decision.experiment, context))
    } else {
        None
    };
    let probabilities = if fields.skip(b",\"probabilities\":") {
        let found = ProbabilitiesItem(fields.object(Fields::probability)?);
        let known = memo.probabilities(decision.experiment, experiment, &found);
        known.ok()?
    } else {
        Vec::new()
    };
    let hex = |text: Option<&str>, digits| {
        let number = text.map(|text| parse_hex("unit", text, digits));
        number.transpose().ok()
    };
    let logged = LoggedDecision {
        decision,
        unit: hex(unit, 16)?.map(|hash| UnitHash(hash as u64)),
        allocation_version: parse_decimal("allocation_version", version).ok()?,
        key: hex(key, 32)?.map(|hash| KeyHash(hash.to_be_bytes())),
        instead_of: hex(instead_of, 32)?.map(SequenceKey::from_number),
        context: LoggedContext::of(context, probabilities),
    };
    fields.end().then_some(Event::Decided(logged))
}

fn ended(mut fields: Fields<'_>, seconds: &mut Seconds) -> Option<Event> {
    let at = seconds.read(fields.text(b",\"at\":\"")?)?;
    let (decision, _) = fields.identity()?;
    let ending = Ending::from_word(fields.text(b",\"ending\":\"")?)?;
    let status = if fields.peek(b",\"status\":") {
        Some(u16::try_from(fields.whole(b",\"status\":")?).ok()?)
    } else {
        None
    };
    let latency_micros = fields.whole(b",\"latency_micros\":")?;
    let prediction = fields.optional_label(b",\"prediction\":").ok()?;
    fields.end().then_some(Event::Ended(Outcome {
        decision,
        at,
        ending,
        status,
        latency_micros,
        prediction,
    }))
}

fn rewarded(mut fields: Fields<'_>, seconds: &mut Seconds, memo: &mut Memo) -> Option<Event> {
    let received = seconds.read(fields.text(b",\"at\":\"")?)?;
    let (decision, _) = fields.identity()?;
    let word = fields.text(b",\"status\":\"")?;
    let verdict = Verdict::ALL
        .into_iter()
        .find(|verdict| verdict.as_str() == word)?;
    let value = if fields.skip(b",\"reward\":null") {
        f64::NAN
    } else {
        fields.number(b",\"reward\":")?
    };
    let label = fields.optional_label(b",\"label\":").ok()?;
    let metric = match fields.optional_text(b",\"metric\":\"").ok()? {
        Some(text) => Some(Name::new(text).ok()?),
        None => None,
    };
    let id = fields
        .optional_text(b",\"reward_id\":\"")
        .ok()?
        .map(Box::from);
    let at = match fields.optional_text(b",\"client_at\":\"").ok()? {
        Some(text) => Some(parse_time("client_at", text).ok()?),
        None => None,
    };
    let context = if fields.skip(b",\"context\":") {
        let context = ContextItem(fields.object(Fields::value)?);
        Some(Box::new(memo.context(decision.experiment, context)))
    } else {
        None
    };
    let rewarded = Rewarded {
        decision,
        received,
        at,
        metric,
        id,
        value,
        label,
        context,
        verdict,
    };
    fields.end().then(|| Event::Rewarded(Box::new(rewarded)))
}

/// Not as our writer spells it.
struct SpelledOtherwise;

/// What is left of a line.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn peek(&self, what: &[u8]) -> bool {
        self.0.starts_with(what)
    }

    fn skip(&mut self, what: &[u8]) -> bool {
        let rest = self.0.strip_prefix(what);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn end(&self) -> bool {
        self.0 == b"}"
    }

    /// The text of a field, whose opening quote is in `key`.
    fn text(&mut self, key: &[u8]) -> Option<&'a str> {
        self.skip(key).then_some(())?;
        self.rest_of_text()
    }

    /// Up to the next quote.
    fn rest_of_text(&mut self) -> Option<&'a str> {
        let end = memchr::memchr2(b'"', b'\\', self.0)?;
        let (text, rest) = self.0.split_at(end);
        self.0 = rest.strip_prefix(b"\"")?;
        // A control character is no JSON, and for the other parser to refuse.
        let plain = text.iter().all(|byte| *byte >= b' ');
        plain.then(|| std::str::from_utf8(text).ok()).flatten()
    }

    /// A text that may not be there.
    fn optional_text(&mut self, key: &[u8]) -> Result<Option<&'a str>, SpelledOtherwise> {
        if self.peek(key) {
            self.text(key).map(Some).ok_or(SpelledOtherwise)
        } else {
            Ok(None)
        }
    }

    /// The decision that the id says, and the experiment's name.
    fn identity(&mut self) -> Option<(Decision, &'a str)> {
        self.skip(b",\"id\":\"").then_some(())?;
        let (id, rest) = self.0.split_at_checked(LENGTH)?;
        self.0 = rest.strip_prefix(b"\"")?;
        let decision = decode_unverified(id).ok()?;
        let experiment = self.text(b",\"experiment\":\"")?;
        self.text(b",\"arm\":\"")?;
        Some((decision, experiment))
    }

    fn whole(&mut self, key: &[u8]) -> Option<u64> {
        self.skip(key).then_some(())?;
        let token = self.token()?;
        let plain = token.bytes().all(|byte| byte.is_ascii_digit());
        let zeros = token.len() > 1 && token.starts_with('0');
        (plain && !zeros).then(|| token.parse().ok()).flatten()
    }

    fn number(&mut self, key: &[u8]) -> Option<f64> {
        self.skip(key).then_some(())?;
        number(self.token()?)
    }

    /// Up to the next comma or brace.
    fn token(&mut self) -> Option<&'a str> {
        let ends = |byte: &u8| matches!(byte, b',' | b'}');
        let end = self.0.iter().position(ends)?;
        let (token, rest) = self.0.split_at(end);
        self.0 = rest;
        std::str::from_utf8(token).ok()
    }

    /// A label that may not be there.
    fn optional_label(&mut self, key: &[u8]) -> Result<Option<Label>, SpelledOtherwise> {
        if !self.skip(key) {
            return Ok(None);
        }
        match self.value() {
            Some(Value::Text(text)) => Ok(Some(Label::Text(text))),
            Some(Value::Boolean(truth)) => Ok(Some(Label::Boolean(truth))),
            Some(Value::Number(number)) => Ok(Some(Label::Number(number))),
            Some(Value::Missing) | None => Err(SpelledOtherwise),
        }
    }

    fn value(&mut self) -> Option<Value> {
        if self.skip(b"\"") {
            return self.rest_of_text().map(|text| Value::Text(text.into()));
        }
        Some(match self.token()? {
            "true" => Value::Boolean(true),
            "false" => Value::Boolean(false),
            "null" => Value::Missing,
            token => Value::Number(number(token)?),
        })
    }

    fn probability(&mut self) -> Option<f64> {
        number(self.token()?)
    }

    /// An object's members.
    fn object<T>(
        &mut self,
        mut value: impl FnMut(&mut Self) -> Option<T>,
    ) -> Option<Vec<(Cow<'a, str>, T)>> {
        self.skip(b"{").then_some(())?;
        let mut members = Vec::new();
        if self.skip(b"}") {
            return Some(members);
        }
        loop {
            self.skip(b"\"").then_some(())?;
            let name = self.rest_of_text()?;
            self.skip(b":").then_some(())?;
            members.push((Cow::Borrowed(name), value(self)?));
            if self.skip(b"}") {
                return Some(members);
            }
            self.skip(b",").then_some(())?;
        }
    }
}

/// A finite JSON number. Rust reads a few spellings more, and both read the same bits.
fn number(token: &str) -> Option<f64> {
    let digits = token.strip_prefix('-').unwrap_or(token).as_bytes();
    let zeros = digits.len() > 1 && digits[0] == b'0' && digits[1].is_ascii_digit();
    let ends = [digits.first()?, digits.last()?];
    let bare_point = digits
        .windows(2)
        .any(|pair| pair[0] == b'.' && !pair[1].is_ascii_digit());
    if zeros || bare_point || !ends.iter().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    token.parse().ok().filter(|number: &f64| number.is_finite())
}
