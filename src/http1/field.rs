//! The field names that a proxy must know, told once for each field when a head is parsed.

/// What a field's name means to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// Passed on as it is.
    Other,
    /// `Connection`.
    Connection,
    /// `Content-Length`.
    ContentLength,
    /// `Transfer-Encoding`.
    TransferEncoding,
    /// `Host`.
    Host,
    /// `Upgrade`.
    Upgrade,
    /// `TE`.
    Te,
    /// `Keep-Alive`, `Proxy-Connection`, `Proxy-Authenticate`, `Proxy-Authorization`, `HTTP2-Settings`: for one connection only.
    HopByHop,
    /// `Expect`.
    Expect,
    /// `Accept-Encoding`.
    AcceptEncoding,
    /// `X-Request-Id`.
    RequestId,
    /// `Traceparent`.
    Traceparent,
    /// `Forwarded`.
    Forwarded,
    /// `X-Forwarded-For`.
    ForwardedFor,
    /// `X-Forwarded-Host`.
    ForwardedHost,
    /// `X-Forwarded-Proto`.
    ForwardedProto,
    /// `Via`.
    Via,
    /// `Cookie`.
    Cookie,
    /// One of our own (`X-Pointsman-…`): never passed on.
    Own,
}

impl Known {
    /// A bit of its own, for sets of them.
    pub(super) fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// Prefix of our own fields.
pub const OWN_PREFIX: &[u8] = b"x-pointsman-";

/// What `name` is, whatever its case.
pub fn known(name: &[u8]) -> Known {
    let is = |candidate: &[u8]| name.eq_ignore_ascii_case(candidate);
    match name.len() {
        2 if is(b"te") => Known::Te,
        3 if is(b"via") => Known::Via,
        4 if is(b"host") => Known::Host,
        6 if is(b"expect") => Known::Expect,
        6 if is(b"cookie") => Known::Cookie,
        7 if is(b"upgrade") => Known::Upgrade,
        9 if is(b"forwarded") => Known::Forwarded,
        10 if is(b"connection") => Known::Connection,
        10 if is(b"keep-alive") => Known::HopByHop,
        11 if is(b"traceparent") => Known::Traceparent,
        12 if is(b"x-request-id") => Known::RequestId,
        14 if is(b"content-length") => Known::ContentLength,
        14 if is(b"http2-settings") => Known::HopByHop,
        15 if is(b"accept-encoding") => Known::AcceptEncoding,
        15 if is(b"x-forwarded-for") => Known::ForwardedFor,
        16 if is(b"x-forwarded-host") => Known::ForwardedHost,
        16 if is(b"proxy-connection") => Known::HopByHop,
        17 if is(b"transfer-encoding") => Known::TransferEncoding,
        17 if is(b"x-forwarded-proto") => Known::ForwardedProto,
        18 if is(b"proxy-authenticate") => Known::HopByHop,
        19 if is(b"proxy-authorization") => Known::HopByHop,
        _ if name.len() > OWN_PREFIX.len() && is_own(name) => Known::Own,
        _ => Known::Other,
    }
}

fn is_own(name: &[u8]) -> bool {
    name[..OWN_PREFIX.len()].eq_ignore_ascii_case(OWN_PREFIX)
}

/// Whether a name in `Connection` may not take its field away: it frames or addresses the message, or is looked at by itself.
pub fn is_protected(known: Known) -> bool {
    matches!(
        known,
        Known::ContentLength
            | Known::TransferEncoding
            | Known::Host
            | Known::Te
            | Known::Upgrade
            | Known::Forwarded
            | Known::ForwardedFor
            | Known::ForwardedHost
            | Known::ForwardedProto
    )
}

/// Whether a trailer of this name is dropped: it would frame, route or authorise if somebody merged it into the head (RFC 9110 §6.5.1).
pub fn is_forbidden_trailer(name: &[u8]) -> bool {
    match known(name) {
        Known::Other | Known::RequestId | Known::Traceparent => [
            &b"trailer"[..],
            b"authorization",
            b"set-cookie",
            b"content-encoding",
            b"content-type",
            b"content-range",
            b"cache-control",
            b"www-authenticate",
        ]
        .iter()
        .any(|forbidden| name.eq_ignore_ascii_case(forbidden)),
        _ => true,
    }
}
