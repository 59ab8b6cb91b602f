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
use aws_sdk_dynamodb::config::interceptors::InterceptorContext;
use aws_sdk_dynamodb::config::retry::{ClassifyRetry, RetryAction};
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

/// Retries a request whose signature has expired, which the SDK does only if the clocks differ: Lambda may freeze the function
/// between the signing of a request and its sending. The retry is signed anew.
#[derive(Debug)]
pub(crate) struct ExpiredSignatureRetry;

impl ClassifyRetry for ExpiredSignatureRetry {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        const CODES: [&str; 2] = ["InvalidSignatureException", "RequestExpired"];
        let body = context
            .response()
            .and_then(|response| response.body().bytes());
        let body = String::from_utf8_lossy(body.unwrap_or_default());
        let is_rejected = context
            .response()
            .is_some_and(|response| response.status().is_client_error());
        if is_rejected && CODES.iter().any(|code| body.contains(code)) {
            RetryAction::transient_error()
        } else {
            RetryAction::NoActionIndicated
        }
    }

    fn name(&self) -> &'static str {
        "expired signature"
    }
}

/// Returns whether a service asks to send the same request again: two writers met, or there are too many requests.
pub(crate) fn is_busy(code: &str) -> bool {
    const CODES: [&str; 6] = [
        "TransactionConflict",
        "TransactionConflictException",
        "ThrottlingError",
        "ThrottlingException",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
    ];
    CODES.contains(&code)
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
            let status = error
                .raw_response()
                .map(|response| response.status().as_u16());
            let status = status.map_or_else(String::new, |status| format!("HTTP {status}: "));
            format!("{status}the response does not decode")
        }
        (None, _) => redact(&error_chain(error), MAX_CHARS),
    };
    text.into()
}
