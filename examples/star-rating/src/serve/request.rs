//! The two forms of a request to `POST /v1/stars`, and of its answer.
//!
//! *JSON lines*, as SageMaker's BERT examples speak them: a line `{"features": ["review text"]}` per
//! review, answered by a line `{"predicted_label": 5, "probability": …, "probabilities": […]}` each.
//!
//! *Plain*: one object with `text`, or with `review_body` and perhaps `review_headline`, answered by one
//! object with the same keys and `variant` and `latency_ms`.
//!
//! `probabilities` starts with that of one star. Unknown keys are ignored: clients send whole reviews.

use serde::{Deserialize, Serialize};

use crate::head::{Prediction, STARS};
use crate::reviews::join_headline;
use crate::serve::queue::Rated;

/// Most reviews in one request.
pub const MOST_LINES: usize = 64;

const EXPECTED: &str = "expected {\"features\": [\"review text\"]} on each line, or one object \
     {\"review_headline\": \"...\", \"review_body\": \"...\"} or {\"text\": \"...\"}";

/// Which form a request has; the answer has the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One answer per line.
    Lines,
    /// One answer.
    Plain,
}

impl Form {
    /// The answer's media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Lines => "application/jsonlines",
            Self::Plain => "application/json",
        }
    }
}

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The form of the request.
    pub form: Form,
    /// The reviews, at least one.
    pub texts: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Item {
    features: Option<Vec<String>>,
    text: Option<String>,
    review_headline: Option<String>,
    review_body: Option<String>,
}

impl Question {
    /// Reads a request's body.
    ///
    /// # Errors
    /// A message for the client: where the body is wrong and what was expected.
    pub fn parse(body: &[u8]) -> Result<Self, String> {
        let mut texts = Vec::new();
        let mut form = None;
        for (index, item) in serde_json::Deserializer::from_slice(body)
            .into_iter::<Item>()
            .enumerate()
        {
            let place = format!("item {}", index + 1);
            let item = item.map_err(|error| format!("{place}: {error}; {EXPECTED}"))?;
            let (found, text) = item.text().ok_or_else(|| format!("{place}: {EXPECTED}"))?;
            if text.trim().is_empty() {
                return Err(format!("{place}: the text is empty"));
            }
            if form.is_some_and(|form| form != found || form == Form::Plain) {
                return Err(format!(
                    "{place}: several reviews need the form of JSON lines; {EXPECTED}"
                ));
            }
            if texts.len() == MOST_LINES {
                return Err(format!(
                    "more than {MOST_LINES} reviews in one request: split it"
                ));
            }
            form = Some(found);
            texts.push(text);
        }
        let form = form.ok_or_else(|| format!("the body is empty; {EXPECTED}"))?;
        Ok(Self { form, texts })
    }
}

impl Item {
    fn text(self) -> Option<(Form, String)> {
        if let Some(features) = self.features {
            // Some pipelines split a review into headline and body.
            let text = features
                .iter()
                .rev()
                .fold(String::new(), |rest, part| join_headline(part, &rest));
            return Some((Form::Lines, text));
        }
        if let Some(text) = self.text {
            return Some((Form::Plain, text));
        }
        let body = self.review_body?;
        Some((
            Form::Plain,
            join_headline(&self.review_headline.unwrap_or_default(), &body),
        ))
    }
}

#[derive(Serialize)]
struct Line {
    predicted_label: u8,
    probability: f32,
    probabilities: [f32; STARS],
}

#[derive(Serialize)]
struct Plain<'a> {
    #[serde(flatten)]
    line: Line,
    variant: &'a str,
    latency_ms: f64,
}

fn line(prediction: &Prediction) -> Line {
    Line {
        predicted_label: prediction.stars(),
        probability: prediction.confidence(),
        probabilities: prediction.probabilities,
    }
}

/// The body of the answer.
///
/// # Errors
/// When it cannot be written as JSON.
pub fn answer(form: Form, rated: &Rated, variant: &str) -> serde_json::Result<Vec<u8>> {
    let mut body = Vec::new();
    for prediction in &rated.predictions {
        match form {
            Form::Lines => serde_json::to_writer(&mut body, &line(prediction))?,
            Form::Plain => {
                let latency_ms = (rated.model_milliseconds * 1e3).round() / 1e3;
                serde_json::to_writer(
                    &mut body,
                    &Plain {
                        line: line(prediction),
                        variant,
                        latency_ms,
                    },
                )?;
            }
        }
        body.push(b'\n');
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(form: Form, texts: &[&str]) -> Question {
        Question {
            form,
            texts: texts.iter().map(|text| (*text).to_owned()).collect(),
        }
    }

    #[test]
    fn both_forms_are_read() {
        for (body, expected) in [
            (
                r#"{"features": ["good"]}"#,
                question(Form::Lines, &["good"]),
            ),
            (
                "{\"features\": [\"a\"]}\n{\"features\": [\"b\"]}\n",
                question(Form::Lines, &["a", "b"]),
            ),
            (
                r#"{"features": ["Soft", "I like it."]}"#,
                question(Form::Lines, &["Soft. I like it."]),
            ),
            (
                r#"{"text": "good", "star_rating": 5}"#,
                question(Form::Plain, &["good"]),
            ),
            (
                r#"{"review_body": "good"}"#,
                question(Form::Plain, &["good"]),
            ),
            (
                r#"{"review_headline": "Soft", "review_body": "Good"}"#,
                question(Form::Plain, &["Soft. Good"]),
            ),
        ] {
            assert_eq!(Question::parse(body.as_bytes()), Ok(expected), "{body}");
        }
    }

    #[test]
    fn bad_bodies_are_explained() {
        let many = "{\"features\": [\"a\"]}\n".repeat(MOST_LINES + 1);
        for (body, expected) in [
            ("", "the body is empty"),
            ("not json", "item 1"),
            ("{\"features\": [\"a\"]}\n{\"features\": 3}", "item 2"),
            (r#"{"features": [5]}"#, "expected a string"),
            (r#"{"features": []}"#, "the text is empty"),
            (r#"{"text": " "}"#, "the text is empty"),
            (r#"{"review_headline": "only"}"#, "review_body"),
            ("{\"text\": \"a\"}{\"text\": \"b\"}", "JSON lines"),
            ("[1]", "item 1"),
            (&many, "more than 64 reviews"),
        ] {
            let message = Question::parse(body.as_bytes()).unwrap_err();
            assert!(message.contains(expected), "{body}: {message}");
        }
        assert!(Question::parse(b"{\"text\": \"\xff\"}").is_err());
    }

    #[test]
    fn the_label_is_a_number_in_the_first_line_of_both_forms() {
        let prediction = Prediction {
            probabilities: [0.0, 0.0, 0.0, 0.25, 0.75],
        };
        let rated = Rated {
            predictions: vec![prediction],
            queue_milliseconds: 0.0,
            model_milliseconds: 1.5,
        };
        for form in [Form::Lines, Form::Plain] {
            let body = answer(form, &rated, "test").unwrap();
            let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(value.pointer("/predicted_label").unwrap().as_u64(), Some(5));
            assert_eq!(value["probability"], 0.75);
            assert_eq!(value["probabilities"][3], 0.25);
            assert_eq!(value.get("latency_ms").is_some(), form == Form::Plain);
        }
    }
}
