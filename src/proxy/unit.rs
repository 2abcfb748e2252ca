//! Who a request is about: the unit that keeps its arm.

use crate::experiment::{UnitRule, UnitSource};
use crate::http1::field::Known;
use crate::http1::fields::Fields;
use crate::http1::head::Request;

/// What a request says about its unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The unit's key.
    Key(Vec<u8>),
    /// The request has none.
    Missing,
}

impl Found {
    /// The key, if there is one.
    pub fn key(&self) -> Option<&[u8]> {
        match self {
            Self::Key(key) => Some(key),
            Self::Missing => None,
        }
    }
}

/// Finds the unit in the request's head, or in the JSON value of its body where the rule has a JSON pointer. Empty keys, and keys above `limit`
/// bytes, count as missing: an empty header would put all its senders into one unit.
pub fn find(
    rule: &UnitRule,
    request: &Request,
    json: Option<&serde_json::Value>,
    limit: usize,
) -> Found {
    let key = match &rule.source {
        UnitSource::Header(name) => request.fields.get(name.as_bytes()).map(<[u8]>::to_vec),
        UnitSource::Cookie { name, .. } => cookie(&request.fields, name),
        UnitSource::Query(name) => request
            .query()
            .and_then(|query| query_parameter(query, name)),
        UnitSource::Json(pointer) => json.and_then(|json| json_key(json, pointer)),
    };
    match key {
        Some(key) if !key.is_empty() && key.len() <= limit => Found::Key(key),
        _ => Found::Missing,
    }
}

/// The value of the first cookie called `name` (RFC 6265 §5.4), without surrounding quotes.
pub(super) fn cookie(fields: &Fields, name: &str) -> Option<Vec<u8>> {
    fields
        .of(Known::Cookie)
        .flat_map(|value| value.split(|byte| *byte == b';'))
        .find_map(|pair| {
            let pair = pair.trim_ascii();
            let value = pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
            Some(
                value
                    .strip_prefix(b"\"")
                    .and_then(|value| value.strip_suffix(b"\""))
                    .unwrap_or(value)
                    .to_vec(),
            )
        })
}

/// The first parameter called `name`, percent-decoded.
pub(super) fn query_parameter(query: &str, name: &str) -> Option<Vec<u8>> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (percent_decode(key) == name.as_bytes()).then(|| percent_decode(value))
    })
}

fn percent_decode(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let digit = |index: usize| {
        bytes
            .get(index)
            .and_then(|byte| char::from(*byte).to_digit(16))
    };
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        match (bytes[index], digit(index + 1), digit(index + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                index += 3;
            }
            (b'+', _, _) => {
                decoded.push(b' ');
                index += 1;
            }
            (byte, _, _) => {
                decoded.push(byte);
                index += 1;
            }
        }
    }
    decoded
}

/// A text as it is, a number as JSON writes it.
fn json_key(json: &serde_json::Value, pointer: &str) -> Option<Vec<u8>> {
    match json.pointer(pointer)? {
        serde_json::Value::String(text) => Some(text.clone().into_bytes()),
        serde_json::Value::Number(number) => Some(number.to_string().into_bytes()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_where_the_rule_says() {
        let mut headers = Fields::default();
        headers.push(b"Cookie", b"a=1; uid=\"u 7\"; uidx=2");
        assert_eq!(cookie(&headers, "uid"), Some(b"u 7".to_vec()));
        assert_eq!(cookie(&headers, "ui"), None);
        assert_eq!(
            query_parameter("a=1&user%20id=x%2By+z&b", "user id"),
            Some(b"x+y z".to_vec())
        );
        assert_eq!(query_parameter("a=1", "b"), None);
        assert_eq!(
            json_key(&serde_json::json!({"user": {"id": 12}}), "/user/id"),
            Some(b"12".to_vec())
        );
        assert_eq!(
            json_key(&serde_json::json!({"user": {"id": "x"}}), "/user/id"),
            Some(b"x".to_vec())
        );
        assert_eq!(json_key(&serde_json::json!({"user": []}), "/user/id"), None);
    }

    #[test]
    fn stray_percent_signs_stay() {
        assert_eq!(percent_decode("100%"), b"100%");
        assert_eq!(percent_decode("%zz%41"), b"%zzA");
    }
}
