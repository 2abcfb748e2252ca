//! TLS to clients ([`ServerTls`]) and to endpoints ([`ClientTls`]), with rustls and *ring*.
//!
//! Both are made from PEM files, once, and hold a configuration that is whole: nothing is read from a disk on the request path.
//! A server's certificate is replaced while connections are open ([`ServerTls::reload`], and [`watch`] calls it when the files
//! change): handshakes that begin after that get the new one.
//!
//! Not here: which listener speaks TLS, how long a handshake may take, and what is spoken inside; that is the worker's.

mod client;
mod expiry;
mod files;
mod server;
pub mod watch;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use tokio_rustls::rustls::crypto::{CryptoProvider, ring};

pub use client::{ClientTls, negotiated_http2};
pub use server::{ClientCertificates, ServerFiles, ServerTls};

/// How HTTP/2 is called in ALPN (RFC 9113, section 3.2).
const H2: &[u8] = b"h2";

/// How HTTP/1.1 is called in ALPN (RFC 7301, section 6).
const HTTP1: &[u8] = b"http/1.1";

/// Why a TLS configuration cannot be used: which file, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A file.
    #[error("TLS: {}: {why}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Something that is in no file.
    #[error("TLS: {0}")]
    Other(String),
}

/// The cryptography, named, so that no other crate's choice of a process-wide default matters.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// An error that no file is to blame for.
fn other(error: impl std::fmt::Display) -> Error {
    Error::Other(error.to_string())
}
