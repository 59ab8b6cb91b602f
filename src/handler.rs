//! Turns a payload into a command, runs it, and returns the response.

mod console;
mod error;
mod integrations;

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Value, json};
use tracing::Instrument;

use crate::app::{App, Invocation};
use crate::command::{AuditFormat, Command, Format, StatusRequest};
use crate::domain::audit::export::export;
use crate::domain::status::RunOutcome;
use crate::events::Event;
use crate::explain;
use crate::metrics::{self, MetricEvent};
use crate::preview;
use crate::render::text;
use crate::settings::{IntegrationId, SecretName};
use crate::status::{Summary, load_views};
use crate::store::{AuditQuery, Integration, Integrations, StoreError};
use crate::sync::{self, SyncRequest, SyncResponse, Trigger};
use crate::text::error_chain;
use error::CONSOLE_ALIAS;
pub use error::HandlerError;
use integrations::IntegrationCommands;

/// Serves one payload. Every log line of the invocation carries the run's id.
///
/// # Errors
/// See [`HandlerError`].
pub async fn handle(
    app: &App,
    payload: Value,
    invocation: &Invocation,
) -> Result<Value, HandlerError> {
    let span = tracing::info_span!("run", run_id = invocation.id);
    // Boxed: the future holds the state of every command and is large.
    Box::pin(dispatch(app, payload, invocation))
        .instrument(span)
        .await
}

async fn dispatch(
    app: &App,
    payload: Value,
    invocation: &Invocation,
) -> Result<Value, HandlerError> {
    let as_actor = |actor| IntegrationCommands::new(app, invocation, actor);
    let command = Command::parse(payload);
    let is_console = invocation.alias.as_deref() == Some(CONSOLE_ALIAS);
    if is_console && !matches!(command, Ok(Command::Widget(_))) {
        tracing::warn!(
            run_id = invocation.id,
            "rejected a call that is not a widget"
        );
        return Err(HandlerError::NotAllowed);
    }
    match command? {
        Command::SyncAll => {
            let mut all = app.store.integrations().await?;
            let ending = announce_endings(app, &all.readable, invocation).await;
            all.readable.retain(Integration::should_run);
            emit_schedule_metrics(app, &all, ending);
            let enabled = all.readable.into_iter().map(|integration| integration.id);
            let mut answer = sync_each(app, enabled.collect(), "schedule", invocation).await?;
            if !all.unreadable.is_empty() {
                let names = all.unreadable.iter().map(|item| item.id.as_str());
                answer["unreadable"] = names.collect();
            }
            Ok(answer)
        }
        Command::Sync(request) => sync_one(app, &request, invocation).await,
        Command::SecretChanged { names } => secret_changed(app, &names, invocation).await,
        Command::Connect(request) => as_actor(request.actor.as_deref()).connect(&request).await,
        Command::Update(request) => as_actor(request.actor.as_deref()).update(&request).await,
        Command::Remove(request) => as_actor(request.actor.as_deref()).remove(&request).await,
        Command::Check(request) => as_actor(None).check(&request.integration).await,
        // Boxed: the futures of `preview` and `explain` hold a whole observation and are large.
        Command::Preview(request) => {
            let (integration, target) = (&request.integration, request.target());
            let answer = Box::pin(preview::preview(app, integration, target, invocation)).await?;
            encode(&answer, request.format, text::preview)
        }
        Command::Explain(request) => {
            let (integration, device) = (&request.integration, &request.device.0);
            let answer = Box::pin(explain::explain(app, integration, device, invocation)).await?;
            encode(&answer, request.format, text::explain)
        }
        Command::Widget(request) => Box::pin(console::answer(app, &request, invocation)).await,
        Command::Status(request) => status(app, &request).await,
        Command::Audit(query, format) => audit(app, &query, format).await,
    }
}

/// Emits the metrics of a scheduled run, even with no integrations, so that an alarm can detect missing runs.
/// `integrations` are the enabled ones. An unreadable item counts as enabled and failing. `ending` is the number of devices
/// whose scores end soon.
fn emit_schedule_metrics(app: &App, integrations: &Integrations, ending: usize) {
    let now = app.clock.now();
    let (enabled, unreadable) = (&integrations.readable, &integrations.unreadable);
    let staying = enabled.iter().filter(|item| item.removal.is_none());
    let ages = staying.map(|item| item.seconds_since_success(item.status.as_ref(), now));
    let unreadable_ages = unreadable.iter().map(|one| one.seconds_since_success(now));
    let longest = ages.chain(unreadable_ages).max();
    let mut pauses = enabled.iter().filter_map(|item| item.pause.as_ref());
    let is_paused = pauses.any(|pause| now < pause.until);
    let mut statuses = enabled.iter().filter_map(|item| item.status.as_ref());
    let is_held = statuses.any(|status| status.outcome == RunOutcome::Held);
    app.metrics.emit(
        &MetricEvent::new(now, None)
            .value(metrics::INTEGRATIONS, enabled.len() + unreadable.len())
            .value(metrics::FAILED, unreadable.len())
            .value(metrics::PAUSED, u64::from(is_paused))
            .value(metrics::SCORES_ENDING, ending)
            .value(metrics::HELD, u64::from(is_held))
            .value(metrics::SECONDS_SINCE_SUCCESS, longest.unwrap_or(0)),
    );
}

