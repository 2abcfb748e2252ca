//! The admin listener: metrics, health, reload, and what every experiment has learned, as JSON.
//!
//! It is for people and scrapers, so it may take milliseconds; nothing of it is on the request path. It reads
//! what the workers share, and hands reloads and an operator's orders on; it changes nothing by itself.

mod experiments;
mod guard;
mod orders;

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::learner::{Operator, Published};
use crate::ledger::Unavailable;
use crate::proxy::router::Router as Routes;
use crate::proxy::worker::{Phase, Shared};
use crate::reload::{Reloader, Reloads};

/// What the admin API reads.
#[derive(Debug, Clone)]
pub struct Admin {
    /// What the workers share.
    pub shared: Arc<Shared>,
    /// The last reload.
    pub reloads: Arc<Reloads>,
    /// What changes things. A process that takes over has it when the data directory is its own.
    pub controls: Arc<OnceLock<Controls>>,
}

/// What the admin API changes things with.
#[derive(Debug)]
pub struct Controls {
    /// Where reloads are asked for.
    pub reloader: Reloader,
    /// Where orders are given.
    pub operator: Operator<Routes>,
}

impl Admin {
    fn published(&self) -> Arc<Published<Routes>> {
        let published: &ArcSwap<Published<Routes>> = &self.shared.published;
        published.load_full()
    }
}

/// Serves until `stop` says so.
pub async fn serve(
    admin: Admin,
    listener: TcpListener,
    mut stop: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let guarded = Router::new()
        .route("/-/reload", post(reload))
        .route("/api/v1/experiments", get(experiments::list))
        .route("/api/v1/experiments/{name}", get(experiments::one))
        .merge(orders::routes())
        .layer(from_fn_with_state(admin.clone(), guard::token));
    let app = Router::new()
        .route("/metrics", get(metrics))
        .route("/-/healthy", get(|| async { "healthy\n" }))
        .route("/-/ready", get(ready))
        .merge(guarded)
        .method_not_allowed_fallback(|| async {
            problem(
                StatusCode::METHOD_NOT_ALLOWED,
                "Method not allowed",
                "this admin path takes another method",
            )
        })
        .fallback(|| async {
            problem(
                StatusCode::NOT_FOUND,
                "Not found",
                "there is no such admin path",
            )
        })
        .layer(from_fn_with_state(admin.clone(), guard::origin))
        .with_state(admin);
    let stopped = async move {
        // An error means that the sender is gone: stop as well.
        if stop.wait_for(|stop| *stop).await.is_err() {}
    };
    axum::serve(listener, app)
        .with_graceful_shutdown(stopped)
        .await
}

async fn metrics(State(admin): State<Admin>) -> Response {
    // Rendering takes milliseconds when samples have piled up; the admin runtime has other things to do meanwhile.
    let shared = Arc::clone(&admin.shared);
    let rendered = tokio::task::spawn_blocking(move || {
        let open = shared
            .connections
            .load(std::sync::atomic::Ordering::Relaxed);
        shared
            .metrics
            .gauge("pointsman_connections", &[])
            .set(open as f64);
        shared
            .metrics
            .gauge("pointsman_journal_writable", &[])
            .set(f64::from(u8::from(shared.telemetry.is_writable())));
        shared.metrics.render()
    });
    match rendered.await {
        Ok(text) => (
            [(
                header::CONTENT_TYPE,
                "text/plain; version=0.0.4; charset=utf-8",
            )],
            text,
        )
            .into_response(),
        Err(_) => problem(
            StatusCode::INTERNAL_SERVER_ERROR,
            "Internal error",
            "metrics could not be rendered",
        ),
    }
}

async fn ready(State(admin): State<Admin>) -> Response {
    let ready = *admin.shared.phase.borrow() == Phase::Serving;
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = json!({
        "ready": ready,
        "journal_writable": admin.shared.telemetry.is_writable(),
        "experiments": admin.published().experiments.len(),
    });
    (status, axum::Json(body)).into_response()
}

async fn reload(State(admin): State<Admin>) -> Response {
    let Some(controls) = admin.controls.get() else {
        return orders::unavailable(Unavailable::Starting);
    };
    match controls.reloader.reload().await {
        Some(Ok(version)) => axum::Json(json!({ "version": version })).into_response(),
        Some(Err(errors)) => {
            let body = json!({
                "type": "about:blank",
                "title": "The policies were not reloaded; the old ones go on serving",
                "status": 422,
                "errors": errors,
            });
            let content_type = [(header::CONTENT_TYPE, "application/problem+json")];
            (
                StatusCode::UNPROCESSABLE_ENTITY,
                content_type,
                body.to_string(),
            )
                .into_response()
        }
        None => problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "Service unavailable",
            "the server is stopping",
        ),
    }
}

fn problem(status: StatusCode, title: &str, detail: &str) -> Response {
    let body = json!({ "type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail });
    (
        status,
        [(header::CONTENT_TYPE, "application/problem+json")],
        body.to_string(),
    )
        .into_response()
}
