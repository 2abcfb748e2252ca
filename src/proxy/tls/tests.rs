//! Handshakes over loopback, with certificates made on the spot.

mod quiet;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{HandshakeKind, ProtocolVersion};

use super::watch::{ServerCertificate, Watch};
use super::*;
use crate::experiment::upstream::{Protocol, TlsRule};
use crate::telemetry::metrics::Metrics;

/// An authority, and a folder for what it signs.
struct Authority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    fn new() -> Self {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        // Two authorities of one name would be taken for each other.
        let name = format!("{:?}", key.public_key_raw());
        parameters
            .distinguished_name
            .push(DnType::OrganizationName, name);
        let certificate = parameters.self_signed(&key).unwrap().pem();
        Self {
            folder: tempfile::tempdir().unwrap(),
            issuer: Issuer::new(parameters, key),
            certificate,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn ca_file(&self) -> PathBuf {
        self.write("ca.pem", &self.certificate)
    }

    /// Certificate and key for `name`.
    fn sign(&self, name: &str) -> (String, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let parameters = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key)
    }

    /// A server's files, for `localhost`.
    fn server(&self, clients: ClientCertificates) -> ServerFiles {
        let (certificate, key) = self.sign("localhost");
        ServerFiles {
            certificate: self.write("server.pem", &certificate),
            key: self.write("server.key", &key.serialize_pem()),
            clients,
        }
    }

    /// A client's rule that believes this authority.
    fn rule(&self) -> TlsRule {
        TlsRule {
            ca_file: Some(self.ca_file()),
            ..TlsRule::default()
        }
    }

    /// As [`Self::rule`], with a certificate of this authority.
    fn rule_with_certificate(&self) -> TlsRule {
        let (certificate, key) = self.sign("client");
        TlsRule {
            certificate: Some(self.write("client.pem", &certificate)),
            key: Some(self.write("client.key", &key.serialize_pem())),
            ..self.rule()
        }
    }
}

/// How a connection was shaken hands on.
#[derive(Debug)]
struct Shaken {
    http2: bool,
    certificate: Vec<u8>,
    kind: Option<HandshakeKind>,
    version: Option<ProtocolVersion>,
    /// Whether the client showed a certificate.
    known: bool,
}

/// Connects, and sends a byte there and back: in TLS 1.3 a refused client learns it after its handshake.
async fn shake_as(server: &ServerTls, client: &ClientTls, host: &str) -> std::io::Result<Shaken> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let acceptor = server.acceptor();
    let serve = async {
        let (stream, _) = listener.accept().await?;
        let mut stream = acceptor.accept(stream).await?;
        let mut byte = [0];
        stream.read_exact(&mut byte).await?;
        stream.write_all(&byte).await?;
        stream.shutdown().await?;
        std::io::Result::Ok(stream.get_ref().1.peer_certificates().is_some())
    };
    let ask = async {
        let mut stream = client
            .connect(TcpStream::connect(address).await?, host)
            .await?;
        stream.write_all(b"x").await?;
        let mut byte = [0];
        stream.read_exact(&mut byte).await?;
        // Tickets come before the end.
        stream.read_to_end(&mut Vec::new()).await?;
        let connection = stream.get_ref().1;
        std::io::Result::Ok(Shaken {
            http2: negotiated_http2(&stream),
            certificate: connection.peer_certificates().unwrap()[0].to_vec(),
            kind: connection.handshake_kind(),
            version: connection.protocol_version(),
            known: false,
        })
    };
    let both = async { tokio::join!(serve, ask) };
    let (served, asked) = tokio::time::timeout(Duration::from_secs(10), both)
        .await
        .map_err(std::io::Error::other)?;
    let mut shaken = asked?;
    shaken.known = served?;
    Ok(shaken)
}

async fn shake(server: &ServerTls, client: &ClientTls) -> std::io::Result<Shaken> {
    shake_as(server, client, "localhost").await
}

fn der(pem: &Path) -> Vec<u8> {
    CertificateDer::from_pem_file(pem).unwrap().to_vec()
}

