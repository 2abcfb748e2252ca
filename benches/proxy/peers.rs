//! The proxies that are compared: one worker each, half of the requests to either arm, connections kept alive on both sides. The others log
//! nothing; Pointsman has everything on that it has on in production.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum;

use crate::bench::wait_until_ready;
use crate::process::{Cores, Running, family};

/// Which proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    Pointsman,
    Nginx,
    Haproxy,
    Envoy,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pointsman => "pointsman",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
        }
    }
}

/// How a proxy is started.
#[derive(Debug, Clone)]
pub(crate) struct Start {
    pub(crate) cores: Cores,
    /// The `pointsman` that is measured.
    pub(crate) binary: PathBuf,
    /// Experiments that Pointsman serves: one that matches, and others.
    pub(crate) experiments: usize,
    pub(crate) workers: usize,
    /// What Pointsman is run under.
    pub(crate) wrapper: Vec<String>,
}

/// A proxy that answers.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) kind: Kind,
    pub(crate) address: SocketAddr,
    pub(crate) running: Running,
    /// Its files, removed with it.
    _directory: tempfile::TempDir,
}

fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

impl Peer {
    pub(crate) fn start(
        kind: Kind,
        start: &Start,
        upstream: [SocketAddr; 2],
    ) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let address = free_address()?;
        let place = directory.path();
        let command = match kind {
            Kind::Pointsman => pointsman(place, address, upstream, start)?,
            Kind::Nginx => nginx(place, address, upstream)?,
            Kind::Haproxy => haproxy(place, address, upstream)?,
            Kind::Envoy => envoy(place, address, upstream)?,
        };
        let log = place.join("log");
        let cores = start.cores.proxy.as_deref();
        let mut running = Running::start(cores, &command, Some(&log))?;
        let longest = Duration::from_mins(2);
        wait_until_ready(&start.cores, address, &mut running, longest).with_context(|| {
            format!(
                "{}: {}",
                kind.name(),
                fs::read_to_string(&log).unwrap_or_default()
            )
        })?;
        Ok(Self {
            kind,
            address,
            running,
            _directory: directory,
        })
    }

    /// Its processes.
    pub(crate) fn family(&self) -> Vec<u32> {
        family(self.running.id())
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// A fixed split in halves, drawn anew for each request; the journal goes to the disk in groups.
fn policy(path: &str, upstream: [SocketAddr; 2]) -> String {
    format!(
        "[match]\npath = \"{path}\"\n[policy.fixed]\n[reward]\nkind = \"binary\"\nwindow = \"1m\"\n\
         [[arm]]\nname = \"a\"\nendpoints = [\"http://{}\"]\nweight = 50\n\
         [[arm]]\nname = \"b\"\nendpoints = [\"http://{}\"]\nweight = 50\n",
        upstream[0], upstream[1]
    )
}

fn pointsman(
    place: &Path,
    address: SocketAddr,
    upstream: [SocketAddr; 2],
    start: &Start,
) -> anyhow::Result<Vec<String>> {
    let (policies, data) = (place.join("policies"), place.join("data"));
    fs::create_dir_all(&policies)?;
    fs::write(policies.join("bench.toml"), policy("/bench/*", upstream))?;
    for other in 1..start.experiments {
        let path = format!("/other-{other}/*");
        fs::write(
            policies.join(format!("other-{other}.toml")),
            policy(&path, upstream),
        )?;
    }
    let settings = format!(
        "[listen]\nproxy = \"{address}\"\nadmin = \"{}\"\n[workers]\ncount = {}\n\
         [data]\ndir = \"{}\"\nretention_bytes = 268435456\n[shutdown]\ndrain_delay = \"0s\"\ndrain_timeout = \"5s\"\n",
        free_address()?,
        start.workers,
        data.display()
    );
    let file = place.join("pointsman.toml");
    fs::write(&file, settings)?;
    let binary = start.binary.to_string_lossy();
    let mut command = start.wrapper.clone();
    command.extend(words(&[
        &binary,
        "serve",
        "--config",
        &file.to_string_lossy(),
        "--policies",
        &policies.to_string_lossy(),
    ]));
    Ok(command)
}

fn nginx(
    place: &Path,
    address: SocketAddr,
    upstream: [SocketAddr; 2],
) -> anyhow::Result<Vec<String>> {
    let alive = "keepalive 512; keepalive_requests 1000000000; keepalive_timeout 60s;";
    let forward = "proxy_pass http://$arm; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $host;";
    let settings = format!(
        "daemon off;\nworker_processes 1;\nworker_rlimit_nofile 20000;\nerror_log stderr error;\npid nginx.pid;\n\
         events {{ worker_connections 16384; }}\n\
         http {{\n  access_log off;\n\
         client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;\n\
         keepalive_timeout 75s; keepalive_requests 1000000000; tcp_nodelay on;\n\
         upstream a {{ server {}; {alive} }}\n  upstream b {{ server {}; {alive} }}\n\
         split_clients \"$http_x_user_id\" $arm {{ 50% a; * b; }}\n\
         server {{\n    listen {address} backlog=4096;\n\
         location / {{ {forward} }}\n    location /bench/events {{ {forward} proxy_buffering off; }}\n  }}\n}}\n",
        upstream[0], upstream[1]
    );
    fs::write(place.join("nginx.conf"), settings)?;
    let place = place.to_string_lossy();
    // `-e`: else it opens the log that was compiled in before it has read the settings.
    Ok(words(&[
        "nginx",
        "-e",
        "stderr",
        "-p",
        &place,
        "-c",
        "nginx.conf",
    ]))
}

fn haproxy(
    place: &Path,
    address: SocketAddr,
    upstream: [SocketAddr; 2],
) -> anyhow::Result<Vec<String>> {
    // http-no-delay: without it, small pieces of a stream wait for up to 200 ms.
    let settings = format!(
        "global\n  nbthread 1\n  maxconn 9000\n\
         defaults\n  mode http\n  timeout connect 2s\n  timeout client 75s\n  timeout server 60s\n  timeout http-keep-alive 75s\n  \
         option http-keep-alive\n  option http-no-delay\n  no log\n\
         frontend f\n  bind {address} backlog 4096\n  default_backend b\n\
         backend b\n  balance roundrobin\n  http-reuse always\n  server a {} pool-max-conn -1\n  server b {} pool-max-conn -1\n",
        upstream[0], upstream[1]
    );
    let file = place.join("haproxy.cfg");
    fs::write(&file, settings)?;
    Ok(words(&["haproxy", "-f", &file.to_string_lossy(), "-db"]))
}

fn envoy(
    place: &Path,
    address: SocketAddr,
    upstream: [SocketAddr; 2],
) -> anyhow::Result<Vec<String>> {
    let cluster = |name: &str, address: SocketAddr| {
        format!(
            "  - name: {name}\n    type: STATIC\n    connect_timeout: 2s\n    load_assignment: {{ cluster_name: {name}, endpoints: [ {{ lb_endpoints: [ \
             {{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {} }} }} }} }} ] }} ] }}\n",
            address.port()
        )
    };
    // No request ids and no headers of its own: as little work as it can be told to do.
    let settings = format!(
        "static_resources:\n  listeners:\n  - name: l\n    address: {{ socket_address: {{ address: 127.0.0.1, port_value: {} }} }}\n    filter_chains:\n    - filters:\n      \
         - name: envoy.filters.network.http_connection_manager\n        typed_config:\n          \
         \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager\n          \
         stat_prefix: h\n          codec_type: HTTP1\n          generate_request_id: false\n          route_config:\n            virtual_hosts:\n            \
         - name: v\n              domains: [\"*\"]\n              routes:\n              - match: {{ prefix: \"/\" }}\n                \
         route: {{ weighted_clusters: {{ clusters: [ {{ name: a, weight: 50 }}, {{ name: b, weight: 50 }} ] }} }}\n          http_filters:\n          \
         - name: envoy.filters.http.router\n            typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router, \
         suppress_envoy_headers: true }}\n  clusters:\n{}{}",
        address.port(),
        cluster("a", upstream[0]),
        cluster("b", upstream[1])
    );
    let file = place.join("envoy.yaml");
    fs::write(&file, settings)?;
    let program = crate::install::envoy()?;
    Ok(words(&[
        &program.to_string_lossy(),
        "-c",
        &file.to_string_lossy(),
        "--concurrency",
        "1",
        "--disable-hot-restart",
        "-l",
        "error",
    ]))
}
