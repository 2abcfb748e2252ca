//! What a client says to Pointsman: "rate this review", and later "these were the true stars".

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use reqwest::StatusCode;
use serde::{Deserialize, Serialize};

use super::stream::Item;
use super::tally::Answered;

/// A request that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The header with a review's product category.
pub const CATEGORY_HEADER: &str = "x-product-category";

/// The true stars of one decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// From the response header `x-pointsman-decision`.
    pub decision_id: String,
    /// The true stars, 1 to 5.
    pub label: u8,
}

/// How many labels ended in which status.
pub type Statuses = BTreeMap<String, u64>;

/// Why a batch of labels was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Worth another try: the proxy is away or cannot write just now.
    Later(String),
    /// No use trying again.
    Never(String),
}

/// The listener of a running proxy.
#[derive(Debug, Clone)]
pub struct Proxy {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
    headers: Vec<(String, String)>,
}

#[derive(Serialize)]
struct Question<'a> {
    features: [&'a str; 1],
}

#[derive(Deserialize)]
struct Prediction {
    predicted_label: u8,
}

#[derive(Deserialize)]
struct RewardResults {
    results: Vec<RewardResult>,
}

#[derive(Deserialize)]
struct RewardResult {
    status: String,
}

impl Proxy {
    /// The proxy at `base`, for example `http://127.0.0.1:8080`; `token` is its `auth.client_token`.
    ///
    /// # Errors
    /// When the HTTP client cannot be set up.
    pub fn at(base: &str, token: Option<&str>) -> Result<Self> {
        let http = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .tcp_nodelay(true)
            .build()
            .context("cannot set up the HTTP client")?;
        Ok(Self {
            http,
            base: base.trim_end_matches('/').to_owned(),
            token: token.map(str::to_owned),
            headers: Vec::new(),
        })
    }

    /// This proxy, asked with these headers as well: names and values.
    #[must_use]
    pub fn with_headers(self, headers: Vec<(String, String)>) -> Self {
        Self { headers, ..self }
    }

    /// Has one review rated.
    ///
    /// # Errors
    /// A short reason when there is no usable answer.
    pub async fn rate(&self, item: &Item, user: usize) -> Result<Answered, String> {
        let mut request = self
            .http
            .post(format!("{}/v1/stars", self.base))
            .header("x-user-id", format!("user-{user}"))
            .header(CATEGORY_HEADER, &item.category);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let response = request
            .json(&Question {
                features: [&item.text],
            })
            .send()
            .await
            .map_err(|error| reason(&error))?;
        let header = |name: &str| {
            response
                .headers()
                .get(name)
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned)
        };
        let (decision_id, arm) = (header("x-pointsman-decision"), header("x-pointsman-arm"));
        let status = response.status();
        let body = response.bytes().await.map_err(|error| reason(&error))?;
        if !status.is_success() {
            return Err(format!("HTTP {}: {}", status.as_u16(), excerpt(&body)));
        }
        let decision_id = decision_id
            .ok_or("the answer has no x-pointsman-decision header: is this address Pointsman's?")?;
        let arm = arm.ok_or("the answer has no x-pointsman-arm header")?;
        // JSON lines: the first line answers the only review.
        let predicted = serde_json::Deserializer::from_slice(&body)
            .into_iter::<Prediction>()
            .next();
        let predicted = predicted
            .and_then(Result::ok)
            .ok_or_else(|| {
                format!(
                    "expected {{\"predicted_label\": ...}}, got {}",
                    excerpt(&body)
                )
            })?
            .predicted_label;
        Ok(Answered {
            arm,
            predicted,
            decision_id,
        })
    }

    /// Posts labels. Posting a label twice is harmless: a decision counts once.
    ///
    /// # Errors
    /// When the batch as a whole was not taken, and whether to try again.
    pub async fn post_labels(&self, labels: &[Label]) -> Result<Statuses, Refusal> {
        let mut request = self
            .http
            .post(format!("{}/-/rewards", self.base))
            .json(labels);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let response = request
            .send()
            .await
            .map_err(|error| Refusal::Later(reason(&error)))?;
        let status = response.status();
        let body = response
            .bytes()
            .await
            .map_err(|error| Refusal::Later(reason(&error)))?;
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return Err(Refusal::Later(format!(
                "HTTP {}: {}",
                status.as_u16(),
                excerpt(&body)
            )));
        }
        let results = serde_json::from_slice::<RewardResults>(&body)
            .map(|answer| answer.results)
            .unwrap_or_default();
        if results.len() != labels.len() {
            return Err(Refusal::Never(format!(
                "HTTP {}: {}",
                status.as_u16(),
                excerpt(&body)
            )));
        }
        let mut statuses = Statuses::new();
        for result in results {
            *statuses.entry(result.status).or_default() += 1;
        }
        Ok(statuses)
    }
}

/// The innermost cause, which is the telling one: reqwest's own words repeat the address.
fn reason(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// The start of a body, on one line.
fn excerpt(body: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(body)
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    match text.char_indices().nth(200) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excerpts_are_short_and_on_one_line() {
        assert_eq!(excerpt(b"a\n b"), "a b");
        assert_eq!(
            excerpt("\u{e9}".repeat(300).as_bytes()).chars().count(),
            203
        );
    }
}
