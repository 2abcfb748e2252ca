//! A thread that looks after endpoints: it asks them whether they are well, where the policy file says so, and tells the learner which arms have
//! lost their last available endpoint, or have one again.
//!
//! Not here: what an answer says of an endpoint ([`super::endpoint`]), and what the learner makes of it.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;

use super::body::Source;
use super::client::Client;
use super::grpc::GrpcStatus;
use super::headers::{Head, Origin, Outgoing};
use super::router::Route;
use super::timer::{TICK, Timers};
use super::upstream::relay::{Bounds, Observer, Parties, Relay};
use super::upstream::{EndpointState, Pool};
use super::worker::{Peer, Phase, Role, Shared};
use crate::config::settings::{Forwarding, ForwardingMode, ForwardingStyle};
use crate::engine::snapshot::Serving;
use crate::experiment::id::SequenceKey;
use crate::experiment::upstream::{HealthRule, HostRule, Probe, Protocol, Scheme};
use crate::http1::head::{Limits, Request, Response};
use crate::learner::Availability;

/// Bytes of a probe's answer that are looked at.
const ANSWER: usize = 1 << 10;

/// What `grpc.health.v1.HealthCheckResponse` is when its status is SERVING: field 1, a varint of 1.
const SERVING: &[u8] = &[8, 1];

/// Watches until the process drains. Call on a thread of its own.
///
/// # Errors
///
/// The runtime could not be made.
pub fn run(shared: Arc<Shared>, availability: &Availability) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())?;
    runtime.block_on(async move {
        let timers = Rc::new(Timers::new(shared.started));
        let prober = Rc::new(Prober {
            pool: Pool::new(&timers, &Rc::default()),
            timers,
        });
        let mut ticks = tokio::time::interval(TICK);
        while *shared.phase.borrow() < Phase::Draining {
            ticks.tick().await;
            prober.timers.tick();
            let published = shared.published.load_full();
            let routes = published.router.routes.iter();
            for (route, serving) in routes.zip(&published.experiments) {
                tell(route, serving, availability, prober.timers.now());
                let Some(rule) = &route.access.rule.health else {
                    continue;
                };
                for state in route.arms.iter().flat_map(|arm| &arm.target.endpoints) {
                    if is_due(state, rule, prober.timers.now()) {
                        let (prober, shared) = (Rc::clone(&prober), Arc::clone(&shared));
                        let (state, rule) = (Arc::clone(state), rule.clone());
                        tokio::task::spawn_local(async move {
                            if prober.probe(&state, &rule).await {
                                shared.published.load().router.look_again();
                            }
                        });
                    }
                }
            }
        }
    });
    Ok(())
}

/// Tells the learner of arms whose reach has changed.
fn tell(route: &Route, serving: &Serving, availability: &Availability, now: u64) {
    if !route.is_degraded.load(Ordering::Acquire) {
        return;
    }
    let is_whole = || route.arms.iter().all(|arm| arm.target.is_available(now));
    if is_whole() {
        // Whoever has lost an endpoint in between may have said so before that: it reads what they said, and so sees what they did.
        route.is_degraded.swap(false, Ordering::AcqRel);
        if !is_whole() {
            route.is_degraded.store(true, Ordering::Release);
        }
    }
    let arms = route.arms.iter().zip(&serving.experiment.arms);
    let states = arms.map(|(route, arm)| {
        let target = &route.target;
        (arm.id, target.is_available(now), &target.load.reach)
    });
    let states: Vec<_> = states.collect();
    let news = states
        .iter()
        .filter(|(_, available, reach)| reach.note(*available));
    let news: Vec<_> = news.map(|(arm, available, _)| (*arm, *available)).collect();
    for (arm, available) in &news {
        tracing::warn!(experiment = %serving.experiment.name, ?arm, available, "an arm's endpoints");
    }
    if !news.is_empty() {
        availability.tell(serving.experiment.id, news);
    }
}

fn is_due(state: &EndpointState, rule: &HealthRule, now: u64) -> bool {
    let last = state.probed.load(Ordering::Relaxed);
    let due = last == 0 || now >= last + rule.interval;
    if due {
        state.probed.store(now.max(1), Ordering::Relaxed);
    }
    due
}

struct Prober {
    timers: Rc<Timers>,
    pool: Pool,
}

impl Prober {
    /// Whether this has changed if the endpoint may serve.
    async fn probe(&self, state: &EndpointState, rule: &HealthRule) -> bool {
        let asked = self.ask(state, rule);
        let passed = tokio::time::timeout(Duration::from_millis(rule.timeout), asked)
            .await
            .unwrap_or(false);
        let changed = state.standing.probed(passed, self.timers.now(), rule);
        if let Some(healthy) = changed {
            tracing::warn!(endpoint = %state.authority, healthy, "an endpoint's probes");
        }
        changed.is_some()
    }

