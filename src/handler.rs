//! Payload in, answer out.

use jiff::{SignedDuration, Timestamp};
use lambda_runtime::Diagnostic;
use serde::Serialize;
use serde_json::{Value, json};

use crate::clock::Deadline;
use crate::command::{AskedBy, BadPayload, Command, SyncOne};
use crate::domain::audit;
use crate::domain::pause::Pause;
use crate::domain::status::Status;
use crate::error::chain;
use crate::events::{Event, EventError};
use crate::integration::{IntegrationId, InvalidSettings, Settings};
use crate::retry::Budget;
use crate::store::{Integration, Lease, StoreError};
use crate::sync::{self, Answer, Failure};
use crate::world::{Invocation, World};

/// A request that could not be served. What an upstream refused in a sync is no such thing, but an answer.
#[derive(Debug, thiserror::Error)]
pub enum HandlerError {
    /// The payload is none of ours.
    #[error(transparent)]
    Payload(#[from] BadPayload),
    /// The settings cannot work in this deployment.
    #[error(transparent)]
    Settings(#[from] InvalidSettings),
    /// The credentials of a new integration do not work; nothing was stored.
    #[error(
        "the integration {integration} is not connected, since its credentials do not work yet"
    )]
    Check {
        /// The integration.
        integration: IntegrationId,
        /// What was refused, and by whom.
        #[source]
        source: Box<Failure>,
    },
    /// Our own tables.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The event bus.
    #[error(transparent)]
    Events(#[from] EventError),
    /// An answer that does not encode: a bug.
    #[error("the answer does not encode")]
    Encode(#[from] serde_json::Error),
}

impl From<HandlerError> for Diagnostic {
    /// `errorType` is stable; `errorMessage` has the causes.
    fn from(error: HandlerError) -> Self {
        let error_type = match &error {
            HandlerError::Payload(_) | HandlerError::Settings(_) => "BadInput",
            HandlerError::Check { .. } => "CheckFailed",
            HandlerError::Store(StoreError::NoIntegration { .. }) => "NoIntegration",
            HandlerError::Store(StoreError::IntegrationExists { .. }) => "IntegrationExists",
            HandlerError::Store(_) => "Storage",
            HandlerError::Events(_) => "Events",
            HandlerError::Encode(_) => "Bug",
        };
        Self {
            error_type: error_type.to_owned(),
            error_message: chain(&error),
        }
    }
}

/// Serves one payload.
///
/// # Errors
/// See [`HandlerError`].
pub async fn handle(
    world: &World,
    payload: Value,
    invocation: &Invocation,
) -> Result<Value, HandlerError> {
    match Command::parse(payload)? {
        Command::SyncAll => sync_all(world, invocation).await,
        Command::Sync(wish) => sync_one(world, &wish, invocation).await,
        Command::Connect {
            settings,
            actor,
            check,
        } => connect(world, &settings, actor, check, invocation).await,
        Command::Status { integration } => status(world, integration.as_ref()).await,
    }
}

/// One integration is synced here; of several, each gets a run of its own, with its own time and its own failure.
async fn sync_all(world: &World, invocation: &Invocation) -> Result<Value, HandlerError> {
    let enabled: Vec<IntegrationId> = world
        .store
        .integrations()
        .await?
        .into_iter()
        .filter(|integration| integration.settings.as_ref().map_or(true, |s| s.enabled))
        .map(|integration| integration.id)
        .collect();
    if let [integration] = enabled.as_slice() {
        let wish = SyncOne {
            integration: integration.clone(),
            force: false,
            dry_run: false,
            allow_mass_removal: false,
            asked_by: AskedBy::Event,
        };
        return sync_one(world, &wish, invocation).await;
    }
    let requests: Vec<Event> = enabled
        .iter()
        .map(|integration| Event::SyncRequested {
            integration: integration.clone(),
            reason: "schedule",
        })
        .collect();
    world.events.put(&requests).await?;
    tracing::info!(
        run_id = invocation.id,
        integrations = enabled.len(),
        "requested a sync of each of {} integrations",
        enabled.len()
    );
    Ok(json!({ "requested": enabled }))
}

async fn sync_one(
    world: &World,
    wish: &SyncOne,
    invocation: &Invocation,
) -> Result<Value, HandlerError> {
    // Boxed: the future of a whole run is too deep a type to be laid out in place.
    let answer = match Box::pin(sync::sync(world, wish, invocation)).await {
        // An event may arrive after the integration's end.
        Err(StoreError::NoIntegration { .. }) if wish.asked_by == AskedBy::Event => {
            Answer::skipped(wish, invocation, "there is no such integration any more")
        }
        answer => answer?,
    };
    Ok(serde_json::to_value(answer)?)
}

async fn connect(
    world: &World,
    settings: &Settings,
    actor: Option<String>,
    check: bool,
    invocation: &Invocation,
) -> Result<Value, HandlerError> {
    world.config.accept(settings)?;
    if check {
        let deadline = Deadline::new(world.clock.clone(), invocation.deadline);
        let budget = Budget::new(world.retries, world.clock.clone(), deadline);
        sync::sign_in(world, settings, &budget, |_, _| {})
            .await
            .map_err(|failure| HandlerError::Check {
                integration: settings.id.clone(),
                source: Box::new(failure),
            })?;
    }
    let actor = actor.unwrap_or_else(|| "unknown".to_owned());
    let now = world.clock.now();
    let context = audit::Context {
        integration: settings.id.clone(),
        run_id: invocation.id.clone(),
        actor: actor.clone(),
        retention_days: world.config.audit_retention_days.get(),
    };
    let record = context.created(settings, 1, now);
    world.store.create(settings, &actor, now, &record).await?;
    tracing::info!(
        integration = %settings.id,
        run_id = invocation.id,
        actor,
        "connected {}",
        settings.id
    );
    let event = Event::IntegrationChanged {
        integration: settings.id.clone(),
        change: "created",
        config_version: 1,
    };
    let sync = match world.events.put(&[event]).await {
        Ok(()) => "requested: the first sync starts within seconds".to_owned(),
        Err(error) => format!(
            "not requested ({}); the next scheduled run does it",
            chain(&error)
        ),
    };
    Ok(json!({ "integration": settings.id, "configVersion": 1, "sync": sync }))
}

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
    next_sync: Option<Timestamp>,
    overdue: bool,
}

async fn status(world: &World, id: Option<&IntegrationId>) -> Result<Value, HandlerError> {
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
        let enabled = integration.settings.as_ref().is_ok_and(|s| s.enabled);
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
            lease: integration.lease.filter(|lease| now < lease.until),
        }
    }
}
