//! Reading single values out of JSON that somebody else wrote. Not a parser: that is `serde_json`.

use serde_json::Value;

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
}
