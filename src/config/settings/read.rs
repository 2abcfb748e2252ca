//! From text, environment and flags to checked settings.

mod upstream;

use std::net::SocketAddr;
use std::path::PathBuf;

use super::{
    Auth, Data, FIELDS, Forwarding, ForwardingMode, ForwardingStyle, Limits, Listen, Reload,
    Settings, Shutdown, TakeOver, Tls, Workers,
};
use crate::document::{Default, Document, Kind, Problem, Problems, Section};
use crate::journal::Durability;

/// A year: a longer time is a slip, and clocks need not bear it.
const MAX_TIME: u64 = 365 * 86_400_000;
/// A path of a Unix socket has to fit into 108 bytes with a zero at its end.
const MAX_SOCKET: usize = 107;

/// Reads the settings: `text` of `file`, overridden by `overrides` of the form (`listen.proxy`, value), the strongest last.
///
/// # Errors
///
/// Every problem at once.
pub fn parse(
    file: &str,
    text: &str,
    overrides: &[(String, String)],
) -> Result<Settings, Vec<Problem>> {
    let problems = Problems::default();
    let defaults = defaults();
    let overrides: Vec<(&str, String)> = overrides
        .iter()
        .map(|(path, value)| (path.as_str(), as_toml(path, value)))
        .collect();
    let mut documents = vec![
        Document::parse("default settings", &defaults, &problems),
        Document::parse(file, text, &problems),
    ];
    documents.extend(
        overrides
            .iter()
            .map(|(path, toml)| Document::parse(path, toml, &problems)),
    );
    let reading = Reading::new(&documents, &problems);
    match reading.settings() {
        Some(settings) if !problems.has_errors() => Ok(settings),
        _ => Err(problems.into_sorted()),
    }
}

/// The default settings as a file, from the fields.
fn defaults() -> String {
    let mut text = String::new();
    for section in FIELDS {
        let Kind::Table(fields) = section.kind else {
            continue;
        };
        text.push_str(&format!("[{}]\n", section.key));
        for field in fields {
            if let Default::Is(value) = field.default {
                text.push_str(&format!("{} = {value}\n", field.key));
            }
        }
    }
    text
}

/// `listen.proxy` and `0.0.0.0:80` as `listen.proxy = "0.0.0.0:80"`; numbers and truth values stay bare where the field wants them.
fn as_toml(path: &str, value: &str) -> String {
    let kind = path.split_once('.').and_then(|(section, key)| {
        let section = FIELDS.iter().find(|field| field.key == section)?;
        let Kind::Table(fields) = section.kind else {
            return None;
        };
        Some(fields.iter().find(|field| field.key == key)?.kind)
    });
    match kind {
        // Nothing but a plain word goes in unquoted, or a value could bring keys of its own.
        Some(Kind::Integer(..) | Kind::Boolean | Kind::Number(_))
            if value.bytes().all(is_plain) && !value.is_empty() =>
        {
            format!("{path} = {value}")
        }
        _ => format!("{path} = {}", toml_string(value)),
    }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+-_.".contains(&byte)
}

/// A TOML basic string. JSON's escapes are TOML's.
fn toml_string(value: &str) -> String {
    serde_json::Value::from(value).to_string()
}

/// The overrides in the environment: `POINTSMAN_LISTEN_PROXY` for `listen.proxy`, and so on for every setting.
pub fn from_environment(read: impl Fn(&str) -> Option<String>) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for section in FIELDS {
        let Kind::Table(fields) = section.kind else {
            continue;
        };
        for field in fields {
            let name = format!("POINTSMAN_{}_{}", section.key, field.key).to_uppercase();
            if let Some(value) = read(&name) {
                found.push((format!("{}.{}", section.key, field.key), value));
            }
        }
    }
    found
}

/// Defaults, the file, and what is laid over it; the strongest last.
struct Reading<'d> {
    /// The sections of each layer.
    layers: Vec<Vec<(&'static str, Section<'d>)>>,
}

