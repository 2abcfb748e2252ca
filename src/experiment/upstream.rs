//! How the endpoints of an arm are reached: `[upstream]` and what an arm says instead of it. Times are in milliseconds.
//!
//! Not here: connections, retries, probes and ejections, which are the proxy's. Nothing is opened or read, not even the
//! files that [`TlsRule`] names.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::PathBuf;

/// Whether an endpoint is reached over TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// Over TLS.
    Https,
}

/// Where an arm is reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Whether over TLS.
    pub scheme: Scheme,
    /// Host name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl Endpoint {
    /// Reads `http://HOST[:PORT]` or `https://HOST[:PORT]`, with an optional final slash.
    ///
    /// # Errors
    ///
    /// What an endpoint looks like.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const FORM: &str = "an endpoint is http://HOST:PORT or https://HOST:PORT, without a path";
        let (scheme, rest) = match text.split_once("://") {
            Some(("http", rest)) => (Scheme::Http, rest),
            Some(("https", rest)) => (Scheme::Https, rest),
            _ => return Err(FORM),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = split_authority(authority).ok_or(FORM)?;
        let port = match (port, scheme) {
            (Some(port), _) => port,
            (None, Scheme::Http) => 80,
            (None, Scheme::Https) => 443,
        };
        Ok(Self {
            scheme,
            host: host.to_owned(),
            port,
        })
    }
}

impl Endpoint {
    /// As it is written in a policy file, with its port.
    pub fn url(&self) -> String {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        format!("{scheme}://{self}")
    }
}

/// Host (without brackets) and port of an authority without user information; `None` where it is none.
pub(crate) fn split_authority(authority: &str) -> Option<(&str, Option<u16>)> {
    let (host, rest) = if let Some(literal) = authority.strip_prefix('[') {
        let (host, rest) = literal.split_once(']')?;
        host.parse::<Ipv6Addr>().ok()?;
        (host, rest)
    } else {
        let colon = authority.find(':').unwrap_or(authority.len());
        let (host, rest) = authority.split_at(colon);
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        if host.is_empty() || !host.bytes().all(plain) {
            return None;
        }
        (host, rest)
    };
    if rest.is_empty() {
        return Some((host, None));
    }
    let digits = rest.strip_prefix(':')?;
    let port: u16 = digits.parse().ok()?;
    (port > 0 && digits.bytes().all(|byte| byte.is_ascii_digit())).then_some((host, Some(port)))
}

impl fmt::Display for Endpoint {
    /// The authority, without the scheme.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(formatter, "[{}]:{}", self.host, self.port)
        } else {
            write!(formatter, "{}:{}", self.host, self.port)
        }
    }
}

/// What is spoken with endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Protocol {
    /// Over TLS what ALPN agrees on, in the clear HTTP/1.1.
    #[default]
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2; in the clear with prior knowledge.
    Http2,
}

/// How TLS to the endpoints is verified.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TlsRule {
    /// PEM file of the authorities that are trusted; `None`: those of the machine.
    pub ca_file: Option<PathBuf>,
    /// The name that is asked for and verified instead of the endpoint's host.
    pub server_name: Option<String>,
    /// Whether certificates are verified.
    pub verify: bool,
    /// PEM file of the certificate that is shown when an endpoint asks for one; given with `key`.
    pub certificate: Option<PathBuf>,
    /// PEM file of its key.
    pub key: Option<PathBuf>,
}

impl Default for TlsRule {
    fn default() -> Self {
        Self {
            ca_file: None,
            server_name: None,
            verify: true,
            certificate: None,
            key: None,
        }
    }
}

/// Which `Host` an endpoint sees.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum HostRule {
    /// The client's.
    #[default]
    Keep,
    /// The endpoint's own authority.
    Endpoint,
    /// This one.
    Fixed(String),
}

/// A prefix of the path that is replaced, by segment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PathRewrite {
    /// Starts and ends with `/`. Paths that do not start with it stay.
    pub from: String,
    /// Starts and ends with `/`.
    pub to: String,
}

/// When a request is tried again within its arm.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryRule {
    /// Further tries of one request; 0: none.
    pub attempts: u32,
    /// Whether every request may be sent twice; else only methods that are idempotent (RFC 9110 §9.2.2), and others as
    /// long as nothing reached the endpoint.
    pub idempotent: bool,
    /// Statuses after which a request that may be sent twice is tried again.
    pub statuses: Vec<u16>,
    /// Retries are at most this share of requests, …
    pub budget: f64,
    /// … and so many a second.
    pub budget_per_second: f64,
}

impl Default for RetryRule {
    fn default() -> Self {
        Self {
            attempts: 2,
            idempotent: false,
            statuses: vec![502, 503, 504],
            budget: 0.2,
            budget_per_second: 10.0,
        }
    }
}

/// What an endpoint is asked to find out whether it is well.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Probe {
    /// `GET` of this path, with a query if it has one; any 2xx is well.
    Http {
        /// Starts with `/`.
        path: String,
    },
    /// `grpc.health.v1.Health/Check`, over HTTP/2.
    Grpc {
        /// The service asked about; empty: the server as a whole.
        service: String,
    },
}

