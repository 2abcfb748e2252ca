//! The keys of `[upstream]`, and those of them that an `[[arm]]` may have as well.

use super::{off, optional, required};
use crate::document::{Field, Kind, Range};

const SHARE: Kind = Kind::Number(Range::closed(0.0, 1.0));
const TIME: Kind = Kind::Duration { zero: false };

/// What is spoken with endpoints.
pub(super) const PROTOCOLS: Kind = Kind::Choice(&["auto", "http1", "http2"]);

/// `rewrite_path`.
pub(super) const REWRITE_PATH: &[Field] = &[
    required(
        "from",
        Kind::Text,
        "The start of the path that is replaced, by segment: it starts and ends with /. Paths that do not start with it stay as they are.",
    ),
    required(
        "to",
        Kind::Text,
        "What stands there instead; starts and ends with /.",
    ),
];

/// `[upstream]`.
pub(super) const UPSTREAM: &[Field] = &[
    optional(
        "connect_timeout",
        TIME,
        "\"1s\"",
        "Time to connect to an endpoint, the handshake of TLS included.",
    ),
    optional(
        "response_timeout",
        TIME,
        "\"60s\"",
        "Time from the end of the request to the head of the response; 504 after that. (How long a client may be silent within a request is limits.progress_timeout.)",
    ),
    optional(
        "idle_timeout",
        TIME,
        "\"60s\"",
        "Longest silence within a response.",
    ),
    off(
        "total_timeout",
        TIME,
        "Time for the whole exchange, from the request's head to the response's end, retries included. Without it a response that keeps coming may take as long as it likes.",
    ),
    off(
        "deadline_header",
        Kind::Text,
        "A request header in which endpoints are told how many milliseconds are left: of total_timeout, or without one of response_timeout. A client's own one is replaced.",
    ),
    optional(
        "protocol",
        PROTOCOLS,
        "\"auto\"",
        "What is spoken with endpoints. \"auto\": with https:// what ALPN agrees on, with http:// HTTP/1.1. \"http2\" with http:// starts with HTTP/2 at once (prior knowledge), as gRPC servers want it.",
    ),
    optional(
        "host",
        Kind::Text,
        "\"keep\"",
        "The host that endpoints see. \"keep\": the client's. \"endpoint\": the endpoint's own. Anything else is itself the host, with a port if need be.",
    ),
    off(
        "rewrite_path",
        Kind::Table(REWRITE_PATH),
        "Replaces the start of the path, as in { from = \"/v1/\", to = \"/\" }.",
    ),
    off(
        "model_field",
        Kind::Text,
        "JSON pointer of the text in the request's body that each arm's `model` replaces, as \"/model\" for servers that speak OpenAI's API. The body is read whole for it (limits.buffered_body).",
    ),
    optional(
        "max_in_flight",
        Kind::Integer(0, 1_000_000),
        "0",
        "Most requests in flight to one arm, of all workers. Those beyond it fail at once: the baseline answers, or, where that is as full, 503 with Retry-After. 0: no limit.",
    ),
    optional(
        "max_pending",
        Kind::Integer(1, 1_000_000),
        "1024",
        "Most connections that are being opened to one endpoint, by all workers. Requests that would need one more fail at once: the baseline answers, or 503 with Retry-After.",
    ),
    optional(
        "slow_start",
        Kind::Duration { zero: true },
        "\"0s\"",
        "How long an endpoint that has become healthy gets less than its share, growing evenly. \"0s\": not at all.",
    ),
    off(
        "retry",
        Kind::Table(RETRY),
        "When a request is tried again within its arm. A retry is the same decision. Without this table its defaults hold.",
    ),
    off(
        "health",
        Kind::Table(HEALTH),
        "Asks every endpoint at intervals whether it is well; those that are not get no requests, and an arm without any leaves the allocation. \
         Give exactly one of path and grpc. Without this table endpoints are taken for healthy.",
    ),
    off(
        "ejection",
        Kind::Table(EJECTION),
        "Lets endpoints rest that fail requests. Without this table its defaults hold.",
    ),
    off(
        "tls",
        Kind::Table(TLS),
        "How TLS to endpoints is verified; only with https:// endpoints. Without this table the machine's authorities are trusted.",
    ),
];

