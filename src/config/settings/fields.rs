//! The keys of `pointsman.toml`: reading and the reference come from these tables.

use crate::document::{Default, Field, Kind};
use crate::experiment::context::MAX_DIMENSION;

const fn field(key: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Field {
    Field {
        key,
        kind,
        default: Default::Is(default),
        doc,
    }
}

const fn size(key: &'static str, default: &'static str, doc: &'static str) -> Field {
    field(key, Kind::Integer(1, 1 << 40), default, doc)
}

const LISTEN: &[Field] = &[
    field(
        "proxy",
        Kind::Text,
        "\"0.0.0.0:8080\"",
        "Address of the data plane, and of the reward and decision API.",
    ),
    field(
        "admin",
        Kind::Text,
        "\"127.0.0.1:9901\"",
        "Address of metrics and the admin API. Without auth.admin_token it must be a loopback address.",
    ),
    Field {
        key: "api",
        kind: Kind::Text,
        default: Default::Off,
        doc: "Moves the reserved paths /-/ and /ofrep/ off the data plane to this address.",
    },
];

const WORKERS: &[Field] = &[field(
    "count",
    Kind::Integer(0, 256),
    "0",
    "Worker threads; 0: one per core.",
)];

const DATA: &[Field] = &[
    field(
        "dir",
        Kind::Text,
        "\"data\"",
        "Journal, secret and lock. A second process on the same directory refuses to start.",
    ),
    field(
        "fsync",
        Kind::Choice(&["group", "none"]),
        "\"group\"",
        "\"group\": a reward is acknowledged after an fsync that it shares with others. \"none\": for benchmarks and tests.",
    ),
    field(
        "retention",
        Kind::Duration { zero: false },
        "\"30d\"",
        "How far the journal reaches back: older segments are deleted, once two checkpoints cover them and no window needs them. At least the longest reward window.",
    ),
    field(
        "retention_bytes",
        Kind::Integer(0, 1 << 50),
        "0",
        "The oldest segments are deleted before their time when all together have more bytes, as far as no window needs them. 0: no limit.",
    ),
    size(
        "segment_bytes",
        "67108864",
        "A segment of the journal is finished, and then compressed, when it has this many bytes.",
    ),
    field(
        "segment_age",
        Kind::Duration { zero: false },
        "\"1h\"",
        "Or when it is this old and something is written.",
    ),
    field(
        "checkpoint_every",
        Kind::Duration { zero: true },
        "\"1m\"",
        "At least this long passes between checkpoints of finished segments: what a start has to read beyond the live one.",
    ),
];

const AUTH: &[Field] = &[
    Field {
        key: "secret_file",
        kind: Kind::Text,
        default: Default::Depends("\"<data.dir>/secret\""),
        doc: "Keys of the decision ids, one a line: the first signs, all verify. Made on first start with mode 0600; shared between replicas.",
    },
    field(
        "client_token",
        Kind::Text,
        "\"\"",
        "Rewards and decisions need `Authorization: Bearer <this>`. Empty: only peers on this machine may post them.",
    ),
    field(
        "open",
        Kind::Boolean,
        "false",
        "true: anyone who reaches the port may reward and decide. Excludes client_token.",
    ),
    field(
        "admin_token",
        Kind::Text,
        "\"\"",
        "The admin API needs `Authorization: Bearer <this>` (metrics and health stay open). Empty: the admin listener must be on loopback.",
    ),
];

const LIMITS: &[Field] = &[
    size("policy_file", "1048576", "Bytes of a policy file."),
    size("policy_files", "1000", "Policy files."),
    field(
        "arms",
        Kind::Integer(1, 100),
        "100",
        "Arms of an experiment.",
    ),
    field(
        "features",
        Kind::Integer(2, MAX_DIMENSION as i64),
        "128",
        "Numbers that an experiment's context makes, the intercept included. What contextual policies keep of each arm grows with its square.",
    ),
    size(
        "unit_key",
        "1024",
        "Bytes of a unit's key; a longer one counts as missing.",
    ),
    size(
        "buffered_body",
        "65536",
        "Bytes of a request's body where the policy file asks for a value in it; 413 above.",
    ),
    size(
        "label_response",
        "65536",
        "Bytes of a response in which a prediction is looked for; a longer one has none.",
    ),
    size(
        "predictions",
        "1000000",
        "Predictions kept in memory until their label comes; the oldest go first, and are then read from their sealed segment. As many again of shadows, with the labels that may yet score them: of these, those that go are not scored.",
    ),
    size(
        "contexts",
        "500000",
        "Contexts kept in memory until their decision's window closes, of each experiment that learns from them; the oldest go first. One that has gone is read from its sealed segment when the reward comes; a default that is credited at the window's close teaches nothing about it.",
    ),
    size(
        "metric_ids",
        "1000000",
        "Secondary outcomes of each experiment that are remembered to tell duplicates.",
    ),
    size(
        "reward_keys",
        "1000000",
        "Clients' own keys of decisions remembered, of each experiment with `key` in [reward]; the oldest go first, which is counted.",
    ),
    field(
        "label_wait",
        Kind::Duration { zero: true },
        "\"60s\"",
        "How long after its decision a label that overtakes its prediction waits for it; then it is answered `unscored`.",
    ),
    size(
        "reward_body",
        "4194304",
        "Bytes of a post of rewards; 413 above.",
    ),
    size("reward_items", "10000", "Rewards in one post."),
    size("json_depth", "64", "Depth of JSON in a post of rewards."),
    field(
        "journal_queue",
        Kind::Integer(16, 1 << 20),
        "16384",
        "Decisions and outcomes of each worker that wait for the journal; above, they are dropped and counted.",
    ),
    size(
        "connections",
        "10000",
        "Open client connections; above, new ones are closed at once.",
    ),
    size(
        "in_flight",
        "10000",
        "Requests in flight, of all workers; above, new ones are answered 503 with Retry-After at once.",
    ),
    size(
        "buffered_bytes",
        "268435456",
        "Bytes of bodies that all workers hold in memory, because a value in them is asked for or they are rewards. What would need more is answered 503 with Retry-After. At least buffered_body. (Copies for shadows have limits of their own.)",
    ),
    field(
        "streams",
        Kind::Integer(1, 65_535),
        "128",
        "HTTP/2 streams open at a time on one client connection.",
    ),
    field(
        "upstream_idle",
        Kind::Integer(0, 100_000),
        "256",
        "Idle connections that each worker keeps to one endpoint.",
    ),
    field(
        "headers",
        Kind::Integer(1, 10_000),
        "100",
        "Headers of a request; 431 above.",
    ),
    size(
        "header_bytes",
        "65536",
        "Bytes of a request's head; 431 above.",
    ),
    field(
        "response_headers",
        Kind::Integer(1, 10_000),
        "256",
        "Headers of an endpoint's response; more are the arm's failure.",
    ),
    field(
        "response_header_bytes",
        Kind::Integer(8_192, 1 << 30),
        "65536",
        "Bytes of the head of an endpoint's response; more are the arm's failure.",
    ),
    field(
        "header_timeout",
        Kind::Duration { zero: false },
        "\"20s\"",
        "Time for a request's head to arrive; a connection without a request is closed after it, too.",
    ),
    field(
        "body_timeout",
        Kind::Duration { zero: false },
        "\"30s\"",
        "Time for the whole body of a post of rewards or decisions, and of a request in whose body a value is asked for; 408 after that.",
    ),
    field(
        "keep_alive_timeout",
        Kind::Duration { zero: false },
        "\"60s\"",
        "How long a client's connection may be idle after a request.",
    ),
    field(
        "progress_timeout",
        Kind::Duration { zero: false },
        "\"30s\"",
        "How long a client may send nothing of a request's body, or take nothing of a response, before its request is given up.",
    ),
];

const TLS: &[Field] = &[
    field(
        "certificate",
        Kind::Text,
        "\"\"",
        "PEM file of the certificate and its chain. With key, clients speak TLS with the proxy (and api) listener, and HTTP/2 or HTTP/1.1 by ALPN. Empty: no TLS.",
    ),
    field(
        "key",
        Kind::Text,
        "\"\"",
        "PEM file of the certificate's private key. Changed files are read anew without a restart.",
    ),
    field(
        "client_ca",
        Kind::Text,
        "\"\"",
        "PEM file of the authorities by which certificates of clients are verified. Empty: clients are not asked for one.",
    ),
    field(
        "client_certificate",
        Kind::Choice(&["required", "optional"]),
        "\"required\"",
        "With client_ca: whether a client without a certificate is turned away. One with a wrong certificate always is.",
    ),
];

const FORWARDING: &[Field] = &[
    field(
        "mode",
        Kind::Choice(&["append", "replace", "off"]),
        "\"append\"",
        "\"append\": the client's address is added to what the request says already, as behind another proxy. \"replace\": what it says is dropped first, as where clients connect directly. \"off\": passed on as it is.",
    ),
    field(
        "headers",
        Kind::Choice(&["x-forwarded", "forwarded", "both"]),
        "\"x-forwarded\"",
        "\"x-forwarded\": X-Forwarded-For, -Proto and -Host. \"forwarded\": Forwarded (RFC 7239).",
    ),
    field(
        "via",
        Kind::Boolean,
        "false",
        "true: adds `Via: 1.1 pointsman`.",
    ),
];

const TAKE_OVER: &[Field] = &[Field {
    key: "socket",
    kind: Kind::Text,
    default: Default::Depends("\"<data.dir>/take-over.sock\""),
    doc: "The Unix socket on which a running process hands its listeners to a successor that is started with --take-over.",
}];

const DEFAULT: &[Field] = &[
    field(
        "upstream",
        Kind::Text,
        "\"\"",
        "Where requests go that match no experiment: http://HOST:PORT or https://HOST:PORT. They are passed through without a decision. Reserved paths never are. Empty: they are answered 404.",
    ),
    field(
        "protocol",
        Kind::Choice(&["auto", "http1", "http2"]),
        "\"auto\"",
        "What is spoken with it. \"auto\": with https:// what ALPN agrees on, with http:// HTTP/1.1. \"http2\" with http:// starts with HTTP/2 at once (prior knowledge).",
    ),
    field(
        "host",
        Kind::Choice(&["keep", "endpoint"]),
        "\"keep\"",
        "The host that it sees. \"keep\": the client's. \"endpoint\": its own.",
    ),
    field(
        "connect_timeout",
        Kind::Duration { zero: false },
        "\"1s\"",
        "Time to connect to it, the handshake of TLS included; 502 after that.",
    ),
    field(
        "response_timeout",
        Kind::Duration { zero: false },
        "\"60s\"",
        "Time from the end of the request to the head of its response; 504 after that.",
    ),
    field(
        "idle_timeout",
        Kind::Duration { zero: false },
        "\"60s\"",
        "Longest silence within its response.",
    ),
    field(
        "ca_file",
        Kind::Text,
        "\"\"",
        "PEM file of the authorities that its certificate is verified by, with https://. Empty: those of the machine.",
    ),
];

const RELOAD: &[Field] = &[field(
    "poll",
    Kind::Duration { zero: false },
    "\"5s\"",
    "How often the policies folder is read even if the file system reports no change.",
)];

const SHUTDOWN: &[Field] = &[
    field(
        "drain_delay",
        Kind::Duration { zero: true },
        "\"5s\"",
        "After SIGTERM: how long the server is unready but still serves, so that load balancers notice.",
    ),
    field(
        "drain_timeout",
        Kind::Duration { zero: true },
        "\"25s\"",
        "How long requests in flight may then take.",
    ),
];

/// Every section of `pointsman.toml`.
pub const FIELDS: &[Field] = &[
    Field {
        key: "listen",
        kind: Kind::Table(LISTEN),
        default: Default::Off,
        doc: "Where the server listens.",
    },
    Field {
        key: "workers",
        kind: Kind::Table(WORKERS),
        default: Default::Off,
        doc: "Worker threads.",
    },
    Field {
        key: "data",
        kind: Kind::Table(DATA),
        default: Default::Off,
        doc: "Where the server keeps what it must not lose.",
    },
    Field {
        key: "auth",
        kind: Kind::Table(AUTH),
        default: Default::Off,
        doc: "Who may do what.",
    },
    Field {
        key: "tls",
        kind: Kind::Table(TLS),
        default: Default::Off,
        doc: "TLS to clients.",
    },
    Field {
        key: "forwarding",
        kind: Kind::Table(FORWARDING),
        default: Default::Off,
        doc: "What endpoints are told of the client.",
    },
    Field {
        key: "default",
        kind: Kind::Table(DEFAULT),
        default: Default::Off,
        doc: "What becomes of requests that match no experiment.",
    },
    Field {
        key: "limits",
        kind: Kind::Table(LIMITS),
        default: Default::Off,
        doc: "Bounds: nothing in the server grows without one.",
    },
    Field {
        key: "reload",
        kind: Kind::Table(RELOAD),
        default: Default::Off,
        doc: "How changed policies are noticed.",
    },
    Field {
        key: "shutdown",
        kind: Kind::Table(SHUTDOWN),
        default: Default::Off,
        doc: "How the server ends.",
    },
    Field {
        key: "take_over",
        kind: Kind::Table(TAKE_OVER),
        default: Default::Off,
        doc: "How a running process is replaced.",
    },
];
