//! Clients over TLS: what is agreed on, whose certificate is shown and asked for, and what a replaced or broken one does.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::{Mutex, mpsc};

use http_body_util::BodyExt;
use tempfile::TempDir;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{SupportedProtocolVersion, version};

use super::{GET, OK, endings, policy};
use crate::harness::http::Client;
use crate::harness::streams::{self, request, run, whole};
use crate::harness::tls::{Authority, Dial, Identity, agreed, shown};
use crate::harness::upstream::Upstream;
use crate::harness::{Proxy, eventually, free_address};

static VERSIONS: [&[&SupportedProtocolVersion]; 2] = [&[&version::TLS12], &[&version::TLS13]];

/// A server over TLS and what its clients believe.
pub(super) struct Secured {
    pub(super) proxy: Proxy,
    pub(super) authority: Authority,
    /// What it has shown at its start.
    identity: Identity,
    files: TempDir,
}

impl Secured {
    /// With these lines in `[tls]`, and these settings behind it.
    pub(super) fn start(lines: &str, settings: &str, upstream: &Upstream) -> Self {
        let authority = Authority::new();
        let identity = authority.sign("localhost");
        let files = TempDir::new().unwrap();
        let path = |name| files.path().join(name);
        identity.write(&path("server.pem"), &path("server.key"));
        let ca = authority.file(files.path(), "ca.pem");
        let settings = format!(
            "[reload]\npoll = \"50ms\"\n[tls]\ncertificate = \"{}\"\nkey = \"{}\"\n{}\n{settings}",
            path("server.pem").display(),
            path("server.key").display(),
            lines.replace("CA", &ca.display().to_string()),
        );
        let text = policy("", &[("a", &[upstream.address])]);
        let mut proxy = Proxy::prepare(&[("stars", &text)], &settings);
        proxy.run();
        Self {
            proxy,
            authority,
            identity,
            files,
        }
    }

    pub(super) fn dial(&self) -> Dial {
        self.authority.client()
    }

    pub(super) fn replace(&self, identity: &Identity) {
        let path = |name| self.files.path().join(name);
        identity.write(&path("server.pem"), &path("server.key"));
    }

    /// Waits until the metrics say so.
    fn metric(&self, line: &str) {
        eventually(line, || {
            let metrics = self.proxy.admin().get("/metrics")?.text();
            metrics.lines().any(|found| found == line).then_some(())
        });
    }

    fn works(&self) {
        let mut client = self.dial().connect(self.proxy.proxy).unwrap();
        assert_eq!(client.get("/v1/stars").unwrap().status, 200);
    }
}

#[test]
fn clients_agree_on_what_they_offer() {
    let upstream = Upstream::raw(OK);
    let secured = Secured::start("", "", &upstream);
    let offers: [(&[&str], Option<&str>); 3] = [
        (&[], None),
        (&["http/1.1"], Some("http/1.1")),
        (&["spdy/1", "http/1.1"], Some("http/1.1")),
    ];
    for (offered, expected) in offers {
        for versions in VERSIONS {
            let dial = secured.dial().offering(offered).speaking(versions);
            let mut client = dial.connect(secured.proxy.proxy).unwrap();
            assert_eq!(agreed(&client).as_deref(), expected);
            for _ in 0..3 {
                assert_eq!(client.get("/v1/stars").unwrap().status, 200);
            }
        }
    }
    let received = upstream.received();
    assert_eq!(received.len(), 18);
    for request in received {
        assert_eq!(request.header("x-forwarded-proto"), Some("https"));
    }
    // Nothing in common is no handshake, and harms nobody.
    let stranger = secured.dial().offering(&["spdy/1"]);
    assert!(stranger.connect(secured.proxy.proxy).is_err());
    secured.works();
}

