//! How the integrations are.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::{Value, json};

use super::HandlerError;
use crate::domain::pause::Pause;
use crate::domain::removal::Removal;
use crate::domain::status::Status;
use crate::integration::{IntegrationId, Settings};
use crate::store::{Integration, Lease};
use crate::world::World;

/// An integration as `status` shows it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    #[serde(flatten)]
    settings: Option<Settings>,
    id: IntegrationId,
    config_version: u64,
    config_updated: Option<Timestamp>,
    config_updated_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    settings_error: Option<String>,
    status: Option<Status>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pause: Option<Pause>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease: Option<Lease>,
    #[serde(skip_serializing_if = "Option::is_none")]
    removal: Option<Removal>,
    next_sync: Option<Timestamp>,
    overdue: bool,
}

pub(super) async fn status(
    world: &World,
    id: Option<&IntegrationId>,
) -> Result<Value, HandlerError> {
    let Some(id) = id else {
        let all = world.store.integrations().await?;
        let shown: Vec<Shown> = all.into_iter().map(|i| Shown::of(i, world)).collect();
        return Ok(json!({ "integrations": shown }));
    };
    let integration = world.store.integration(id).await?;
    Ok(serde_json::to_value(Shown::of(integration, world))?)
}

impl Shown {
    fn of(integration: Integration, world: &World) -> Self {
        let now = world.clock.now();
        let interval =
            SignedDuration::from_mins(i64::from(world.config.sync_interval_minutes.get()));
        let after = |time: Timestamp, intervals: i32| {
            time.saturating_add(interval * intervals).unwrap_or(time)
        };
        let enabled = integration.wants_runs();
        let pause = integration.pause.filter(|pause| now < pause.until);
        let tried = integration.status.as_ref().map(|status| status.last_sync);
        let next = tried.map_or(now, |tried| after(tried, 1).max(now));
        Self {
            id: integration.id,
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
        }
    }
}
