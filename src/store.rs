//! DynamoDB: integrations with status, pause and lease; node records; audit records.
//!
//! Each of the three tables holds one kind of record. Items that belong together are written in one transaction. A
//! condition on the write itself makes sure that only one run at a time acts.

mod audit;
mod integrations;
mod item;
mod journal;
mod lease;
mod nodes;

use std::collections::HashMap;
use std::error::Error as StdError;
use std::fmt::Display;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::operation::update_item::{UpdateItemError, UpdateItemOutput};
use aws_sdk_dynamodb::types::{AttributeValue, Put, TransactWriteItem};
use aws_sdk_dynamodb::{Client, config};
use backon::{BackoffBuilder, ExponentialBuilder, Retryable};
use serde::Serialize;
use serde_dynamo::{to_attribute_value, to_item};

use crate::aws::{ExpiredSignatureRetry, aws_error, is_busy};
use crate::config::Config;
use crate::settings::IntegrationId;
use crate::text::redact;
use item::Item;

pub use audit::{AuditPage, AuditQuery};
pub use item::{Integration, Integrations, Lease, UnreadableItem};
pub(crate) use journal::MAX_SETTLED;
pub use journal::Settlement;
pub use lease::FinishOutcome;
pub(crate) use nodes::MAX_CHANGES;
pub use nodes::StoredNodes;

/// A failed read or write of the tables.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No integration has this name, which may be invalid.
    #[error("there is no integration {0:?}")]
    NoIntegration(String),
    /// An integration of this name exists.
    #[error("the integration {0} already exists")]
    IntegrationExists(IntegrationId),
    /// The settings changed after they were read.
    #[error(
        "cannot change the settings of {integration}: they have changed since version {read} was read, or the \
         integration is being removed"
    )]
    Conflict {
        /// The integration to change.
        integration: IntegrationId,
        /// The version that the change was made from.
        read: u64,
    },
    /// Another run of the integration has written, so this run's knowledge is out of date.
    #[error("cannot record this run: another run of {0} has written in the meantime")]
    Overtaken(IntegrationId),
    /// DynamoDB rejected the call or is unreachable.
    #[error("DynamoDB: could not {operation}")]
    Call {
        /// The operation as a verb phrase: "read the node records".
        operation: &'static str,
        /// The cause.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// An integration's item cannot be read.
    #[error(transparent)]
    Unreadable(#[from] UnreadableItem),
    /// A person edited an item, and it does not decode.
    #[error("cannot {operation}: an item does not decode")]
    Decode {
        /// The operation, as for [`StoreError::Call`].
        operation: &'static str,
        /// The cause.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
}

impl StoreError {
    /// Returns the remedy as half a sentence.
    pub(crate) fn remedy(&self) -> &'static str {
        match self {
            Self::NoIntegration(_) => "connect it, or correct the name",
            Self::IntegrationExists(_) => "update it, or choose another name",
            Self::Conflict { .. } => "look at its status and send the change again",
            Self::Overtaken(_) => "wait for the next run",
            Self::Call { .. } => {
                "wait for the next run; if it persists, check the AWS Health Dashboard and the function's role"
            }
            Self::Unreadable { .. } => {
                "repair the item, or delete it and connect the integration again: another version of the function \
                 wrote it, or somebody edited it"
            }
            Self::Decode { .. } => "repair or delete the item: somebody edited it",
        }
    }
}

/// The three tables.
#[derive(Clone, Debug)]
pub struct Store {
    client: Client,
    integrations: String,
    nodes: String,
    audit: String,
}

impl Store {
    /// Opens the tables of this deployment.
    pub fn new(sdk: &SdkConfig, config: &Config) -> Self {
        let client = config::Builder::from(sdk).retry_classifier(ExpiredSignatureRetry);
        Self {
            client: Client::from_conf(client.build()),
            integrations: config.integrations_table.clone(),
            nodes: config.nodes_table.clone(),
            audit: config.audit_table.clone(),
        }
    }

    fn integration_update(&self, id: &IntegrationId) -> UpdateItemFluentBuilder {
        self.client
            .update_item()
            .table_name(&self.integrations)
            .key("id", AttributeValue::S(id.to_string()))
    }

    /// Writes all items or none. Retries conflicts with other transactions, which the SDK does not. The items are built for
    /// each attempt: retries are rare, so copies for them would cost more.
    async fn transact(
        &self,
        operation: &'static str,
        items: impl Fn() -> Result<Vec<TransactWriteItem>, StoreError>,
    ) -> Result<Result<(), ConditionFailed>, StoreError> {
        let mut delays = conflict_backoff().build();
        let error = loop {
            let request = self.client.transact_write_items();
            let request = request.set_transact_items(Some(items()?));
            let Err(error) = request.send().await else {
                return Ok(Ok(()));
            };
            let is_retryable =
                error.code().is_some_and(is_busy) || is_cancelled_by(&error, is_busy);
            match delays.next().filter(|_| is_retryable) {
                Some(delay) => tokio::time::sleep(delay).await,
                None => break error,
            }
        };
        if is_cancelled_by(&error, |code| code == "ConditionalCheckFailed") {
            return Ok(Err(ConditionFailed(None)));
        }
        Err(call_error(operation)(error))
    }
}

/// Returns whether DynamoDB cancelled a transaction for such reasons only.
fn is_cancelled_by(
    error: &SdkError<TransactWriteItemsError>,
    is_reason: impl Fn(&str) -> bool,
) -> bool {
    let Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) =
        error.as_service_error()
    else {
        return false;
    };
    let mut reasons = cancelled
        .cancellation_reasons()
        .iter()
        .filter_map(|reason| reason.code())
        .filter(|code| *code != "None")
        .peekable();
    reasons.peek().is_some() && reasons.all(is_reason)
}

