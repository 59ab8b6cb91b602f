//! The devices and hosts of both sides, and the values that they consist of.

pub mod attribute;
pub mod device;
pub mod histogram;
pub mod host;
pub mod platform;
pub mod record;
pub mod serial;
