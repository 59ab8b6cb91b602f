//! How the integrations are: what `status` answers and the dashboard shows.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use smol_str::SmolStr;

use crate::config::Config;
use crate::domain::plan::deprovision::Removal;
use crate::domain::status::Status;
use crate::domain::status::outcome::SyncState;
use crate::domain::status::pause::Pause;
use crate::settings::{IntegrationId, Settings};
use crate::store::{Integration, Integrations, Lease, Store, StoreError, UnreadableItem};
use crate::text::error_chain;

/// An integration as it is shown.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IntegrationView {
    /// Its settings, where they can be used.
    #[serde(flatten)]
    pub settings: Option<Settings>,
    /// Its name. Of an item that cannot be read it may be no valid one.
    pub id: SmolStr,
    /// In one word.
    pub state: IntegrationState,
    /// Counts the changes of its settings, from 1.
    pub config_version: u64,
    /// When they were last changed.
    pub config_updated: Option<Timestamp>,
    /// Who changed them.
    pub config_updated_by: Option<String>,
    /// Why they cannot be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settings_error: Option<String>,
    /// How its latest run went; none before the first.
    pub status: Option<Status>,
    /// The pause that is in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause: Option<Pause>,
    /// Who is at work on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
    /// The wish to remove it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub removal: Option<Removal>,
    /// When it is tried next; never while it is disabled.
    pub next_sync: Option<Timestamp>,
    /// Whether there was no attempt for two intervals.
    pub overdue: bool,
    /// Parts of its item that this version cannot read, each with its path and the reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unreadable: Vec<String>,
}

/// How an integration is, in one word; stable names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum IntegrationState {
    /// The next run takes it away.
    Removing,
    /// Nothing runs it.
    Disabled,
    /// It has not been run yet.
    New,
    /// What its latest run left.
    #[serde(untagged)]
    After(SyncState),
}

impl fmt::Display for IntegrationState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Removing => f.write_str("removing"),
            Self::Disabled => f.write_str("disabled"),
            Self::New => f.write_str("new"),
            Self::After(state) => state.fmt(f),
        }
    }
}

impl IntegrationView {
    /// An integration as it is at `now`.
    pub fn of(integration: Integration, config: &Config, now: Timestamp) -> Self {
        let interval = SignedDuration::from_mins(i64::from(config.sync_interval_minutes.get()));
        let after = |time: Timestamp, intervals: i32| {
            time.saturating_add(interval * intervals).unwrap_or(time)
        };
        let state = IntegrationState::of(&integration);
        let enabled = integration.should_run();
        let pause = integration.pause.filter(|pause| now < pause.until);
        let tried = integration.status.as_ref().map(|status| status.last_sync);
        let next = tried.map_or(now, |tried| after(tried, 1).max(now));
        Self {
            id: integration.id.as_str().into(),
            state,
            config_version: integration.config_version,
            config_updated: integration.config_updated,
            config_updated_by: integration.config_updated_by,
            settings_error: integration.settings.as_ref().err().map(ToString::to_string),
            settings: integration.settings.ok(),
            next_sync: enabled.then(|| pause.as_ref().map_or(next, |pause| pause.until.max(next))),
            // Two intervals: a run may start late or take long without anything being wrong.
            overdue: enabled
                && pause.is_none()
                && tried
                    .or(integration.config_updated)
                    .is_some_and(|since| after(since, 2) < now),
            status: integration.status,
            pause,
            removal: integration.removal,
            lease: integration.lease.filter(|lease| now < lease.until),
            unreadable: integration.unreadable,
        }
    }

    /// An integration whose item cannot be read. Nothing syncs it, so it is failing.
    pub fn of_unreadable(item: &UnreadableItem) -> Self {
        Self {
            settings: None,
            id: item.id.clone(),
            state: IntegrationState::After(SyncState::Failing),
            config_version: 0,
            config_updated: None,
            config_updated_by: None,
            settings_error: None,
            status: None,
            pause: None,
            lease: None,
            removal: None,
            next_sync: None,
            overdue: false,
            unreadable: vec![error_chain(item)],
        }
    }

    /// All of these, by name.
    pub fn of_all(integrations: Integrations, config: &Config, now: Timestamp) -> Vec<Self> {
        let Integrations {
            readable,
            unreadable,
        } = integrations;
        let readable = readable
            .into_iter()
            .map(|integration| Self::of(integration, config, now));
        let mut views: Vec<Self> = readable
            .chain(unreadable.iter().map(Self::of_unreadable))
            .collect();
        views.sort_by(|a, b| a.id.cmp(&b.id));
        views
    }

    /// Its name where that is a valid one.
    pub fn integration_id(&self) -> Option<IntegrationId> {
        self.id.to_string().try_into().ok()
    }

    /// True unless the item as a whole cannot be read.
    pub fn is_readable(&self) -> bool {
        self.settings.is_some() || self.settings_error.is_some()
    }
}

impl IntegrationState {
    fn of(integration: &Integration) -> Self {
        let outcome = integration.status.as_ref().map(|status| status.outcome);
        if integration.removal.is_some() {
            Self::Removing
        } else if !integration.should_run() {
            Self::Disabled
        } else if integration.status.is_none() && !integration.unreadable.is_empty() {
            // The status was dropped, so the state is unknown until the next run.
            Self::After(SyncState::Failing)
        } else {
            outcome
                .and_then(SyncState::from_outcome)
                .map_or(Self::New, Self::After)
        }
    }
}

/// Returns one integration, or all of them sorted by name. Unreadable ones are included, as failing.
///
/// # Errors
/// [`StoreError::NoIntegration`], or a failure of DynamoDB.
pub async fn load_views(
    store: &Store,
    config: &Config,
    id: Option<&IntegrationId>,
    now: Timestamp,
) -> Result<Vec<IntegrationView>, StoreError> {
    let Some(id) = id else {
        let integrations = store.integrations().await?;
        return Ok(IntegrationView::of_all(integrations, config, now));
    };
    Ok(vec![match store.integration(id).await {
        Ok(integration) => IntegrationView::of(integration, config, now),
        Err(StoreError::Unreadable(item)) => IntegrationView::of_unreadable(&item),
        Err(error) => return Err(error),
    }])
}

/// All integrations in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// How many there are.
    pub integrations: usize,
    /// Those whose scores are carried over.
    pub ok: usize,
    /// Those whose latest run failed.
    pub failing: usize,
    /// Those that are paused.
    pub paused: usize,
    /// Those whose removals wait.
    pub held: usize,
    /// Those that were not run yet.
    pub new: usize,
    /// Those that nothing runs.
    pub disabled: usize,
    /// Those that the next run takes away.
    pub removing: usize,
    /// Those of all these without an attempt for two intervals.
    pub overdue: usize,
}

impl Summary {
    /// The numbers of these.
    pub fn of(views: &[IntegrationView]) -> Self {
        let mut summary = Self {
            integrations: views.len(),
            ..Self::default()
        };
        for overview in views {
            let count = match overview.state {
                IntegrationState::Removing => &mut summary.removing,
                IntegrationState::Disabled => &mut summary.disabled,
                IntegrationState::New => &mut summary.new,
                IntegrationState::After(SyncState::Ok) => &mut summary.ok,
                IntegrationState::After(SyncState::Failing) => &mut summary.failing,
                IntegrationState::After(SyncState::Paused) => &mut summary.paused,
                IntegrationState::After(SyncState::Held) => &mut summary.held,
            };
            *count += 1;
            summary.overdue += usize::from(overview.overdue);
        }
        summary
    }
}
