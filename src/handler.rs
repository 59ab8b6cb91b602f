//! Payload in, answer out.

mod console;
mod error;
mod integrations;

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Value, json};
use tracing::Instrument;

use crate::app::{App, Invocation};
use crate::command::{AuditFormat, Command, Format};
use crate::domain::audit::export::ExportedRecord;
use crate::domain::status::RunOutcome;
use crate::events::Event;
use crate::explain;
use crate::metrics::{self, MetricEvent};
use crate::preview::{self, PreviewTarget};
use crate::render::text;
use crate::settings::{IntegrationId, SecretName};
use crate::status::{self, Summary};
use crate::store::{AuditQuery, Integration, Integrations, StoreError};
use crate::sync::{self, SyncRequest, SyncResponse, Trigger};
use error::CONSOLE_ALIAS;
pub use error::HandlerError;
use integrations::IntegrationCommands;

/// Serves one payload. Every line of the log that is written meanwhile carries the run's id.
///
/// # Errors
/// See [`HandlerError`].
pub async fn handle(
    world: &App,
    payload: Value,
    invocation: &Invocation,
) -> Result<Value, HandlerError> {
    let span = tracing::info_span!("run", run_id = invocation.id);
    // Boxed: it has a place for everything that any command awaits.
    Box::pin(serve(world, payload, invocation))
        .instrument(span)
        .await
}

async fn serve(
    world: &App,
    payload: Value,
    invocation: &Invocation,
) -> Result<Value, HandlerError> {
    let by = |actor| IntegrationCommands::new(world, invocation, actor);
    let command = Command::parse(payload);
    let by_console = invocation.alias.as_deref() == Some(CONSOLE_ALIAS);
    if by_console && !matches!(command, Ok(Command::Widget(_))) {
        tracing::warn!(run_id = invocation.id, "refused what is no widget");
        return Err(HandlerError::NotAllowed);
    }
    match command? {
        Command::SyncAll => {
            let mut all = world.store.integrations().await?;
            all.readable.retain(Integration::should_run);
            measure_tick(world, &all);
            let enabled = all.readable.into_iter().map(|integration| integration.id);
            let mut answer = sync_each(world, enabled.collect(), "schedule", invocation).await?;
            if !all.unreadable.is_empty() {
                let names = all.unreadable.iter().map(|item| item.id.as_str());
                answer["unreadable"] = names.collect();
            }
            Ok(answer)
        }
        Command::Sync(request) => sync_one(world, &request, invocation).await,
        Command::SecretChanged { names } => secret_changed(world, &names, invocation).await,
        Command::Connect {
            settings,
            actor,
            check,
        } => by(actor).connect(&settings, check).await,
        Command::Update {
            integration,
            changes,
            actor,
            config_version,
        } => {
            by(actor)
                .update(&integration, &changes, config_version)
                .await
        }
        Command::Remove {
            integration,
            attributes,
            actor,
        } => by(actor).remove(&integration, attributes).await,
        Command::Check { integration } => by(None).check(&integration).await,
        Command::Preview {
            integration,
            target,
            format,
        } => preview(world, &integration, target, format, invocation).await,
        Command::Widget(call) => Box::pin(console::answer(world, &call, invocation)).await,
        Command::Explain {
            integration,
            device,
            format,
        } => explain(world, &integration, &device, format, invocation).await,
        Command::Status {
            integration,
            format,
        } => status(world, integration.as_ref(), format).await,
        Command::Audit { search, format } => audit(world, &search, format).await,
    }
}

/// A tick of the schedule as metrics, emitted even with no integration, so that an alarm can detect missing ticks.
/// `integrations` are the enabled ones; one that cannot be read counts as enabled and failing.
fn measure_tick(world: &App, integrations: &Integrations) {
    let now = world.clock.now();
    let Integrations {
        readable: enabled,
        unreadable,
    } = integrations;
    let staying = enabled
        .iter()
        .filter(|integration| integration.removal.is_none());
    let longest = staying
        .map(|integration| integration.seconds_since_success(integration.status.as_ref(), now))
        .chain(
            unreadable
                .iter()
                .map(|item| item.seconds_since_success(now)),
        )
        .max();
    let paused = |one: &Integration| one.pause.as_ref().is_some_and(|pause| now < pause.until);
    let held = |one: &Integration| {
        let status = one.status.as_ref();
        status.is_some_and(|status| status.outcome == RunOutcome::Held)
    };
    world.metrics.emit(
        &MetricEvent::new(now, None)
            .value(metrics::INTEGRATIONS, enabled.len() + unreadable.len())
            .value(metrics::FAILED, unreadable.len())
            .value(metrics::PAUSED, u64::from(enabled.iter().any(paused)))
            .value(metrics::HELD, u64::from(enabled.iter().any(held)))
            .value(metrics::SECONDS_SINCE_SUCCESS, longest.unwrap_or(0)),
    );
}

