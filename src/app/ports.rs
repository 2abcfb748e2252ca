//! The sockets that a server listens on: given by the system or by the process that is replaced, or bound here.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use socket2::Socket;
use tokio::net::TcpListener;

use crate::config::settings::Settings;
use crate::handover::Listeners;
use crate::proxy::worker::{self, Role};

/// The ports, bound before the data directory is touched, so that a port in use costs nothing.
#[derive(Debug)]
pub(super) struct Ports(Listeners);

impl Ports {
    /// Binds what is not `given`. What is given is used whatever the settings say.
    pub(super) fn complete(given: Listeners, settings: &Settings) -> Result<Self> {
        let workers = workers(settings);
        let mut listeners = given;
        if listeners.proxy.is_empty() {
            listeners.proxy = bind(settings.listen.proxy, workers)?;
        }
        if let Some(api) = settings.listen.api.filter(|_| listeners.api.is_empty()) {
            listeners.api = bind(api, workers)?;
        }
        if listeners.admin.is_none() {
            let address = settings.listen.admin;
            let admin =
                std::net::TcpListener::bind(address).with_context(|| cannot_listen(address))?;
            admin.set_nonblocking(true)?;
            listeners.admin = Some(admin.into());
        }
        Ok(Self(listeners))
    }

    /// The same sockets once more.
    pub(super) fn share(&self) -> Result<Listeners> {
        let all = |sockets: &[Socket]| -> std::io::Result<Vec<Socket>> {
            sockets.iter().map(Socket::try_clone).collect()
        };
        let share = || -> std::io::Result<Listeners> {
            Ok(Listeners {
                proxy: all(&self.0.proxy)?,
                api: all(&self.0.api)?,
                admin: self.0.admin.as_ref().map(Socket::try_clone).transpose()?,
            })
        };
        share().context("could not keep the sockets for a successor")
    }

    /// The admin listener. Call in a runtime, once.
    pub(super) fn admin(&mut self) -> Result<TcpListener> {
        let socket = self.0.admin.take().context("there is no admin listener")?;
        TcpListener::from_std(socket.into()).context("could not listen")
    }

    /// Where the first listener and the admin listener really are.
    pub(super) fn addresses(&self) -> (Option<SocketAddr>, Option<SocketAddr>) {
        let address = |socket: &Socket| socket.local_addr().ok()?.as_socket();
        let admin = self.0.admin.as_ref().and_then(address);
        (self.0.proxy.first().and_then(address), admin)
    }

    /// Has all of them listen, and makes one set of sockets a worker. Nobody waits in a queue that no worker empties.
    pub(super) fn by_worker(self, workers: usize) -> Result<Vec<Vec<(Socket, Role)>>> {
        let Listeners { proxy, api, .. } = self.0;
        // All listen before any accepts, and before the server is ready.
        for socket in proxy.iter().chain(&api) {
            if !socket.is_listener().context("could not look at a socket")? {
                socket.listen(worker::BACKLOG).context("could not listen")?;
            }
        }
        let role = if api.is_empty() {
            Role::Everything
        } else {
            Role::Requests
        };
        let spread = |sockets| {
            Listeners::spread(sockets, workers).context("could not share the sockets out")
        };
        let sets = spread(proxy)?.into_iter().zip(spread(api)?);
        let with_role = |(proxy, api): (Vec<Socket>, Vec<Socket>)| {
            let requests = proxy.into_iter().map(|socket| (socket, role));
            let reserved = api.into_iter().map(|socket| (socket, Role::Api));
            requests.chain(reserved).collect()
        };
        Ok(sets.map(with_role).collect())
    }
}

fn bind(address: SocketAddr, workers: usize) -> Result<Vec<Socket>> {
    // With SO_REUSEPORT another Pointsman could take the port as well, and clients would reach either.
    drop(std::net::TcpListener::bind(address).with_context(|| cannot_listen(address))?);
    (0..workers)
        .map(|_| worker::bind(address).with_context(|| cannot_listen(address)))
        .collect()
}

fn cannot_listen(address: SocketAddr) -> String {
    format!(
        "could not listen on {address} (change it in [listen], stop what uses it, or take over from it with --take-over)"
    )
}

/// How many workers there are.
pub(super) fn workers(settings: &Settings) -> usize {
    match settings.workers.count {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        count => count,
    }
}