#[test]
fn http_2_is_spoken_where_a_client_offers_it() {
    let upstream = Upstream::raw(OK);
    let secured = Secured::start("", "", &upstream);
    let config = secured.dial().offering(&["h2", "http/1.1"]).config();
    run(async {
        let stream = tokio::net::TcpStream::connect(secured.proxy.proxy)
            .await
            .unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(config)
            .connect(name, stream)
            .await
            .unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let mut client = streams::over(stream).await;
        let large = vec![b'x'; 300_000];
        for body in [b"{}".as_slice(), &large] {
            let asked = request("POST", "/v1/stars", whole(body));
            let answer = client.send_request(asked).await.unwrap();
            assert_eq!(answer.status(), 200);
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body, "{}");
        }
    });
    let received = upstream.received();
    assert_eq!(received[1].body.len(), 300_000);
    assert_eq!(received[1].header("x-forwarded-proto"), Some("https"));
    assert_eq!(endings(&secured.proxy, 2), ["answered"; 2]);
}

#[test]
fn bodies_of_any_size_pass_and_events_are_not_held_back() {
    let (release, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let upstream = Upstream::behaving(move |request, stream| {
        if request.body.is_empty() {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n")
                .unwrap();
            gate.lock().unwrap().recv().unwrap();
            return stream.write_all(b"4\r\nlast\r\n0\r\n\r\n").is_ok();
        }
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n",
            request.body.len()
        );
        stream.write_all(head.as_bytes()).is_ok() && stream.write_all(&request.body).is_ok()
    });
    let secured = Secured::start("", "", &upstream);
    let mut client = secured.dial().connect(secured.proxy.proxy).unwrap();
    for length in [1, 16_384, 16_385, 5_000_000] {
        let body: Vec<u8> = (0..length).map(|index| (index % 251) as u8).collect();
        let answer = client.send("PUT", "/v1/stars", &[], &body).unwrap();
        assert!(answer.body == body, "{length}");
    }
    client.raw(GET);
    assert_eq!(client.receive_head().unwrap().0, 200);
    assert_eq!(client.receive_chunk().unwrap(), b"first");
    release.send(()).unwrap();
    assert_eq!(client.receive_chunk().unwrap(), b"last");
    assert_eq!(client.receive_chunk(), None);
    assert_eq!(client.get("/-/healthy").unwrap().status, 200);
}

/// Reads to the end, which must be one that TLS says is one.
fn orderly_end<S: Read + Write>(client: &mut Client<S>) -> Vec<u8> {
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).unwrap();
    rest
}

