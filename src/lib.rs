//! Pointsman: an experimentation proxy. It stands in front of several variants of a model, sends each request to one of
//! them by a fixed split or a bandit, and learns from the rewards that clients post.
//!
//! # The map
//!
//! Each layer uses only its own and those above it in this table (`tests/it/layers.rs` checks that). The first four rows build without tokio
//! and hyper (`--no-default-features`).
//!
//! | layer | modules | what is in it |
//! |---|---|---|
//! | nouns and mathematics | [`clock`], [`chance`], [`document`], [`experiment`], [`policy`], [`stats`] | pure values |
//! | engine | [`engine`], [`json`] | fold, attribution, allocation, decision; no I/O, no clock |
//! | forms that last | [`decision_id`], [`secret`], [`journal`], [`rewards`], [`config`] | the signed token, the secret file, the append-only record, what clients post, what people write |
//! | offline | [`simulate`], [`mod@inspect`], [`mod@verify`], [`mod@export`] | the engine against a world that is made up; one decision of the journal, checked; all of it, checked; its decisions as rows |
//! | — | — | — |
//! | services | `ledger`, `learner`, `handover` | the threads that record and learn; how one process takes the place of another |
//! | faces | `telemetry`, `proxy`, `reload`, `admin` | what the world sees |
//! | wiring | `app`, `cli` | from arguments to a running server |
//!
//! # Words
//!
//! | word | meaning |
//! |---|---|
//! | policy file | a TOML file: one experiment as written |
//! | experiment | its validated form |
//! | arm | one alternative with its endpoints; one arm is the *baseline* |
//! | policy | a rule from evidence to a distribution over arms |
//! | allocation | that distribution, after exclusions and floor |
//! | propensity | the probability with which the chosen arm was chosen, as used |
//! | unit | what is randomised: a user, a session, or the request |
//! | decision | one draw: id, unit, arm, propensity, reason, versions |
//! | outcome | how the exchange with the arm ended |
//! | reward | what a client reports for a decision, counted within the attribution window |
//! | epoch | a stretch of an experiment in which rewards mean the same thing |
//! | journal | the append-only record of all of this |
//! | snapshot | the immutable state that serves requests |
//!
//! # The life of a request
//!
//! It is told, in order, in `proxy::handle`: vet, match, unit, decide, forward, respond.
//!
//! # The life of a reward
//!
//! 1. [`rewards::parse`] takes the body apart; the decision id is checked ([`decision_id`]).
//! 2. The ledger's thread judges each item against the state ([`engine::attribute`]) and writes what it accepted.
//! 3. After one fsync for all that waited, the state takes it ([`engine::fold`]) and the client gets its answer.
//! 4. The learner turns changed tallies into an allocation ([`engine::allocate`]) and publishes a new snapshot.
//!
//! Recovery is step 3 over the whole journal.

#[cfg(feature = "server")]
pub mod admin;
#[cfg(feature = "server")]
pub mod app;
pub mod chance;
#[cfg(feature = "server")]
pub mod cli;
pub mod clock;
pub mod config;
pub mod decision_id;
pub mod document;
pub mod engine;
pub mod experiment;
pub mod export;
#[cfg(feature = "server")]
pub mod handover;
#[cfg(feature = "server")]
pub mod http1;
pub mod inspect;
pub mod journal;
pub mod json;
#[cfg(feature = "server")]
pub mod learner;
#[cfg(feature = "server")]
pub mod ledger;
pub mod policy;
#[cfg(feature = "server")]
pub mod proxy;
#[cfg(feature = "server")]
pub mod reload;
pub mod rewards;
pub mod secret;
pub mod simulate;
pub mod stats;
#[cfg(feature = "server")]
pub mod telemetry;
pub mod verify;
