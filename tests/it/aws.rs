//! The SDK's settings for the simulated AWS, and servers of a test's own.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::config::{Credentials, SharedCredentialsProvider};
use axum::Router;
use posture_simulators::net::{Bound, Server};

/// The SDK's settings for a server on this machine.
pub(crate) fn sdk(endpoint: &str) -> SdkConfig {
    let credentials = Credentials::new("test", "test", None, None, "tests");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .endpoint_url(endpoint)
        .build()
}

/// The SDK's settings for a server that may not answer: two attempts, each with this timeout.
pub(crate) fn impatient_sdk(endpoint: &str, timeout: Duration) -> SdkConfig {
    let retries = RetryConfig::standard()
        .with_max_attempts(2)
        .with_initial_backoff(Duration::from_millis(1))
        .with_max_backoff(Duration::from_millis(2));
    let timeouts = TimeoutConfig::builder()
        .operation_attempt_timeout(timeout)
        .build();
    sdk(endpoint)
        .into_builder()
        .retry_config(retries)
        .timeout_config(timeouts)
        .build()
}

/// Serves these routes until the server is dropped.
pub(crate) async fn serve(routes: Router) -> Server {
    Server::start(Bound::to(0).await.unwrap(), routes)
}
