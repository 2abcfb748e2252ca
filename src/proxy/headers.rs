//! What passes and what does not: fields that belong to a connection, fields that are ours, fields that tell of the client, and fields that
//! every request should have.

use std::net::SocketAddr;
use std::sync::Arc;

use super::client::field;
use super::worker::Peer;
use crate::config::settings::{Forwarding, ForwardingMode, ForwardingStyle};
use crate::experiment::id::SequenceKey;
use crate::experiment::upstream::{HostRule, PathRewrite};
use crate::http1::field::{Known, is_protected};
use crate::http1::fields::Fields;
use crate::http1::head::{Request, Response};
use crate::http1::tokens;

/// The decision's id.
pub const DECISION: &[u8] = b"x-pointsman-decision";
/// The experiment's name.
pub const EXPERIMENT: &[u8] = b"x-pointsman-experiment";
/// The arm's name.
pub const ARM: &[u8] = b"x-pointsman-arm";
/// The policy file's version.
pub const POLICY_VERSION: &[u8] = b"x-pointsman-policy-version";
/// Why this arm, when it was not sampled.
pub const REASON: &[u8] = b"x-pointsman-reason";
/// In the copy of a request that another arm serves: the name of the arm that shadows.
pub const SHADOW: &[u8] = b"x-pointsman-shadow";

/// Who the client is, as endpoints are told. Made once for each connection.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The address, for `X-Forwarded-For`.
    address: Arc<str>,
    /// The same as a node of `Forwarded` (RFC 7239 §6).
    node: Arc<str>,
    is_tls: bool,
}

impl Origin {
    /// The client at `address`.
    pub fn new(address: SocketAddr, is_tls: bool) -> Self {
        let ip = address.ip().to_canonical();
        let node = if ip.is_ipv6() {
            format!("\"[{ip}]\"")
        } else {
            ip.to_string()
        };
        Self {
            address: ip.to_string().into(),
            node: node.into(),
            is_tls,
        }
    }

    fn scheme(&self) -> &'static str {
        if self.is_tls { "https" } else { "http" }
    }
}

/// What an arm's endpoints get of a request's head.
#[derive(Debug)]
pub struct Outgoing<'a> {
    /// As the client sent it.
    pub request: &'a Request,
    /// The client.
    pub peer: &'a Peer,
    /// How endpoints are told of it.
    pub forwarding: Forwarding,
    /// Names the request where nobody did.
    pub sequence: SequenceKey,
    /// Whether the arm is asked for a body that can be read without decompressing it.
    pub identity: bool,
    /// Whether it goes on as a WebSocket.
    pub websocket: bool,
    /// Whether its body was read whole before it is sent, so that nobody waits for `100 Continue` any more.
    pub is_whole: bool,
    /// The header that tells the time left, and that time in milliseconds.
    pub deadline: Option<(&'a str, u64)>,
    /// In a copy: the arm that shadows.
    pub shadow: Option<&'a str>,
}

