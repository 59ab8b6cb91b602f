//! The status of the integrations, for the command `status` and for dashboards.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use smol_str::SmolStr;

use crate::app::App;
use crate::config::Config;
use crate::domain::plan::deprovision::Removal;
use crate::domain::status::Status;
use crate::domain::status::outcome::SyncState;
use crate::domain::status::pause::Pause;
use crate::domain::status::scores_end::ScoresEnd;
use crate::settings::{IntegrationId, Settings};
use crate::store::{Integration, Lease, StoreError, UnreadableItem};
use crate::text::error_chain;

/// An integration as `status` and dashboards show it.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct IntegrationView {
    /// The settings, unless they are invalid.
    #[serde(flatten)]
    pub(crate) settings: Option<Settings>,
    /// The name of the integration. The name of an unreadable item may be invalid.
    pub(crate) id: SmolStr,
    pub(crate) state: IntegrationState,
    pub(crate) config_version: u64,
    pub(crate) config_updated: Option<Timestamp>,
    pub(crate) config_updated_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) settings_error: Option<String>,
    pub(crate) status: Option<Status>,
    /// The active pause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pause: Option<Pause>,
    /// The lease of the run in progress.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lease: Option<Lease>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) removal: Option<Removal>,
    /// The time of the next run; none while the integration is disabled.
    pub(crate) next_sync: Option<Timestamp>,
    /// No run was attempted for two intervals.
    #[serde(rename = "overdue")]
    pub(crate) is_overdue: bool,
    /// The scores that end soon, since no run renews them.
    #[serde(skip)]
    pub(crate) ending_scores: Option<ScoresEnd>,
    /// Parts of the item that this version cannot read, each with its path and the reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) unreadable: Vec<String>,
}

/// The state of an integration in one word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum IntegrationState {
    /// The next run removes the integration.
    Removing,
    Disabled,
    /// No run has ended yet.
    #[default]
    New,
    /// The state after the latest run.
    #[serde(untagged)]
    After(SyncState),
}

impl fmt::Display for IntegrationState {
    /// Writes the stable name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

impl IntegrationView {
    pub(crate) fn new(integration: Integration, config: &Config, now: Timestamp) -> Self {
        let interval = SignedDuration::from_mins(i64::from(config.sync_interval_minutes.get()));
        let add_intervals = |time: Timestamp, intervals: i32| {
            time.saturating_add(interval * intervals).unwrap_or(time)
        };
        let state = IntegrationState::new(&integration);
        let scores_end = integration.scores_end();
        let ending_scores = integration.ending_scores(now);
        let is_enabled = integration.should_run();
        let status = integration.status.map(|status| Status {
            scores_end,
            ..status
        });
        let pause = integration.pause.filter(|pause| now < pause.until);
        let last_run = status.as_ref().map(|status| status.last_sync);
        let next_run = last_run.map_or(now, |last_run| add_intervals(last_run, 1).max(now));
        let next_sync = pause
            .as_ref()
            .map_or(next_run, |pause| pause.until.max(next_run));
        Self {
            id: integration.id.as_str().into(),
            state,
            config_version: integration.config_version,
            config_updated: integration.config_updated,
            config_updated_by: integration.config_updated_by,
            settings_error: integration.settings.as_ref().err().map(ToString::to_string),
            settings: integration.settings.ok(),
            next_sync: is_enabled.then_some(next_sync),
            // Two intervals: a run may start late or take long without a fault.
            is_overdue: is_enabled
                && pause.is_none()
                && last_run
                    .or(integration.config_updated)
                    .is_some_and(|since| add_intervals(since, 2) < now),
            status,
            ending_scores,
            pause,
            removal: integration.removal,
            lease: integration.lease.filter(|lease| now < lease.until),
            unreadable: integration.unreadable,
        }
    }

    /// An unreadable item counts as failing, since no run syncs it.
    fn from_unreadable(item: &UnreadableItem) -> Self {
        Self {
            id: item.id.clone(),
            state: IntegrationState::After(SyncState::Failing),
            unreadable: vec![error_chain(item)],
            ..Self::default()
        }
    }

    /// Returns the name as an id, or `None` if it is invalid.
    pub(crate) fn integration_id(&self) -> Option<IntegrationId> {
        self.id.to_string().try_into().ok()
    }

    /// Returns whether the item could be read, apart from the parts in `unreadable`.
    pub(crate) fn is_readable(&self) -> bool {
        self.settings.is_some() || self.settings_error.is_some()
    }
}

impl IntegrationState {
    fn new(integration: &Integration) -> Self {
        let status = integration.status.as_ref();
        if integration.removal.is_some() {
            Self::Removing
        } else if !integration.should_run() {
            Self::Disabled
        } else if status.is_none() && !integration.unreadable.is_empty() {
            // The status was dropped, so the state is unknown until the next run.
            Self::After(SyncState::Failing)
        } else {
            status
                .and_then(|status| SyncState::from_outcome(status.outcome))
                .map_or(Self::New, Self::After)
        }
    }
}

/// Returns one integration, or all of them sorted by name. Unreadable ones are included, as failing.
///
/// # Errors
/// [`StoreError::NoIntegration`], or a failure of DynamoDB.
pub(crate) async fn load_views(
    app: &App,
    id: Option<&IntegrationId>,
    now: Timestamp,
) -> Result<Vec<IntegrationView>, StoreError> {
    let store = &app.store;
    let view = |integration| IntegrationView::new(integration, &app.config, now);
    if let Some(id) = id {
        return Ok(vec![match store.integration(id).await {
            Ok(integration) => view(integration),
            Err(StoreError::Unreadable(item)) => IntegrationView::from_unreadable(&item),
            Err(error) => return Err(error),
        }]);
    }
    let all = store.integrations().await?;
    let readable = all.readable.into_iter().map(view);
    let unreadable = all.unreadable.iter().map(IntegrationView::from_unreadable);
    let mut views: Vec<IntegrationView> = readable.chain(unreadable).collect();
    views.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(views)
}

/// The number of integrations in each state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Summary {
    pub(crate) integrations: usize,
    pub(crate) ok: usize,
    pub(crate) failing: usize,
    pub(crate) paused: usize,
    pub(crate) held: usize,
    pub(crate) new: usize,
    pub(crate) disabled: usize,
    pub(crate) removing: usize,
    /// Overdue integrations, in any state.
    pub(crate) overdue: usize,
}

impl Summary {
    pub(crate) fn new(views: &[IntegrationView]) -> Self {
        let count = |state| views.iter().filter(|view| view.state == state).count();
        Self {
            integrations: views.len(),
            ok: count(IntegrationState::After(SyncState::Ok)),
            failing: count(IntegrationState::After(SyncState::Failing)),
            paused: count(IntegrationState::After(SyncState::Paused)),
            held: count(IntegrationState::After(SyncState::Held)),
            new: count(IntegrationState::New),
            disabled: count(IntegrationState::Disabled),
            removing: count(IntegrationState::Removing),
            overdue: views.iter().filter(|view| view.is_overdue).count(),
        }
    }
}