impl<'d> Reading<'d> {
    fn new(documents: &'d [Document<'d>], problems: &'d Problems) -> Self {
        let open = |document: &'d Document<'d>| {
            let top = document.section(FIELDS, problems);
            FIELDS
                .iter()
                .filter_map(|field| Some((field.key, top.section(field.key)?)))
                .collect()
        };
        Self {
            layers: documents
                .iter()
                .filter(|document| !document.is_broken())
                .map(open)
                .collect(),
        }
    }

    /// The section of the strongest layer that gives the key.
    fn layer(&self, section: &str, key: &str) -> Option<&Section<'d>> {
        let sections = self.layers.iter().rev().flatten();
        sections
            .filter(|(name, _)| *name == section)
            .map(|(_, layer)| layer)
            .find(|layer| layer.has(key))
    }

    fn string(&self, section: &str, key: &str) -> Option<&'d str> {
        self.layer(section, key)?.string(key)
    }

    fn boolean(&self, section: &str, key: &str) -> Option<bool> {
        self.layer(section, key)?.boolean(key)
    }

    fn count(&self, section: &str, key: &str) -> Option<usize> {
        usize::try_from(self.layer(section, key)?.integer(key)?).ok()
    }

    fn duration(&self, section: &str, key: &str) -> Option<u64> {
        self.layer(section, key)?.duration(key)
    }

    fn address(&self, key: &str) -> Option<SocketAddr> {
        let layer = self.layer("listen", key)?;
        let address = layer.string(key)?.parse().ok();
        if address.is_none() {
            layer.reject(
                key,
                format!("`{key}` is not an address"),
                "it takes an IP address and a port, as in \"127.0.0.1:8080\" or \"[::1]:8080\"",
            );
        }
        address
    }

    /// Evaluates every section before giving up, so that every problem is found.
    fn settings(&self) -> Option<Settings> {
        let listen = self.listen();
        let auth = self.auth();
        if let (Some(listen), Some(auth)) = (&listen, &auth) {
            self.check_admin(listen, auth);
        }
        let tls = self.tls();
        let (default_upstream, take_over) = (self.default_upstream(), self.take_over());
        let limits = self.limits();
        let data = self.data();
        Some(Settings {
            workers: Workers {
                count: self.count("workers", "count")?,
            },
            data: data?,
            limits: limits?,
            reload: Reload {
                poll: self.duration("reload", "poll")?,
            },
            shutdown: Shutdown {
                drain_delay: self.duration("shutdown", "drain_delay")?,
                drain_timeout: self.duration("shutdown", "drain_timeout")?,
            },
            tls,
            forwarding: self.forwarding()?,
            default_upstream,
            take_over,
            listen: listen?,
            auth: auth?,
        })
    }

    fn data(&self) -> Option<Data> {
        if let Some(layer) = self
            .layer("data", "dir")
            .filter(|layer| layer.string("dir") == Some(""))
        {
            layer.reject(
                "dir",
                "`dir` is empty",
                "name the folder that the journal is kept in",
            );
        }
        let fsync = if self.string("data", "fsync")? == "none" {
            Durability::None
        } else {
            Durability::Group
        };
        Some(Data {
            dir: PathBuf::from(self.string("data", "dir")?),
            fsync,
            retention: self.duration("data", "retention")?,
            retention_bytes: self.count("data", "retention_bytes")? as u64,
            segment_bytes: self.count("data", "segment_bytes")? as u64,
            segment_age: self.duration("data", "segment_age")?,
            checkpoint_every: self.duration("data", "checkpoint_every")?,
        })
    }

    fn listen(&self) -> Option<Listen> {
        let (proxy, admin) = (self.address("proxy"), self.address("admin"));
        if let (Some(0), Some(layer)) = (
            proxy.map(|proxy| proxy.port()),
            self.layer("listen", "proxy"),
        ) {
            // Every worker binds the port for itself.
            layer.reject(
                "proxy",
                "port 0 would be another port for each worker",
                "give the port that clients connect to",
            );
        }
        let api = self.layer("listen", "api").map(|_| self.address("api"));
        Some(Listen {
            proxy: proxy?,
            admin: admin?,
            api: api.map_or(Some(None), |address| address.map(Some))?,
        })
    }

    fn auth(&self) -> Option<Auth> {
        for key in ["client_token", "admin_token"] {
            let Some(layer) = self.layer("auth", key) else {
                continue;
            };
            if layer
                .string(key)
                .is_some_and(|token| !token.bytes().all(|byte| byte.is_ascii_graphic()))
            {
                layer.reject(
                    key,
                    format!("`{key}` has a character that no header can carry"),
                    "use letters, digits and punctuation",
                );
            }
        }
        let auth = Auth {
            secret_file: self.string("auth", "secret_file").map(PathBuf::from),
            client_token: self.string("auth", "client_token")?.to_owned(),
            open: self.boolean("auth", "open")?,
            admin_token: self.string("auth", "admin_token")?.to_owned(),
        };
        if let (true, false, Some(layer)) = (
            auth.open,
            auth.client_token.is_empty(),
            self.layer("auth", "open"),
        ) {
            layer.reject(
                "open",
                "`open` and `client_token` exclude each other",
                "open lets everybody in; leave one of the two out",
            );
        }
        Some(auth)
    }

    fn check_admin(&self, listen: &Listen, auth: &Auth) {
        if listen.admin.ip().is_loopback() || !auth.admin_token.is_empty() {
            return;
        }
        if let Some(layer) = self.layer("listen", "admin") {
            let message = format!(
                "the admin listener {} can be reached from other machines, and `auth.admin_token` is not set",
                listen.admin
            );
            layer.reject(
                "admin",
                message,
                "set auth.admin_token, or listen on 127.0.0.1",
            );
        }
    }

    /// A file; `None` where its name is empty.
    fn file(&self, section: &str, key: &str) -> Option<PathBuf> {
        let text = self.string(section, key)?;
        (!text.is_empty()).then(|| PathBuf::from(text))
    }

    fn tls(&self) -> Option<Tls> {
        let [certificate, key, client_ca] =
            ["certificate", "key", "client_ca"].map(|key| self.file("tls", key));
        let reject = |key: &str, message: &str, help: &str| {
            if let Some(layer) = self.layer("tls", key) {
                layer.reject(key, message, help);
            }
        };
        let both = "give the PEM files of the certificate and of its key, or neither";
        match (&certificate, &key) {
            (Some(_), None) => reject("certificate", "`certificate` needs `key`", both),
            (None, Some(_)) => reject("key", "`key` needs `certificate`", both),
            (None, None) if client_ca.is_some() => reject(
                "client_ca",
                "`client_ca` needs `certificate` and `key`: without TLS no client shows a certificate",
                both,
            ),
            _ => {}
        }
        let client_required = self.string("tls", "client_certificate") != Some("optional");
        if !client_required && client_ca.is_none() {
            reject(
                "client_certificate",
                "`client_certificate` says nothing without `client_ca`",
                "name the authorities in `client_ca`, or leave it out",
            );
        }
        Some(Tls {
            certificate: certificate?,
            key: key?,
            client_ca,
            client_required,
        })
    }

    fn forwarding(&self) -> Option<Forwarding> {
        let mode = match self.string("forwarding", "mode")? {
            "replace" => ForwardingMode::Replace,
            "off" => ForwardingMode::Off,
            _ => ForwardingMode::Append,
        };
        let style = match self.string("forwarding", "headers")? {
            "forwarded" => ForwardingStyle::Forwarded,
            "both" => ForwardingStyle::Both,
            _ => ForwardingStyle::XForwarded,
        };
        let via = self.boolean("forwarding", "via")?;
        Some(Forwarding { mode, style, via })
    }

    fn take_over(&self) -> TakeOver {
        let socket = self.file("take_over", "socket");
        if let (Some(path), Some(layer)) = (&socket, self.layer("take_over", "socket"))
            && path.as_os_str().len() > MAX_SOCKET
        {
            layer.reject(
                "socket",
                format!("`socket` has {} bytes", path.as_os_str().len()),
                format!("the path of a Unix socket has at most {MAX_SOCKET}: choose a shorter one"),
            );
        }
        TakeOver { socket }
    }

    /// More in one body than in all of them could never be had.
    fn check_buffers(&self) {
        let count = |key| self.count("limits", key);
        if let (Some(body), Some(all)) = (count("buffered_body"), count("buffered_bytes"))
            && body > all
            && let Some(layer) = self.layer("limits", "buffered_bytes")
        {
            layer.reject(
                "buffered_bytes",
                format!(
                    "one body may have {body} bytes (`buffered_body`), all together only {all}"
                ),
                "raise `buffered_bytes`, or lower `buffered_body`",
            );
        }
    }

    /// A time, at most a year.
    fn time(&self, section: &str, key: &str) -> Option<u64> {
        let time = self.duration(section, key)?;
        if let Some(layer) = self.layer(section, key).filter(|_| time > MAX_TIME) {
            layer.reject(
                key,
                format!("`{key}` is longer than a year"),
                "it is at most \"365d\"",
            );
        }
        Some(time)
    }

    fn limits(&self) -> Option<Limits> {
        self.check_buffers();
        let count = |key| self.count("limits", key);
        let duration = |key| self.time("limits", key);
        Some(Limits {
            policy_file: count("policy_file")?,
            policy_files: count("policy_files")?,
            arms: count("arms")?,
            features: count("features")?,
            unit_key: count("unit_key")?,
            buffered_body: count("buffered_body")?,
            label_response: count("label_response")?,
            predictions: count("predictions")?,
            contexts: count("contexts")?,
            metric_ids: count("metric_ids")?,
            reward_keys: count("reward_keys")?,
            label_wait: duration("label_wait")?,
            reward_body: count("reward_body")?,
            reward_items: count("reward_items")?,
            json_depth: count("json_depth")?,
            journal_queue: count("journal_queue")?,
            connections: count("connections")?,
            in_flight: count("in_flight")?,
            buffered_bytes: count("buffered_bytes")?,
            streams: count("streams")?,
            upstream_idle: count("upstream_idle")?,
            headers: count("headers")?,
            header_bytes: count("header_bytes")?,
            response_headers: count("response_headers")?,
            response_header_bytes: count("response_header_bytes")?,
            header_timeout: duration("header_timeout")?,
            body_timeout: duration("body_timeout")?,
            keep_alive_timeout: duration("keep_alive_timeout")?,
            progress_timeout: duration("progress_timeout")?,
        })
    }
}

#[cfg(test)]
mod tests;
