//! Replacing a running process without a refused connection, and telling whoever runs it how it is.
//!
//! Sockets that listen come from the system ([`inherited`]: systemd's socket activation) or from the process that is to be replaced
//! ([`Server`] and [`Client`]), and [`Notifier`] speaks systemd's notification protocol. Linux, because of peer credentials.
//!
//! # Taking over
//!
//! The old process listens at a Unix socket that only its user can open.
//!
//! 1. The successor connects. Each sees that the other runs as the same user, and both speak the same version.
//! 2. The old process passes its listening sockets ([`Request::offer`]). They are the same sockets: whoever waits in their queues is
//!    accepted by either process, and they stay open as long as one of the two has them open.
//! 3. The successor accepts on them and says so ([`Client::accepting`]). Until it has, the old process goes on as if nothing had
//!    happened, and if the successor dies it does so for good.
//! 4. The old process stops accepting, drains, flushes its journal, releases the lock of the data directory, says so
//!    ([`Offered::released`]) and ends.
//! 5. The successor ([`Client::wait_released`]) takes the lock. If the old process dies, the system has released the lock for it.
//!
//! Not here: what a successor may answer before it holds the lock; that is for the wiring.

mod client;
mod inherit;
mod notify;
mod server;
mod wire;

#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;

use rustix::process::Uid;
use socket2::Socket;

pub use client::{Client, Release};
pub use inherit::inherited;
pub use notify::Notifier;
pub use server::{Offered, Request, Server};

/// The version of what is said at the Unix socket.
const VERSION: u32 = 1;

/// Sockets that listen, by what they are for.
#[derive(Debug, Default)]
pub struct Listeners {
    /// Requests, and the reserved paths if `api` is empty.
    pub proxy: Vec<Socket>,
    /// The reserved paths.
    pub api: Vec<Socket>,
    /// The admin listener.
    pub admin: Option<Socket>,
}

impl Listeners {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.proxy.is_empty() && self.api.is_empty() && self.admin.is_none()
    }

    /// One set of `sockets` for each of so many workers, at least one.
    ///
    /// No socket is left out, because connections that the kernel has put into its queue would wait for ever; workers beyond the number
    /// of sockets share one.
    ///
    /// # Errors
    ///
    /// When the process has no descriptor left.
    pub fn spread(sockets: Vec<Socket>, workers: usize) -> io::Result<Vec<Vec<Socket>>> {
        let given = sockets.len();
        let workers = workers.max(1);
        let mut sets: Vec<Vec<Socket>> = (0..workers).map(|_| Vec::new()).collect();
        for (index, socket) in sockets.into_iter().enumerate() {
            sets[index % workers].push(socket);
        }
        if given > 0 {
            for index in given..workers {
                let shared = sets[index % given][0].try_clone()?;
                sets[index].push(shared);
            }
        }
        Ok(sets)
    }
}

/// Why there was no handover.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something lives at the socket.
    #[error(
        "{} is in use by a running process: take over from it (serve --take-over), stop it, or use another path",
        .0.display()
    )]
    InUse(PathBuf),
    /// Something is there that we did not put there.
    #[error("{} is no socket, and is not replaced", .0.display())]
    NoSocket(PathBuf),
    /// Nobody to take over from.
    #[error("nobody listens at {}: there is no process to take over from", .0.display())]
    Nobody(PathBuf),
    /// The peer is another user's.
    #[error(
        "the process at the other end runs as user {peer}, this one as {own}: both must be the same"
    )]
    OtherUser {
        /// The peer's user.
        peer: u32,
        /// Our user.
        own: u32,
    },
    /// The other end has another idea of what to say.
    #[error("the process at the other end said {0}")]
    Unexpected(String),
    /// The other end does not want to.
    #[error("the process at the other end refuses: {0}")]
    Refused(String),
    /// What was handed to us is of no use.
    #[error("an inherited socket cannot be used: {0}")]
    Unusable(String),
    /// The other end has gone.
    #[error("the process at the other end has gone")]
    Gone,
    /// The system's error.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The system's error.
        source: io::Error,
    },
}

/// Names what was being done when the system refused.
fn failed(doing: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| match source.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::ConnectionReset => Error::Gone,
        _ => Error::Io { doing, source },
    }
}

/// The file's mode keeps others out already; a socket in a shared folder may have been put there by anybody.
fn same_user(peer: Uid, own: Uid) -> Result<(), Error> {
    if peer == own {
        return Ok(());
    }
    Err(Error::OtherUser {
        peer: peer.as_raw(),
        own: own.as_raw(),
    })
}

/// What was given to us must listen, and must not block a runtime.
fn check(socket: Socket) -> Result<Socket, Error> {
    let listens = socket
        .is_listener()
        .map_err(failed("look at an inherited socket"))?;
    if !listens {
        return Err(Error::Unusable("it does not listen".to_owned()));
    }
    socket
        .set_nonblocking(true)
        .map_err(failed("prepare an inherited socket"))?;
    Ok(socket)
}
