//! The client against a proxy that misbehaves, and the comparison through the real one.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use star_rating::predict::{Answer, Row, Table};
use star_rating::reviews::{Review, write_table};
use star_rating::traffic::compare::stand_in::StandIns;
use star_rating::traffic::labels::{LabelCounts, Posting};
use star_rating::traffic::proxy::{Label, Proxy};
use star_rating::traffic::replay::{Arrivals, Pace, replay};
use star_rating::traffic::stream::{Item, Stream};
use star_rating::traffic::tally::Outcome;
use tokio::net::TcpListener;
use tokio::sync::mpsc::unbounded_channel;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What the fake proxy was told.
#[derive(Debug, Default)]
struct Told {
    /// Users and categories of the requests.
    senders: BTreeSet<(String, String)>,
    /// Accepted labels by decision id.
    labels: BTreeMap<String, u8>,
    /// How often each decision was labelled.
    posts: u64,
    decisions: u64,
}

/// How the fake proxy treats posts of labels.
#[derive(Debug, Clone, Copy)]
enum Mood {
    /// Refuses the first ones in every way that is worth another try.
    Shaky,
    /// Wants a token.
    Strict,
}

fn reply(status: u16, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status.try_into().expect("a status");
    response
}

async fn answer(
    told: Arc<Mutex<Told>>,
    mood: Mood,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    let header = |name: &str| head.headers[name].to_str().expect("text").to_owned();
    let mut told = told.lock().expect("no panic elsewhere");
    if head.uri.path() == "/v1/stars" {
        let question: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert!(question["features"][0].is_string(), "{question}");
        told.senders
            .insert((header("x-user-id"), header("x-product-category")));
        told.decisions += 1;
        let mut response = reply(
            200,
            "{\"predicted_label\": 4, \"probability\": 0.5}\n".to_owned(),
        );
        let headers = response.headers_mut();
        let id = format!("decision-{}", told.decisions);
        headers.insert("x-pointsman-decision", id.parse().expect("a header"));
        headers.insert("x-pointsman-arm", "only".parse().expect("a header"));
        return response;
    }
    assert_eq!(head.uri.path(), "/-/rewards");
    told.posts += 1;
    match (mood, told.posts) {
        (Mood::Strict, _) => return reply(401, "{\"title\": \"Unauthorized\"}".to_owned()),
        (Mood::Shaky, 1) => {
            return reply(
                503,
                "{\"title\": \"the journal cannot be written\"}".to_owned(),
            );
        }
        _ => {}
    }
    let labels: Vec<Label> = serde_json::from_slice(&body).expect("labels");
    let results: Vec<String> = labels
        .into_iter()
        .map(
            |label| match told.labels.insert(label.decision_id, label.label) {
                None => "{\"status\": \"accepted\"}".to_owned(),
                Some(_) => "{\"status\": \"duplicate\"}".to_owned(),
            },
        )
        .collect();
    // The second post is taken, but its sender does not hear of it.
    let status = if told.posts == 2 { 502 } else { 200 };
    reply(status, format!("{{\"results\": [{}]}}", results.join(",")))
}

async fn serve(listener: TcpListener, told: Arc<Mutex<Told>>, mood: Mood) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        let told = Arc::clone(&told);
        let service = service_fn(move |request| {
            let told = Arc::clone(&told);
            async move { Ok::<_, Infallible>(answer(told, mood, request).await) }
        });
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        connections.spawn(async move { connection.await.ok() });
    }
}

fn items() -> Arc<[Item]> {
    Item::of_table(&table()).into()
}

