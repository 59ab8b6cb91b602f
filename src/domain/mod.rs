//! The heart: what a run decides, as pure functions over plain values.
//!
//! Nothing here is async, reads a clock, an environment or a socket. Every collection that is printed or stored is
//! ordered, so the same observation always gives the same plan, letter for letter.

pub mod audit;
pub mod claims;
pub mod crawl;
pub mod device;
pub mod explain;
pub mod explanation;
pub mod finding;
pub mod guard;
pub mod host;
pub mod join;
pub mod lost;
pub mod pause;
pub mod pending;
pub mod plan;
pub mod posture;
pub mod preview;
pub mod ranges;
pub mod removal;
pub mod scores;
pub mod serial;
pub mod status;
