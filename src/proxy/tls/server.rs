//! TLS to clients: a certificate that can be replaced, and who may come.
//!
//! TLS 1.2 and 1.3, no early data (a request in it could be replayed). Sessions are resumed by tickets whose keys live and die
//! with the configuration: whoever was let in by an earlier list of client authorities is judged anew.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use blake3::Hash;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring::Ticketer;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{NoClientAuth, ServerConfig, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::SingleCertAndKey;

use super::files::{PemFile, hash_of, identity};
use super::{Error, H2, HTTP1, expiry, other, provider};
use crate::clock::Timestamp;

/// Whether clients show certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientCertificates {
    /// They are not asked.
    Ignored,
    /// Those that show one must show one of these authorities; others come without.
    Optional(PathBuf),
    /// Nobody comes without one of these authorities.
    Required(PathBuf),
}

/// Where the PEM files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFiles {
    /// The certificate, followed by those that lead to the authority.
    pub certificate: PathBuf,
    /// Its private key: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
    /// Whether clients show certificates.
    pub clients: ClientCertificates,
}

/// The TLS of a listener.
#[derive(Debug)]
pub struct ServerTls {
    files: ServerFiles,
    config: ArcSwap<ServerConfig>,
    serving: Mutex<Serving>,
}

/// What the configuration that serves was made of.
#[derive(Debug, Clone, Copy)]
struct Serving {
    contents: Hash,
    expires: Option<Timestamp>,
}

impl ServerTls {
    /// Reads the files and checks that they belong together.
    ///
    /// # Errors
    ///
    /// Which file is wrong, and why.
    pub fn load(files: ServerFiles) -> Result<Self, Error> {
        let contents = Contents::read(&files)?;
        let (config, serving) = contents.build(&files)?;
        Ok(Self {
            files,
            config: ArcSwap::from_pointee(config),
            serving: Mutex::new(serving),
        })
    }

    /// For the next handshake.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.config.load_full())
    }

    /// Reads the files again. If they are whole and new, handshakes from now on use them, and the answer is true.
    ///
    /// # Errors
    ///
    /// Which file is wrong, and why; what served before goes on serving.
    pub fn reload(&self) -> Result<bool, Error> {
        // Held from reading to swapping, so that of two reloads the later one wins.
        let mut serving = self.serving.lock().unwrap_or_else(PoisonError::into_inner);
        let contents = Contents::read(&self.files)?;
        if contents.hash() == serving.contents {
            return Ok(false);
        }
        let (config, new) = contents.build(&self.files)?;
        self.config.store(Arc::new(config));
        *serving = new;
        Ok(true)
    }

    /// When the certificate that serves expires; `None` if it says so in a way that we cannot read.
    pub fn expires(&self) -> Option<Timestamp> {
        self.serving
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .expires
    }

    #[cfg(test)]
    pub(super) fn config(&self) -> arc_swap::Guard<Arc<ServerConfig>> {
        self.config.load()
    }

    #[cfg(test)]
    pub(super) fn replace(&self, config: ServerConfig) {
        self.config.store(Arc::new(config));
    }

    /// A hash of what is in the files now; `None` when one cannot be read.
    pub(super) fn fingerprint(&self) -> Option<Hash> {
        Contents::read(&self.files)
            .ok()
            .map(|contents| contents.hash())
    }
}

/// All files as they were read.
struct Contents {
    certificate: PemFile,
    key: PemFile,
    authorities: Option<PemFile>,
}

impl Contents {
    fn read(files: &ServerFiles) -> Result<Self, Error> {
        let authorities = match &files.clients {
            ClientCertificates::Ignored => None,
            ClientCertificates::Optional(path) | ClientCertificates::Required(path) => Some(path),
        };
        Ok(Self {
            certificate: PemFile::read(&files.certificate)?,
            key: PemFile::read(&files.key)?,
            authorities: authorities.map(|path| PemFile::read(path)).transpose()?,
        })
    }

    fn hash(&self) -> Hash {
        hash_of([
            Some(&self.certificate),
            Some(&self.key),
            self.authorities.as_ref(),
        ])
    }

    fn build(&self, files: &ServerFiles) -> Result<(ServerConfig, Serving), Error> {
        let identity = identity(&self.certificate, &self.key)?;
        let expires = identity
            .cert
            .first()
            .and_then(|certificate| expiry::not_after(certificate));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(other)?
            .with_client_cert_verifier(self.verifier(files)?)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
        config.alpn_protocols = vec![H2.to_vec(), HTTP1.to_vec()];
        config.ticketer = Ticketer::new().map_err(other)?;
        let serving = Serving {
            contents: self.hash(),
            expires,
        };
        Ok((config, serving))
    }

    fn verifier(&self, files: &ServerFiles) -> Result<Arc<dyn ClientCertVerifier>, Error> {
        let Some(authorities) = &self.authorities else {
            return Ok(Arc::new(NoClientAuth));
        };
        let roots = Arc::new(authorities.roots()?);
        let builder = WebPkiClientVerifier::builder_with_provider(roots, provider());
        let builder = match files.clients {
            ClientCertificates::Required(_) => builder,
            ClientCertificates::Optional(_) | ClientCertificates::Ignored => {
                builder.allow_unauthenticated()
            }
        };
        let verifier = builder.build().map_err(|error| authorities.error(error))?;
        Ok(verifier)
    }
}
