//! Serves the widgets of a dashboard: loads what a view shows, and performs the actions of its buttons.

use futures::stream::{self, StreamExt, TryStreamExt};
use maud::Markup;
use serde_json::Value;

use super::HandlerError;
use crate::app::{App, Invocation};
use crate::check::check_stored;
use crate::command::widget::{WidgetAction, WidgetRequest, WidgetView};
use crate::domain::audit::AuditRecord;
use crate::events::Event;
use crate::explain;
use crate::render::html::page::{self, WidgetContext, notice};
use crate::render::html::{self, DESCRIPTION};
use crate::settings::IntegrationId;
use crate::status::{IntegrationView, load_views};
use crate::store::{AuditQuery, StoreError};

/// Maximum audit records in a view.
const MAX_RECORDS: usize = 25;
/// Maximum concurrent searches of audit trails.
const SEARCH_CONCURRENCY: usize = 8;

/// Serves a widget: returns HTML, or Markdown if the widget is asked to describe itself. The HTML explains a person's bad
/// input.
///
/// # Errors
/// If DynamoDB or EventBridge fails.
pub(super) async fn answer(
    app: &App,
    request: &WidgetRequest,
    invocation: &Invocation,
) -> Result<Value, HandlerError> {
    let widget = WidgetContext {
        context: request.context,
        now: app.clock.now(),
        endpoint: &invocation.function_arn,
        has_buttons: app.config.console_buttons,
    };
    let console = Console {
        app,
        invocation,
        widget,
    };
    let body = match &request.action {
        Ok(WidgetAction::Describe) => return Ok(DESCRIPTION.into()),
        Ok(action) => match console.serve(action).await {
            Err(HandlerError::Store(StoreError::NoIntegration(integration))) => {
                notice(&format!("There is no integration {integration}."))
            }
            body => body?,
        },
        Err(problem) => notice(problem),
    };
    Ok(page::page(&widget, &body).into())
}

struct Console<'a> {
    app: &'a App,
    invocation: &'a Invocation,
    widget: WidgetContext<'a>,
}

impl Console<'_> {
    async fn serve(&self, action: &WidgetAction) -> Result<Markup, HandlerError> {
        let widget = &self.widget;
        match action {
            WidgetAction::Describe => Ok(maud::html! {}),
            WidgetAction::Show {
                view,
                integration,
                min_score,
            } => {
                let views = load_views(self.app, integration.as_ref(), widget.now).await?;
                Ok(match view {
                    WidgetView::Overview => html::status::view(widget, &views),
                    WidgetView::Scores => html::scores::view(&views, *min_score),
                    WidgetView::History => html::history::view(widget, &views),
                    WidgetView::Findings => html::findings::view(widget, &views),
                    WidgetView::Audit => {
                        let records = self.records(&views).await?;
                        html::audit::view(widget, &records, views.len() > 1)
                    }
                    WidgetView::Explain => {
                        html::explain::form(widget, &views, integration.as_ref(), None)
                    }
                })
            }
            WidgetAction::Explain {
                integration,
                device,
                only,
            } => {
                let integration = integration.as_ref();
                let views = load_views(self.app, only.as_ref(), widget.now).await?;
                let answer = self.explain(&views, integration, device).await?;
                let answered = Some((device.as_str(), &answer));
                Ok(html::explain::form(widget, &views, integration, answered))
            }
            WidgetAction::Sync(_) | WidgetAction::Check(_) if !widget.has_buttons => Ok(notice(
                "Buttons are disabled. Set CONSOLE_BUTTONS=true in the deployment to enable them.",
            )),
            WidgetAction::Sync(integration) => self.sync(integration).await,
            WidgetAction::Check(integration) => {
                let budget = self.app.budget(self.invocation);
                let checks = check_stored(self.app, integration, &budget).await?;
                Ok(html::check::view(integration, &checks))
            }
        }
    }

    /// Returns the newest audit records of these integrations. Audit records are stored by integration, so each is searched.
    async fn records(&self, views: &[IntegrationView]) -> Result<Vec<AuditRecord>, StoreError> {
        let search = |view: &IntegrationView| {
            let query = AuditQuery {
                integration: Some(view.integration_id()?),
                limit: MAX_RECORDS,
                ..AuditQuery::default()
            };
            Some(async move { self.app.store.search_audit(&query).await })
        };
        let searches: Vec<_> = views.iter().filter_map(search).collect();
        let pages: Vec<_> = stream::iter(searches)
            .buffered(SEARCH_CONCURRENCY)
            .try_collect()
            .await?;
        let records = pages.into_iter().flat_map(|page| page.records);
        let mut records: Vec<AuditRecord> = records.collect();
        // An event id begins with the time of the event.
        records.sort_by(|a, b| b.event_id.cmp(&a.event_id));
        records.truncate(MAX_RECORDS);
        Ok(records)
    }

    async fn explain(
        &self,
        views: &[IntegrationView],
        integration: Option<&IntegrationId>,
        device: &str,
    ) -> Result<Markup, HandlerError> {
        if device.trim().is_empty() {
            let hint = "Enter a device: its node id, name or serial number.";
            return Ok(notice(hint));
        }
        let only = match views {
            [view] => view.integration_id(),
            _ => None,
        };
        let Some(integration) = integration.or(only.as_ref()) else {
            return Ok(notice("Choose an integration."));
        };
        let answer = explain::explain(self.app, integration, device, self.invocation);
        let answer = Box::pin(answer).await?;
        Ok(html::explain::result(&self.widget, &answer))
    }

    /// Requests a sync in an invocation of its own, which has its own deadline. The widget is answered at once.
    async fn sync(&self, id: &IntegrationId) -> Result<Markup, HandlerError> {
        let integration = self.app.store.integration(id).await?;
        if !integration.should_run() {
            let reason = format!("{id} is disabled: the schedule does not sync it.");
            return Ok(notice(&reason));
        }
        let request = Event::SyncRequested {
            integration: id.clone(),
            reason: "console",
        };
        self.app.events.put(&[request]).await?;
        tracing::info!(integration = %id, run_id = self.invocation.id, "a dashboard requested a sync of {id}");
        Ok(notice(&format!(
            "Requested a sync of {id}. The result appears here in about a minute. An active pause stays in force."
        )))
    }
}
