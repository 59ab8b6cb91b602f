//! The Lambda function: builds its world once, then serves one payload at a time.

use aws_config::BehaviorVersion;
use falcon_posture_sync::config::Config;
use falcon_posture_sync::handler::handle;
use falcon_posture_sync::world::{Invocation, World};
use jiff::Timestamp;
use lambda_runtime::{Diagnostic, Error, LambdaEvent, run, service_fn, tracing};
use serde_json::Value;

#[tokio::main]
async fn main() -> Result<(), Error> {
    tracing::init_default_subscriber();
    let config = Config::from_env()?;
    let sdk = aws_config::load_defaults(BehaviorVersion::latest()).await;
    let world = &World::new(config, &sdk)?;
    run(service_fn(|event: LambdaEvent<Value>| async move {
        let invocation = Invocation {
            deadline: Timestamp::try_from(event.context.deadline()).unwrap_or(Timestamp::MAX),
            id: event.context.request_id,
        };
        handle(world, event.payload, &invocation)
            .await
            // The runtime logs the diagnostic, so nothing else does.
            .map_err(Diagnostic::from)
    }))
    .await
}
