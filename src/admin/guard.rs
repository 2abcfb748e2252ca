//! Who may use the admin listener: holders of the token, and no page of another site in somebody's browser.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::{Admin, problem};

/// Asks for `Authorization: Bearer …` where the configuration sets `auth.admin_token`.
pub(super) async fn token(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    let wanted = &admin.shared.settings.auth.admin_token;
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| {
            let (scheme, token) = value.as_bytes().split_at_checked(7)?;
            scheme
                .eq_ignore_ascii_case(b"bearer ")
                .then(|| token.trim_ascii())
        });
    // Hashes compare in constant time.
    let allowed = wanted.is_empty()
        || given.is_some_and(|given| blake3::hash(given) == blake3::hash(wanted.as_bytes()));
    if allowed {
        next.run(request).await
    } else {
        let detail = "send the admin token as `Authorization: Bearer …`";
        let refused = problem(StatusCode::UNAUTHORIZED, "Unauthorized", detail);
        ([(header::WWW_AUTHENTICATE, "Bearer")], refused).into_response()
    }
}

/// Refuses requests that a browser sends for another site: a foreign `Origin`, and on a loopback listener a `Host` that is
/// not this machine (DNS rebinding).
pub(super) async fn origin(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    let loopback = admin.shared.settings.listen.admin.ip().is_loopback();
    if is_foreign(request.headers(), loopback) {
        return problem(
            StatusCode::FORBIDDEN,
            "Forbidden",
            "the Origin or Host header names another site",
        );
    }
    next.run(request).await
}

fn is_foreign(headers: &HeaderMap, loopback_only: bool) -> bool {
    let text = |name| {
        headers
            .get(name)
            .map(|value| value.to_str().unwrap_or("\0"))
    };
    let host = text(header::HOST);
    if loopback_only && host.is_some_and(|host| !is_this_machine(host)) {
        return true;
    }
    text(header::ORIGIN).is_some_and(|origin| {
        let authority = origin.split_once("://").map(|(_, authority)| authority);
        authority.is_none() || authority != host
    })
}

fn is_this_machine(authority: &str) -> bool {
    let host = if let Some(rest) = authority.strip_prefix('[') {
        rest.split(']').next().unwrap_or_default()
    } else {
        authority.split(':').next().unwrap_or_default()
    };
    host.eq_ignore_ascii_case("localhost")
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn foreign(host: &str, origin: Option<&str>, loopback: bool) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        is_foreign(&headers, loopback)
    }

    #[test]
    fn other_sites_are_foreign() {
        assert!(!foreign("127.0.0.1:9901", None, true));
        assert!(!foreign("[::1]:9901", None, true));
        assert!(!foreign(
            "localhost:9901",
            Some("http://localhost:9901"),
            true
        ));
        assert!(foreign("localhost:9901", Some("http://evil.example"), true));
        assert!(foreign("localhost:9901", Some("null"), true));
        assert!(foreign("evil.example:9901", None, true));
        assert!(!foreign("pointsman.internal:9901", None, false));
        assert!(foreign(
            "pointsman.internal:9901",
            Some("http://evil.example"),
            false
        ));
    }
}
