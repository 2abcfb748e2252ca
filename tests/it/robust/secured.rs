//! Endpoints over TLS: who is believed, what is agreed on, and what the log says of one that is not believed.

use std::io::{BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::{OK, endings, policy};
use crate::harness::streams;
use crate::harness::tls::{Authority, Identity, upstream, write};
use crate::harness::upstream::{Upstream, read_request};
use crate::harness::{Proxy, eventually};

const HTTP1: &[&str] = &["http/1.1"];

/// The text of a policy file whose endpoints are reached over TLS, by a name that certificates are for.
fn secured(tables: &str, arms: &[(&str, &[SocketAddr])]) -> String {
    policy(tables, arms).replace("http://127.0.0.1", "https://localhost")
}

/// `[upstream.tls]` with these authorities and these further lines.
fn believing(ca: &Path, lines: &str) -> String {
    format!("[upstream.tls]\nca_file = \"{}\"\n{lines}\n", ca.display())
}

fn start(tables: &str, arms: &[(&str, &[SocketAddr])]) -> Proxy {
    Proxy::start(&[("stars", &secured(tables, arms))])
}

/// The status of a request that must not be answered twice.
fn ask(proxy: &Proxy) -> u16 {
    proxy.client().post("/v1/stars", "{}").unwrap().status
}

/// What the log says of connections that could not be made.
fn complaints(proxy: &Proxy) -> Vec<String> {
    let log = proxy.log();
    let told = log
        .lines()
        .filter(|line| line.contains("could not connect to an endpoint endpoint="));
    told.map(str::to_owned).collect()
}

#[test]
fn the_machines_authorities_are_believed_and_no_others() {
    let files = TempDir::new().unwrap();
    let (known, stranger) = (Authority::new(), Authority::new());
    for (authority, status) in [(&known, 200), (&stranger, 502)] {
        let server = Authority::server(&authority.sign("localhost"), HTTP1, None);
        let endpoint = upstream(&server, OK);
        let text = secured("", &[("a", &[endpoint.address])]);
        let mut proxy = Proxy::prepare(&[("stars", &text)], "");
        // Where the machine's authorities are, for this test.
        let machine = known.file(files.path(), "machine.pem");
        proxy.environment.push(("SSL_CERT_FILE", machine));
        proxy
            .environment
            .push(("SSL_CERT_DIR", files.path().join("none")));
        proxy.run();
        assert_eq!(ask(&proxy), status);
        assert_eq!(endpoint.received().len(), usize::from(status == 200));
        let told = complaints(&proxy);
        assert_eq!(told.len(), usize::from(status == 502), "{told:?}");
        for line in told {
            let endpoint = format!("localhost:{}", endpoint.address.port());
            for part in [&*endpoint, " WARN ", "UnknownIssuer", "ca_file"] {
                assert!(line.contains(part), "{part}: {line}");
            }
        }
    }
}

#[test]
fn an_endpoint_that_is_not_believed_is_answered_for_by_the_baseline() {
    let files = TempDir::new().unwrap();
    let (known, stranger) = (Authority::new(), Authority::new());
    let endpoint = |authority: &Authority| {
        upstream(
            &Authority::server(&authority.sign("localhost"), HTTP1, None),
            OK,
        )
    };
    let (a, b) = (endpoint(&known), endpoint(&stranger));
    let tables = believing(&known.file(files.path(), "ca.pem"), "");
    let proxy = start(&tables, &[("a", &[a.address]), ("b", &[b.address])]);
    for _ in 0..3 {
        let answer = proxy.client().post("/v1/stars", "{}").unwrap();
        assert_eq!(
            (
                answer.status,
                answer.arm().as_str(),
                answer.header("x-pointsman-reason")
            ),
            (200, "a", Some("fallback"))
        );
    }
    assert!(b.received().is_empty());
    // Each request has tried more than once.
    assert_eq!(complaints(&proxy).len(), 1, "it is not said each time");
}

/// Whether an endpoint that shows this identity is believed with these lines in `[upstream.tls]`; if not, what the log says.
fn verdict(authority: &Authority, identity: &Identity, lines: &str) -> Result<(), String> {
    let files = TempDir::new().unwrap();
    let endpoint = upstream(&Authority::server(identity, HTTP1, None), OK);
    let tables = believing(&authority.file(files.path(), "ca.pem"), lines);
    let proxy = start(&tables, &[("a", &[endpoint.address])]);
    match ask(&proxy) {
        200 => Ok(()),
        502 => {
            assert!(endpoint.received().is_empty());
            Err(complaints(&proxy).remove(0))
        }
        status => panic!("{status}: {}", proxy.log()),
    }
}

#[test]
fn certificates_have_to_be_for_the_endpoint_and_for_now() {
    let authority = Authority::new();
    assert_eq!(
        verdict(&authority, &authority.sign("localhost"), ""),
        Ok(())
    );
    let elsewhere = authority.sign("elsewhere.example");
    let named = "server_name = \"elsewhere.example\"";
    assert_eq!(verdict(&authority, &elsewhere, named), Ok(()));
    let unverified = "verify = false";
    let old = authority.sign_with("localhost", |parameters| {
        parameters.not_after = rcgen::date_time_ymd(2001, 1, 1);
    });
    let stranger = Authority::new();
    for (identity, expected) in [
        (elsewhere, "not valid for name"),
        (old, "expired"),
        (stranger.sign("localhost"), "UnknownIssuer"),
        // What makes itself, and is made an authority by mistake.
        (authority.identity.clone(), "has signed for a server"),
    ] {
        let told = verdict(&authority, &identity, "").unwrap_err();
        assert!(told.contains("the TLS handshake failed"), "{told}");
        assert!(told.contains(expected), "{told}");
        assert_eq!(verdict(&authority, &identity, unverified), Ok(()));
    }
}

#[test]
fn an_endpoint_that_speaks_no_tls_is_said_to_be_none() {
    let files = TempDir::new().unwrap();
    let authority = Authority::new();
    let plain = Upstream::connections(|_, mut stream| {
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").ok();
        stream.read_to_end(&mut Vec::new()).ok();
    });
    let silent = Upstream::connections(|_, mut stream| {
        stream.read_to_end(&mut Vec::new()).ok();
    });
    let tables = believing(&authority.file(files.path(), "ca.pem"), "");
    let tables = format!("[upstream]\nconnect_timeout = \"1s\"\n{tables}");
    for (endpoint, expected) in [
        (plain, "the TLS handshake failed"),
        (silent, "not within connect_timeout, 1000 ms"),
    ] {
        let proxy = start(&tables, &[("a", &[endpoint.address])]);
        assert_eq!(ask(&proxy), 502);
        let told = complaints(&proxy).remove(0);
        assert!(told.contains(expected), "{told}");
    }
}

#[test]
fn a_certificate_is_shown_to_endpoints_that_ask_for_one() {
    let files = TempDir::new().unwrap();
    let authority = Authority::new();
    let identity = authority.sign("localhost");
    let server = Authority::server(&identity, HTTP1, Some(&authority));
    let endpoint = upstream(&server, OK);
    let ca = authority.file(files.path(), "ca.pem");
    let path = |name| files.path().join(name);
    let client = authority.sign("pointsman");
    client.write(&path("client.pem"), &path("client.key"));
    let shows = format!(
        "certificate = \"{}\"\nkey = \"{}\"",
        path("client.pem").display(),
        path("client.key").display()
    );
    let proxy = start(&believing(&ca, &shows), &[("a", &[endpoint.address])]);
    assert_eq!(ask(&proxy), 200);
    let proxy = start(&believing(&ca, ""), &[("a", &[endpoint.address])]);
    assert_eq!(ask(&proxy), 502);
    assert_eq!(endpoint.received().len(), 1);
}

#[test]
fn http_2_is_spoken_where_it_is_agreed_on() {
    let files = TempDir::new().unwrap();
    let authority = Authority::new();
    let ca = authority.file(files.path(), "ca.pem");
    let identity = authority.sign("localhost");
    let server = |protocols| Authority::server(&identity, protocols, None);
    let streaming = |protocols| {
        let acceptor = TlsAcceptor::from(server(protocols));
        streams::upstream_over_tls(acceptor, streams::echo)
    };
    let auto = believing(&ca, "");
    let of = |protocol| format!("[upstream]\nprotocol = \"{protocol}\"\n{auto}");
    let both = &["h2", "http/1.1"];
    // hyper serves nothing but HTTP/2 here, and the other endpoint nothing but HTTP/1.1.
    for (tables, address) in [
        (auto.clone(), streaming(both)),
        (of("http2"), streaming(both)),
        (auto.clone(), upstream(&server(HTTP1), OK).address),
        (auto.clone(), upstream(&server(&[]), OK).address),
        (of("http1"), upstream(&server(both), OK).address),
    ] {
        let proxy = start(&tables, &[("a", &[address])]);
        let mut client = proxy.client();
        for _ in 0..3 {
            let answer = client.post("/v1/stars", "{}").unwrap();
            assert_eq!((answer.status, answer.text().as_str()), (200, "{}"));
        }
        let large = "x".repeat(300_000);
        let answer = client.post("/v1/stars", &large).unwrap();
        assert_eq!(answer.status, 200);
        assert!(answer.text() == large || answer.text() == "{}");
    }
    // Without an agreement there is no HTTP/2, and nothing else was asked for.
    for protocols in [HTTP1, &[]] {
        let endpoint = upstream(&server(protocols), OK);
        let proxy = start(&of("http2"), &[("a", &[endpoint.address])]);
        assert_eq!(ask(&proxy), 502, "{protocols:?}");
        assert!(endpoint.received().is_empty());
        assert_eq!(complaints(&proxy).len(), 1);
    }
}

/// An endpoint that counts its connections, and does this with each.
fn counting(
    config: &Arc<ServerConfig>,
    behave: impl Fn(BufReader<Secure>) + Send + Sync + 'static,
) -> (Upstream, Arc<AtomicUsize>) {
    let (config, count) = (Arc::clone(config), Arc::new(AtomicUsize::new(0)));
    let connections = Arc::clone(&count);
    let endpoint = Upstream::connections(move |_, stream| {
        connections.fetch_add(1, Ordering::Relaxed);
        let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        behave(BufReader::new(StreamOwned::new(connection, stream)));
    });
    (endpoint, count)
}

type Secure = StreamOwned<ServerConnection, std::net::TcpStream>;

#[test]
fn connections_are_kept_and_those_that_were_closed_cost_no_request() {
    let files = TempDir::new().unwrap();
    let authority = Authority::new();
    let tables = believing(&authority.file(files.path(), "ca.pem"), "");
    let config = Authority::server(&authority.sign("localhost"), HTTP1, None);
    let (keeping, kept) = counting(&config, |mut reader| {
        while read_request(&mut reader).is_some() {
            write(reader.get_mut(), OK).unwrap();
        }
    });
    let (closing, closed) = counting(&config, |mut reader| {
        read_request(&mut reader).unwrap();
        write(reader.get_mut(), OK).unwrap();
        reader.get_mut().conn.send_close_notify();
        reader.get_mut().flush().unwrap();
    });
    for (endpoint, count, expected) in [(keeping, kept, 1), (closing, closed, 40)] {
        let proxy = start(&tables, &[("a", &[endpoint.address])]);
        let mut client = proxy.client();
        for round in 0..40 {
            let method = if round % 2 == 0 { "POST" } else { "GET" };
            let answer = client.send(method, "/v1/stars", &[], b"{}").unwrap();
            assert_eq!(answer.status, 200, "{round}");
            // Time to close, as an endpoint has whose idle connections end.
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert_eq!(count.load(Ordering::Relaxed), expected);
    }
}

/// A body that ends with its connection has ended only if TLS says that this is the end (RFC 9112 §9.8).
#[test]
fn a_cut_is_told_from_an_end() {
    let files = TempDir::new().unwrap();
    let authority = Authority::new();
    let tables = believing(&authority.file(files.path(), "ca.pem"), "");
    let config = Authority::server(&authority.sign("localhost"), HTTP1, None);
    for says_goodbye in [true, false] {
        let (endpoint, _) = counting(&config, move |mut reader| {
            read_request(&mut reader).unwrap();
            let stream = reader.get_mut();
            write(stream, b"HTTP/1.1 200 OK\r\n\r\nbody").unwrap();
            if says_goodbye {
                stream.conn.send_close_notify();
                stream.flush().unwrap();
            }
        });
        let proxy = start(&tables, &[("a", &[endpoint.address])]);
        let mut client = proxy.client();
        client.raw(b"GET /v1/stars HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        assert_eq!(client.receive_head().unwrap().0, 200);
        let rest = String::from_utf8(client.rest()).unwrap();
        assert!(rest.contains("body"), "{rest}");
        assert_eq!(rest.ends_with("0\r\n\r\n"), says_goodbye, "{rest}");
        let ending = if says_goodbye { "answered" } else { "failed" };
        assert_eq!(endings(&proxy, 1), [ending]);
    }
}

/// Short-lived certificates are replaced on the disk, for endpoints as well.
#[test]
fn files_that_change_count_without_a_restart() {
    let files = TempDir::new().unwrap();
    let (first, second) = (Authority::new(), Authority::new());
    let endpoint = |authority: &Authority| {
        upstream(
            &Authority::server(&authority.sign("localhost"), HTTP1, None),
            OK,
        )
    };
    let (before, after) = (endpoint(&first), endpoint(&second));
    let ca = first.file(files.path(), "ca.pem");
    let tables = believing(&ca, "");
    let text = secured(&tables, &[("a", &[before.address])]);
    let other = secured(&tables, &[("a", &[after.address])]).replace("/v1/stars", "/v1/other");
    let mut proxy = Proxy::prepare(
        &[("stars", &text), ("other", &other)],
        "[reload]\npoll = \"50ms\"\n",
    );
    proxy.run();
    let ask = |path| proxy.client().post(path, "{}").unwrap().status;
    assert_eq!((ask("/v1/stars"), ask("/v1/other")), (200, 502));
    // What cannot be used changes nothing, and is said.
    std::fs::write(&ca, "no certificate").unwrap();
    eventually("the mistake is in the log", || {
        proxy
            .log()
            .contains("ca.pem: has no certificate")
            .then_some(())
    });
    assert_eq!((ask("/v1/stars"), ask("/v1/other")), (200, 502));
    second.file(files.path(), "ca.pem");
    eventually("the new authority is believed", || {
        (ask("/v1/other") == 200).then_some(())
    });
}
