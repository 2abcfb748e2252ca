//! The data plane: from a client's connection to an arm's answer. [`handle`] tells the life of a request in order.
//!
//! Not here: what to draw (that is [`crate::engine`]), what a reward is worth (that is [`crate::ledger`]), and everything that
//! only people look at (that is [`crate::admin`]).

pub mod api;
pub mod body;
pub mod context;
pub mod exchange;
pub mod handle;
pub mod headers;
pub mod problem;
pub mod shadow;
pub mod unit;
pub mod vet;

pub mod router;
pub mod tls;
pub mod upstream;
pub mod worker;
