//! Integration tests of the whole function: one binary, one test environment, one oracle.
//!
//! Falcon and Tailscale are stateful simulators that share no code with the function. DynamoDB is an embedded server of
//! the real protocol. Secrets Manager and EventBridge are simulators that hold secrets and events. Each test has its own
//! instance of all of these.

#![expect(clippy::unwrap_used, reason = "what a helper cannot do fails its test")]
#![expect(
    clippy::needless_pass_by_value,
    reason = "payloads are written where they are used"
)]

mod absences;
mod aws;
mod cases;
mod cases_serials;
mod checks;
mod concurrency;
mod console;
mod contract;
mod crawl;
mod deadlines;
mod disappearances;
mod environment;
mod expiry;
mod explain;
mod faults;
mod filters;
mod guard;
mod history;
mod hostile;
mod imports;
mod input;
mod integration_removal;
mod integrations;
mod interleavings;
mod kills;
mod leaks;
mod looks;
mod messages;
mod metrics;
mod native;
mod oracle;
mod pauses;
mod plans;
mod preview;
mod process;
mod properties;
mod quota;
mod random_cases;
mod recovery;
mod removals;
mod runs;
mod schedules;
mod second_integration;
mod second_look;
mod settings;
mod shapes;
mod soak;
mod status;
mod transitions;
mod traps;
mod unreadable;
mod upstream_failures;
