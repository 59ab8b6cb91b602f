//! Helpers of the unit tests: hostile input, and a raw HTTP server.

pub(crate) mod hostile;
pub(crate) mod server;
