//! What a response says of the gRPC call that it answers. Over HTTP it is a 200 however the call went: how it did is in the trailers, or in the
//! head where nothing follows it ("Trailers-Only" in gRPC's `PROTOCOL-HTTP2.md`).
//!
//! Not here: gRPC-Web, whose trailers are a part of the body.

use crate::http1::chunked::Trailers;
use crate::http1::head::Response;

const STATUS: &[u8] = b"grpc-status";

/// The status code of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrpcStatus(u8);

impl GrpcStatus {
    const UNKNOWN: Self = Self(2);

    /// Of a response that has ended with these trailers; `None` where it is of no call.
    pub fn of(response: &Response, trailers: &Trailers) -> Option<Self> {
        let kind = response.fields.get(b"content-type")?;
        if !is_grpc(kind) {
            return None;
        }
        let mut last = trailers.iter().rev();
        let trailer = last.find(|(name, _)| name.eq_ignore_ascii_case(STATUS));
        let stated = trailer
            .map(|(_, value)| &**value)
            .or_else(|| response.fields.get(STATUS));
        match stated {
            Some(text) => Some(Self::read(text)),
            // A call that ends without a status has failed, clients say so too; but another HTTP status speaks for itself.
            None => (response.status == 200).then_some(Self::UNKNOWN),
        }
    }

    /// What is no code that gRPC knows is the code for that.
    fn read(text: &[u8]) -> Self {
        let text = std::str::from_utf8(text).ok();
        let code = text.and_then(|text| text.parse().ok());
        code.filter(|code| *code <= 16).map_or(Self::UNKNOWN, Self)
    }

    /// Whether it says that the server, not the request, is at fault: those codes whose HTTP status is a 5xx in `google.rpc.Code`, as Envoy
    /// maps them for its outlier detection. So `RESOURCE_EXHAUSTED` (8) is none, as 429 is none.
    pub fn is_the_servers_fault(self) -> bool {
        matches!(
            self.0,
            // UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS
            2 | 4 | 12 | 13 | 14 | 15
        )
    }
}

/// `application/grpc`, alone or with the encoding of its messages.
fn is_grpc(content_type: &[u8]) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    let Some((start, rest)) = content_type.split_at_checked(GRPC.len()) else {
        return false;
    };
    start.eq_ignore_ascii_case(GRPC) && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, head: &[(&str, &str)], trailers: &[(&str, &str)]) -> Option<u8> {
        let mut response = Response::default();
        response.make(status);
        for (name, value) in head {
            response.fields.push(name.as_bytes(), value.as_bytes());
        }
        let trailers = trailers.iter();
        let trailers =
            trailers.map(|(name, value)| (name.as_bytes().into(), value.as_bytes().into()));
        GrpcStatus::of(&response, &trailers.collect()).map(|status| status.0)
    }

    const GRPC: (&str, &str) = ("content-type", "application/grpc+proto");

    #[test]
    fn the_status_is_in_the_trailers_or_in_a_head_without_any() {
        assert_eq!(of(200, &[GRPC], &[("grpc-status", "0")]), Some(0));
        assert_eq!(of(200, &[GRPC], &[("Grpc-Status", "14")]), Some(14));
        assert_eq!(of(200, &[GRPC, ("grpc-status", "5")], &[]), Some(5));
        let head = [GRPC, ("grpc-status", "0")];
        assert_eq!(of(200, &head, &[("grpc-status", "13")]), Some(13));
    }

    #[test]
    fn a_status_that_is_missing_or_none_is_unknown() {
        assert_eq!(of(200, &[GRPC], &[]), Some(2));
        assert_eq!(of(200, &[GRPC], &[("grpc-message", "x")]), Some(2));
        for wrong in ["", "17", "256", "-1", "ok", "\u{e9}"] {
            assert_eq!(
                of(200, &[GRPC], &[("grpc-status", wrong)]),
                Some(2),
                "{wrong:?}"
            );
        }
        assert_eq!(of(404, &[GRPC], &[]), None);
    }

    #[test]
    fn only_grpc_is_grpc() {
        for (kind, is) in [
            ("application/grpc", true),
            ("Application/gRPC; charset=x", true),
            ("application/grpc+json", true),
            ("application/grpc-web", false),
            ("application/grpc-web+proto", false),
            ("application/grp", false),
            ("application/json", false),
        ] {
            assert_eq!(is_grpc(kind.as_bytes()), is, "{kind}");
        }
        assert_eq!(
            of(
                200,
                &[("content-type", "text/plain")],
                &[("grpc-status", "14")]
            ),
            None
        );
        assert_eq!(of(200, &[], &[("grpc-status", "14")]), None);
    }

    #[test]
    fn the_servers_faults_are_those_whose_http_status_is_a_5xx() {
        // google.rpc.Code, in order.
        let http = [
            200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401,
        ];
        for (code, status) in http.into_iter().enumerate() {
            let is = GrpcStatus(code as u8).is_the_servers_fault();
            assert_eq!(is, status >= 500, "{code}");
        }
    }
}
