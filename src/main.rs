//! The Lambda function: builds its clients once, then serves one payload at a time.

use falcon_posture_sync::app::{App, Invocation};
use falcon_posture_sync::config::{Config, Logging};
use falcon_posture_sync::handler::handle;
use falcon_posture_sync::telemetry;
use jiff::Timestamp;
use lambda_runtime::{Diagnostic, Error, LambdaEvent, run, service_fn};
use serde_json::Value;

/// Runs on one thread: a small function has a seventh of a CPU, and more threads take time to start and to wake.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    telemetry::init(Logging::from_env());
    let app = &App::new(Config::from_env()?);
    run(service_fn(|event: LambdaEvent<Value>| async move {
        let function_arn = event.context.invoked_function_arn.clone();
        let invocation = Invocation {
            deadline: Timestamp::try_from(event.context.deadline()).unwrap_or(Timestamp::MAX),
            id: event.context.request_id,
            caller: event.context.identity.map(|identity| identity.identity_id),
            // The ARN is `arn:aws:lambda:<region>:<account>:function:<name>:<alias>`.
            alias: function_arn.split(':').nth(7).map(str::to_owned),
            function_arn,
        };
        handle(app, event.payload, &invocation)
            .await
            // The runtime logs the diagnostic, so nothing else does.
            .map_err(Diagnostic::from)
    }))
    .await
}
