#![doc = include_str!("README.md")]

pub mod app;
mod aws;
mod batch;
pub mod check;
pub mod clock;
pub mod command;
pub mod config;
pub mod domain;
pub mod events;
pub mod explain;
pub mod falcon;
pub mod handler;
mod json;
pub mod metrics;
pub mod preview;
mod render;
pub mod secrets;
pub mod settings;
mod status;
pub mod store;
pub mod sync;
pub mod tailscale;
pub mod telemetry;
#[cfg(test)]
mod testing;
pub mod text;
pub mod upstream;