const RETRY: &[Field] = &[
    optional(
        "attempts",
        Kind::Integer(0, 10),
        "2",
        "Further tries of one request. 0: none. A pooled connection that turns out to be closed does not count.",
    ),
    optional(
        "idempotent",
        Kind::Boolean,
        "false",
        "false: only GET, HEAD, OPTIONS, TRACE, PUT and DELETE are sent twice, and others while nothing has reached the endpoint, or it says that it has processed nothing (a stream that it refuses, or leaves behind with its connection). true: every request may be, because sending it twice does no harm.",
    ),
    optional(
        "statuses",
        Kind::Integers(400, 599),
        "[502, 503, 504]",
        "Statuses after which a request that may be sent twice is tried again, on another endpoint if there is one.",
    ),
    optional(
        "budget",
        SHARE,
        "0.2",
        "Retries are at most this share of the experiment's requests, and budget_per_second besides, so that they do not bury endpoints that are slow already.",
    ),
    optional(
        "budget_per_second",
        Kind::Number(Range::closed(0.0, 1e6)),
        "10.0",
        "Retries that are free each second: what few requests have as a budget.",
    ),
];

const HEALTH: &[Field] = &[
    off(
        "path",
        Kind::Text,
        "A GET of this path is answered 2xx by an endpoint that is well. It may have a query.",
    ),
    off(
        "grpc",
        Kind::Text,
        "The service that is asked about with grpc.health.v1.Health/Check, always over HTTP/2; \"\" asks about the server as a whole.",
    ),
    optional(
        "interval",
        TIME,
        "\"5s\"",
        "Time between checks of one endpoint.",
    ),
    optional(
        "timeout",
        TIME,
        "\"1s\"",
        "Time for an answer; at most the interval.",
    ),
    optional(
        "healthy",
        Kind::Integer(1, 100),
        "2",
        "Good answers in a row that make an unhealthy endpoint healthy.",
    ),
    optional(
        "unhealthy",
        Kind::Integer(1, 100),
        "3",
        "Failures in a row that make a healthy endpoint unhealthy.",
    ),
];

const EJECTION: &[Field] = &[
    optional(
        "consecutive_failures",
        Kind::Integer(0, 1_000_000),
        "5",
        "Failures in a row that eject an endpoint. 0: they never do.",
    ),
    off(
        "success_rate",
        Kind::Number(Range {
            low: 0.0,
            high: 1.0,
            low_included: false,
            high_included: true,
        }),
        "An endpoint with less than this share of successes over `interval` is ejected, as in 0.5.",
    ),
    optional(
        "minimum_requests",
        Kind::Integer(1, 1_000_000),
        "20",
        "With success_rate: it is judged from so many requests within `interval` on.",
    ),
    optional(
        "interval",
        TIME,
        "\"10s\"",
        "How long successes are counted before they are judged.",
    ),
    optional(
        "base",
        TIME,
        "\"10s\"",
        "How long the first ejection lasts. Each next one lasts twice as long as the one before.",
    ),
    optional(
        "max",
        TIME,
        "\"5m\"",
        "The longest ejection; at least `base`.",
    ),
    optional(
        "max_share",
        SHARE,
        "0.5",
        "At most this share of an arm's endpoints is ejected at a time, rounded down: of a lone endpoint none, unless it is 1.",
    ),
];

const TLS: &[Field] = &[
    off(
        "ca_file",
        Kind::Text,
        "PEM file of the authorities that are trusted instead of the machine's.",
    ),
    off(
        "server_name",
        Kind::Text,
        "The name that is asked for (SNI) and verified instead of the endpoint's host.",
    ),
    optional(
        "verify",
        Kind::Boolean,
        "true",
        "false: any certificate is taken, so anybody on the way can pose as the endpoint. For tests.",
    ),
    off(
        "certificate",
        Kind::Text,
        "PEM file of the certificate (and its chain) that is shown to endpoints that ask for one. Needs key.",
    ),
    off("key", Kind::Text, "PEM file of its private key."),
];
