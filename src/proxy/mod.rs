//! The data plane: from a client's connection to an arm's answer. [`handle`] tells the life of a request in order.
//!
//! Not here: what to draw (that is [`crate::engine`]), what a reward is worth (that is [`crate::ledger`]), and everything that
//! only people look at (that is [`crate::admin`]).

pub mod access;
pub mod api;
pub mod body;
pub mod channel;
pub mod client;
pub mod connection;
pub mod context;
pub mod draw;
pub mod endpoint;
pub mod exchange;
pub mod forward;
pub mod grpc;
pub mod handle;
pub mod headers;
pub mod health;
pub mod held;
pub mod pass_through;
pub mod problem;
pub mod router;
pub mod shadow;
pub mod signed;
pub mod stream;
pub mod streams;
pub mod timer;
pub mod tls;
pub mod tunnel;
pub mod unit;
pub mod upstream;
pub mod vet;
pub mod wire;
pub mod worker;
