//! From what people wrote to what is proven: settings and policy files, with every problem at once.
//!
//! Two forms of each thing: the text as written, and the checked value ([`Settings`](settings::Settings),
//! [`Experiment`](crate::experiment::Experiment)) that nothing downstream checks again. Compiling does no I/O; [`load`] reads
//! the folder, [`watch`] notices that it changed.

pub mod compile;
pub mod fields;
pub mod load;
mod matching;
pub mod reference;
pub mod settings;
#[cfg(feature = "server")]
pub mod watch;