#[tokio::test]
async fn both_ends_agree_on_a_protocol() {
    let authority = Authority::new();
    let server = ServerTls::load(authority.server(ClientCertificates::Ignored)).unwrap();
    for (protocol, http2) in [
        (Protocol::Auto, true),
        (Protocol::Http1, false),
        (Protocol::Http2, true),
    ] {
        let client = ClientTls::new(&authority.rule(), protocol).unwrap();
        let shaken = shake(&server, &client).await.unwrap();
        assert_eq!(shaken.http2, http2, "{protocol:?}");
        assert_eq!(shaken.version, Some(ProtocolVersion::TLSv1_3));
        assert_eq!(shaken.kind, Some(HandshakeKind::Full));
    }
}

#[tokio::test]
async fn a_session_is_resumed_until_the_certificate_changes() {
    let authority = Authority::new();
    let server = ServerTls::load(authority.server(ClientCertificates::Ignored)).unwrap();
    let client = ClientTls::new(&authority.rule(), Protocol::Auto).unwrap();
    shake(&server, &client).await.unwrap();
    let again = shake(&server, &client).await.unwrap();
    assert_eq!(again.kind, Some(HandshakeKind::Resumed));
    authority.server(ClientCertificates::Ignored);
    assert!(server.reload().unwrap());
    let anew = shake(&server, &client).await.unwrap();
    assert_eq!(anew.kind, Some(HandshakeKind::Full));
}

#[tokio::test]
async fn an_endpoint_must_be_who_it_says() {
    let authority = Authority::new();
    let server = ServerTls::load(authority.server(ClientCertificates::Ignored)).unwrap();
    let stranger = ClientTls::new(&Authority::new().rule(), Protocol::Auto).unwrap();
    let error = shake(&server, &stranger).await.unwrap_err();
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");
    // The name is the host's, unless the rule has another.
    let client = ClientTls::new(&authority.rule(), Protocol::Auto).unwrap();
    let error = shake_as(&server, &client, "127.0.0.1").await.unwrap_err();
    assert!(error.to_string().contains("not valid for name"), "{error}");
    let named = TlsRule {
        server_name: Some("localhost".to_owned()),
        ..authority.rule()
    };
    let named = ClientTls::new(&named, Protocol::Auto).unwrap();
    shake_as(&server, &named, "[::1]").await.unwrap();
}

#[tokio::test]
async fn verification_can_be_switched_off() {
    let authority = Authority::new();
    let server = ServerTls::load(authority.server(ClientCertificates::Ignored)).unwrap();
    let rule = TlsRule {
        verify: false,
        ..TlsRule::default()
    };
    let client = ClientTls::new(&rule, Protocol::Auto).unwrap();
    shake_as(&server, &client, "elsewhere.example")
        .await
        .unwrap();
}

#[tokio::test]
async fn client_certificates_are_ignored_optional_or_required() {
    let authority = Authority::new();
    let other = Authority::new();
    let client = |rule: &TlsRule| ClientTls::new(rule, Protocol::Auto).unwrap();
    let nobody = client(&authority.rule());
    let known = client(&authority.rule_with_certificate());
    let wrong = client(&TlsRule {
        ca_file: authority.rule().ca_file,
        ..other.rule_with_certificate()
    });
    let server = |clients| ServerTls::load(authority.server(clients)).unwrap();

    let ignored = server(ClientCertificates::Ignored);
    assert!(!shake(&ignored, &known).await.unwrap().known);

    let optional = server(ClientCertificates::Optional(authority.ca_file()));
    assert!(!shake(&optional, &nobody).await.unwrap().known);
    assert!(shake(&optional, &known).await.unwrap().known);
    shake(&optional, &wrong).await.unwrap_err();

    let required = server(ClientCertificates::Required(authority.ca_file()));
    assert!(shake(&required, &known).await.unwrap().known);
    let error = shake(&required, &nobody).await.unwrap_err();
    assert!(error.to_string().contains("CertificateRequired"), "{error}");
    shake(&required, &wrong).await.unwrap_err();
}

#[tokio::test]
async fn http2_alone_needs_an_endpoint_that_agrees() {
    let authority = Authority::new();
    let files = authority.server(ClientCertificates::Ignored);
    let server = ServerTls::load(files).unwrap();
    // As a server that knows no ALPN.
    let mut config = (**server.config()).clone();
    config.alpn_protocols.clear();
    server.replace(config);
    let client = ClientTls::new(&authority.rule(), Protocol::Http2).unwrap();
    let error = shake(&server, &client).await.unwrap_err();
    assert!(error.to_string().contains("did not agree"), "{error}");
    let client = ClientTls::new(&authority.rule(), Protocol::Auto).unwrap();
    assert!(!shake(&server, &client).await.unwrap().http2);
}