/// Twelve reviews; variant `good` is right on all, `poor` on every third.
fn table() -> Table {
    let rows = (0..12).map(|index: u8| {
        let stars = 1 + index % 5;
        let poor = if index.is_multiple_of(3) {
            stars
        } else {
            1 + (index + 1) % 5
        };
        Row {
            review_id: format!("R{index}"),
            product_category: ["Tops", "Electronics", "Movies"][usize::from(index % 3)].to_owned(),
            star_rating: stars,
            characters: 40,
            answers: [stars, poor]
                .map(|stars| Answer {
                    stars,
                    latency_milliseconds: 1.0,
                })
                .to_vec(),
        }
    });
    Table {
        variants: vec!["good".to_owned(), "poor".to_owned()],
        rows: rows.collect(),
    }
}

/// Replays `requests` reviews against a fake proxy.
fn send(requests: u64, mood: Mood) -> (Vec<Outcome>, LabelCounts, Told) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let told = Arc::new(Mutex::new(Told::default()));
    let (outcomes, labels) = runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let proxy = Proxy::at(
            &format!("http://{}", listener.local_addr().expect("an address")),
            None,
        )
        .expect("a client");
        let mut server = JoinSet::new();
        server.spawn(serve(listener, Arc::clone(&told), mood));
        let stream = Stream::new(
            items(),
            "Clothing=1,Electronics=1,Movies=1".parse().expect("a mix"),
            1,
        )
        .expect("a stream");
        let posting = Posting {
            delay: Duration::ZERO,
            patience: Duration::from_mins(1),
        };
        let pace = Pace {
            rate: None,
            arrivals: Arrivals::Poisson,
            concurrency: 4,
            requests: Some(requests),
            duration: None,
            posting,
            seed: 1,
        };
        let (_stop, stopped) = watch::channel(false);
        let (sender, mut received) = unbounded_channel();
        let labels = replay(proxy, stream, pace, stopped, sender).await;
        let mut outcomes = Vec::new();
        while let Ok(outcome) = received.try_recv() {
            outcomes.push(outcome);
        }
        (outcomes, labels)
    });
    drop(runtime);
    let told = std::mem::take(&mut *told.lock().expect("no panic elsewhere"));
    (outcomes, labels, told)
}

#[test]
fn every_decision_is_labelled_once_however_often_the_post_fails() {
    let (outcomes, labels, told) = send(40, Mood::Shaky);
    assert_eq!((outcomes.len(), labels.lost), (40, 0), "{labels:?}");
    assert_eq!(labels.counted(), 40, "{labels:?}");
    assert_eq!(labels.retries, 2, "{labels:?}");
    assert!(
        labels.statuses["duplicate"] > 0,
        "the second post was taken unheard: {labels:?}"
    );
    assert_eq!(told.labels.len(), 40);
    for outcome in &outcomes {
        let answered = outcome.answer.as_ref().unwrap();
        assert_eq!(told.labels[&answered.decision_id], outcome.stars);
        assert_eq!((answered.arm.as_str(), answered.predicted), ("only", 4));
    }
    assert!(
        told.senders
            .iter()
            .any(|(user, category)| user.starts_with("user-") && category == "Movies")
    );
}

#[test]
fn labels_that_are_refused_for_good_are_counted_as_lost() {
    let (_, labels, told) = send(5, Mood::Strict);
    assert_eq!(
        (labels.lost, labels.retries, told.labels.len()),
        (5, 0, 0),
        "{labels:?}"
    );
    assert!(
        labels.last_failure.as_ref().unwrap().contains("401"),
        "{labels:?}"
    );
}

#[test]
fn stand_ins_answer_like_the_models_they_stand_for() {
    let stand_ins = StandIns::start(&table()).unwrap();
    let ask = async |variant: &str, body: &'static str| {
        let url = format!("{}/v1/stars", stand_ins.endpoints()[variant][0]);
        let response = reqwest::Client::new()
            .post(url)
            .body(body)
            .send()
            .await
            .unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        assert_eq!(
            ask("good", "{\"features\": [\"R1   \"]}").await,
            (200, "{\"predicted_label\": 2}\n".to_owned())
        );
        assert_eq!(
            ask("poor", "{\"features\": [\"R1\"]}").await,
            (200, "{\"predicted_label\": 3}\n".to_owned())
        );
        assert_eq!(ask("good", "{\"features\": [\"R99\"]}").await.0, 400);
    });
}