    /// Asks once, over a connection of its own: whether one can be made is part of the question.
    async fn ask(&self, state: &EndpointState, rule: &HealthRule) -> bool {
        let (request, body, protocol) = match &rule.probe {
            Probe::Http { path } => (plain(path), Bytes::new(), state.protocol),
            Probe::Grpc { service } => (grpc(), question(service), Protocol::Http2),
        };
        let Some(request) = request else {
            return false;
        };
        let mut link = match self.pool.open(state, protocol).await {
            Ok(link) => link,
            Err(error) => {
                state.complain(self.timers.now(), &error);
                return false;
            }
        };
        let address = ([127, 0, 0, 1], 0).into();
        let peer = Peer {
            address,
            role: Role::Requests,
            origin: Origin::new(address, false),
        };
        let outgoing = Outgoing {
            request: &request,
            peer: &peer,
            forwarding: Forwarding {
                mode: ForwardingMode::Off,
                style: ForwardingStyle::XForwarded,
                via: false,
            },
            sequence: SequenceKey {
                origin: 0,
                worker: 0,
                counter: 0,
            },
            identity: false,
            websocket: false,
            is_whole: true,
            deadline: None,
            shadow: None,
        };
        let relay = Relay {
            outgoing: &outgoing,
            host: &HostRule::Endpoint,
            path: None,
            authority: &state.authority,
            is_tls: state.endpoint.scheme == Scheme::Https,
            bounds: Bounds {
                response: rule.timeout,
                idle: rule.timeout,
                progress: rule.timeout,
                head: Limits {
                    fields: 100,
                    bytes: 16 << 10,
                },
            },
            timers: &self.timers,
            refused: &[],
        };
        let mut answer = Answer::default();
        let parties = Parties {
            source: &mut Source::memory(body),
            client: &mut Client::nobody(false),
            observer: &mut answer,
            copying: &mut None,
        };
        let mut response = Response::default();
        let relayed = relay.run(&mut link, parties, &mut response).await;
        relayed.is_ok() && answer.is_well(&rule.probe)
    }
}

fn plain(path: &str) -> Option<Request> {
    let mut request = Request::default();
    request.make("GET", path).ok()?;
    request.fields.push(b"user-agent", b"pointsman-health");
    Some(request)
}

fn grpc() -> Option<Request> {
    let mut request = Request::default();
    request.make("POST", "/grpc.health.v1.Health/Check").ok()?;
    request.fields.push(b"content-type", b"application/grpc");
    request.fields.push(b"te", b"trailers");
    request.fields.push(b"user-agent", b"pointsman-health");
    Some(request)
}

/// A `HealthCheckRequest` as gRPC frames it: not compressed, its length in four bytes, and field 1 (a text) if it is not empty.
fn question(service: &str) -> Bytes {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(10);
        // A varint; a name of a service fits into two of its bytes.
        let length = service.len().min(0x3fff);
        if length > 0x7f {
            message.push((length & 0x7f) as u8 | 0x80);
            message.push((length >> 7) as u8);
        } else {
            message.push(length as u8);
        }
        message.extend_from_slice(&service.as_bytes()[..length]);
    }
    let mut framed = vec![0];
    framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
    framed.extend_from_slice(&message);
    framed.into()
}

/// What a probe got.
#[derive(Debug, Default)]
struct Answer {
    status: u16,
    body: Vec<u8>,
}

impl Answer {
    fn is_well(&self, probe: &Probe) -> bool {
        (200..300).contains(&self.status)
            && match probe {
                Probe::Http { .. } => true,
                Probe::Grpc { .. } => self.body.get(5..).is_some_and(|body| body == SERVING),
            }
    }
}

impl Head for Answer {}

impl Observer for Answer {
    fn answered(&mut self, status: u16) {
        self.status = status;
    }

    fn passes(&mut self, data: &[u8]) -> bool {
        let room = ANSWER - self.body.len().min(ANSWER);
        self.body.extend_from_slice(&data[..data.len().min(room)]);
        true
    }

    fn ended(&mut self, _: Option<GrpcStatus>) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grpc_question_is_framed() {
        assert_eq!(*question(""), [0, 0, 0, 0, 0]);
        assert_eq!(*question("ab"), [0, 0, 0, 0, 4, 10, 2, b'a', b'b']);
        let long = question(&"x".repeat(200));
        assert_eq!(long[5..8], [10, 0xc8, 1]);
    }

    #[test]
    fn an_answer_is_well_by_its_kind() {
        let grpc = Probe::Grpc {
            service: String::new(),
        };
        let http = Probe::Http { path: "/".into() };
        let answer = |status, body: &[u8]| Answer {
            status,
            body: body.to_vec(),
        };
        assert!(answer(204, b"").is_well(&http));
        assert!(!answer(503, b"").is_well(&http));
        assert!(answer(200, &[0, 0, 0, 0, 2, 8, 1]).is_well(&grpc));
        assert!(!answer(200, &[0, 0, 0, 0, 2, 8, 2]).is_well(&grpc));
        assert!(!answer(200, b"").is_well(&grpc));
    }
}
