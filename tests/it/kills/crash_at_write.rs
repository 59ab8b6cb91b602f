//! Kills a process at one of its writes.

use std::sync::{Arc, Mutex};

use aws_simulators::lambda::Life;
use axum::http::Method;

use crate::environment::TestEnvironment;
use crate::process::Process;
use crate::process::relay::{Answered, Asked, Relay, Watch};

/// The moment of the kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// The write is never carried out.
    Before,
    /// The write is carried out, and the process never gets the response.
    After,
}

/// Relays from a process to DynamoDB and Tailscale that kill it at one of its writes.
pub(super) struct CrashAtWrite {
    counter: Arc<WriteCounter>,
    dynamodb: Relay,
    tailscale: Relay,
}

struct WriteCounter {
    at: usize,
    moment: Moment,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    victim: Option<Life>,
    steps: Vec<String>,
    killed: Option<String>,
}

impl CrashAtWrite {
    /// The process is killed at the `at`th write, counted from 1.
    pub(super) async fn new(env: &TestEnvironment, at: usize, moment: Moment) -> Self {
        let counter = Arc::new(WriteCounter {
            at,
            moment,
            state: Mutex::default(),
        });
        Self {
            dynamodb: Relay::to(env.dynamodb.url(), counter.clone()).await,
            tailscale: Relay::to(&env.sims.tailscale_url(), counter.clone()).await,
            counter,
        }
    }

    /// Starts the process that will be killed.
    pub(super) async fn process(&self, env: &TestEnvironment) -> Process {
        let variables = [
            ("AWS_ENDPOINT_URL_DYNAMODB", self.dynamodb.url()),
            ("TAILSCALE_API_URL", self.tailscale.url()),
        ];
        let process = Process::start(env, &variables).await;
        self.counter.state.lock().unwrap().victim = Some(process.life());
        process
    }

    /// The write at which the process was killed, if it was. When this returns, all earlier requests are carried out.
    pub(super) async fn killed(&self) -> Option<String> {
        self.dynamodb.quiet().await;
        self.tailscale.quiet().await;
        self.counter.state.lock().unwrap().killed.clone()
    }

    /// All writes so far, in the order of their arrival.
    pub(super) fn steps(&self) -> Vec<String> {
        self.counter.state.lock().unwrap().steps.clone()
    }
}

impl WriteCounter {
    fn kill(&self, state: &mut State, step: &str) {
        state.victim.as_ref().unwrap().end();
        state.killed = Some(format!("{step}, the {}. write", self.at));
    }
}

/// The request header that marks the fatal write until its response comes back.
const FATAL: &str = "x-fatal";

impl Watch for WriteCounter {
    fn before(&self, asked: &mut Asked) -> Option<Answered> {
        let mut state = self.state.lock().unwrap();
        if state.killed.is_some() {
            return Some(Answered::nothing());
        }
        let step = write(asked)?;
        state.steps.push(step.clone());
        if state.steps.len() != self.at {
            return None;
        }
        if self.moment == Moment::Before {
            self.kill(&mut state, &step);
            return Some(Answered::nothing());
        }
        asked.headers.insert(FATAL, step.parse().unwrap());
        None
    }

    fn after(&self, asked: &Asked, _: &Answered) {
        if let Some(step) = asked.headers.get(FATAL) {
            self.kill(&mut self.state.lock().unwrap(), step.to_str().unwrap());
        }
    }
}

/// The operation of a request, if it writes.
fn write(asked: &Asked) -> Option<String> {
    let reads = ["GetItem", "Query", "Scan"];
    match asked.aws_operation() {
        Some(operation) => (!reads.contains(&operation)).then(|| operation.to_owned()),
        None if asked.method == Method::GET || asked.path.ends_with("/oauth/token") => None,
        None => Some(asked.method.to_string()),
    }
}
