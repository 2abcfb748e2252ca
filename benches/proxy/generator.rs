//! The load generator: one thread, one epoll, requests made beforehand. A process of its own, so that its time is not counted as the proxy's.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::time::Duration;

use crate::client::{Arrived, Client, stamps};
use crate::http;
use crate::plan::{Load, Mode, Outcome, Plan, Quantiles};
use crate::poll::{Interest, Poller, Ready, nanoseconds};
use crate::process::cpu;
use crate::request::{Kind, Requests, reward};

const SECOND: f64 = 1e9;
/// A run is given up when nothing has been answered for so long (valgrind is slow).
const SILENCE: u64 = 60_000_000_000;
/// Requests in flight while idle connections are made, so that few connections to the upstream are.
const IDLE_TOGETHER: usize = 8;

/// Arrivals of a Poisson process.
#[derive(Debug)]
struct Arrivals {
    rate: f64,
    next: u64,
    state: u64,
    /// Due and not yet sent.
    waiting: VecDeque<u64>,
}

impl Arrivals {
    /// Moves what is due by now to those that wait.
    fn advance(&mut self, now: u64) {
        while self.next <= now {
            self.waiting.push_back(self.next);
            // splitmix64
            self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let uniform = ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64;
            self.next += ((-(1.0 - uniform).ln() / self.rate) * SECOND) as u64;
        }
    }
}

struct Generator {
    plan: Plan,
    poller: Poller,
    clients: Vec<Client>,
    /// Clients without a request, of open loops.
    free: Vec<usize>,
    arrivals: Option<Arrivals>,
    requests: Requests,
    sent: u64,
    last_answer: u64,
    /// The measured window has begun.
    measures: bool,
    /// When it did, and the proxy's CPU time until then.
    began: u64,
    cpu_before: u64,
    latencies: Vec<u64>,
    firsts: Vec<u64>,
    outcome: Outcome,
    buffer: Vec<u8>,
}

/// Runs a plan and writes its outcome.
pub(crate) fn run(plan: Plan) -> io::Result<()> {
    let idle = plan.mode == Mode::Idle;
    let mut generator = Generator::new(plan)?;
    let outcome = generator.run()?;
    writeln!(io::stdout(), "{}", serde_json::to_string(&outcome)?)?;
    io::stdout().flush()?;
    if idle {
        io::stdin().read_to_end(&mut Vec::new())?;
    }
    Ok(())
}

impl Generator {
    fn new(plan: Plan) -> io::Result<Self> {
        let poller = Poller::new()?;
        let mut clients = Vec::with_capacity(plan.connections);
        for token in 0..plan.connections {
            let client = Client::connect(plan.address, plan.load == Load::Mixed)?;
            poller.add(&client.stream, token)?;
            clients.push(client);
        }
        let now = nanoseconds();
        let arrivals = match plan.mode {
            Mode::Open { rate, .. } => Some(Arrivals {
                rate,
                next: now,
                state: now,
                waiting: VecDeque::new(),
            }),
            _ => None,
        };
        Ok(Self {
            free: (0..clients.len()).collect(),
            plan,
            poller,
            clients,
            arrivals,
            requests: Requests::new(),
            sent: 0,
            last_answer: now,
            measures: false,
            began: now,
            cpu_before: 0,
            latencies: Vec::new(),
            firsts: Vec::new(),
            outcome: Outcome::default(),
            buffer: vec![0; 65_536],
        })
    }

    /// How many requests there will be, and for how many nanoseconds.
    fn bounds(&self) -> (u64, u64) {
        let (count, seconds) = match self.plan.mode {
            Mode::Count(count) => (count, f64::INFINITY),
            Mode::Idle => (self.plan.connections as u64, f64::INFINITY),
            Mode::Closed(seconds) | Mode::Open { seconds, .. } => (u64::MAX, seconds),
        };
        (count, (seconds * SECOND) as u64)
    }

    fn run(&mut self) -> io::Result<Outcome> {
        let (count, span) = self.bounds();
        self.begin();
        let warm = self.began + (self.plan.warm * SECOND) as u64;
        self.measures = self.plan.warm == 0.0;
        if self.arrivals.is_none() {
            let together = match self.plan.mode {
                Mode::Idle => self.clients.len().min(IDLE_TOGETHER),
                _ => self.clients.len(),
            };
            for token in 0..together {
                self.next_request(token, count)?;
            }
        }
        let mut ready = Vec::new();
        loop {
            let now = nanoseconds();
            if !self.measures && now >= warm && span < u64::MAX {
                self.measures = true;
                self.begin();
            }
            let over = self.measures && now.saturating_sub(self.began) >= span;
            if over || self.outcome.requests + self.outcome.errors >= count {
                return Ok(self.end());
            }
            if now.saturating_sub(self.last_answer) > SILENCE {
                self.complain("nothing was answered for a minute".to_owned());
                return Ok(self.end());
            }
            let longest = self.send_due(now)?;
            self.poller.wait(&mut ready, longest)?;
            for ready in &ready {
                self.serve(*ready, count)?;
            }
        }
    }

    /// Begins to count: requests, time and the proxy's CPU time.
    fn begin(&mut self) {
        self.outcome.requests = 0;
        self.began = nanoseconds();
        self.cpu_before = cpu(&self.plan.watch);
    }

