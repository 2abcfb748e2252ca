//! The end of the process that is to be replaced.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_peercred};
use rustix::process::geteuid;

use super::wire::{Message, receive, send, send_descriptors};
use super::{Error, Listeners, VERSION, failed, same_user};

/// How long the other end may take for what it does at once.
const PATIENCE: Duration = Duration::from_secs(5);

/// Waits for a successor. Dropping it removes the socket.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    /// Device and number of our socket's file.
    file: (u64, u64),
}

impl Server {
    /// Listens at `path`, which only this user can open. What a dead process has left there is replaced.
    ///
    /// # Errors
    ///
    /// [`Error::InUse`] when a process listens there, [`Error::NoSocket`] when something else is there.
    pub fn bind(path: &Path) -> Result<Self, Error> {
        make_room(path)?;
        // Nobody may connect before the mode is set, so the socket gets its name when it is ready.
        let mut draft = path.as_os_str().to_owned();
        draft.push(format!(".{}", std::process::id()));
        let draft = PathBuf::from(draft);
        remove(&draft)?;
        let made = UnixListener::bind(&draft).and_then(|listener| {
            fs::set_permissions(&draft, Permissions::from_mode(0o600))?;
            fs::rename(&draft, path)?;
            let metadata = fs::symlink_metadata(path)?;
            Ok((listener, (metadata.dev(), metadata.ino())))
        });
        match made {
            Ok((listener, file)) => Ok(Self {
                listener,
                path: path.to_owned(),
                file,
            }),
            Err(error) => {
                remove(&draft)?;
                Err(failed("listen for a successor")(error))
            }
        }
    }

    /// The next process that wants to take over, or nothing if none comes within `patience`.
    ///
    /// # Errors
    ///
    /// When who came is another user's, says something else, or has gone again: wait for the next. Other errors are the system's.
    pub fn accept(&self, patience: Duration) -> Result<Option<Request>, Error> {
        // Zero would be for ever.
        let patience = patience.max(Duration::from_millis(1));
        set_socket_timeout(&self.listener, Timeout::Recv, Some(patience))
            .map_err(|error| failed("wait for a successor")(error.into()))?;
        let stream = match self.listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(failed("wait for a successor")(error)),
        };
        Request::hear(stream).map(Some)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A successor may have put its own there.
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.file);
        if ours && let Err(error) = remove(&self.path) {
            tracing::debug!(%error, "the socket for a successor stays where it is");
        }
    }
}

/// Sees to it that nobody lives at `path`. Who holds the data directory's lock is alone in calling this.
fn make_room(path: &Path) -> Result<(), Error> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look for an old socket")(error)),
    };
    if !metadata.file_type().is_socket() {
        return Err(Error::NoSocket(path.to_owned()));
    }
    match UnixStream::connect(path) {
        // Nobody listens any more: the new socket takes its name.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed("look at an old socket")(error)),
        Ok(_) => Err(Error::InUse(path.to_owned())),
    }
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed("remove a socket")(error))
        }
        _ => Ok(()),
    }
}

/// A process that wants to take over.
#[derive(Debug)]
pub struct Request {
    stream: UnixStream,
    process: i32,
}

impl Request {
    fn hear(stream: UnixStream) -> Result<Self, Error> {
        let peer = socket_peercred(&stream)
            .map_err(|error| failed("ask who the successor is")(error.into()))?;
        same_user(peer.uid, geteuid())?;
        set_patience(&stream, PATIENCE)?;
        match receive(&stream).map_err(failed("hear a successor"))? {
            Message::Hello { version: VERSION } => Ok(Self {
                stream,
                process: peer.pid.as_raw_pid(),
            }),
            Message::Hello { version } => {
                let why = format!(
                    "it speaks version {VERSION} of the handover, the successor version {version}: stop it and start the other"
                );
                refuse(&stream, why)?;
                Err(Error::Unexpected(format!("hello in version {version}")))
            }
            other => Err(unexpected(&other)),
        }
    }

    /// The process's number.
    pub fn process(&self) -> i32 {
        self.process
    }

    /// Tells it that it cannot take over.
    ///
    /// # Errors
    ///
    /// When it has gone.
    pub fn refuse(self, why: &str) -> Result<(), Error> {
        refuse(&self.stream, why.to_owned())
    }

    /// Passes the sockets, and waits until the successor accepts on them, at most `patience`. On an error go on as if nobody had come.
    ///
    /// # Errors
    ///
    /// When the successor goes or is not ready in time.
    pub fn offer(self, listeners: &Listeners, patience: Duration) -> Result<Offered, Error> {
        let header = Message::Listeners {
            version: VERSION,
            proxy: listeners.proxy.len(),
            api: listeners.api.len(),
            admin: usize::from(listeners.admin.is_some()),
        };
        let all: Vec<_> = listeners
            .proxy
            .iter()
            .chain(&listeners.api)
            .chain(&listeners.admin)
            .map(AsFd::as_fd)
            .collect();
        send(&self.stream, &header)
            .and_then(|()| send_descriptors(&self.stream, &all))
            .map_err(failed("pass sockets to a successor"))?;
        set_patience(&self.stream, patience)?;
        match receive(&self.stream).map_err(failed("wait until a successor accepts"))? {
            Message::Accepting => Ok(Offered {
                stream: self.stream,
            }),
            other => Err(unexpected(&other)),
        }
    }
}

/// A successor that accepts on our sockets, and waits for the data directory.
#[derive(Debug)]
pub struct Offered {
    stream: UnixStream,
}

impl Offered {
    /// Tells it that the data directory's lock is released. Ending does the same, less politely.
    ///
    /// # Errors
    ///
    /// When it has gone.
    pub fn released(self) -> Result<(), Error> {
        send(&self.stream, &Message::Released).map_err(failed("tell a successor"))
    }
}

fn refuse(stream: &UnixStream, why: String) -> Result<(), Error> {
    send(stream, &Message::Refused { why }).map_err(failed("answer a successor"))
}

pub(super) fn unexpected(message: &Message) -> Error {
    Error::Unexpected(format!("{message:?}"))
}

/// How long reading and writing may take.
pub(super) fn set_patience(stream: &UnixStream, patience: Duration) -> Result<(), Error> {
    let patience = Some(patience.max(Duration::from_millis(1)));
    stream
        .set_read_timeout(patience)
        .and_then(|()| stream.set_write_timeout(patience))
        .map_err(failed("set a time limit"))
}
