//! The traffic side of the example: a client application, a live demo of the whole loop, and a comparison of policies.
//!
//! ```text
//! stream (which review next) -- replay (when) -- proxy (the two HTTP calls) -- labels (the true stars, until they are taken)
//!                                    `-- tally (what the client saw) -- standing (what others would have earned), recent (who got it)
//! client   the above against any running proxy
//! demo     + process, launch (children), policy_file, admin (what the proxy believes); view -- table -- screen
//! compare  + stand_in (model servers that answer from a table); many runs, one report
//! ```
//!
//! Children are started through `attached`, so that they end with their parent even if that is killed.
//!
//! Nothing here decides or learns: that is Pointsman's work, and it is a process of its own.

pub mod admin;
pub mod attached;
pub mod client;
pub mod compare;
pub mod demo;
pub mod labels;
pub mod launch;
pub mod mix;
pub mod paint;
pub mod policy_file;
pub mod process;
pub mod proxy;
pub mod recent;
pub mod replay;
pub mod signals;
pub mod standing;
pub mod stream;
pub mod tally;
