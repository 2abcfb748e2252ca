//! TLS to endpoints: whom to believe, who to be, and which HTTP to agree on.
//!
//! Endpoints are verified unless a policy file says `verify = false`, and then it is said in the log.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Once, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use blake3::Hash;
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
use tokio_rustls::rustls::{
    self, CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme,
};

use super::files::{PemFile, hash_of, identity};
use super::{Error, H2, HTTP1, other, provider};
use crate::experiment::upstream::{Protocol, TlsRule};

/// The TLS by one rule. Sessions are resumed among all endpoints that share it.
#[derive(Debug)]
pub struct ClientTls {
    rule: TlsRule,
    protocol: Protocol,
    server_name: Option<ServerName<'static>>,
    config: ArcSwap<ClientConfig>,
    /// What was in the files that the configuration was made of.
    serving: Mutex<Hash>,
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
        let contents = Contents::read(rule)?;
        Ok(Self {
            rule: rule.clone(),
            protocol,
            server_name,
            config: ArcSwap::from_pointee(contents.build(rule, protocol)?),
            serving: Mutex::new(contents.hash()),
        })
    }

    /// Reads the files again. If they are whole and new, handshakes from now on use them, and the answer is true.
    ///
    /// # Errors
    ///
    /// Which file is wrong, and why; what counted before goes on counting.
    pub fn reload(&self) -> Result<bool, Error> {
        // Held from reading to swapping, so that of two reloads the later one wins.
        let mut serving = self.serving.lock().unwrap_or_else(PoisonError::into_inner);
        let contents = Contents::read(&self.rule)?;
        let hash = contents.hash();
        if hash == *serving {
            return Ok(false);
        }
        let config = contents.build(&self.rule, self.protocol)?;
        self.config.store(Arc::new(config));
        *serving = hash;
        Ok(true)
    }

    /// A hash of what is in the files now; `None` when one cannot be read.
    pub(in crate::proxy) fn fingerprint(&self) -> Option<Hash> {
        let contents = Contents::read(&self.rule).ok()?;
        Some(contents.hash())
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
        let stream = TlsConnector::from(self.config.load_full())
            .connect(name, stream)
            .await
            .map_err(|error| explained(&error))?;
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

/// Says what to do about the refusals that a wrong set-up brings.
fn explained(error: &io::Error) -> io::Error {
    let text = error.to_string();
    let refused = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let hint = match refused {
        Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            "; name its authority in [upstream.tls] ca_file"
        }
        // webpki's word for it; a certificate that was made to sign itself is the usual one.
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(_)))
            if text.contains("CaUsedAsEndEntity") =>
        {
            "; it shows the certificate of an authority, but needs one that an authority has signed for a server (without CA:TRUE)"
        }
        _ => "",
    };
    io::Error::new(
        error.kind(),
        format!("the TLS handshake failed: {text}{hint}"),
    )
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

/// The rule's files as they were read.
struct Contents {
    authorities: Option<PemFile>,
    certificate: Option<PemFile>,
    key: Option<PemFile>,
}

impl Contents {
    fn read(rule: &TlsRule) -> Result<Self, Error> {
        let read = |path: &Option<PathBuf>| path.as_deref().map(PemFile::read).transpose();
        Ok(Self {
            // Nobody asks an authority about what is not verified.
            authorities: if rule.verify {
                read(&rule.ca_file)?
            } else {
                None
            },
            certificate: read(&rule.certificate)?,
            key: read(&rule.key)?,
        })
    }

    fn hash(&self) -> Hash {
        hash_of([&self.authorities, &self.certificate, &self.key].map(Option::as_ref))
    }

    fn build(&self, rule: &TlsRule, protocol: Protocol) -> Result<ClientConfig, Error> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(other)?
            .dangerous()
            .with_custom_certificate_verifier(self.verifier(rule)?);
        let mut config = match (&self.certificate, &self.key) {
            (None, None) => builder.with_no_client_auth(),
            (Some(certificate), Some(key)) => {
                let identity = identity(certificate, key)?;
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
        Ok(config)
    }

    fn verifier(&self, rule: &TlsRule) -> Result<Arc<dyn ServerCertVerifier>, Error> {
        if !rule.verify {
            static ONCE: Once = Once::new();
            ONCE.call_once(|| {
                tracing::warn!(
                    "verify = false: an endpoint's certificate is NOT verified, and anybody between here and there can read and change everything"
                );
            });
            return Ok(Arc::new(Unverified));
        }
        let roots = match &self.authorities {
            Some(file) => Arc::new(file.roots()?),
            None => system_roots()?,
        };
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider())
            .build()
            .map_err(|error| match &self.authorities {
                Some(file) => file.error(error),
                None => other(error),
            })?;
        Ok(verifier)
    }
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
