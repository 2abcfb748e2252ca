//! What a policy file would do: the real engine against a world that is made up, in simulated time.
//!
//! An environment file says what each arm earns and when its rewards arrive ([`environment`]); [`trial`] plays it with one
//! seed and [`summary`] with many. This is not a second implementation of anything: allocations, draws, attribution and tallies
//! are [`engine`](crate::engine)'s. Nor is it an evaluation on logged traffic.

pub mod dataset;
pub mod environment;
mod fields;
#[cfg(test)]
mod fixture;
mod number;
mod schedule;
pub mod summary;
pub mod svg;
pub mod text;
pub mod trial;
pub mod world;

pub use fields::{ENVIRONMENT, PHASE};
pub use schedule::Publish;

/// The reference of the environment file: the last part of `docs/simulate.md`.
pub fn environment_reference() -> String {
    let mut page = String::new();
    let title = "The environment file";
    let doc = "Made from the tables that read the files (`POINTSMAN_WRITE_DOCS=1 cargo test --test simulate` writes it anew). \
               Unknown keys are errors, and so is an arm that only one of environment and policy file has.";
    crate::config::reference::section(&mut page, title, doc, ENVIRONMENT);
    page
}
