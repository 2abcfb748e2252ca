//! TLS for tests: authorities made on the spot, clients that say what they offer, endpoints that show what the test wants.

use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    SupportedProtocolVersion, version,
};

use super::http::{Client, dial};
use super::upstream::{Log, Upstream, read_request};

static VERSIONS: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];

/// A client's connection over TLS.
pub type TlsClient = Client<StreamOwned<ClientConnection, TcpStream>>;

/// A certificate (with its chain) and its key, as PEM.
#[derive(Debug, Clone)]
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

impl Identity {
    /// Writes both files where an editor would: aside, then renamed.
    pub fn write(&self, certificate: &Path, key: &Path) {
        for (path, text) in [(key, &self.key), (certificate, &self.certificate)] {
            let aside = path.with_extension("aside");
            std::fs::write(&aside, text).unwrap();
            std::fs::rename(aside, path).unwrap();
        }
    }

    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()
    }

    fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap()
    }
}

/// An authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate and key.
    pub identity: Identity,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        // Two authorities of one name would be taken for each other.
        let name = format!("{:?}", key.public_key_raw());
        parameters
            .distinguished_name
            .push(DnType::OrganizationName, name);
        let certificate = parameters.self_signed(&key).unwrap().pem();
        let identity = Identity {
            certificate,
            key: key.serialize_pem(),
        };
        Self {
            issuer: Issuer::new(parameters, key),
            identity,
        }
    }

    /// A certificate for `name`.
    pub fn sign(&self, name: &str) -> Identity {
        self.sign_with(name, |_| {})
    }

    /// A certificate for `name`, changed before it is signed.
    pub fn sign_with(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(vec![name.to_owned()]).unwrap();
        change(&mut parameters);
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        Identity {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }

    /// Writes its certificate to a file.
    pub fn file(&self, folder: &Path, name: &str) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, &self.identity.certificate).unwrap();
        path
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.identity.der()).unwrap();
        Arc::new(roots)
    }

    /// A client that believes this authority.
    pub fn client(&self) -> Dial {
        Dial {
            roots: self.roots(),
            offers: Vec::new(),
            identity: None,
            versions: VERSIONS,
        }
    }

    /// A server that shows this identity and speaks these protocols. With `clients` it asks for certificates of that authority.
    pub fn server(
        identity: &Identity,
        protocols: &[&str],
        clients: Option<&Self>,
    ) -> Arc<ServerConfig> {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => builder.with_client_cert_verifier(
                WebPkiClientVerifier::builder_with_provider(authority.roots(), provider())
                    .build()
                    .unwrap(),
            ),
        };
        let mut config = builder
            .with_single_cert(vec![identity.der()], identity.private_key())
            .unwrap();
        config.alpn_protocols = names(protocols);
        Arc::new(config)
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn names(protocols: &[&str]) -> Vec<Vec<u8>> {
    let bytes = |name: &&str| name.as_bytes().to_vec();
    protocols.iter().map(bytes).collect()
}

/// How a client connects. Names are verified as `localhost`.
#[derive(Clone)]
pub struct Dial {
    roots: Arc<RootCertStore>,
    /// What it offers in ALPN.
    offers: Vec<&'static str>,
    /// The certificate that it shows if asked.
    identity: Option<Identity>,
    versions: &'static [&'static SupportedProtocolVersion],
}

impl Dial {
    pub fn offering(mut self, offers: &[&'static str]) -> Self {
        self.offers = offers.to_vec();
        self
    }

    pub fn speaking(mut self, versions: &'static [&'static SupportedProtocolVersion]) -> Self {
        self.versions = versions;
        self
    }

    pub fn showing(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    pub fn config(&self) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(self.versions)
            .unwrap()
            .with_root_certificates(Arc::clone(&self.roots));
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => builder
                .with_client_auth_cert(vec![identity.der()], identity.private_key())
                .unwrap(),
        };
        config.alpn_protocols = names(&self.offers);
        Arc::new(config)
    }

    /// Shakes hands; in TLS 1.3 a client that is refused learns so only when it reads.
    pub fn connect(&self, address: SocketAddr) -> io::Result<TlsClient> {
        let name = ServerName::try_from("localhost").unwrap();
        let mut connection = ClientConnection::new(self.config(), name).unwrap();
        let mut stream = dial(address)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut stream)?;
        }
        Ok(Client::over(StreamOwned::new(connection, stream)))
    }
}

/// The certificate that the server has shown.
pub fn shown(client: &TlsClient) -> CertificateDer<'static> {
    client.stream().conn.peer_certificates().unwrap()[0].clone()
}

/// What was agreed on in ALPN.
pub fn agreed(client: &TlsClient) -> Option<String> {
    let agreed = client.stream().conn.alpn_protocol()?;
    Some(String::from_utf8_lossy(agreed).into_owned())
}

/// An endpoint over TLS that answers every request with these bytes.
pub fn upstream(config: &Arc<ServerConfig>, answer: &'static [u8]) -> Upstream {
    let (config, log) = (Arc::clone(config), Log::default());
    let received = Arc::clone(&log);
    Upstream::connections_into(log, move |_, stream| {
        let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut reader = BufReader::new(StreamOwned::new(connection, stream));
        while let Some(request) = read_request(&mut reader) {
            received.lock().unwrap().push(request);
            if write(reader.get_mut(), answer).is_err() {
                return;
            }
        }
    })
}

/// Writes and sends.
pub fn write<S: Read + Write>(
    stream: &mut StreamOwned<ServerConnection, S>,
    bytes: &[u8],
) -> io::Result<()> {
    stream.write_all(bytes)?;
    stream.flush()
}
