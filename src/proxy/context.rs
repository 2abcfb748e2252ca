//! What a request's decision is made upon besides the arms: finds the values that `[context]` names.
//!
//! A value that is not there, or of another kind, is missing; that is no error, because one odd request must not be refused for what
//! the model behind might well answer. Not here: how values become numbers ([`ContextRule::encode`]).

use serde_json::Value as Json;

use super::unit;
use crate::experiment::context::{Context, ContextRule, Encoding, Feature, Source, Value};
use crate::http1::head::Request;

/// What a request has to offer.
#[derive(Debug, Clone, Copy)]
pub struct Found<'a> {
    /// Its head.
    pub request: &'a Request,
    /// Its body, if that was read.
    pub body: Option<&'a [u8]>,
    /// The first JSON value of its body.
    pub json: Option<&'a Json>,
    /// Its unit's key.
    pub unit: Option<&'a [u8]>,
}

/// The request's context.
pub fn find(rule: &ContextRule, found: Found<'_>) -> Context {
    let values = rule.features().iter().map(|feature| value(feature, found));
    rule.context(values.collect())
}

fn value(feature: &Feature, found: Found<'_>) -> Value {
    let encoding = &feature.encoding;
    let text = |bytes: &[u8]| encoding.read_text(&String::from_utf8_lossy(bytes));
    let fields = &found.request.fields;
    let value = match &feature.source {
        Source::Header(name) => fields.get(name.as_bytes()).map(text),
        Source::Query(name) => {
            let query = found.request.query();
            let value = query.and_then(|query| unit::query_parameter(query, name));
            value.map(|value| text(&value))
        }
        Source::Cookie(name) => unit::cookie(fields, name).map(|value| text(&value)),
        Source::Json(pointer) => found
            .json
            .and_then(|json| json.pointer(pointer))
            .map(|json| encoding.read_json(json)),
        Source::Body => found.body.map(|body| match encoding {
            Encoding::Length(_) => Value::Number(body.len() as f64),
            _ => Value::Missing,
        }),
        Source::Unit => found.unit.map(text),
    };
    value.unwrap_or(Value::Missing)
}

/// A length may be stated as a number: whoever asks for a decision need not send the text.
fn stated_value(encoding: &Encoding, json: &Json) -> Value {
    match (encoding, json.as_f64()) {
        (Encoding::Length(_), Some(length)) if length.is_finite() => Value::Number(length),
        _ => encoding.read_json(json),
    }
}

/// The context that a client states by the features' names.
///
/// # Errors
///
/// A name that the rule does not have, told with those that it has.
pub fn stated(
    rule: &ContextRule,
    given: &serde_json::Map<String, Json>,
    unit: Option<&str>,
) -> Result<Context, String> {
    let features = rule.features();
    let is_known = |name: &str| features.iter().any(|feature| *feature.name == *name);
    if let Some(unknown) = given.keys().find(|name| !is_known(name)) {
        let known: Vec<&str> = features.iter().map(|feature| &*feature.name).collect();
        return Err(format!(
            "context has {unknown:?}, which the experiment does not look at; it looks at {}",
            known.join(", ")
        ));
    }
    let value = |feature: &Feature| match (given.get(&*feature.name), &feature.source) {
        (Some(json), _) => stated_value(&feature.encoding, json),
        (None, Source::Unit) => {
            unit.map_or(Value::Missing, |unit| feature.encoding.read_text(unit))
        }
        (None, _) => Value::Missing,
    };
    Ok(rule.context(features.iter().map(value).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::context::Scale;

    const SCALE: Scale = Scale {
        center: 0.0,
        scale: 1.0,
        log: false,
        missing: 0.0,
    };

    fn rule() -> ContextRule {
        let feature = |name: &str, source, encoding| Feature {
            name: name.into(),
            source,
            encoding,
        };
        ContextRule::new(vec![
            feature(
                "category",
                Source::Header("x-category".into()),
                Encoding::Hashed(4),
            ),
            feature(
                "page",
                Source::Query("page".into()),
                Encoding::Number(SCALE),
            ),
            feature("prime", Source::Cookie("prime".into()), Encoding::Boolean),
            feature(
                "text",
                Source::Json("/features/0".into()),
                Encoding::Length(SCALE),
            ),
            feature("size", Source::Body, Encoding::Length(SCALE)),
            feature("user", Source::Unit, Encoding::Hashed(8)),
        ])
    }

    #[test]
    fn values_are_found_where_the_rule_says() {
        let body = br#"{"features": ["nine char"]}"#;
        let json = crate::json::first_value(body).unwrap();
        let mut request = Request::default();
        request.make("GET", "/v1/stars?page=3").unwrap();
        request.fields.push(b"X-Category", b"clothing");
        request.fields.push(b"cookie", b"a=b; prime=1");
        let found = Found {
            request: &request,
            body: Some(body),
            json: Some(&json),
            unit: Some(b"u-7"),
        };
        let context = find(&rule(), found);
        let expected = [
            Value::Text("clothing".into()),
            Value::Number(3.0),
            Value::Boolean(true),
            Value::Number(9.0),
            Value::Number(27.0),
            Value::Text("u-7".into()),
        ];
        assert_eq!(*context.values, expected);

        let mut request = Request::default();
        request.make("GET", "/").unwrap();
        let found = Found {
            request: &request,
            body: None,
            json: None,
            unit: None,
        };
        assert_eq!(find(&rule(), found), rule().nothing());
    }

    #[test]
    fn a_client_states_a_context_by_name() {
        let given = serde_json::json!({"category": "movies", "text": "abc", "size": "12"});
        let context = stated(&rule(), given.as_object().unwrap(), Some("u-7")).unwrap();
        assert_eq!(context.values[0], Value::Text("movies".into()));
        assert_eq!(context.values[1], Value::Missing);
        assert_eq!(context.values[3], Value::Number(3.0));
        assert_eq!(context.values[5], Value::Text("u-7".into()));
        let given = serde_json::json!({"text": 17, "size": 1e5, "category": 3});
        let context = stated(&rule(), given.as_object().unwrap(), None).unwrap();
        assert_eq!(context.values[3], Value::Number(17.0));
        assert_eq!(context.values[4], Value::Number(1e5));
        assert_eq!(context.values[0], Value::Text("3".into()));
        let given = serde_json::json!({"categroy": "movies"});
        let error = stated(&rule(), given.as_object().unwrap(), None).unwrap_err();
        assert!(
            error.contains("categroy") && error.contains("category, page"),
            "{error}"
        );
    }
}