#[tokio::test]
async fn a_reload_swaps_what_is_whole_and_keeps_the_old_otherwise() {
    let authority = Authority::new();
    let files = authority.server(ClientCertificates::Ignored);
    let server = ServerTls::load(files.clone()).unwrap();
    let client = ClientTls::new(&authority.rule(), Protocol::Auto).unwrap();
    let served = async || shake(&server, &client).await.unwrap().certificate;
    let first = der(&files.certificate);
    assert!(!server.reload().unwrap(), "nothing has changed");
    assert_eq!(served().await, first);

    // The new certificate is there, its key is not.
    let (certificate, key) = authority.sign("localhost");
    authority.write("server.pem", &certificate);
    let error = server.reload().unwrap_err().to_string();
    assert!(error.contains("server.key: does not belong"), "{error}");
    assert_eq!(served().await, first);

    authority.write("server.key", &key.serialize_pem());
    assert!(server.reload().unwrap());
    assert_eq!(served().await, der(&files.certificate));
    assert_ne!(served().await, first);
    assert!(server.expires().is_some());
}

#[test]
fn errors_name_the_file_and_what_is_wrong_with_it() {
    let authority = Authority::new();
    let ca = authority.ca_file();
    let good = authority.server(ClientCertificates::Required(ca));
    ServerTls::load(good.clone()).unwrap();
    let (_, another) = authority.sign("localhost");
    let key = authority.path("server.key");
    let broken = "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n";
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let garbled_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let cases: &[(&str, &str, &str)] = &[
        ("server.pem", "", "server.pem: has no certificate"),
        ("server.pem", broken, "server.pem: is broken"),
        (
            "server.pem",
            garbage,
            "server.pem: has a certificate that cannot be used",
        ),
        ("server.key", "", "server.key: has no private key"),
        (
            "server.key",
            garbled_key,
            "server.key: has a key that cannot be used",
        ),
        (
            "server.key",
            &another.serialize_pem(),
            "server.key: does not belong to",
        ),
        ("ca.pem", "", "ca.pem: has no certificate"),
        (
            "ca.pem",
            garbage,
            "ca.pem: has a certificate that cannot be an authority",
        ),
    ];
    for (name, text, expected) in cases {
        let before = std::fs::read(authority.path(name)).unwrap();
        authority.write(name, text);
        let error = ServerTls::load(good.clone()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        std::fs::write(authority.path(name), before).unwrap();
    }
    std::fs::remove_file(&key).unwrap();
    let error = ServerTls::load(good).unwrap_err().to_string();
    assert!(error.contains("server.key: cannot be read"), "{error}");
}

#[test]
fn rules_of_endpoints_that_make_no_sense() {
    let authority = Authority::new();
    let whole = authority.rule_with_certificate();
    let no_key = TlsRule {
        key: None,
        ..whole.clone()
    };
    let no_certificate = TlsRule {
        certificate: None,
        ..whole.clone()
    };
    let no_name = TlsRule {
        server_name: Some("not a name".to_owned()),
        ..whole.clone()
    };
    let no_authority = TlsRule {
        ca_file: Some(authority.path("missing.pem")),
        ..whole
    };
    for (rule, expected) in [
        (no_key, "but no key"),
        (no_certificate, "but no certificate"),
        (no_name, "is no server name"),
        (no_authority, "missing.pem: cannot be read"),
    ] {
        let error = ClientTls::new(&rule, Protocol::Auto).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

/// A PKCS#8 key of P-256 in SEC1, which is what is in its OCTET STRING.
fn sec1(key: &KeyPair) -> String {
    use std::fmt::Write;
    let pkcs8 = key.serialize_der();
    // It begins with SEQUENCE, INTEGER 1 (RFC 5915, section 3); the outer version is 0.
    let start = pkcs8
        .windows(5)
        .position(|window| window[0] == 0x30 && window[2..] == [0x02, 0x01, 0x01])
        .unwrap();
    let length = usize::from(pkcs8[start + 1]) + 2;
    let mut pem = "-----BEGIN EC PRIVATE KEY-----\n".to_owned();
    for line in base64(&pkcs8[start..start + length]).as_bytes().chunks(64) {
        writeln!(pem, "{}", std::str::from_utf8(line).unwrap()).unwrap();
    }
    pem + "-----END EC PRIVATE KEY-----\n"
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits = three
            .iter()
            .fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte))
            << (8 * (3 - three.len()));
        for index in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * index)) as usize & 63];
            text.push(if index <= three.len() {
                letter as char
            } else {
                '='
            });
        }
    }
    text
}

