//! What we put on the event bus.

use aws_sdk_eventbridge::Client;
use aws_sdk_eventbridge::types::PutEventsRequestEntry;
use serde_json::json;

use crate::aws::aws_error;
use crate::domain::status::outcome::Transition;
use crate::settings::IntegrationId;

/// The `source` of every event of ours; rules and the role's policy name it.
pub const SOURCE: &str = "falcon-posture-sync";

/// `PutEvents` takes so many at once.
const BATCH: usize = 10;

/// A change or a wish that others act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// `Posture Integration Changed`: a sync of it follows at once.
    IntegrationChanged {
        /// The integration.
        integration: IntegrationId,
        /// What happened to it: `created`, `updated`, `removed`.
        change: &'static str,
        /// The version of its settings.
        config_version: u64,
    },
    /// `Posture Sync Requested`: a run of its own for one integration.
    SyncRequested {
        /// The integration.
        integration: IntegrationId,
        /// Who wishes it: `schedule`, `secret`, `console`.
        reason: &'static str,
    },
    /// `Posture Sync State Changed`: for people's alerts.
    StateChanged {
        /// The integration.
        integration: IntegrationId,
        /// From which state to which.
        transition: Transition,
        /// What went wrong, or why something waits.
        error: Option<String>,
    },
}

impl Event {
    /// The `detail-type` of a changed integration.
    pub const INTEGRATION_CHANGED: &'static str = "Posture Integration Changed";
    /// The `detail-type` of a requested sync.
    pub const SYNC_REQUESTED: &'static str = "Posture Sync Requested";

    /// The `detail-type` of a changed state.
    pub const STATE_CHANGED: &'static str = "Posture Sync State Changed";

    fn entry(&self, bus: &str) -> PutEventsRequestEntry {
        let (kind, detail) = match self {
            Self::IntegrationChanged {
                integration,
                change,
                config_version,
            } => (
                Self::INTEGRATION_CHANGED,
                json!({"integration": integration, "change": change, "configVersion": config_version}),
            ),
            Self::SyncRequested {
                integration,
                reason,
            } => (
                Self::SYNC_REQUESTED,
                json!({"integration": integration, "reason": reason}),
            ),
            Self::StateChanged {
                integration,
                transition: Transition { from, to },
                error,
            } => (
                Self::STATE_CHANGED,
                json!({"integration": integration, "from": from, "to": to, "error": error}),
            ),
        };
        PutEventsRequestEntry::builder()
            .event_bus_name(bus)
            .source(SOURCE)
            .detail_type(kind)
            .detail(detail.to_string())
            .build()
    }
}

/// The bus did not take an event.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// The call failed.
    #[error("the event bus {bus} could not be reached")]
    Call {
        /// The bus.
        bus: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The call went through, but some events were not taken.
    #[error("the event bus {bus} did not take {count} of the events ({code})")]
    Refused {
        /// The bus.
        bus: String,
        /// How many.
        count: usize,
        /// The service's code for the first of them.
        code: String,
    },
}

/// The bus.
#[derive(Clone, Debug)]
pub struct EventBus {
    client: Client,
    name: String,
}

impl EventBus {
    /// The bus of this name.
    pub fn new(client: Client, name: String) -> Self {
        Self { client, name }
    }

    /// Puts events on the bus. All are offered, whatever becomes of the first.
    ///
    /// # Errors
    /// When not every event was taken. Offering all of them again does no harm: a sync that finds nothing to do
    /// changes nothing.
    pub async fn put(&self, events: &[Event]) -> Result<(), EventError> {
        let mut result = Ok(());
        for batch in events.chunks(BATCH) {
            let put = self.put_batch(batch).await;
            result = result.and(put);
        }
        result
    }

    async fn put_batch(&self, events: &[Event]) -> Result<(), EventError> {
        let entries = events.iter().map(|event| event.entry(&self.name)).collect();
        let answer = self
            .client
            .put_events()
            .set_entries(Some(entries))
            .send()
            .await
            .map_err(|error| EventError::Call {
                bus: self.name.clone(),
                source: aws_error(&error),
            })?;
        let codes: Vec<String> = answer
            .entries
            .unwrap_or_default()
            .into_iter()
            .filter_map(|entry| entry.error_code)
            .collect();
        match codes.first() {
            None => Ok(()),
            Some(code) => Err(EventError::Refused {
                bus: self.name.clone(),
                count: codes.len(),
                code: code.clone(),
            }),
        }
    }
}
