//! The built binary as a process, in the environment of a test.

pub(crate) mod relay;

use std::ops::Deref;
use std::path::Path;
use std::time::Duration;

use aws_simulators::endpoints;
use aws_simulators::lambda::{self, NoAnswer};
use serde_json::Value;

use crate::environment::TestEnvironment;

/// A running process of the function.
#[derive(Debug)]
pub(crate) struct Process(lambda::Process);

impl Process {
    /// Starts the function for a test. These variables are added to its environment or replace others.
    pub(crate) async fn start(env: &TestEnvironment, variables: &[(&'static str, String)]) -> Self {
        let mut environment = env.variables();
        environment.extend(endpoints(env.dynamodb.url(), &env.services.url()));
        environment.extend(variables.iter().cloned());
        let binary = Path::new(env!("CARGO_BIN_EXE_falcon-posture-sync"));
        let mut process = lambda::Process::start(binary, 256, environment)
            .await
            .unwrap();
        process.set_caller(env.caller.clone());
        Self(process)
    }

    /// Invokes the function with this much time.
    pub(crate) async fn invoke(
        &self,
        id: &str,
        payload: &Value,
        time: Duration,
    ) -> Result<Value, NoAnswer> {
        let answer = self.0.invoke(id, payload, time).await;
        answer.map(|answer| answer.value)
    }

    /// Invokes the function with Lambda's longest timeout. It must answer.
    pub(crate) async fn ask(&self, id: &str, payload: &Value) -> Value {
        let answer = self.invoke(id, payload, Duration::from_mins(15)).await;
        answer.unwrap_or_else(|error| panic!("{payload}: {error}\n{}", self.output()))
    }

    /// Kills the process. Returns all that it printed.
    pub(crate) fn end(self) -> String {
        self.0.end()
    }
}

impl Deref for Process {
    type Target = lambda::Process;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}