/// The names of those integrations.
async fn of_integrations(
    world: &App,
    wanted: impl Fn(&Integration) -> bool,
) -> Result<Vec<IntegrationId>, StoreError> {
    let all = world.store.integrations().await?;
    Ok(all
        .readable
        .into_iter()
        .filter(wanted)
        .map(|integration| integration.id)
        .collect())
}

/// Those who use a secret are synced when it has a new version. An event that comes twice leads to a second run, which
/// finds nothing to do.
async fn secret_changed(
    world: &App,
    names: &BTreeSet<SecretName>,
    invocation: &Invocation,
) -> Result<Value, HandlerError> {
    let uses_it = |integration: &Integration| {
        integration.should_run()
            && integration.settings.as_ref().is_ok_and(|settings| {
                names.contains(&settings.falcon_secret)
                    || names.contains(&settings.tailscale_secret)
            })
    };
    let users = of_integrations(world, uses_it).await?;
    sync_each(world, users, "secret", invocation).await
}

/// One integration is synced here; of several, each gets a run of its own, with its own time and its own failure.
async fn sync_each(
    world: &App,
    integrations: Vec<IntegrationId>,
    reason: &'static str,
    invocation: &Invocation,
) -> Result<Value, HandlerError> {
    if let [integration] = integrations.as_slice() {
        let request = SyncRequest::automatic(integration.clone());
        return sync_one(world, &request, invocation).await;
    }
    let requests: Vec<Event> = integrations
        .iter()
        .map(|integration| Event::SyncRequested {
            integration: integration.clone(),
            reason,
        })
        .collect();
    world.events.put(&requests).await?;
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
    world: &App,
    request: &SyncRequest,
    invocation: &Invocation,
) -> Result<Value, HandlerError> {
    // Boxed: the future of a whole run is too deep a type to be laid out in place.
    let answer = match Box::pin(sync::sync(world, request, invocation)).await {
        // An event may arrive after the integration's end.
        Err(StoreError::NoIntegration { .. }) if request.trigger == Trigger::Automatic => {
            SyncResponse::skipped(
                request,
                &invocation.id,
                "there is no such integration any more",
            )
        }
        answer => answer?,
    };
    Ok(serde_json::to_value(answer)?)
}

/// Returns the status of one integration, or of all with their totals.
async fn status(
    world: &App,
    id: Option<&IntegrationId>,
    format: Format,
) -> Result<Value, HandlerError> {
    let now = world.clock.now();
    let mut overviews = status::load_overviews(&world.store, &world.config, id, now).await?;
    if format == Format::Text {
        return Ok(text::status(&overviews, now).into());
    }
    match (id, overviews.pop()) {
        (Some(_), Some(one)) => Ok(serde_json::to_value(one)?),
        (_, last) => {
            overviews.extend(last);
            let overall = Summary::of(&overviews);
            Ok(json!({ "overall": overall, "integrations": overviews }))
        }
    }
}

/// Explains the scores of the devices that match a query.
async fn explain(
    world: &App,
    integration: &IntegrationId,
    device: &str,
    format: Format,
    invocation: &Invocation,
) -> Result<Value, HandlerError> {
    // Boxed: the future holds a whole observation and is large.
    let answer = Box::pin(explain::explain(world, integration, device, invocation)).await?;
    encode(&answer, format, text::explain)
}

/// Previews a threshold, or the postures of the policy file.
async fn preview(
    world: &App,
    integration: &IntegrationId,
    target: PreviewTarget,
    format: Format,
    invocation: &Invocation,
) -> Result<Value, HandlerError> {
    // Boxed: the future holds a whole observation and is large.
    let answer = Box::pin(preview::preview(world, integration, target, invocation)).await?;
    encode(&answer, format, text::preview)
}

/// Encodes an answer in the requested format.
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
async fn audit(
    world: &App,
    search: &AuditQuery,
    format: AuditFormat,
) -> Result<Value, HandlerError> {
    let page = world.store.search_audit(search).await?;
    let records = match format {
        AuditFormat::Stored => serde_json::to_value(page.records)?,
        AuditFormat::Tailscale => serde_json::to_value(
            page.records
                .into_iter()
                .map(ExportedRecord::from)
                .collect::<Vec<_>>(),
        )?,
    };
    let mut answer = json!({ "records": records });
    if let Some(next) = page.next {
        answer["next"] = next.into();
    }
    Ok(answer)
}
