//! The AWS SDK, configured by the function's environment.
//!
//! The SDK's own loader also looks for profiles, container and instance credentials, and STS. A Lambda has none of these,
//! and the loader costs start time and space in the zip.

use std::error::Error as StdError;
use std::time::Duration;

use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::config::SharedCredentialsProvider;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};

use crate::config::Aws;
use crate::text::{error_chain, redact};

/// Returns the configuration of one service's client; `endpoint` replaces the address of AWS.
pub(crate) fn sdk_config(aws: &Aws, endpoint: Option<&str>) -> SdkConfig {
    let credentials = EnvironmentVariableCredentialsProvider::new();
    let mut config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(aws.region.clone().map(Region::new))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .timeout_config(timeouts())
        .use_fips(aws.fips)
        .use_dual_stack(aws.dual_stack);
    config.set_endpoint_url(endpoint.map(str::to_owned));
    config.build()
}

/// Returns timeouts that leave time for a retry. All attempts fit into the time that a run reserves for its status. AWS
/// normally responds in milliseconds.
fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(Duration::from_millis(3_100))
        .operation_attempt_timeout(Duration::from_secs(4))
        .operation_timeout(Duration::from_secs(9))
        .build()
}

/// Formats an SDK error as `code: message`, redacted. An error without a code keeps the SDK's text, except for a response
/// that does not decode: the SDK quotes the body.
pub(crate) fn aws_error<E>(error: &SdkError<E>) -> Box<dyn StdError + Send + Sync>
where
    E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
{
    const MAX_CHARS: usize = 400;
    let text = match (error.code(), error) {
        (Some(code), _) => {
            let message = error.message().unwrap_or("no reason given");
            format!("{}: {}", redact(code, 80), redact(message, MAX_CHARS))
        }
        (None, SdkError::ResponseError(_) | SdkError::ServiceError(_)) => {
            "the response does not decode".to_owned()
        }
        (None, _) => redact(&error_chain(error), MAX_CHARS),
    };
    text.into()
}
