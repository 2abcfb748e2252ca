//! The successor's end.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;
use socket2::Socket;

use super::server::{set_patience, unexpected};
use super::wire::{Message, receive, receive_descriptors, send};
use super::{Error, Listeners, VERSION, check, failed, same_user};

/// How the old process let go of the data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// It said so.
    Told,
    /// It is gone. The system releases its lock, but perhaps a moment later: try for a while.
    Gone,
}

/// A connection to the process that is replaced.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
}

impl Client {
    /// Asks the process at `path` for its sockets. It goes on serving until it is told that this one [accepts](Self::accepting).
    ///
    /// # Errors
    ///
    /// When there is none, it is another user's, it refuses, or it takes longer than `patience` for a step.
    pub fn connect(path: &Path, patience: Duration) -> Result<(Self, Listeners), Error> {
        let stream = UnixStream::connect(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                Error::Nobody(path.to_owned())
            }
            _ => failed("connect to the process to take over from")(error),
        })?;
        let peer = socket_peercred(&stream)
            .map_err(|error| failed("ask who is to be taken over from")(error.into()))?;
        same_user(peer.uid, geteuid())?;
        set_patience(&stream, patience)?;
        send(&stream, &Message::Hello { version: VERSION }).map_err(failed("ask for sockets"))?;
        let (proxy, api, admin) = match receive(&stream).map_err(failed("wait for sockets"))? {
            Message::Listeners {
                version: VERSION,
                proxy,
                api,
                admin: admin @ (0 | 1),
            } => (proxy, api, admin),
            Message::Refused { why } => return Err(Error::Refused(why)),
            other => return Err(unexpected(&other)),
        };
        let count = proxy.saturating_add(api).saturating_add(admin);
        let sockets = receive_descriptors(&stream, count)
            .map_err(failed("receive sockets"))?
            .into_iter()
            .map(|descriptor| check(Socket::from(descriptor)))
            .collect::<Result<Vec<_>, _>>()?;
        let mut sockets = sockets.into_iter();
        let listeners = Listeners {
            proxy: sockets.by_ref().take(proxy).collect(),
            api: sockets.by_ref().take(api).collect(),
            admin: sockets.next(),
        };
        Ok((Self { stream }, listeners))
    }

    /// Tells the old process that this one accepts on all of the sockets, so that it may stop.
    ///
    /// # Errors
    ///
    /// When it has gone.
    pub fn accepting(&self) -> Result<(), Error> {
        send(&self.stream, &Message::Accepting).map_err(failed("say that this process accepts"))
    }

    /// Waits until the old process has released the data directory's lock, at most `patience`, which should be longer than its drain.
    ///
    /// # Errors
    ///
    /// When it takes longer.
    pub fn wait_released(&self, patience: Duration) -> Result<Release, Error> {
        set_patience(&self.stream, patience)?;
        match receive(&self.stream).map_err(failed("wait for the data directory")) {
            Ok(Message::Released) => Ok(Release::Told),
            Ok(other) => Err(unexpected(&other)),
            Err(Error::Gone) => Ok(Release::Gone),
            Err(error) => Err(error),
        }
    }
}
