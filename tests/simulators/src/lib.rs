//! Simulators of the used parts of the `CrowdStrike` Falcon and Tailscale APIs.
//!
//! Two stateful HTTP services on 127.0.0.1 follow recordings of the real services and reject the same
//! requests. A test sets latency, faults and data in the same process ([`Simulators`]) or over HTTP
//! (the binary `posture-simulators`, see [`control`]).
//!
//! ```
//! use posture_simulators::{Account, Fault, FaultKind, GeneratorSpec, Matcher, Side, Simulators, Tailnet, generate};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let sims = Simulators::start().await?;
//! sims.falcon().put_account(Account::new("corp"));
//! sims.tailscale().put_tailnet(Tailnet::new("example.com"));
//!
//! let data = generate(&GeneratorSpec { hosts: 500, devices: 100, ..GeneratorSpec::default() });
//! sims.falcon().load("corp", &data)?;
//! sims.tailscale().load("example.com", &data)?;
//!
//! // the second page of scores is cut off, once
//! let pages = Matcher::side(Side::Falcon).path("/zero-trust-assessment/queries");
//! sims.faults().add(Fault::new(pages.clone(), FaultKind::ResetMidBody).after(1));
//!
//! // a score changes between two pages
//! let (falcon, aid) = (sims.falcon().clone(), data.hosts[0].device_id.clone());
//! sims.on_request(pages, move |_| drop(falcon.set_score("corp", &aid, 3)));
//!
//! println!("{} {}", sims.falcon_url("us-1"), sims.tailscale_url());
//! assert!(sims.tailscale().changes("example.com")?.is_empty());
//! # Ok(()) }
//! ```
//!
//! # Decisions where the real services are not known
//!
//! - The host listing's string cursor continues after the last host served. Its numeric cursor and
//!   the assessment listing's cursor count positions in the present order.
//! - Scores outside 0 to 100 and non-numbers pass every filter of the assessment listing and
//!   appear in sort order, non-numbers last.
//! - FQL compares case-sensitively ([`falcon::Settings::fql_ignores_case`]).
//! - Batches are all-or-nothing, an unknown node is 400, an omitted expiry stays; see
//!   [`tailscale::Switches`].

pub mod control;
pub mod falcon;
pub mod net;
pub mod tailscale;

mod clock;
mod exchange;
mod faults;
mod generate;
mod hooks;
mod late;
mod matching;
mod reply;
mod request_log;
mod simulators;

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

pub use clock::Clock;
pub use falcon::{Account, Falcon, Host};
pub use faults::{Effect, Fault, FaultKind, Faults};
pub use generate::{DataSet, GeneratorSpec, PLACEHOLDER_SERIALS, generate};
pub use hooks::{Action, Nth, Script, When};
pub use late::LateRequests;
pub use matching::{Matcher, RequestInfo, Side};
pub use request_log::{Entry, RequestLog, Traffic};
pub use simulators::{Builder, Simulators, Urls};
pub use tailscale::{Attribute, Change, Device, PostureIdentity, Tailnet, Tailscale, WriteCounts};

/// No account or tailnet has this name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotFound(pub(crate) String);

impl fmt::Display for NotFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no such thing in the simulators: {}", self.0)
    }
}

impl std::error::Error for NotFound {}

/// Returns the lock even after a panic of another holder: one failed assertion in a hook must not
/// turn every later request into a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
