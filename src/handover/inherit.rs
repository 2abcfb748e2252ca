//! Sockets from systemd, or whatever speaks its protocol: `LISTEN_PID`, `LISTEN_FDS`, `LISTEN_FDNAMES`
//! (`sd_listen_fds(3)`).

use listenfd::ListenFd;
use socket2::Socket;

use super::{Error, Listeners, check, failed};

/// What a socket is for, in the order of sockets without names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Proxy,
    Api,
    Admin,
}

const IN_ORDER: [(&str, Purpose); 3] = [
    ("proxy", Purpose::Proxy),
    ("api", Purpose::Api),
    ("admin", Purpose::Admin),
];

/// The sockets that this process was started with, empty if there are none. Call it once, before there is a second thread: the
/// variables are removed, so that no child of ours believes that they are meant for it.
///
/// # Errors
///
/// When one is no TCP socket that listens, or nobody can know what it is for.
pub fn inherited() -> Result<Listeners, Error> {
    let names = std::env::var("LISTEN_FDNAMES").ok();
    let mut given = ListenFd::from_env();
    let purposes = purposes(names.as_deref(), given.len())?;
    let mut listeners = Listeners::default();
    for (index, purpose) in purposes.into_iter().enumerate() {
        let Some(listener) = given
            .take_tcp_listener(index)
            .map_err(failed("take an inherited socket"))?
        else {
            continue;
        };
        let socket = check(Socket::from(listener))?;
        match purpose {
            Purpose::Proxy => listeners.proxy.push(socket),
            Purpose::Api => listeners.api.push(socket),
            Purpose::Admin => listeners.admin = Some(socket),
        }
    }
    Ok(listeners)
}

/// What each of `count` sockets is for.
fn purposes(names: Option<&str>, count: usize) -> Result<Vec<Purpose>, Error> {
    let known = |name: &str| {
        let found = IN_ORDER.iter().find(|(known, _)| *known == name);
        found.map(|(_, purpose)| *purpose)
    };
    let names: Vec<&str> = names
        .map(|names| names.split(':').collect())
        .unwrap_or_default();
    // Without FileDescriptorName= systemd gives all of them the name of the unit.
    if !names.iter().any(|name| known(name).is_some()) {
        if count > IN_ORDER.len() {
            return Err(Error::Unusable(format!(
                "there are {count} without a name; call each proxy, api or admin (FileDescriptorName=)"
            )));
        }
        return Ok(IN_ORDER[..count]
            .iter()
            .map(|(_, purpose)| *purpose)
            .collect());
    }
    if names.len() != count {
        return Err(Error::Unusable(format!(
            "there are {count} sockets and {} names",
            names.len()
        )));
    }
    let purposes: Vec<Purpose> = names
        .iter()
        .map(|name| {
            known(name).ok_or_else(|| {
                Error::Unusable(format!(
                    "one is called {name:?}: only proxy, api and admin are known"
                ))
            })
        })
        .collect::<Result<_, _>>()?;
    let admins = purposes
        .iter()
        .filter(|purpose| **purpose == Purpose::Admin)
        .count();
    if admins > 1 {
        return Err(Error::Unusable("only one can be called admin".to_owned()));
    }
    Ok(purposes)
}

#[cfg(test)]
mod tests {
    use super::Purpose::{Admin, Api, Proxy};
    use super::*;

    #[test]
    fn names_or_the_order_say_what_a_socket_is_for() {
        let order = |names, count| purposes(names, count).unwrap();
        assert_eq!(order(None, 0), []);
        assert_eq!(order(None, 2), [Proxy, Api]);
        assert_eq!(
            order(Some("p.socket:p.socket:p.socket"), 3),
            [Proxy, Api, Admin]
        );
        assert_eq!(order(Some("admin:proxy:proxy"), 3), [Admin, Proxy, Proxy]);
        // As a shell's leftovers: names without descriptors.
        assert_eq!(order(Some(""), 0), []);
        for (names, count, why) in [
            (None, 4, "without a name"),
            (Some("proxy"), 2, "2 sockets and 1 names"),
            (Some("proxy:other"), 2, "\"other\""),
            (Some("admin:admin"), 2, "only one"),
        ] {
            let error = purposes(names, count).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
