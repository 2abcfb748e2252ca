//! Structured logs on standard error: text on a terminal, JSON lines elsewhere, `POINTSMAN_LOG` sets the level.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Starts logging. `POINTSMAN_LOG` takes `tracing`'s filter syntax (`info`, `pointsman=debug`); `POINTSMAN_LOG_FORMAT` is
/// `text` or `json`. A second call does nothing.
pub fn start() {
    let filter =
        EnvFilter::try_from_env("POINTSMAN_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let terminal = std::io::stderr().is_terminal();
    let json = match std::env::var("POINTSMAN_LOG_FORMAT").as_deref() {
        Ok("json") => true,
        Ok("text") => false,
        _ => !terminal,
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let started = if json {
        builder.json().try_init()
    } else {
        builder.with_ansi(terminal).with_target(false).try_init()
    };
    drop(started);
}
