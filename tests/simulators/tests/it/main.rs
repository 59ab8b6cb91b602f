//! The rules of the simulators that the project's tests rely on.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod client;
mod control;
mod falcon;
mod faults;
mod generator;
mod tailscale;
