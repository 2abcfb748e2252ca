//! What is in PEM files: certificates, a private key, authorities. Every error names its file.

use std::path::{Path, PathBuf};

use blake3::{Hash, Hasher};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, InconsistentKeys, RootCertStore};

use super::{Error, provider};

/// More than any chain or list of authorities; a wrong path may name anything.
const MOST: u64 = 16 * 1024 * 1024;

/// A file as it was read, so that what is checked is what is used.
#[derive(Debug, Clone)]
pub(super) struct PemFile {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl PemFile {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or is much too long.
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        let failed = |error: std::io::Error| Error::File {
            path: path.to_owned(),
            why: format!("cannot be read: {error}"),
        };
        let length = std::fs::metadata(path).map_err(failed)?.len();
        if length > MOST {
            return Err(Error::File {
                path: path.to_owned(),
                why: format!("has {length} bytes, which is no file of certificates or keys"),
            });
        }
        Ok(Self {
            path: path.to_owned(),
            bytes: std::fs::read(path).map_err(failed)?,
        })
    }

    /// An error of this file.
    pub(super) fn error(&self, why: impl std::fmt::Display) -> Error {
        Error::File {
            path: self.path.clone(),
            why: why.to_string(),
        }
    }

    /// All certificates, at least one.
    ///
    /// # Errors
    ///
    /// When there is none, or the PEM is broken.
    pub(super) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, Error> {
        let found = CertificateDer::pem_slice_iter(&self.bytes)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| self.error(format!("is broken: {error}")))?;
        if found.is_empty() {
            return Err(
                self.error("has no certificate (expected PEM, -----BEGIN CERTIFICATE-----)")
            );
        }
        Ok(found)
    }

    fn key(&self) -> Result<PrivateKeyDer<'static>, Error> {
        use rustls::pki_types::pem::Error as Pem;
        PrivateKeyDer::from_pem_slice(&self.bytes).map_err(|error| match error {
            Pem::NoItemsFound => self.error(
                "has no private key (expected PEM: PKCS#8, PKCS#1 or SEC1; an encrypted key cannot be used)",
            ),
            error => self.error(format!("is broken: {error}")),
        })
    }

    /// The certificates as authorities to trust.
    ///
    /// # Errors
    ///
    /// When there is none, or one cannot be one.
    pub(super) fn roots(&self) -> Result<RootCertStore, Error> {
        let mut roots = RootCertStore::empty();
        for certificate in self.certificates()? {
            roots.add(certificate).map_err(|error| {
                self.error(format!(
                    "has a certificate that cannot be an authority: {error}"
                ))
            })?;
        }
        Ok(roots)
    }
}

/// A hash over what is in these files.
pub(super) fn hash_of<const N: usize>(files: [Option<&PemFile>; N]) -> Hash {
    let mut hasher = Hasher::new();
    for file in files.into_iter().flatten() {
        hasher.update(&(file.bytes.len() as u64).to_le_bytes());
        hasher.update(&file.bytes);
    }
    hasher.finalize()
}

/// A chain and the key that belongs to it.
///
/// # Errors
///
/// Says which of the files is wrong; a key of another certificate is the key's fault.
pub(super) fn identity(chain: &PemFile, key: &PemFile) -> Result<CertifiedKey, Error> {
    let certificates = chain.certificates()?;
    let signing = provider()
        .key_provider
        .load_private_key(key.key()?)
        .map_err(|error| key.error(format!("has a key that cannot be used: {error}")))?;
    let identity = CertifiedKey::new(certificates, signing);
    match identity.keys_match() {
        Ok(()) => Ok(identity),
        Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            Err(key.error(format!(
                "does not belong to the first certificate in {}",
                chain.path.display()
            )))
        }
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err(key.error("has a key that cannot be compared with the certificate"))
        }
        Err(error) => Err(chain.error(format!("has a certificate that cannot be used: {error}"))),
    }
}