fn star_rating(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_star-rating"))
        .args(arguments)
        .output()
        .unwrap()
}

fn write(path: &Path, write: impl FnOnce(&mut dyn std::io::Write)) -> String {
    write(&mut std::fs::File::create(path).unwrap());
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_client_without_a_proxy_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let review = Review {
        review_id: "WC1".to_owned(),
        product_id: "WC1".to_owned(),
        product_parent: "General".to_owned(),
        product_title: "Knits".to_owned(),
        product_category: "Tops".to_owned(),
        star_rating: 4,
        helpful_votes: 2,
        review_headline: "Soft".to_owned(),
        review_body: "Very soft.".to_owned(),
    };
    write(&folder.path().join("reviews.tsv"), |out| {
        write_table(&[review], out).unwrap();
    });
    let cache = folder.path().to_str().unwrap();
    let arguments = [
        "client",
        "--proxy",
        "http://127.0.0.1:1",
        "--requests",
        "2",
        "--mix",
        "Clothing=1",
        "--cache",
        cache,
    ];
    let output = star_rating(&arguments);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(
        message.contains("Is Pointsman running there") && message.contains("refused"),
        "{message}"
    );
}

#[test]
fn wrong_options_are_explained() {
    for (arguments, code, expected) in [
        (
            vec!["client", "--mix", "Toys=1"],
            64,
            "choose from Clothing, Electronics, Movies",
        ),
        (
            vec!["client", "--rate=-1"],
            1,
            "--rate must be a number of at least 0",
        ),
        (
            vec!["demo", "--minutes=-1"],
            1,
            "--minutes must be a time of at least 0",
        ),
        (vec!["demo", "--policy", "best"], 64, "lin_thompson"),
        (
            vec!["client", "--header", "x-experiment"],
            64,
            "expected NAME=VALUE",
        ),
        (vec!["compare", "--seeds", "0"], 1, "at least 1"),
        (
            vec!["compare", "--predictions", "/no/such/file"],
            1,
            "star-rating predict",
        ),
    ] {
        let output = star_rating(&arguments);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {message}");
        assert!(message.contains(expected), "{arguments:?}: {message}");
    }
}

/// A committed policy file with other arms, in `folder`; the arms' addresses are for `compare` to set.
fn policy_of(folder: &Path, file: &str, arms: [&str; 2]) -> String {
    let committed = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../policies")
        .join(file);
    let mut policy = std::fs::read_to_string(committed).unwrap();
    policy.truncate(policy.find("[[arm]]").unwrap());
    for arm in arms {
        policy.push_str(&format!(
            "[[arm]]\nname = \"{arm}\"\nendpoints = [\"http://127.0.0.1:1\"]\n"
        ));
    }
    write(&folder.join(file), |out| {
        out.write_all(policy.as_bytes()).unwrap();
    })
}

/// The report of 600 requests, 600 a second, under `policies`, on a third of each kind of review.
fn compare(folder: &Path, table: &Table, policy_file: &str, policies: &str) -> serde_json::Value {
    let predictions = write(&folder.join("predictions.tsv"), |out| {
        table.write(out).unwrap();
    });
    let mut arguments = vec![
        "compare",
        "--requests",
        "600",
        "--seeds",
        "1",
        "--rate",
        "600",
    ];
    arguments.extend(["--mix", "Clothing=1,Electronics=1,Movies=1"]);
    arguments.extend(["--format", "json", "--policies", policies]);
    arguments.extend(["--predictions", &predictions, "--policy-file", policy_file]);
    let output = star_rating(&arguments);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for run in report["runs"].as_array().unwrap() {
        assert_eq!(
            (run["rewards"].as_u64(), run["failed"].as_u64()),
            (Some(600), Some(0)),
            "{run}"
        );
    }
    report
}