/// Backoff after a conflict or a throttled write: two writers of one item need milliseconds each.
fn conflict_backoff() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_jitter()
        .with_min_delay(Duration::from_millis(20))
        .with_max_delay(Duration::from_secs(2))
        .with_max_times(8)
}

/// The condition of a write did not hold, so nothing is written. Holds the item as it is, if it exists and the request asks
/// for it.
struct ConditionFailed(Option<Item>);

/// Sends an update with a condition. Retries conflicts with transactions, which the SDK does not, and throttled writes for
/// longer than the SDK.
async fn send_update(
    request: &UpdateItemFluentBuilder,
    operation: &'static str,
) -> Result<Result<UpdateItemOutput, ConditionFailed>, StoreError> {
    let attempt = || request.clone().send();
    let result = attempt
        .retry(conflict_backoff())
        .when(|error| error.code().is_some_and(is_busy))
        .await;
    let error = match result {
        Ok(response) => return Ok(Ok(response)),
        Err(error) => error,
    };
    match error.as_service_error() {
        Some(UpdateItemError::ConditionalCheckFailedException(failed)) => {
            Ok(Err(ConditionFailed(failed.item().cloned())))
        }
        _ => Err(call_error(operation)(error)),
    }
}

/// Returns a function for `map_err` that makes the error of a call which DynamoDB rejected or did not answer.
fn call_error<E>(operation: &'static str) -> impl FnOnce(SdkError<E>) -> StoreError
where
    E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
{
    move |error| StoreError::Call {
        operation,
        source: aws_error(&error),
    }
}

/// Returns a function for `map_err` that makes the error of a request which cannot be built.
fn build_error<E: StdError + Send + Sync + 'static>(
    operation: &'static str,
) -> impl FnOnce(E) -> StoreError {
    move |source| StoreError::Call {
        operation,
        source: source.into(),
    }
}

/// Returns a function for `map_err` that makes the error of an item which does not decode or encode. The cause quotes the
/// item, so it is redacted.
fn decode_error<E: Display>(operation: &'static str) -> impl FnOnce(E) -> StoreError {
    move |source| StoreError::Decode {
        operation,
        source: redact(&source.to_string(), 400).into(),
    }
}

/// Returns a required part of a response. DynamoDB's empty page has an empty list, so a response without a list is an error.
fn require<T>(part: Option<T>, operation: &'static str) -> Result<T, StoreError> {
    part.ok_or_else(|| StoreError::Call {
        operation,
        source: "the response is empty".into(),
    })
}

fn encode<T: Serialize>(value: &T, operation: &'static str) -> Result<AttributeValue, StoreError> {
    to_attribute_value(value).map_err(decode_error(operation))
}

/// Builds the write of an item, under a condition about the item that it replaces.
fn put_item<T: Serialize>(
    table: &str,
    item: &T,
    condition: &str,
    values: Option<HashMap<String, AttributeValue>>,
    operation: &'static str,
) -> Result<TransactWriteItem, StoreError> {
    let put = Put::builder()
        .table_name(table)
        .set_item(Some(to_item(item).map_err(decode_error(operation))?))
        .condition_expression(condition)
        .set_expression_attribute_values(values)
        .build()
        .map_err(build_error(operation))?;
    Ok(TransactWriteItem::builder().put(put).build())
}

fn number(number: u64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

/// Joins the clauses of an update. DynamoDB rejects a clause without paths.
fn update_expression(set: &str, remove: &[String]) -> String {
    if remove.is_empty() {
        return set.to_owned();
    }
    format!("{set} REMOVE {}", remove.join(", "))
}
