//! Whole-process tests: the real binary, real sockets, upstreams of our own.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail the test"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "tests measure time and run tasks as they need"
)]
#![expect(
    unreachable_pub,
    clippy::struct_field_names,
    reason = "test code has no public interface"
)]

mod admin;
mod arms;
mod context;
mod decide;
mod decision_ids;
mod export;
mod forward;
mod handover;
mod harness;
mod inspect;
mod keys;
mod kills;
mod layers;
mod reload;
mod restart;
mod reward;
mod robust;
mod shadow;
mod shutdown;
mod simulate;
mod syncs;
mod verify;
