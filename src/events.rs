//! The events that the function puts on the event bus.

use aws_config::SdkConfig;
use aws_sdk_eventbridge::types::PutEventsRequestEntry;
use aws_sdk_eventbridge::{Client, config};
use serde::Serialize;
use serde_json::json;

use crate::aws::{ExpiredSignatureRetry, aws_error};
use crate::domain::status::outcome::Transition;
use crate::domain::status::scores_end::ScoresEnd;
use crate::settings::IntegrationId;

/// The `source` of every event. Rules and the role's policy name it.
pub(crate) const SOURCE: &str = "falcon-posture-sync";

/// Maximum events per `PutEvents` call.
const MAX_BATCH_EVENTS: usize = 10;

/// An event. It serializes as its detail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged, rename_all_fields = "camelCase")]
pub(crate) enum Event {
    /// A sync of the integration follows at once.
    IntegrationChanged {
        integration: IntegrationId,
        /// `created`, `updated` or `removed`.
        change: &'static str,
        config_version: u64,
    },
    /// Starts a run for one integration.
    SyncRequested {
        integration: IntegrationId,
        /// `schedule`, `secret` or `console`.
        reason: &'static str,
    },
    /// Feeds people's alerts: scores end soon, and no run renews them.
    ScoresEnding {
        integration: IntegrationId,
        #[serde(flatten)]
        end: ScoresEnd,
    },
    /// Feeds people's alerts.
    StateChanged {
        integration: IntegrationId,
        #[serde(flatten)]
        transition: Transition,
        /// The reason for a failure, a pause or a hold.
        error: Option<String>,
    },
}

impl Event {
    // The `detail-type` of each variant.
    pub(crate) const INTEGRATION_CHANGED: &'static str = "Posture Integration Changed";
    pub(crate) const SYNC_REQUESTED: &'static str = "Posture Sync Requested";
    const SCORES_ENDING: &'static str = "Posture Scores Ending";
    const STATE_CHANGED: &'static str = "Posture Sync State Changed";

    fn entry(&self, bus: &str) -> PutEventsRequestEntry {
        let kind = match self {
            Self::IntegrationChanged { .. } => Self::INTEGRATION_CHANGED,
            Self::SyncRequested { .. } => Self::SYNC_REQUESTED,
            Self::ScoresEnding { .. } => Self::SCORES_ENDING,
            Self::StateChanged { .. } => Self::STATE_CHANGED,
        };
        PutEventsRequestEntry::builder()
            .event_bus_name(bus)
            .source(SOURCE)
            .detail_type(kind)
            .detail(json!(self).to_string())
            .build()
    }
}

/// A failed `PutEvents` call.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// The call failed.
    #[error("EventBridge: could not reach the bus {bus}")]
    Call {
        /// The name of the bus.
        bus: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The call succeeded, but the bus rejected some events.
    #[error("EventBridge: the bus {bus} rejected {count} events ({code})")]
    Rejected {
        /// The name of the bus.
        bus: String,
        /// The number of rejected events.
        count: usize,
        /// The error code of the first one.
        code: String,
    },
}

/// The client of one event bus.
#[derive(Clone, Debug)]
pub struct EventBus {
    client: Client,
    name: String,
}

impl EventBus {
    /// Makes the client of the bus with this name.
    pub fn new(sdk: &SdkConfig, name: String) -> Self {
        let client = config::Builder::from(sdk).retry_classifier(ExpiredSignatureRetry);
        let client = Client::from_conf(client.build());
        Self { client, name }
    }

    /// Puts events on the bus. A failed batch does not stop the next ones.
    ///
    /// # Errors
    /// When an event was not accepted. Sending all events again is safe: a sync with nothing to do changes nothing.
    pub(crate) async fn put(&self, events: &[Event]) -> Result<(), EventError> {
        let mut result = Ok(());
        for batch in events.chunks(MAX_BATCH_EVENTS) {
            result = result.and(self.put_batch(batch).await);
        }
        result
    }

    async fn put_batch(&self, events: &[Event]) -> Result<(), EventError> {
        let entries = events.iter().map(|event| event.entry(&self.name)).collect();
        let response = self
            .client
            .put_events()
            .set_entries(Some(entries))
            .send()
            .await
            .map_err(|error| EventError::Call {
                bus: self.name.clone(),
                source: aws_error(&error),
            })?;
        let entries = response.entries.unwrap_or_default().into_iter();
        let mut codes = entries.filter_map(|entry| entry.error_code);
        match codes.next() {
            None => Ok(()),
            Some(code) => Err(EventError::Rejected {
                bus: self.name.clone(),
                count: 1 + codes.count(),
                code,
            }),
        }
    }
}