impl Outgoing<'_> {
    /// The `Host` that the endpoint sees.
    pub fn host<'h>(&'h self, rule: &'h HostRule, endpoint: &'h str) -> &'h [u8] {
        match rule {
            // HTTP/1.0 has none.
            HostRule::Keep => self.request.host().unwrap_or(endpoint.as_bytes()),
            HostRule::Endpoint => endpoint.as_bytes(),
            HostRule::Fixed(host) => host.as_bytes(),
        }
    }

    /// Whether the client waits for `100 Continue`, and has not been told yet.
    pub fn awaits_leave(&self) -> bool {
        !self.is_whole && self.request.expects_continue()
    }

    /// Writes the target that the endpoint sees: path and query, the path rewritten by the rule.
    pub fn target(&self, rewrite: Option<&PathRewrite>, out: &mut Vec<u8>) {
        let path = self.request.path_bytes();
        match rewrite.and_then(|rule| Some((rule, path.strip_prefix(rule.from.as_bytes())?))) {
            Some((rule, rest)) => {
                out.extend_from_slice(rule.to.as_bytes());
                out.extend_from_slice(rest);
            }
            None => out.extend_from_slice(path),
        }
        out.extend_from_slice(self.request.query_bytes());
    }

    /// Hands every field but `Host` and what frames the body to `put`.
    pub fn fields(&self, put: &mut impl FnMut(&[u8], &[u8])) {
        let mut keeps = self.keeps();
        for (known, name, value) in self.request.fields.iter() {
            if keeps(known, name) {
                put(name, value);
            }
        }
        self.additions(put);
    }

    /// As [`Self::fields`], as lines.
    pub fn lines(&self, out: &mut Vec<u8>) {
        self.request.fields.copy_lines(out, self.keeps());
        self.additions(&mut |name, value| field(out, name, value));
    }

    /// Which of the client's fields pass.
    ///
    /// What is meant for one connection stays behind (RFC 9110 §7.6.1: `Connection`, everything that it names, and the classics), and
    /// so do copies of our own fields. A name in `Connection` cannot take away what frames or addresses the message.
    fn keeps(&self) -> impl FnMut(Known, &[u8]) -> bool {
        let fields = &self.request.fields;
        let named = names_others(fields);
        let replaced = self.forwarding.mode == ForwardingMode::Replace;
        let adds = self.forwarding.mode != ForwardingMode::Off;
        let tells_x = adds && self.forwarding.style != ForwardingStyle::Forwarded;
        let tells_forwarded = adds && self.forwarding.style != ForwardingStyle::XForwarded;
        move |known, name| {
            let passes = match known {
                Known::Connection
                | Known::HopByHop
                | Known::TransferEncoding
                | Known::ContentLength
                | Known::Host
                | Known::Upgrade
                | Known::Te
                | Known::Own => false,
                Known::AcceptEncoding => !self.identity,
                Known::Expect => !self.is_whole,
                Known::Forwarded => !(tells_forwarded || replaced),
                Known::ForwardedFor => !(tells_x || replaced),
                Known::ForwardedHost | Known::ForwardedProto => !replaced,
                _ => true,
            };
            passes
                && !(named && is_named(fields, known, name))
                && self
                    .deadline
                    .is_none_or(|(header, _)| !name.eq_ignore_ascii_case(header.as_bytes()))
        }
    }

    /// What is added to them.
    fn additions(&self, put: &mut impl FnMut(&[u8], &[u8])) {
        let fields = &self.request.fields;
        let mut te = fields.of(Known::Te);
        if te.any(|value| tokens::contains(value, b"trailers")) {
            put(b"te", b"trailers");
        }
        if self.identity {
            put(b"accept-encoding", b"identity");
        }
        if self.websocket {
            put(b"connection", b"upgrade");
            put(b"upgrade", b"websocket");
        }
        let (has_id, has_trace) = (fields.has(Known::RequestId), fields.has(Known::Traceparent));
        if !(has_id && has_trace) {
            identify(self.sequence, has_id, has_trace, put);
        }
        if self.forwarding.mode != ForwardingMode::Off {
            self.tell_of_the_client(put);
        }
        if self.forwarding.via {
            put(b"via", b"1.1 pointsman");
        }
        if let Some((header, left)) = self.deadline {
            put(header.as_bytes(), left.to_string().as_bytes());
        }
        if let Some(arm) = self.shadow {
            put(SHADOW, arm.as_bytes());
        }
    }

    fn tell_of_the_client(&self, put: &mut impl FnMut(&[u8], &[u8])) {
        let fields = &self.request.fields;
        let origin = &self.peer.origin;
        let appends = self.forwarding.mode == ForwardingMode::Append;
        let joined = |known, addition: &str, put: &mut dyn FnMut(&[u8])| {
            let mut before = fields
                .of(known)
                .filter(|value| !value.is_empty())
                .peekable();
            if !appends || before.peek().is_none() {
                return put(addition.as_bytes());
            }
            let mut value = Vec::new();
            for part in before.chain([addition.as_bytes()]) {
                if !value.is_empty() {
                    value.extend_from_slice(b", ");
                }
                value.extend_from_slice(part);
            }
            put(&value);
        };
        let host = self.request.host().unwrap_or_default();
        let style = self.forwarding.style;
        if style != ForwardingStyle::Forwarded {
            joined(Known::ForwardedFor, &origin.address, &mut |value| {
                put(b"x-forwarded-for", value);
            });
            let lacks = |known| !appends || !fields.has(known);
            if lacks(Known::ForwardedProto) {
                put(b"x-forwarded-proto", origin.scheme().as_bytes());
            }
            if lacks(Known::ForwardedHost) && !host.is_empty() {
                put(b"x-forwarded-host", host);
            }
        }
        if style != ForwardingStyle::XForwarded {
            // A host was checked to have neither quotes nor backslashes.
            let host = String::from_utf8_lossy(host);
            let element = format!(
                "for={};host=\"{host}\";proto={}",
                origin.node,
                origin.scheme()
            );
            joined(Known::Forwarded, &element, &mut |value| {
                put(b"forwarded", value);
            });
        }
    }
}