    fn end(&mut self) -> Outcome {
        let (span, spent) = (
            nanoseconds().saturating_sub(self.began),
            cpu(&self.plan.watch).saturating_sub(self.cpu_before),
        );
        Outcome {
            seconds: span as f64 / SECOND,
            cpu: spent as f64 / 1e3,
            latency: Quantiles::of(&mut self.latencies),
            first: Quantiles::of(&mut self.firsts),
            ..std::mem::take(&mut self.outcome)
        }
    }

    fn complain(&mut self, complaint: String) {
        self.outcome.errors += 1;
        self.outcome.complaint.get_or_insert(complaint);
    }

    /// Sends what is due in an open loop, and says how long to wait.
    fn send_due(&mut self, now: u64) -> io::Result<Duration> {
        let Some(arrivals) = self.arrivals.as_mut() else {
            return Ok(Duration::from_millis(20));
        };
        arrivals.advance(now);
        let next = arrivals.next;
        while let Some(token) = self.free.pop() {
            let due = self
                .arrivals
                .as_mut()
                .and_then(|arrivals| arrivals.waiting.pop_front());
            let Some(due) = due else {
                self.free.push(token);
                break;
            };
            self.send(token, due)?;
        }
        let left = next.saturating_sub(nanoseconds()).min(20_000_000);
        Ok(Duration::from_nanos(left))
    }

    /// What a client does without a request: the next one of a closed loop, or wait for one to be due.
    fn next_request(&mut self, token: usize, count: u64) -> io::Result<()> {
        if self.arrivals.is_some() {
            self.free.push(token);
            return Ok(());
        }
        if self.sent >= count {
            return Ok(());
        }
        let token = match self.plan.mode {
            Mode::Idle => self.sent as usize,
            _ => token,
        };
        self.send(token, nanoseconds())
    }

    fn send(&mut self, token: usize, due: u64) -> io::Result<()> {
        let mut kind = Requests::kind(self.plan.load, self.sent);
        let client = &mut self.clients[token];
        let decision = client.decision.take();
        if let (Kind::Reward, Some(decision)) = (kind, &decision) {
            client.output.push(&reward(decision));
        } else {
            if kind == Kind::Reward {
                kind = Kind::Small;
            }
            client.output.push(self.requests.bytes(kind, self.sent));
        }
        client.request = Some((due, nanoseconds(), kind));
        self.sent += 1;
        self.flush(token)
    }

    fn flush(&mut self, token: usize) -> io::Result<()> {
        let client = &mut self.clients[token];
        // A connection that is broken says so when it is read from.
        let waits = matches!(client.output.flush(&client.stream), Ok(false));
        if waits != client.waits_to_write {
            client.waits_to_write = waits;
            let interest = if waits {
                Interest::Both
            } else {
                Interest::Input
            };
            self.poller.change(&client.stream, token, interest)?;
        }
        Ok(())
    }

    fn serve(&mut self, ready: Ready, count: u64) -> io::Result<()> {
        let token = ready.token;
        if ready.output {
            self.flush(token)?;
        }
        if !ready.input {
            return Ok(());
        }
        let client = &mut self.clients[token];
        let arrived = match http::read(&client.stream, &mut self.buffer) {
            Ok(None) => return Ok(()),
            Ok(Some(read)) => {
                let now = nanoseconds();
                self.note_events(token, read, now);
                self.clients[token].take(&self.buffer[..read])
            }
            Err(_) if client.request.is_none() => {
                self.outcome.reconnects += 1;
                return self.reconnect(token);
            }
            Err(error) => Err(format!("a connection: {error}")),
        };
        match arrived {
            Ok(Arrived::Part) => return Ok(()),
            Ok(Arrived::Whole) => self.note_answer(token),
            Err(complaint) => {
                self.complain(complaint);
                self.reconnect(token)?;
            }
        }
        self.next_request(token, count)
    }

    fn reconnect(&mut self, token: usize) -> io::Result<()> {
        let client = Client::connect(self.plan.address, self.plan.load == Load::Mixed)?;
        self.poller.add(&client.stream, token)?;
        self.clients[token] = client;
        Ok(())
    }

    /// Measures the delay of events among the bytes just read.
    fn note_events(&mut self, token: usize, read: usize, now: u64) {
        if self.plan.load != Load::Events {
            return;
        }
        let client = &mut self.clients[token];
        let Some((_, sent, _)) = client.request else {
            return;
        };
        for stamp in stamps(&self.buffer[..read]) {
            let first = !std::mem::replace(&mut client.seen_event, true);
            if self.measures && first {
                self.firsts.push(now.saturating_sub(sent));
            }
            if self.measures {
                self.latencies.push(now.saturating_sub(stamp));
            }
        }
    }

    fn note_answer(&mut self, token: usize) {
        let now = nanoseconds();
        self.last_answer = now;
        self.outcome.requests += 1;
        let Some((due, ..)) = self.clients[token].request.take() else {
            return;
        };
        let timed = !matches!(self.plan.mode, Mode::Count(_) | Mode::Idle);
        if timed && self.measures && self.plan.load != Load::Events {
            self.latencies.push(now.saturating_sub(due));
        }
    }
}
