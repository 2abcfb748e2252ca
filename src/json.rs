//! Reading (and replacing) single values of JSON that somebody else wrote. Not a parser: that is `serde_json`.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::Value;
use serde_json::value::RawValue;

use crate::experiment::decision::Label;

/// The first JSON value of `text`: all of a JSON document, or the first of JSON lines.
pub fn first_value(text: &[u8]) -> Option<Value> {
    serde_json::Deserializer::from_slice(text)
        .into_iter::<Value>()
        .next()?
        .ok()
}

/// The number, text or truth value at an RFC 6901 pointer; `None` where there is none, or something else.
pub fn label_at(value: &Value, pointer: &str) -> Option<Label> {
    label(value.pointer(pointer)?)
}

/// A number, text or truth value as a label.
pub fn label(value: &Value) -> Option<Label> {
    match value {
        Value::Number(number) => number
            .as_f64()
            .filter(|number| number.is_finite())
            .map(Label::Number),
        Value::String(text) => Some(Label::Text(text.as_str().into())),
        Value::Bool(truth) => Some(Label::Boolean(*truth)),
        _ => None,
    }
}

/// The JSON document `text` with the text at `pointer` (RFC 6901, not empty) replaced by `new`, and every other byte as it was. `None` where there
/// is no text at the pointer, or the document is none.
pub fn replace_text(text: &[u8], pointer: &str, new: &str) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?;
    let mut value: &RawValue = serde_json::from_str(text).ok()?;
    for token in pointer.strip_prefix('/')?.split('/') {
        let token = token.replace("~1", "/").replace("~0", "~");
        value = if value.get().starts_with('[') {
            let items: Vec<&RawValue> = serde_json::from_str(value.get()).ok()?;
            items.get(token.parse::<usize>().ok()?).copied()?
        } else {
            let mut members: HashMap<Cow<'_, str>, &RawValue> =
                serde_json::from_str(value.get()).ok()?;
            members.remove(token.as_str())?
        };
    }
    let old = value.get();
    if !old.starts_with('"') {
        return None;
    }
    let start = old.as_ptr().addr() - text.as_ptr().addr();
    let new = serde_json::to_string(new).ok()?;
    Some(
        [&text[..start], new.as_str(), &text[start + old.len()..]]
            .concat()
            .into_bytes(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_json_lines_is_read() {
        let text = b"{\"predicted_label\": 5, \"p\": [0.1]}\n{\"predicted_label\": 1}\n";
        let value = first_value(text).unwrap();
        assert_eq!(
            label_at(&value, "/predicted_label"),
            Some(Label::Number(5.0))
        );
        assert_eq!(label_at(&value, "/p"), None);
        assert_eq!(label_at(&value, "/p/0"), Some(Label::Number(0.1)));
        assert_eq!(first_value(b"<html>"), None);
    }

    #[test]
    fn one_text_is_replaced_and_nothing_else() {
        let body = b" {\"a\":[1.0,{\"model\" : \"x\\u0041\"}], \"model\":\"m\" }\n";
        let at = |pointer| {
            replace_text(body, pointer, "n\"1").map(|text| String::from_utf8(text).unwrap())
        };
        assert_eq!(
            at("/model").unwrap(),
            " {\"a\":[1.0,{\"model\" : \"x\\u0041\"}], \"model\":\"n\\\"1\" }\n"
        );
        assert_eq!(
            at("/a/1/model").unwrap(),
            " {\"a\":[1.0,{\"model\" : \"n\\\"1\"}], \"model\":\"m\" }\n"
        );
        for pointer in ["/b", "/a", "/a/0", "/a/7", "/model/x", "model"] {
            assert_eq!(at(pointer), None, "{pointer}");
        }
        assert_eq!(replace_text(b"no json", "/model", "x"), None);
    }
}
