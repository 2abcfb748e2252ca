//! One module for each thing that is measured. Each is bounded in time and in requests, and gives a table.

pub(crate) mod against;
pub(crate) mod idle;
pub(crate) mod instructions;
pub(crate) mod ours;
pub(crate) mod rate;
pub(crate) mod soak;

use crate::plan::Outcome;
use crate::report::Report;

/// Notes errors of a run; a bench with errors has measured something else.
pub(crate) fn check(report: &mut Report, name: &str, outcome: &Outcome) {
    if outcome.errors > 0 {
        let complaint = outcome.complaint.as_deref().unwrap_or_default();
        report.fail(format!("{name}: {} errors: {complaint}", outcome.errors));
    }
}
