//! Carries CrowdStrike Falcon Zero Trust Assessment scores into Tailscale device posture attributes.
//!
//! # The map
//!
//! | module | what it is |
//! | --- | --- |
//! | [`handler`], [`command`] | payload in, answer out; everything is checked here, and nothing behind it is checked again |
//! | [`sync`](mod@sync) | one sync in one screen: lease, pause, settle, observe, join, plan, guard, apply, record |
//! | [`domain`] | the decisions, as pure functions over plain values |
//! | [`falcon`], [`tailscale`] | the two APIs; their wire types stay inside |
//! | [`store`], [`secrets`], [`events`] | DynamoDB, Secrets Manager, EventBridge |
//! | [`check`], [`status`], [`explain`], [`preview`] | whether an integration can work; how the integrations are; why a device has its score; what a posture would do |
//! | [`render`] | their answers as text for a terminal, and as HTML for a dashboard |
//! | [`upstream`] | shared by both clients: HTTP, tokens, retries, errors |
//! | [`clock`], [`config`], [`telemetry`], [`metrics`] | the only access to the time, the environment, the log, and CloudWatch's metrics |
//! | [`settings`], [`text`] | settings, which are valid by construction; text from outside, made fit to print |
//!
//! Imports run one way: `main` → `handler` → `sync` → `domain`. The adapters know `domain`; it knows none of them.
//!
//! # One run, told
//!
//! 1. The schedule sends `{"command":"sync"}`. With one integration the run happens here; with several, each is asked
//!    for by an event and gets an invocation of its own.
//! 2. The run takes the integration's lease by a conditional write, which also reads the settings. A pause that is in
//!    force ends it here.
//! 3. If an earlier run left a note of what it was writing, the devices are asked what they hold, and what was accepted is
//!    recorded.
//! 4. It fetches the credentials, trades them for tokens, and reads side by side: Falcon's hosts, their scores, the
//!    tailnet's devices, and the records of what was written before.
//! 5. [`domain::join`] gives every device one outcome, and [`domain::plan`] compares it with the record.
//! 6. What the plan would act upon because it was *not* seen is looked up directly, and the plan is made again.
//! 7. [`domain::guard`] holds removals back if there are too many of them, or if what was seen cannot well be.
//! 8. What is about to be written is noted ([`domain::pending`]). Then, chunk by chunk: Tailscale is asked to write, and
//!    what it accepted is recorded in one transaction with its audit records.
//! 9. The status is written and the lease given back, in one write. If the settings were changed meanwhile, the run
//!    goes again.
//!
//! # What always holds
//!
//! - The domain never awaits, and reads no clock, environment or socket.
//! - No attribute is removed on the strength of a listing that was cut short, or of one absence.
//! - No write without the lease; no record of a change that Tailscale did not accept; no second audit record for one
//!   change, since the node record must still be the one that the plan was made from.
//! - A dry run is given nothing that writes.
//! - No address that receives a credential comes from a record or from an answer: only from the deployment or from the
//!   built-in list of clouds.
//! - No log line, record, event or answer holds a secret, a token, a header or a body.

pub mod app;
mod aws;
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
pub mod render;
pub mod secrets;
pub mod settings;
pub mod status;
pub mod store;
pub mod sync;
pub mod tailscale;
pub mod telemetry;
#[cfg(test)]
mod testing;
pub mod text;
pub mod upstream;
