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

/// Serves one request of a widget.
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
                let views = self.views(integration.as_ref()).await?;
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
                        html::explain::form(widget, &views, integration.as_ref(), None, None)
                    }
                })
            }
            WidgetAction::Explain {
                integration,
                device,
                only,
            } => {
                let integration = integration.as_ref();
                let views = self.views(only.as_ref()).await?;
                let answer = self.explain(&views, integration, device).await?;
                Ok(html::explain::form(
                    widget,
                    &views,
                    integration,
                    Some(device),
                    Some(&answer),
                ))
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

    async fn views(
        &self,
        only: Option<&IntegrationId>,
    ) -> Result<Vec<IntegrationView>, StoreError> {
        load_views(self.app, only, self.widget.now).await
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
        let mut records: Vec<AuditRecord> =
            pages.into_iter().flat_map(|page| page.records).collect();
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
            return Ok(notice(
                "Enter a device: its node id, name or serial number.",
            ));
        }
        let only = match views {
            [view] => view.integration_id(),
            _ => None,
        };
        let Some(integration) = integration.or(only.as_ref()) else {
            return Ok(notice("Choose an integration."));
        };
        let answer = Box::pin(explain::explain(
            self.app,
            integration,
            device,
            self.invocation,
        ))
        .await?;
        Ok(html::explain::result(&self.widget, &answer))
    }

    /// Requests a sync in an invocation of its own, which has its own deadline. The widget is answered at once.
    async fn sync(&self, id: &IntegrationId) -> Result<Markup, HandlerError> {
        let integration = self.app.store.integration(id).await?;
        if !integration.should_run() {
            return Ok(notice(&format!(
                "{id} is disabled: the schedule does not sync it."
            )));
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