/// Announces, once for each integration, that its scores end soon because no run renews them. Returns the number of their
/// devices. A failure is no reason not to sync: the next run of the schedule announces it.
async fn announce_endings(app: &App, all: &[Integration], invocation: &Invocation) -> usize {
    let now = app.clock.now();
    let mut devices = 0;
    for integration in all {
        let (id, status) = (&integration.id, integration.status.as_ref());
        let Some(end) = integration.ending_scores(now) else {
            continue;
        };
        devices += end.devices;
        if status.is_some_and(|status| status.ending_announced) {
            continue;
        }
        let event = Event::ScoresEnding {
            integration: id.clone(),
            end,
        };
        let put = app.events.put(&[event]).await;
        let problem = match put {
            Ok(()) => {
                let marked = app.store.mark_ending_announced(id).await;
                marked.err().map(|error| error_chain(&error))
            }
            Err(error) => Some(error_chain(&error)),
        };
        tracing::warn!(
            integration = %id,
            run_id = invocation.id,
            devices = end.devices,
            error = problem,
            "scores of {id} end from {:.0} on, since no run renews them",
            end.first
        );
    }
    devices
}

/// Syncs the integrations that use a secret with a new version. An event that arrives twice starts a second run, which
/// changes nothing.
async fn secret_changed(
    app: &App,
    names: &BTreeSet<SecretName>,
    invocation: &Invocation,
) -> Result<Value, HandlerError> {
    let uses_secret = |integration: &Integration| {
        integration.should_run()
            && integration.settings.as_ref().is_ok_and(|settings| {
                names.contains(&settings.falcon_secret)
                    || names.contains(&settings.tailscale_secret)
            })
    };
    let all = app.store.integrations().await?.readable.into_iter();
    let users = all.filter(uses_secret).map(|integration| integration.id);
    sync_each(app, users.collect(), "secret", invocation).await
}

/// Syncs a single integration here. Requests an invocation for each of several, so that each has its own deadline and
/// its own failure.
async fn sync_each(
    app: &App,
    integrations: Vec<IntegrationId>,
    reason: &'static str,
    invocation: &Invocation,
) -> Result<Value, HandlerError> {
    if let [integration] = integrations.as_slice() {
        let request = SyncRequest::automatic(integration.clone());
        return sync_one(app, &request, invocation).await;
    }
    let request = |integration: &IntegrationId| Event::SyncRequested {
        integration: integration.clone(),
        reason,
    };
    let requests: Vec<Event> = integrations.iter().map(request).collect();
    app.events.put(&requests).await?;
    if requests.is_empty() {
        tracing::info!(run_id = invocation.id, reason, "there is nothing to sync");
    } else {
        tracing::info!(
            run_id = invocation.id,
            integrations = requests.len(),
            reason,
            "requested a sync of each of {} integrations",
            requests.len()
        );
    }
    Ok(json!({ "requested": integrations }))
}

async fn sync_one(
    app: &App,
    request: &SyncRequest,
    invocation: &Invocation,
) -> Result<Value, HandlerError> {
    // Boxed: the future of a whole run is large.
    let answer = match Box::pin(sync::sync(app, request, invocation)).await {
        // An event may arrive after the integration was removed.
        Err(StoreError::NoIntegration { .. }) if request.trigger == Trigger::Automatic => {
            let message = "there is no such integration any more";
            SyncResponse::skipped(request, &invocation.id, message)
        }
        answer => answer?,
    };
    Ok(serde_json::to_value(answer)?)
}

/// Returns the status of one integration, or of all with their totals.
async fn status(app: &App, request: &StatusRequest) -> Result<Value, HandlerError> {
    let now = app.clock.now();
    let id = request.integration.as_ref();
    let views = load_views(app, id, now).await?;
    if request.format == Format::Text {
        return Ok(text::status(&views, now).into());
    }
    if let (Some(_), [view]) = (id, views.as_slice()) {
        return Ok(serde_json::to_value(view)?);
    }
    Ok(json!({ "overall": Summary::new(&views), "integrations": views }))
}

fn encode<T: Serialize>(
    answer: &T,
    format: Format,
    text: fn(&T) -> String,
) -> Result<Value, HandlerError> {
    Ok(match format {
        Format::Json => serde_json::to_value(answer)?,
        Format::Text => text(answer).into(),
    })
}

/// Returns audit records, newest first, and the cursor of the next page if there is one.
async fn audit(app: &App, query: &AuditQuery, format: AuditFormat) -> Result<Value, HandlerError> {
    let page = app.store.search_audit(query).await?;
    let records = match format {
        AuditFormat::Stored => serde_json::to_value(page.records)?,
        AuditFormat::Tailscale => page.records.iter().map(export).collect(),
    };
    let mut answer = json!({ "records": records });
    if let Some(next) = page.next {
        answer["next"] = next.into();
    }
    Ok(answer)
}
