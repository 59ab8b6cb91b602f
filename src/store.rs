//! DynamoDB: the integrations with their status, pause and lease; the node records; the audit records.
//!
//! Three tables, one kind of record each. What belongs together is written in one transaction; what only one run may
//! do at a time is guarded by a condition of the write itself.

mod audit;
mod integrations;
mod item;
mod journal;
mod lease;
mod node_query;
mod nodes;

use std::error::Error as StdError;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::TransactWriteItem;
use backon::{ExponentialBuilder, Retryable};

use crate::aws::aws_error;
use crate::config::Config;
use crate::settings::IntegrationId;
use crate::text::redact;

use item::Item;

pub use audit::{AuditPage, AuditQuery};
pub use integrations::SettingsUpdate;
pub use item::{Integration, Integrations, Lease, UnreadableItem};
pub use journal::WriteCondition;
pub use lease::{FinishOutcome, RunRecord};
pub use nodes::MAX_CHANGES;

/// A read or write of our own tables that failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no integration of that name.
    #[error("there is no integration {integration:?}")]
    NoIntegration {
        /// The name.
        integration: String,
    },
    /// There is one of that name already.
    #[error("there is an integration {integration:?} already")]
    IntegrationExists {
        /// The name.
        integration: IntegrationId,
    },
    /// The settings are not what was read any more.
    #[error(
        "the settings of {integration} were changed by somebody else since version {read} was read, or it is being \
         removed; nothing was changed: look at its status and send the change again"
    )]
    Conflict {
        /// The integration.
        integration: IntegrationId,
        /// The version that the change was made from.
        read: u64,
    },
    /// Another run has written meanwhile; what this one knew is out of date.
    #[error("another run of {integration} has written meanwhile; nothing was recorded by this one")]
    Overtaken {
        /// The integration.
        integration: IntegrationId,
    },
    /// DynamoDB refused the call or is out of reach.
    #[error("DynamoDB did not {operation}")]
    Call {
        /// What was asked of it: "read the node records".
        operation: &'static str,
        /// Why.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// An integration's item cannot be read.
    #[error(transparent)]
    Unreadable(#[from] UnreadableItem),
    /// An item is not what this program writes; somebody edited it.
    #[error("an item of {operation} does not decode")]
    Decode {
        /// What was asked of DynamoDB.
        operation: &'static str,
        /// Why.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
}

impl StoreError {
    /// What to do, as half a sentence.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::NoIntegration { .. } => "connect it, or correct the name",
            Self::IntegrationExists { .. } => "update it, or choose another name",
            Self::Conflict { .. } => "look at its status and send the change again",
            Self::Overtaken { .. } => "the next run goes on",
            Self::Call { .. } => {
                "the next run goes on; if it stays, see the AWS Health Dashboard and the function's role"
            }
            Self::Unreadable { .. } => {
                "mend the item, or delete it and connect the integration again: another version of the function wrote it, or \
                 somebody edited it"
            }
            Self::Decode { .. } => "mend or delete the item: somebody has edited it by hand",
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
    /// The tables of this deployment.
    pub fn new(client: Client, config: &Config) -> Self {
        Self {
            client,
            integrations: config.integrations_table.clone(),
            nodes: config.nodes_table.clone(),
            audit: config.audit_table.clone(),
        }
    }

    /// Writes all items or none. A transaction that only got in the way of another one is tried again; its items are made
    /// anew for that, which is rare, instead of copied for each that succeeds.
    async fn transact(
        &self,
        operation: &'static str,
        items: impl Fn() -> Result<Vec<TransactWriteItem>, StoreError>,
    ) -> Result<TransactionOutcome, StoreError> {
        let attempt = || async {
            let items = items().map_err(TransactionError::Items)?;
            let request = self.client.transact_write_items();
            let sent = request.set_transact_items(Some(items)).send().await;
            sent.map_err(|error| TransactionError::Call(Box::new(error)))
        };
        let done = attempt
            .retry(conflicts())
            .when(|error| error.is_for(&["TransactionConflict", "ThrottlingError"]))
            .await;
        match done {
            Ok(_) => Ok(TransactionOutcome::Done),
            Err(error) if error.is_for(&["ConditionalCheckFailed"]) => {
                Ok(TransactionOutcome::Unmet)
            }
            Err(TransactionError::Items(error)) => Err(error),
            Err(TransactionError::Call(error)) => Err(refused(operation)(*error)),
        }
    }
}

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TransactionOutcome {
    /// All is written.
    Done,
    /// Nothing is: a condition did not hold.
    Unmet,
}

/// Why nothing is written.
enum TransactionError {
    /// The items could not be made.
    Items(StoreError),
    /// DynamoDB refused them or did not answer.
    Call(Box<SdkError<TransactWriteItemsError>>),
}

impl TransactionError {
    /// Whether the transaction was cancelled, and for these reasons only.
    fn is_for(&self, codes: &[&str]) -> bool {
        let Self::Call(error) = self else {
            return false;
        };
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
        reasons.peek().is_some() && reasons.all(|code| codes.contains(&code))
    }
}

/// Writers that meet at one item part within milliseconds.
fn conflicts() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_jitter()
        .with_min_delay(Duration::from_millis(20))
        .with_max_delay(Duration::from_secs(2))
        .with_max_times(8)
}

/// Sends a write again that only got in the way of a transaction, which the SDK does not.
async fn settled<T, E, F>(send: impl FnMut() -> F) -> Result<T, SdkError<E>>
where
    E: ProvideErrorMetadata,
    F: Future<Output = Result<T, SdkError<E>>>,
{
    send.retry(conflicts())
        .when(|error| error.code() == Some("TransactionConflictException"))
        .await
}

/// A closure for `map_err` that names the operation which DynamoDB refused or did not answer.
fn refused<E>(operation: &'static str) -> impl FnOnce(SdkError<E>) -> StoreError
where
    E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
{
    move |error| StoreError::Call {
        operation,
        source: aws_error(&error),
    }
}

/// Likewise for a request that cannot be built.
fn call<E: StdError + Send + Sync + 'static>(
    operation: &'static str,
) -> impl FnOnce(E) -> StoreError {
    move |source| StoreError::Call {
        operation,
        source: source.into(),
    }
}

/// Likewise for an item that does not decode (or encode); the decoder quotes what it found.
fn decode<E: StdError>(operation: &'static str) -> impl FnOnce(E) -> StoreError {
    move |source| StoreError::Decode {
        operation,
        source: redact(&source.to_string(), 400).into(),
    }
}

/// The items of a page. An answer without a list is none (DynamoDB's has an empty one), and must not be taken for a table
/// without items.
fn listed(items: Option<Vec<Item>>, operation: &'static str) -> Result<Vec<Item>, StoreError> {
    items.ok_or_else(|| unread(operation))
}

/// An answer without what must be in it.
fn unread(operation: &'static str) -> StoreError {
    StoreError::Call {
        operation,
        source: "the answer is empty".into(),
    }
}