fn result<'r>(report: &'r serde_json::Value, kind: &str) -> &'r serde_json::Value {
    let policies = report["policies"].as_array().unwrap();
    let mut results = policies.iter();
    results.find(|result| result["policy"] == kind).unwrap()
}

/// The whole path: the real proxy binary, built here if need be, learns which stand-in is right.
#[test]
fn the_real_proxy_learns_which_arm_is_right() {
    let folder = tempfile::tempdir().unwrap();
    let policy = policy_of(folder.path(), "star-rating.toml", ["poor", "good"]);
    let policies = "thompson,epsilon_greedy,fixed";
    let report = compare(folder.path(), &table(), &policy, policies);
    assert_eq!(report["best_arm"], "good");
    assert_eq!(report["runs"].as_array().unwrap().len(), 3, "{report:#}");
    let share = |kind: &str| {
        let share = &result(&report, kind)["best_arm_share"]["mean"];
        share.as_f64().unwrap()
    };
    assert!(share("thompson") > 0.8, "{report:#}");
    assert!(share("epsilon_greedy") > 0.7, "{report:#}");
    assert!((0.2..0.8).contains(&share("fixed")), "{report:#}");
}

/// Which of two arms is right depends on the category and the length, and the policy sees both as the client sends them.
#[test]
fn the_real_proxy_learns_which_arm_is_right_about_which_review() {
    let folder = tempfile::tempdir().unwrap();
    // One arm is right about clothing and short texts on electronics, the other about movies and long ones.
    let rows = (0..48).map(|index: u8| {
        let category = usize::from(index % 3);
        let characters = if index.is_multiple_of(2) { 20 } else { 400 };
        let first = category == 0 || (category == 1 && characters < 100);
        Row {
            review_id: format!("R{index}"),
            product_category: ["Tops", "Electronics", "Movies"][category].to_owned(),
            star_rating: 5,
            characters,
            answers: [first, !first]
                .map(|right| Answer {
                    stars: if right { 5 } else { 1 },
                    latency_milliseconds: 1.0,
                })
                .to_vec(),
        }
    });
    let table = Table {
        variants: vec!["first".to_owned(), "second".to_owned()],
        rows: rows.collect(),
    };
    let arms = ["first", "second"];
    let policy = policy_of(folder.path(), "star-rating-by-category.toml", arms);
    let policies = "lin_thompson,epsilon_greedy_linear,thompson";
    let report = compare(folder.path(), &table, &policy, policies);
    let late = |kind: &str| {
        let late = &result(&report, kind)["late_over_best"]["mean"];
        late.as_f64().unwrap()
    };
    // Either arm alone is right on half of all. A floor of 2 % and an epsilon of a tenth are never right on all.
    assert!(late("lin_thompson") > 0.35, "{report:#}");
    assert!(late("epsilon_greedy_linear") > 0.3, "{report:#}");
    assert!(late("thompson") < 0.1, "{report:#}");
    let shares = result(&report, "lin_thompson")["shares"]
        .as_array()
        .unwrap();
    let of_first = |category: &str| {
        let part = shares.iter().find(|part| part["category"] == category);
        part.unwrap()["shares"][0]["mean"].as_f64().unwrap()
    };
    assert!(of_first("clothing") > 0.85, "{report:#}");
    assert!(of_first("movies") < 0.15, "{report:#}");
    // Told apart by length alone.
    assert!((0.3..0.7).contains(&of_first("electronics")), "{report:#}");
    assert_eq!(report["lead"]["plain"], "thompson");
}

#[test]
fn a_policy_that_looks_at_reviews_needs_a_file_that_says_how() {
    let folder = tempfile::tempdir().unwrap();
    let policy = policy_of(folder.path(), "star-rating.toml", ["poor", "good"]);
    let output = star_rating(&[
        "compare",
        "--policy-file",
        &policy,
        "--policies",
        "contextual",
    ]);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(
        message.contains("star-rating.toml: lin_thompson needs a policy file with [context.NAME]"),
        "{message}"
    );
}