/// Active health checks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HealthRule {
    /// What is asked.
    pub probe: Probe,
    /// Time between checks of one endpoint.
    pub interval: u64,
    /// Time for an answer, at most `interval`.
    pub timeout: u64,
    /// So many good answers in a row make an endpoint healthy, …
    pub healthy: u32,
    /// … and so many failures in a row make it unhealthy.
    pub unhealthy: u32,
}

/// Passive outlier ejection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EjectionRule {
    /// So many failures in a row eject an endpoint; 0: never.
    pub consecutive_failures: u32,
    /// An endpoint with less than this share of successes within `interval` is ejected.
    pub success_rate: Option<f64>,
    /// The share of successes is judged from so many requests on.
    pub minimum_requests: u32,
    /// How long successes are counted.
    pub interval: u64,
    /// How long the first ejection lasts; each next one twice as long.
    pub base: u64,
    /// The longest ejection, at least `base`.
    pub max: u64,
    /// At most this share of an arm's endpoints is ejected at a time, rounded down: of a lone endpoint none, unless it is 1.
    pub max_share: f64,
}

impl Default for EjectionRule {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            success_rate: None,
            minimum_requests: 20,
            interval: 10_000,
            base: 10_000,
            max: 300_000,
            max_share: 0.5,
        }
    }
}

/// `[upstream]`, validated. What [`Arm`](super::Arm) has as well is resolved there.
#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamRule {
    /// Time to connect, the handshake of TLS included.
    pub connect_timeout: u64,
    /// Time from the request's end to the response's head; also the longest silence within a request.
    pub response_timeout: u64,
    /// Longest silence within a response's body.
    pub idle_timeout: u64,
    /// Time for the whole exchange.
    pub total_timeout: Option<u64>,
    /// The request header (lower case) that tells endpoints how many milliseconds are left.
    pub deadline_header: Option<String>,
    /// What is spoken.
    pub protocol: Protocol,
    /// Which `Host` endpoints see.
    pub host: HostRule,
    /// What becomes of the path.
    pub path: Option<PathRewrite>,
    /// JSON pointer, not empty, of the text in the request's body that the arm's `model` replaces.
    pub model_field: Option<String>,
    /// Most requests in flight to one arm; 0: no limit.
    pub max_in_flight: usize,
    /// Most connections that are being opened to one endpoint, ≥ 1.
    pub max_pending: usize,
    /// How long an endpoint that has become healthy gets less than its share; 0: not at all.
    pub slow_start: u64,
    /// When a request is tried again.
    pub retry: RetryRule,
    /// Active checks; `None`: endpoints are taken for healthy.
    pub health: Option<HealthRule>,
    /// When an endpoint that fails is let rest.
    pub ejection: EjectionRule,
    /// How TLS is verified.
    pub tls: TlsRule,
}

impl Default for UpstreamRule {
    fn default() -> Self {
        Self {
            connect_timeout: 1_000,
            response_timeout: 60_000,
            idle_timeout: 60_000,
            total_timeout: None,
            deadline_header: None,
            protocol: Protocol::Auto,
            host: HostRule::Keep,
            path: None,
            model_field: None,
            max_in_flight: 0,
            max_pending: 1_024,
            slow_start: 0,
            retry: RetryRule::default(),
            health: None,
            ejection: EjectionRule::default(),
            tls: TlsRule::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_and_shown() {
        for (text, scheme, port, shown) in [
            ("http://h", Scheme::Http, 80, "h:80"),
            ("https://h/", Scheme::Https, 443, "h:443"),
            ("https://a.b:8443", Scheme::Https, 8443, "a.b:8443"),
            ("http://[::1]:9", Scheme::Http, 9, "[::1]:9"),
            (
                "https://[2001:db8::1]",
                Scheme::Https,
                443,
                "[2001:db8::1]:443",
            ),
        ] {
            let endpoint = Endpoint::parse(text).unwrap();
            assert_eq!((endpoint.scheme, endpoint.port), (scheme, port), "{text}");
            assert_eq!(endpoint.to_string(), shown);
            assert_eq!(Endpoint::parse(&endpoint.url()), Ok(endpoint));
        }
    }

    #[test]
    fn what_is_more_or_less_than_an_endpoint_is_refused() {
        for text in [
            "",
            "h:80",
            "http://",
            "http:///",
            "http://:80",
            "ftp://h",
            "HTTP://h",
            "http://h:0",
            "http://h:65536",
            "http://h:+80",
            "http://h:",
            "http://h/path",
            "http://h?q",
            "http://h#f",
            "http://u@h",
            "http://u:p@h",
            "http://::1",
            "http://[::1",
            "http://[h]",
            "http://[::1]x",
            "http://a b",
            "http://h:80:80",
            "http://ü",
        ] {
            assert!(Endpoint::parse(text).is_err(), "{text}");
        }
    }
}