/// Fields of a response's head, none of which frames its body. There are none unless something else is said.
pub trait Head {
    /// Writes them as lines of HTTP/1.1.
    fn lines(&self, _out: &mut Vec<u8>) {}

    /// Hands name and value of each to `put`.
    fn each(&self, _put: &mut dyn FnMut(&[u8], &[u8])) {}
}

impl Head for () {}

impl<H: Head> Head for &H {
    fn lines(&self, out: &mut Vec<u8>) {
        (**self).lines(out);
    }

    fn each(&self, put: &mut dyn FnMut(&[u8], &[u8])) {
        (**self).each(put);
    }
}

impl<A: Head, B: Head> Head for (A, B) {
    fn lines(&self, out: &mut Vec<u8>) {
        self.0.lines(out);
        self.1.lines(out);
    }

    fn each(&self, put: &mut dyn FnMut(&[u8], &[u8])) {
        self.0.each(put);
        self.1.each(put);
    }
}

/// The fields of an arm's response that pass to the client.
#[derive(Debug, Clone, Copy)]
pub struct Passing<'a> {
    /// The response.
    pub response: &'a Response,
    /// It is a 101.
    pub upgraded: bool,
}

impl Passing<'_> {
    fn keeps(&self) -> impl Fn(Known, &[u8]) -> bool {
        let fields = &self.response.fields;
        let (named, upgraded) = (names_others(fields), self.upgraded);
        move |known, name| match known {
            Known::Connection | Known::Upgrade => upgraded,
            Known::HopByHop
            | Known::TransferEncoding
            | Known::ContentLength
            | Known::Te
            | Known::Own => false,
            _ => !(named && is_named(fields, known, name)),
        }
    }
}

impl Head for Passing<'_> {
    fn lines(&self, out: &mut Vec<u8>) {
        self.response.fields.copy_lines(out, self.keeps());
    }

    fn each(&self, put: &mut dyn FnMut(&[u8], &[u8])) {
        let keeps = self.keeps();
        for (known, name, value) in self.response.fields.iter() {
            if keeps(known, name) {
                put(name, value);
            }
        }
    }
}

/// Whether `Connection` names anything but what says how the connection goes on.
fn names_others(fields: &Fields) -> bool {
    const USUAL: [&[u8]; 4] = [b"keep-alive", b"close", b"upgrade", b"te"];
    let usual = |token: &[u8]| USUAL.iter().any(|usual| token.eq_ignore_ascii_case(usual));
    fields
        .of(Known::Connection)
        .any(|value| !tokens::list(value).all(usual))
}

fn is_named(fields: &Fields, known: Known, name: &[u8]) -> bool {
    !is_protected(known)
        && fields
            .of(Known::Connection)
            .any(|value| tokens::contains(value, name))
}

/// Gives a request an `x-request-id` and a `traceparent` (W3C Trace Context, level 1) where it has none. Both are made of the
/// decision's sequence key, which is unique.
fn identify(
    sequence: SequenceKey,
    has_id: bool,
    has_trace: bool,
    put: &mut impl FnMut(&[u8], &[u8]),
) {
    let number = (u128::from(sequence.origin) << 64)
        | (u128::from(sequence.worker) << 48)
        | u128::from(sequence.counter & 0xffff_ffff_ffff);
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    let parent = (number as u64) | 1 << 63;
    let parts = [
        (3, (number >> 64) as u64),
        (19, number as u64),
        (36, parent),
    ];
    for (position, part) in parts {
        text[position..position + 8].copy_from_slice(&hex((part >> 32) as u32));
        text[position + 8..position + 16].copy_from_slice(&hex(part as u32));
    }
    if !has_id {
        put(b"x-request-id", &text[3..35]);
    }
    if !has_trace {
        put(b"traceparent", &text);
    }
}

