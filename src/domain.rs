//! The decisions of a run, as pure functions over plain values.
//!
//! Nothing here is async or reads a clock, an environment or a socket. Every collection that is printed or stored is
//! ordered, so the same observation always gives the same plan.

pub mod audit;
pub mod explain;
pub mod fetch;
pub mod inventory;
pub mod matching;
pub mod plan;
pub mod posture;
pub mod snapshot;
pub mod status;

/// Returns true if a field is left out of the JSON.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
