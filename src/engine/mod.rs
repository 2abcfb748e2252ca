//! The engine: from what the journal accepted to allocations, and from an allocation to a decision. No I/O, no clock.

mod aggregate;
pub mod allocate;
pub mod attribute;
mod claims;
mod closing;
mod contexts;
pub mod contextual;
pub mod credited;
pub mod decide;
pub mod event;
pub mod fold;
mod history;
pub mod keys;
pub mod learned;
pub mod measures;
pub mod orders;
mod predictions;
pub mod replay;
mod shadows;
pub mod snapshot;

#[cfg(test)]
pub(crate) mod fixture;
