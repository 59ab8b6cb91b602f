//! Serves the widgets of a dashboard: loads what a view shows, and performs the actions of its buttons.

use futures::stream::{self, StreamExt, TryStreamExt};
use maud::Markup;
use serde_json::Value;

use super::HandlerError;
use crate::app::{App, Invocation};
use crate::check::{self, Check};
use crate::clock::Deadline;
use crate::command::widget::{WidgetAction, WidgetRequest, WidgetView};
use crate::domain::audit::AuditRecord;
use crate::events::Event;
use crate::explain;
use crate::render::html::page::{self, WidgetContext, note};
use crate::render::html::{self, DESCRIPTION};
use crate::settings::IntegrationId;
use crate::status::{IntegrationView, load_overviews};
use crate::store::{AuditQuery, StoreError};
use crate::upstream::retry::CallBudget;

/// Maximum audit records in a view.
const RECORDS: usize = 25;

/// Maximum concurrent searches of audit trails.
const SEARCHES: usize = 8;

/// Serves a widget: returns HTML, or Markdown if the widget is asked to describe itself. Bad input of a person is explained in
/// the HTML.
///
/// # Errors
/// If DynamoDB or EventBridge fails.
pub(super) async fn answer(
    world: &App,
    call: &WidgetRequest,
    invocation: &Invocation,
) -> Result<Value, HandlerError> {
    let frame = WidgetContext {
        context: call.context,
        now: world.clock.now(),
        endpoint: &invocation.function_arn,
        buttons: world.config.console_buttons,
    };
    let console = Console {
        world,
        invocation,
        frame,
    };
    let body = match &call.action {
        Ok(WidgetAction::Describe) => return Ok(DESCRIPTION.into()),
        Ok(ask) => match console.serve(ask).await {
            Err(HandlerError::Store(StoreError::NoIntegration { integration })) => {
                note(&format!("There is no integration {integration}."))
            }
            body => body?,
        },
        Err(problem) => note(problem),
    };
    Ok(page::page(&frame, &body).into())
}

/// One call, and what it needs.
struct Console<'a> {
    world: &'a App,
    invocation: &'a Invocation,
    frame: WidgetContext<'a>,
}

impl Console<'_> {
    async fn serve(&self, ask: &WidgetAction) -> Result<Markup, HandlerError> {
        let frame = &self.frame;
        match ask {
            WidgetAction::Describe => Ok(maud::html! {}),
            WidgetAction::Show {
                view,
                integration,
                min_score,
            } => {
                let overviews = self.overviews(integration.as_ref()).await?;
                Ok(match view {
                    WidgetView::Overview => html::status::view(frame, &overviews),
                    WidgetView::Scores => html::scores::view(&overviews, *min_score),
                    WidgetView::History => html::history::view(frame, &overviews),
                    WidgetView::Findings => html::findings::view(frame, &overviews),
                    WidgetView::Audit => {
                        let records = self.records(&overviews).await?;
                        html::audit::view(frame, &records, overviews.len() > 1)
                    }
                    WidgetView::Explain => {
                        html::explain::form(frame, &overviews, integration.as_ref(), None, None)
                    }
                })
            }
            WidgetAction::Explain {
                integration,
                device,
                only,
            } => {
                let overviews = self.overviews(only.as_ref()).await?;
                let shown = self
                    .explain(&overviews, integration.as_ref(), device)
                    .await?;
                let integration = integration.as_ref();
                Ok(html::explain::form(
                    frame,
                    &overviews,
                    integration,
                    Some(device),
                    Some(&shown),
                ))
            }
            WidgetAction::Sync(_) | WidgetAction::Check(_) if !frame.buttons => Ok(note(
                "This dashboard only shows. Whoever deploys the function can allow its buttons (CONSOLE_BUTTONS=true).",
            )),
            WidgetAction::Sync(integration) => self.sync(integration).await,
            WidgetAction::Check(integration) => Ok(html::check::view(
                integration,
                &self.check(integration).await?,
            )),
        }
    }

    /// One integration, or all of them, by name.
    async fn overviews(
        &self,
        only: Option<&IntegrationId>,
    ) -> Result<Vec<IntegrationView>, StoreError> {
        let App { store, config, .. } = self.world;
        load_overviews(store, config, only, self.frame.now).await
    }

    /// Their newest changes. The trail is kept by integration, so each is searched.
    async fn records(&self, overviews: &[IntegrationView]) -> Result<Vec<AuditRecord>, StoreError> {
        let search = |overview: &IntegrationView| {
            let search = AuditQuery {
                integration: Some(overview.integration_id()?),
                limit: RECORDS,
                ..AuditQuery::default()
            };
            Some(async move { self.world.store.search_audit(&search).await })
        };
        let searches: Vec<_> = overviews.iter().filter_map(search).collect();
        let pages: Vec<_> = stream::iter(searches)
            .buffered(SEARCHES)
            .try_collect()
            .await?;
        let mut records: Vec<AuditRecord> =
            pages.into_iter().flat_map(|page| page.records).collect();
        // An event's id begins with its time.
        records.sort_by(|a, b| b.event_id.cmp(&a.event_id));
        records.truncate(RECORDS);
        Ok(records)
    }

    async fn explain(
        &self,
        overviews: &[IntegrationView],
        integration: Option<&IntegrationId>,
        device: &str,
    ) -> Result<Markup, HandlerError> {
        if device.trim().is_empty() {
            return Ok(note(
                "Name a device: its node id, its name or its serial number.",
            ));
        }
        let only = match overviews {
            [one] => one.integration_id(),
            _ => None,
        };
        let Some(integration) = integration.or(only.as_ref()) else {
            return Ok(note("Choose an integration."));
        };
        let answer = Box::pin(explain::explain(
            self.world,
            integration,
            device,
            self.invocation,
        ))
        .await?;
        Ok(html::explain::result(&self.frame, &answer))
    }

    /// Asks for a run of its own: it has its own time, and this call answers at once.
    async fn sync(&self, id: &IntegrationId) -> Result<Markup, HandlerError> {
        let integration = self.world.store.integration(id).await?;
        if !integration.should_run() {
            return Ok(note(&format!("{id} is disabled: nothing runs it.")));
        }
        let request = Event::SyncRequested {
            integration: id.clone(),
            reason: "console",
        };
        self.world.events.put(&[request]).await?;
        tracing::info!(integration = %id, run_id = self.invocation.id, "a dashboard requested a sync of {id}");
        Ok(note(&format!(
            "A sync of {id} was asked for. It is to be seen here in a minute or so; a pause stays in force."
        )))
    }

    async fn check(&self, id: &IntegrationId) -> Result<Vec<Check>, HandlerError> {
        let world = self.world;
        let others = world.store.integrations().await?.readable;
        let integration = world.store.integration(id).await?;
        let deadline = Deadline::new(world.clock.clone(), self.invocation.deadline);
        let budget = CallBudget::new(world.retries, world.clock.clone(), deadline);
        Ok(match &integration.settings {
            Ok(settings) => check::check(world, settings, &others, &budget).await?,
            Err(error) => vec![Check::from_invalid_settings(error)],
        })
    }
}