#[tokio::test]
async fn a_key_may_be_in_sec1() {
    let authority = Authority::new();
    let mut files = authority.server(ClientCertificates::Ignored);
    let (certificate, key) = authority.sign("localhost");
    files.certificate = authority.write("server.pem", &certificate);
    files.key = authority.write("server.key", &sec1(&key));
    let read = PrivateKeyDer::from_pem_file(&files.key).unwrap();
    assert!(matches!(read, PrivateKeyDer::Sec1(_)));
    let server = ServerTls::load(files).unwrap();
    let client = ClientTls::new(&authority.rule(), Protocol::Auto).unwrap();
    shake(&server, &client).await.unwrap();
}

#[tokio::test]
async fn what_an_endpoint_must_show_is_read_anew() {
    let (first, second) = (Authority::new(), Authority::new());
    let load = |authority: &Authority| {
        ServerTls::load(authority.server(ClientCertificates::Ignored)).unwrap()
    };
    let (before, after) = (load(&first), load(&second));
    let client = ClientTls::new(&first.rule(), Protocol::Auto).unwrap();
    let seen = client.fingerprint();
    assert!(!client.reload().unwrap(), "nothing has changed");
    first.write("ca.pem", "");
    let error = client.reload().unwrap_err().to_string();
    assert!(error.contains("ca.pem: has no certificate"), "{error}");
    shake(&before, &client).await.unwrap();
    first.write("ca.pem", &second.certificate);
    assert_ne!(client.fingerprint(), seen);
    assert!(client.reload().unwrap());
    assert!(!client.reload().unwrap());
    shake(&after, &client).await.unwrap();
    shake(&before, &client).await.unwrap_err();
}

/// Waits, for some seconds at most, until the metrics have this line.
fn wait_for(metrics: &Metrics, line: &str) {
    for _ in 0..500 {
        if metrics.render().lines().any(|found| found == line) {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{line} is not in {}", metrics.render());
}

#[test]
fn a_watch_reloads_what_was_replaced() {
    let authority = Authority::new();
    let files = authority.server(ClientCertificates::Ignored);
    let server = Arc::new(ServerTls::load(files).unwrap());
    let metrics = Metrics::new();
    let first = server.expires();
    let certificate = ServerCertificate::new(Arc::clone(&server), &metrics);
    let watch = Watch::start(certificate, Duration::from_millis(10)).unwrap();
    wait_for(&metrics, "pointsman_tls_last_reload_successful 1");
    assert!(metrics.render().contains(
        "
pointsman_tls_certificate_expiry_timestamp_seconds "
    ));

    let whole = std::fs::read(authority.path("server.pem")).unwrap();
    authority.write("server.pem", "half");
    wait_for(&metrics, "pointsman_tls_last_reload_successful 0");
    wait_for(
        &metrics,
        "pointsman_tls_reloads_total{outcome=\"failure\"} 1",
    );
    std::fs::write(authority.path("server.pem"), whole).unwrap();
    wait_for(&metrics, "pointsman_tls_last_reload_successful 1");

    let key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    parameters.not_after = rcgen::date_time_ymd(2042, 1, 1);
    let certificate = parameters.signed_by(&key, &authority.issuer).unwrap();
    authority.write("server.key", &key.serialize_pem());
    authority.write("server.pem", &certificate.pem());
    wait_for(
        &metrics,
        "pointsman_tls_certificate_expiry_timestamp_seconds 2272147200",
    );
    wait_for(
        &metrics,
        "pointsman_tls_reloads_total{outcome=\"success\"} 2",
    );
    assert_ne!(server.expires(), first);
    drop(watch);
}