/// Without it a client cannot tell a body that ends with the connection from one that was cut on the way (RFC 9112 §9.8).
#[test]
fn connections_that_are_closed_say_so() {
    let upstream = Upstream::behaving(|_, stream| {
        stream
            .write_all(
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nwhole\r\n0\r\n\r\n",
            )
            .is_ok()
    });
    let settings = "[limits]\nkeep_alive_timeout = \"300ms\"\nheader_timeout = \"300ms\"\n";
    let secured = Secured::start("", settings, &upstream);
    let connect = || secured.dial().connect(secured.proxy.proxy).unwrap();
    // The end of the connection is the end of the body.
    let mut client = connect();
    client.raw(b"GET /v1/stars HTTP/1.0\r\nhost: a\r\n\r\n");
    let answer = orderly_end(&mut client);
    assert!(answer.ends_with(b"\r\n\r\nwhole"), "{answer:?}");
    let mut client = connect();
    client.raw(b"GET /v1/stars HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    assert!(orderly_end(&mut client).ends_with(b"0\r\n\r\n"));
    let mut client = connect();
    client.raw(b"no request\r\n\r\n");
    assert!(orderly_end(&mut client).starts_with(b"HTTP/1.1 400"));
    // Nothing was asked, and nothing more.
    assert_eq!(orderly_end(&mut connect()), b"");
    let mut client = connect();
    assert_eq!(client.get("/v1/stars").unwrap().status, 200);
    assert_eq!(orderly_end(&mut client), b"");
}

#[test]
fn websockets_go_over_tls_and_end_orderly() {
    let upstream = Upstream::behaving(|_, stream| {
        stream
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
            .unwrap();
        let mut bytes = [0; 6];
        stream.read_exact(&mut bytes).unwrap();
        stream.write_all(&bytes).unwrap();
        false
    });
    let secured = Secured::start("", "", &upstream);
    let mut client = secured.dial().connect(secured.proxy.proxy).unwrap();
    client.raw(b"GET /v1/stars HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n");
    assert_eq!(client.receive_head().unwrap().0, 101);
    client.raw(b"abc");
    client.raw(b"def");
    assert_eq!(orderly_end(&mut client), b"abcdef");
}

#[test]
fn a_client_that_leaves_is_told_to_the_arm() {
    let (told, ends) = mpsc::channel();
    let upstream = Upstream::behaving(move |_, stream| {
        stream.read_to_end(&mut Vec::new()).ok();
        told.send(()).unwrap();
        false
    });
    let secured = Secured::start("", "", &upstream);
    let mut client = secured.dial().connect(secured.proxy.proxy).unwrap();
    client.raw(GET);
    eventually("it is in flight", || {
        (upstream.received().len() == 1).then_some(())
    });
    drop(client);
    ends.recv_timeout(std::time::Duration::from_secs(20))
        .unwrap();
    assert_eq!(endings(&secured.proxy, 1), ["aborted"]);
}

#[test]
fn a_response_that_breaks_off_does_not_end_orderly() {
    let upstream = Upstream::behaving(|_, stream| {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n")
            .unwrap();
        false
    });
    let secured = Secured::start("", "", &upstream);
    let mut client = secured.dial().connect(secured.proxy.proxy).unwrap();
    client.raw(b"GET /v1/stars HTTP/1.0\r\nhost: a\r\n\r\n");
    let mut rest = Vec::new();
    let error = client.read_to_end(&mut rest).unwrap_err();
    let cut = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset];
    assert!(cut.contains(&error.kind()), "{error}");
}

#[test]
fn a_certificate_is_replaced_without_a_restart() {
    let (upstream, release) = Upstream::gated(OK);
    let secured = Secured::start("", "", &upstream);
    let connect = || secured.dial().connect(secured.proxy.proxy).unwrap();
    let (mut open, mut waiting) = (connect(), connect());
    assert_eq!(shown(&open), secured.identity.der());
    assert_eq!(open.get("/v1/stars").unwrap().status, 200);
    waiting.raw(b"GET /v1/stars HTTP/1.1\r\nhost: a\r\nx-wait: 1\r\n\r\n");
    eventually("it is in flight", || {
        (upstream.received().len() == 2).then_some(())
    });
    let second = secured.authority.sign("localhost");
    secured.replace(&second);
    eventually("the new certificate is shown", || {
        (shown(&connect()) == second.der()).then_some(())
    });
    // What was open goes on.
    assert_eq!(open.get("/v1/stars").unwrap().status, 200);
    release.send(()).unwrap();
    assert_eq!(waiting.receive(false).unwrap().status, 200);
    secured.works();
    secured.metric("pointsman_tls_reloads_total{outcome=\"success\"} 1");
}

#[test]
fn a_certificate_that_cannot_be_used_leaves_the_old_one() {
    let upstream = Upstream::raw(OK);
    let secured = Secured::start("", "", &upstream);
    let connect = || secured.dial().connect(secured.proxy.proxy).unwrap();
    let mut open = connect();
    assert_eq!(open.get("/v1/stars").unwrap().status, 200);
    let path = secured.files.path().join("server.pem");
    let other = secured.authority.sign("localhost");
    for (count, text) in ["half a certif", &other.certificate, ""].iter().enumerate() {
        std::fs::write(&path, text).unwrap();
        let failures = count + 1;
        secured.metric(&format!(
            "pointsman_tls_reloads_total{{outcome=\"failure\"}} {failures}"
        ));
        secured.metric("pointsman_tls_last_reload_successful 0");
        assert_eq!(shown(&connect()), secured.identity.der());
        secured.works();
        assert_eq!(open.get("/v1/stars").unwrap().status, 200);
    }
    std::fs::remove_file(&path).unwrap();
    secured.metric("pointsman_tls_reloads_total{outcome=\"failure\"} 4");
    secured.works();
    let log = secured.proxy.log();
    for why in [
        "server.pem: has no certificate",
        "server.key: does not belong",
        "server.pem: cannot be read",
    ] {
        assert!(log.contains(why), "{why}: {log}");
    }
    secured.replace(&other);
    eventually("the new certificate is shown", || {
        (shown(&connect()) == other.der()).then_some(())
    });
    secured.metric("pointsman_tls_last_reload_successful 1");
}