/// Eight hexadecimal digits, made at once: each nibble gets a byte, and those above 9 the distance from `9` to `a`.
fn hex(number: u32) -> [u8; 8] {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let mut nibbles = u64::from(number);
    for (shift, mask) in [
        (16, 0x0000_ffff_0000_ffff),
        (8, 0x00ff_00ff_00ff_00ff),
        (4, ONES * 15),
    ] {
        nibbles = (nibbles | nibbles << shift) & mask;
    }
    let letters = (nibbles + ONES * 6) >> 4 & ONES;
    (nibbles + ONES * u64::from(b'0') + letters * u64::from(b'a' - b'9' - 1)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::head::Limits;
    use crate::proxy::worker::Role;

    const SEQUENCE: SequenceKey = SequenceKey {
        origin: 0xabcd,
        worker: 1,
        counter: 2,
    };
    const LIMITS: Limits = Limits {
        fields: 100,
        bytes: 8_192,
    };

    fn outgoing(lines: &str, forwarding: Forwarding, rewrite: Option<&PathRewrite>) -> String {
        let mut request = Request::default();
        let text = format!("GET http://a/v1/x?q=/v1/ HTTP/1.1\r\nhost: a\r\n{lines}\r\n");
        request.parse(text.as_bytes(), LIMITS).unwrap().unwrap();
        let address = "[::ffff:10.0.0.9]:5".parse().unwrap();
        let peer = Peer {
            address,
            role: Role::Everything,
            origin: Origin::new(address, true),
        };
        let outgoing = Outgoing {
            request: &request,
            peer: &peer,
            forwarding,
            sequence: SEQUENCE,
            identity: false,
            websocket: false,
            is_whole: false,
            deadline: None,
            shadow: None,
        };
        let mut out = Vec::new();
        outgoing.target(rewrite, &mut out);
        outgoing.fields(&mut |name, value| {
            out.push(b'\n');
            out.extend_from_slice(&[name, b": ", value].concat());
        });
        String::from_utf8(out).unwrap()
    }

    fn off() -> Forwarding {
        Forwarding {
            mode: ForwardingMode::Off,
            style: ForwardingStyle::Both,
            via: false,
        }
    }

    #[test]
    fn hexadecimal_digits() {
        for number in [0, 1, 0x9a_bcde, 0x0123_4567, 0x89ab_cdef, u32::MAX] {
            assert_eq!(hex(number).as_slice(), format!("{number:08x}").as_bytes());
        }
    }

    #[test]
    fn connection_headers_and_forged_copies_of_ours_do_not_pass() {
        let lines = "Connection: close, X-Secret, host, Content-Length, X-Forwarded-For\r\nX-Secret: 1\r\nContent-Length: 0\r\nKeep-Alive: timeout=5\r\n\
                     Upgrade: h2c\r\nTE: gzip, trailers\r\nX-Pointsman-Arm: forged\r\nAccept: */*\r\nX-Request-Id: mine\r\nx-forwarded-for: b\r\n";
        assert_eq!(
            outgoing(lines, off(), None),
            "/v1/x?q=/v1/\nAccept: */*\nX-Request-Id: mine\nx-forwarded-for: b\nte: trailers\n\
             traceparent: 00-000000000000abcd0001000000000002-8001000000000002-00"
        );
    }

    #[test]
    fn the_path_is_rewritten_by_its_prefix_alone() {
        let rule = |from: &str, to: &str| PathRewrite {
            from: from.into(),
            to: to.into(),
        };
        let lines = "x-request-id: 1\r\ntraceparent: 2\r\n";
        let target = |rule: &PathRewrite| {
            let text = outgoing(lines, off(), Some(rule));
            text.lines().next().unwrap().to_owned()
        };
        assert_eq!(target(&rule("/v1/", "/")), "/x?q=/v1/");
        assert_eq!(target(&rule("/v2/", "/")), "/v1/x?q=/v1/");
    }

    #[test]
    fn endpoints_are_told_of_the_client() {
        let lines = "x-request-id: 1\r\ntraceparent: 2\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: http\r\nForwarded: for=x\r\n";
        let of = |mode, style| {
            let forwarding = Forwarding {
                mode,
                style,
                via: true,
            };
            let text = outgoing(lines, forwarding, None);
            text.lines().skip(3).collect::<Vec<_>>().join("\n")
        };
        assert_eq!(
            of(ForwardingMode::Append, ForwardingStyle::XForwarded),
            "X-Forwarded-Proto: http\nForwarded: for=x\nx-forwarded-for: 1.2.3.4, 10.0.0.9\nx-forwarded-host: a\nvia: 1.1 pointsman"
        );
        assert_eq!(
            of(ForwardingMode::Replace, ForwardingStyle::Both),
            "x-forwarded-for: 10.0.0.9\nx-forwarded-proto: https\nx-forwarded-host: a\n\
             forwarded: for=10.0.0.9;host=\"a\";proto=https\nvia: 1.1 pointsman"
        );
        assert_eq!(
            of(ForwardingMode::Append, ForwardingStyle::Forwarded),
            "X-Forwarded-For: 1.2.3.4\nX-Forwarded-Proto: http\nforwarded: for=x, for=10.0.0.9;host=\"a\";proto=https\nvia: 1.1 pointsman"
        );
        assert_eq!(
            Origin::new("[2001:db8::1]:1".parse().unwrap(), false)
                .node
                .as_ref(),
            "\"[2001:db8::1]\""
        );
    }
}
