//! systemd's notification protocol (`sd_notify(3)`): datagrams of lines to the socket in `NOTIFY_SOCKET`.
//!
//! Nobody is asked to listen: what cannot be told is logged, and the server goes on.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use crate::clock;

/// Tells whoever started this process how it is; nobody, if that was no systemd.
#[derive(Debug, Default)]
pub struct Notifier {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// As the environment says: `NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`.
    ///
    /// # Errors
    ///
    /// When the socket cannot be reached.
    pub fn from_environment() -> io::Result<Self> {
        let variable = |name| std::env::var(name).ok();
        let watchdog = watchdog(
            variable("WATCHDOG_USEC").as_deref(),
            variable("WATCHDOG_PID").as_deref(),
            std::process::id(),
        );
        match std::env::var_os("NOTIFY_SOCKET") {
            Some(address) => Self::new(&address, watchdog),
            None => Ok(Self::default()),
        }
    }

    fn new(address: &OsStr, watchdog: Option<Duration>) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        // A notification is never worth waiting for.
        socket.set_nonblocking(true)?;
        match address.as_bytes() {
            [b'@', name @ ..] => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
            [b'/', ..] => socket.connect(OsString::from(address))?,
            _ => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "NOTIFY_SOCKET is neither a path nor an abstract name",
                ));
            }
        }
        Ok(Self {
            socket: Some(socket),
            watchdog,
        })
    }

    /// It serves, or serves with what it has reloaded.
    pub fn ready(&self) {
        self.tell("READY=1");
    }

    /// It reloads; [`ready`](Self::ready) says when that is over.
    pub fn reloading(&self) {
        let now = clock::monotonic().as_micros();
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={now}"));
    }

    /// It is going down.
    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// One line for people.
    pub fn status(&self, text: &str) {
        let line = text.replace(['\n', '\r'], " ");
        self.tell(&format!("STATUS={line}"));
    }

    /// This process is the service now, in place of the one that it took over from (needs `NotifyAccess=all`).
    pub fn took_over(&self) {
        self.tell(&format!("MAINPID={}\nREADY=1", std::process::id()));
    }

    /// It is alive.
    pub fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    /// How often to say that it is [`alive`](Self::alive), if anybody wants to know: twice as often as is asked for.
    pub fn interval(&self) -> Option<Duration> {
        self.watchdog.map(|limit| limit / 2)
    }

    fn tell(&self, lines: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(lines.as_bytes())
        {
            tracing::debug!(%error, lines, "the service manager was not told");
        }
    }
}

/// The limit of a watchdog that watches this process.
fn watchdog(limit: Option<&str>, process: Option<&str>, own: u32) -> Option<Duration> {
    let ours = process.is_none_or(|process| process.parse() == Ok(own));
    let limit: u64 = limit?.parse().ok()?;
    (ours && limit > 0).then(|| Duration::from_micros(limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hear(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 256];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_life_is_told_line_by_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let notifier = Notifier::new(path.as_os_str(), Some(Duration::from_secs(3))).unwrap();
        notifier.ready();
        assert_eq!(hear(&manager), "READY=1");
        notifier.reloading();
        let told = hear(&manager);
        let since = told.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(since.parse::<u64>().unwrap() > 0, "{told}");
        notifier.status("draining\nREADY=1");
        assert_eq!(hear(&manager), "STATUS=draining READY=1");
        notifier.took_over();
        let own = std::process::id();
        assert_eq!(hear(&manager), format!("MAINPID={own}\nREADY=1"));
        notifier.alive();
        assert_eq!(hear(&manager), "WATCHDOG=1");
        notifier.stopping();
        assert_eq!(hear(&manager), "STOPPING=1");
        assert_eq!(notifier.interval(), Some(Duration::from_millis(1500)));
        // A manager that has gone is nobody's trouble.
        drop(manager);
        notifier.ready();
    }

    #[test]
    fn an_abstract_name_will_do() {
        let name = format!("pointsman-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        manager
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let notifier = Notifier::new(OsStr::new(&format!("@{name}")), None).unwrap();
        notifier.ready();
        assert_eq!(hear(&manager), "READY=1");
        assert_eq!(notifier.interval(), None);
        Notifier::new(OsStr::new("vsock:2:1"), None).unwrap_err();
    }

    #[test]
    fn only_the_process_that_is_meant_is_watched() {
        let second = Some(Duration::from_secs(1));
        assert_eq!(watchdog(Some("1000000"), None, 7), second);
        assert_eq!(watchdog(Some("1000000"), Some("7"), 7), second);
        assert_eq!(watchdog(Some("1000000"), Some("8"), 7), None);
        assert_eq!(watchdog(Some("0"), None, 7), None);
        assert_eq!(watchdog(Some("soon"), None, 7), None);
        assert_eq!(watchdog(None, Some("7"), 7), None);
    }
}