#[test]
fn a_server_does_not_start_with_a_certificate_that_cannot_be_used() {
    let proxy = Proxy::prepare(
        &[("stars", &policy("", &[("a", &[free_address()])]))],
        "[tls]\ncertificate = \"/nowhere/server.pem\"\nkey = \"/nowhere/server.key\"\n",
    );
    let output = proxy.command().output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(
        told.contains("/nowhere/server.pem: cannot be read"),
        "{told}"
    );
    assert!(!proxy.data().exists(), "nothing was touched");
}

/// Whether a client that connects like this is served.
fn is_served(dial: &Dial, proxy: &Proxy) -> bool {
    let Ok(mut client) = dial.connect(proxy.proxy) else {
        return false;
    };
    client.try_raw(GET).is_ok()
        && client
            .receive(false)
            .is_some_and(|answer| answer.status == 200)
}

#[test]
fn clients_show_certificates_where_they_must() {
    let stranger = Authority::new();
    for (mode, without) in [("required", false), ("optional", true)] {
        let lines = format!("client_ca = \"CA\"\nclient_certificate = \"{mode}\"\n");
        let upstream = Upstream::raw(OK);
        let secured = Secured::start(&lines, "", &upstream);
        let dial = secured.dial();
        let known = dial.clone().showing(secured.authority.sign("a client"));
        let wrong = dial.clone().showing(stranger.sign("a client"));
        let old = secured.authority.sign_with("a client", |parameters| {
            parameters.not_after = rcgen::date_time_ymd(2001, 1, 1);
        });
        let old = dial.clone().showing(old);
        assert!(is_served(&known, &secured.proxy));
        assert_eq!(is_served(&dial, &secured.proxy), without, "{mode}");
        for refused in [wrong, old] {
            assert!(!is_served(&refused, &secured.proxy), "{mode}");
        }
        assert!(is_served(&known, &secured.proxy));
        assert_eq!(upstream.received().len(), 2 + usize::from(without));
    }
    // By default nobody is asked.
    let upstream = Upstream::raw(OK);
    let secured = Secured::start("", "", &upstream);
    let anybody = secured.dial().showing(stranger.sign("a client"));
    assert!(is_served(&anybody, &secured.proxy));
}

#[test]
fn what_is_no_tls_is_refused_and_harms_nobody() {
    let upstream = Upstream::raw(OK);
    let settings = "[limits]\nheader_timeout = \"500ms\"\n";
    let secured = Secured::start("", settings, &upstream);
    let mut open = secured.dial().connect(secured.proxy.proxy).unwrap();
    assert_eq!(open.get("/v1/stars").unwrap().status, 200);
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let noise = vec![0xff; 20_000];
    for bytes in [GET, preface, b"", b"\x16", &noise] {
        let mut stream = TcpStream::connect(secured.proxy.proxy).unwrap();
        stream
            .set_read_timeout(Some(std::time::Duration::from_mins(1)))
            .unwrap();
        stream.write_all(bytes).ok();
        let mut rest = Vec::new();
        if let Err(error) = stream.read_to_end(&mut rest) {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{bytes:?}");
        }
        // An alert at most (RFC 8446 §6), and nothing that looks like an answer.
        assert!(rest.is_empty() || rest[0] == 0x15, "{rest:?}");
    }
    assert_eq!(open.get("/v1/stars").unwrap().status, 200);
    secured.works();
    assert_eq!(upstream.received().len(), 3);
}
