//! What the process tells about itself: metrics and logs. Never a unit, an id or a path as a label.

pub mod logs;
pub mod metrics;
pub mod observe;
