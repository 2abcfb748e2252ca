//! What is known of an arm's endpoints, shared by all workers: which of them are available, how much each may get, and how many
//! requests may be sent again.
//!
//! Everything here is a function of what it is told and of `now`, the milliseconds of one monotonic clock: atomics, no I/O, no waiting,
//! and no lock. Not here: connections (`upstream`), the probes themselves, and what counts as an endpoint's failure.

mod budget;
mod choose;
mod complaints;
mod ejection;
mod probe_state;
mod standing;

pub use budget::Budget;
pub use choose::{Choice, choose};
pub use complaints::Complaints;
pub use ejection::{Ejections, Verdict};
pub use probe_state::ProbeStatus;
pub use standing::{Reach, Standing, slow_start_weight};
