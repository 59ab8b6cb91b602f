//! Shared by the clients of Falcon and Tailscale: HTTP, tokens, retries, errors.

pub(crate) mod auth;
pub mod client;
pub mod error;
pub mod retry;
pub(crate) mod sessions;
