//! TLS to endpoints: whom to believe, who to be, and which HTTP to agree on.
//!
//! Endpoints are verified unless a policy file says `verify = false`, and then it is said in the log.

use std::io;
use std::sync::{Arc, Once, OnceLock};

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::client::{ClientConfig, WebPkiServerVerifier};
use tokio_rustls::rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::sign::SingleCertAndKey;
use tokio_rustls::rustls::{self, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::files::{PemFile, identity};
use super::{Error, H2, HTTP1, other, provider};
use crate::experiment::upstream::{Protocol, TlsRule};

/// The TLS to one arm's endpoints. Sessions are resumed among all that share it.
#[derive(Debug, Clone)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    server_name: Option<ServerName<'static>>,
    protocol: Protocol,
}

impl ClientTls {
    /// Reads the rule's files.
    ///
    /// # Errors
    ///
    /// Which file is wrong, and why; or that the system has no authorities, or the name is none.
    pub fn new(rule: &TlsRule, protocol: Protocol) -> Result<Self, Error> {
        let server_name = rule
            .server_name
            .as_deref()
            .map(|name| {
                server_name(name).ok_or_else(|| other(format!("{name:?} is no server name")))
            })
            .transpose()?;
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(other)?
            .dangerous()
            .with_custom_certificate_verifier(verifier(rule)?);
        let mut config = match (&rule.certificate, &rule.key) {
            (None, None) => builder.with_no_client_auth(),
            (Some(certificate), Some(key)) => {
                let identity = identity(&PemFile::read(certificate)?, &PemFile::read(key)?)?;
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity)))
            }
            (Some(_), None) => return Err(other("a certificate is given, but no key")),
            (None, Some(_)) => return Err(other("a key is given, but no certificate")),
        };
        let offered: &[&[u8]] = match protocol {
            Protocol::Auto => &[H2, HTTP1],
            Protocol::Http1 => &[HTTP1],
            Protocol::Http2 => &[H2],
        };
        config.alpn_protocols = offered.iter().map(|name| name.to_vec()).collect();
        Ok(Self {
            config: Arc::new(config),
            server_name,
            protocol,
        })
    }

    /// Shakes hands with the endpoint at the other end of `stream`, whose certificate must be for `host` unless the rule has another name.
    ///
    /// # Errors
    ///
    /// The connection's; why the endpoint is not believed; or that it does not agree to the only protocol it was offered.
    pub async fn connect(&self, stream: TcpStream, host: &str) -> io::Result<TlsStream<TcpStream>> {
        let name = match &self.server_name {
            Some(name) => name.clone(),
            None => server_name(host).ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("{host:?} is no server name"),
                )
            })?,
        };
        let stream = TlsConnector::from(Arc::clone(&self.config))
            .connect(name, stream)
            .await?;
        // An endpoint that knows no ALPN ignores it, and then speaks HTTP/1.1 (RFC 9113, section 3.2, asks for ALPN).
        if self.protocol == Protocol::Http2 && !negotiated_http2(&stream) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the endpoint did not agree to HTTP/2",
            ));
        }
        Ok(stream)
    }
}

/// Whether an endpoint agreed to HTTP/2; if not, it speaks HTTP/1.1.
pub fn negotiated_http2(stream: &TlsStream<TcpStream>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(H2)
}

/// A host name or an address, the latter of IPv6 also as it stands in a URL.
fn server_name(host: &str) -> Option<ServerName<'static>> {
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    ServerName::try_from(bare.to_owned()).ok()
}

fn verifier(rule: &TlsRule) -> Result<Arc<dyn ServerCertVerifier>, Error> {
    if !rule.verify {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            tracing::warn!(
                "verify = false: an endpoint's certificate is NOT verified, and anybody between here and there can read and change everything"
            );
        });
        return Ok(Arc::new(Unverified));
    }
    let (roots, file) = match &rule.ca_file {
        Some(path) => {
            let file = PemFile::read(path)?;
            (Arc::new(file.roots()?), Some(file))
        }
        None => (system_roots()?, None),
    };
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider())
        .build()
        .map_err(|error| match &file {
            Some(file) => file.error(error),
            None => other(error),
        })?;
    Ok(verifier)
}

/// The system's authorities, read when they are first needed.
fn system_roots() -> Result<Arc<RootCertStore>, Error> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    if let Some(roots) = ROOTS.get() {
        return Ok(Arc::clone(roots));
    }
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "some of the system's certificates cannot be read");
    }
    let mut roots = RootCertStore::empty();
    let (usable, ignored) = roots.add_parsable_certificates(found.certs);
    if usable == 0 {
        return Err(other(
            "the system has no authorities to verify endpoints with: install them (package ca-certificates), or set ca_file",
        ));
    }
    tracing::debug!(usable, ignored, "the system's authorities are read");
    Ok(Arc::clone(ROOTS.get_or_init(|| Arc::new(roots))))
}

/// Believes every certificate, but still checks that who shows it has its key.
#[derive(Debug)]
struct Unverified;

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signed,
            &provider().signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signed,
            &provider().signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
