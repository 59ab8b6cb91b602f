//! The AWS SDK, as the function's environment configures it.
//!
//! The SDK's own loader would also look for profiles, container and instance credentials and STS: a Lambda has none of
//! these, and looking costs time at the start and room in the zip.

use std::error::Error as StdError;
use std::time::Duration;

use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::config::SharedCredentialsProvider;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};

use crate::config::Aws;
use crate::text::{error_chain, redact};

/// The configuration of one service's client; `endpoint` is another address than AWS's own.
pub(crate) fn sdk(aws: &Aws, endpoint: Option<&str>) -> SdkConfig {
    let credentials = EnvironmentVariableCredentialsProvider::new();
    let mut sdk = SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(aws.region.clone().map(Region::new))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .timeout_config(patience())
        .use_fips(aws.fips)
        .use_dual_stack(aws.dual_stack);
    sdk.set_endpoint_url(endpoint.map(str::to_owned));
    sdk.build()
}

/// AWS answers in milliseconds. A call that hangs is given up in time to be made again, and all of it within what a run
/// keeps in reserve for recording how it went.
fn patience() -> TimeoutConfig {
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
    /// The message of the service, or of the SDK.
    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Message(String);
    const MAX: usize = 400;
    Box::new(Message(match (error.code(), error) {
        (Some(code), _) => {
            let message = error.message().unwrap_or("no reason is given");
            format!("{}: {}", redact(code, 80), redact(message, MAX))
        }
        (None, SdkError::ResponseError(_) | SdkError::ServiceError(_)) => {
            "the answer does not decode".to_owned()
        }
        (None, _) => redact(&error_chain(error), MAX),
    }))
}
