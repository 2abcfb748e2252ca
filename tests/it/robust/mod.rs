//! What the data plane promises under abuse: clients and upstreams that refuse, reset, hang, drip and lie.

mod abort;
mod budget;
mod drain;
mod expect;
mod failures;
mod forwarding;
mod grpc;
mod health;
mod http2;
mod lies;
mod limits;
mod memory;
mod model;
mod pass_through;
mod preface;
mod refusals;
mod replacing;
mod retries;
mod secured;
mod silence;
mod streaming;
mod timeouts;
mod tls;
mod upgrade;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use crate::harness::upstream::Upstream;
use crate::harness::{Proxy, eventually, journal};

pub const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
pub const GET: &[u8] = b"GET /v1/stars HTTP/1.1\r\nhost: a\r\n\r\n";

/// A policy file with these tables and these arms, each with these endpoints. The first is the baseline; where there are several, only the
/// others are drawn.
pub fn policy(tables: &str, arms: &[(&str, &[SocketAddr])]) -> String {
    let mut text = format!(
        "[match]\npath = \"/v1/stars\"\n[policy.fixed]\n[reward]\nkind = \"binary\"\nwindow = \"1h\"\n{tables}\n"
    );
    for (index, (name, endpoints)) in arms.iter().enumerate() {
        let weight = u8::from(index > 0 || arms.len() == 1);
        let endpoints: Vec<String> = endpoints
            .iter()
            .map(|endpoint| format!("\"http://{endpoint}\""))
            .collect();
        text.push_str(&format!(
            "[[arm]]\nname = \"{name}\"\nweight = {weight}\nendpoints = [{}]\n",
            endpoints.join(", ")
        ));
    }
    text
}

/// A server with these settings and one arm `a` with these endpoints.
pub fn one_arm(settings: &str, tables: &str, endpoints: &[SocketAddr]) -> Proxy {
    let text = policy(tables, &[("a", endpoints)]);
    let mut proxy = Proxy::prepare(&[("stars", &text)], settings);
    proxy.run();
    proxy
}

/// A server with a baseline `a` that nothing is drawn for, and an arm `b` that everything is drawn for.
pub fn with_baseline(tables: &str, a: &[SocketAddr], b: &[SocketAddr]) -> Proxy {
    Proxy::start(&[("stars", &policy(tables, &[("a", a), ("b", b)]))])
}

/// The journal's lines of a type, once there are at least so many.
pub fn lines(proxy: &Proxy, kind: &str, count: usize) -> Vec<Value> {
    eventually(&format!("{count} lines of type {kind}"), || {
        let mut lines = journal(&proxy.data());
        lines.retain(|line| line["type"] == kind);
        (lines.len() >= count).then_some(lines)
    })
}

/// How exchanges ended, in order, once at least so many have.
pub fn endings(proxy: &Proxy, count: usize) -> Vec<String> {
    lines(proxy, "outcome", count)
        .iter()
        .map(|line| line["ending"].as_str().unwrap().to_owned())
        .collect()
}

/// Whether a problem says when to come again.
pub fn is_overload(answer: &crate::harness::http::Answer) -> bool {
    answer.status == 503
        && answer.header("retry-after").is_some()
        && answer.header("content-type") == Some("application/problem+json")
}

/// An endpoint of HTTP/1.1 that answers with each request's chunks as they come, trailers included. A request without a body gets none.
pub fn echo_chunks() -> Upstream {
    Upstream::connections(|_, stream| {
        let mut reader = BufReader::new(stream);
        while let Some(head) = read_head(&mut reader) {
            let is_chunked = head.to_ascii_lowercase().contains("transfer-encoding");
            let answer = if is_chunked {
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
            } else {
                "HTTP/1.1 204 No Content\r\n\r\n"
            };
            reader.get_mut().write_all(answer.as_bytes()).unwrap();
            if is_chunked && echo_body(&mut reader).is_none() {
                return;
            }
        }
    })
}

fn echo_body(reader: &mut BufReader<TcpStream>) -> Option<()> {
    loop {
        let mut chunk = String::new();
        reader.read_line(&mut chunk).ok()?;
        let size = usize::from_str_radix(chunk.trim(), 16).ok()?;
        let mut chunk = chunk.into_bytes();
        if size == 0 {
            let trailers = read_head(reader)?;
            chunk.extend_from_slice(trailers.as_bytes());
            return reader.get_mut().write_all(&chunk).ok();
        }
        let start = chunk.len();
        chunk.resize(start + size + 2, 0);
        reader.read_exact(&mut chunk[start..]).ok()?;
        reader.get_mut().write_all(&chunk).ok()?;
    }
}

/// Reads lines up to an empty one.
pub fn read_head(reader: &mut BufReader<TcpStream>) -> Option<String> {
    let mut head = String::new();
    loop {
        let start = head.len();
        if !matches!(reader.read_line(&mut head), Ok(1..)) {
            return None;
        }
        if &head[start..] == "\r\n" {
            return Some(head);
        }
    }
}
