//! Connects, updates, removes and checks integrations.

use serde_json::{Value, json};

use super::HandlerError;
use crate::app::{App, Invocation};
use crate::check::{self, Check, CheckResult, check_stored};
use crate::command::{ConnectRequest, RemoveRequest, UpdateRequest};
use crate::domain::audit::AuditContext;
use crate::domain::plan::deprovision::Removal;
use crate::events::Event;
use crate::settings::{FieldError, IntegrationId, Settings};
use crate::store::{Integration, StoreError};
use crate::sync::{self, SyncRequest, SyncResponse};
use crate::text::error_chain;

/// Runs the commands about integrations, in the name of an actor.
pub(super) struct IntegrationCommands<'a> {
    app: &'a App,
    invocation: &'a Invocation,
    actor: String,
}

impl<'a> IntegrationCommands<'a> {
    /// The actor is the given name, else the identity of the caller if Lambda passes one.
    pub(super) fn new(app: &'a App, invocation: &'a Invocation, actor: Option<&str>) -> Self {
        let named = actor.filter(|actor| !actor.trim().is_empty());
        let actor = named.or(invocation.caller.as_deref()).unwrap_or("unknown");
        Self {
            app,
            invocation,
            actor: actor.to_owned(),
        }
    }

    /// Stores a new integration. With `check`, every check must pass first.
    pub(super) async fn connect(&self, request: &ConnectRequest) -> Result<Value, HandlerError> {
        let settings = &*request.integration;
        self.app.config.validate(settings)?;
        let others = self.app.store.integrations().await?.readable;
        ensure_unique_attribute(settings, &others, "integration")?;
        let checks = if request.check {
            Some(self.check_new(settings, &others).await?)
        } else {
            None
        };
        let context = self.audit_context(&settings.id);
        let record = context.integration_created(settings, self.app.clock.now());
        self.app.store.create(settings, &record).await?;
        tracing::info!(
            integration = %settings.id,
            run_id = self.invocation.id,
            actor = self.actor,
            "connected {}",
            settings.id
        );
        let sync = self.publish_change(&settings.id, "created", 1).await;
        let mut answer = json!({ "integration": settings.id, "configVersion": 1, "sync": sync });
        if let Some(checks) = checks {
            answer["checks"] = serde_json::to_value(checks)?;
        }
        Ok(answer)
    }

    async fn check_new(
        &self,
        settings: &Settings,
        others: &[Integration],
    ) -> Result<Vec<Check>, HandlerError> {
        let integration = settings.id.clone();
        if others.iter().any(|other| other.id == integration) {
            return Err(StoreError::IntegrationExists(integration).into());
        }
        let budget = self.app.budget(self.invocation);
        let checks = check::check(self.app, settings, others, &budget).await?;
        if !check::passes(&checks) {
            return Err(HandlerError::Check {
                integration,
                checks,
            });
        }
        Ok(checks)
    }

    /// Stores changed settings, if they differ from what is stored.
    pub(super) async fn update(&self, request: &UpdateRequest) -> Result<Value, HandlerError> {
        let id = &request.integration;
        let expected = request.config_version;
        let integration = self.app.store.integration(id).await?;
        let version = integration.config_version;
        if expected.is_some_and(|expected| expected != version) || integration.removal.is_some() {
            return Err(StoreError::Conflict {
                integration: id.clone(),
                read: expected.unwrap_or(version),
            }
            .into());
        }
        let settings = Settings::with_changes(&integration.stored, &request.changes)?;
        let validated = self.app.config.validate(&settings);
        validated.map_err(|error| FieldError {
            path: error.path.replacen("integration", "changes", 1),
            ..error
        })?;
        let changed = settings.changed_fields(&integration.stored);
        if changed.is_empty() {
            return Ok(json!({
                "integration": id, "configVersion": version, "changed": changed,
                "sync": "not requested: nothing differs from what is stored",
            }));
        }
        let others = self.app.store.integrations().await?.readable;
        ensure_unique_attribute(&settings, &others, "changes")?;
        let next = version + 1;
        let (stored, now) = (&integration.stored, self.app.clock.now());
        let context = self.audit_context(id);
        let record = context.integration_updated(stored, &settings, next, now);
        let store = &self.app.store;
        let update = store.update_settings(&integration, &settings, &record);
        update.await?;
        tracing::info!(
            integration = %id,
            run_id = self.invocation.id,
            actor = self.actor,
            config_version = next,
            "updated {id}: {}",
            changed.join(", ")
        );
        let sync = self.publish_change(id, "updated", next).await;
        Ok(json!({ "integration": id, "configVersion": next, "changed": changed, "sync": sync }))
    }

    /// Removes an integration and, by default, the attributes that it wrote. The next run continues a removal that could
    /// not finish.
    pub(super) async fn remove(&self, request: &RemoveRequest) -> Result<Value, HandlerError> {
        let (id, attributes) = (&request.integration, request.attributes);
        let mut integration = self.app.store.integration(id).await?;
        let marked = integration.removal.as_ref();
        if marked.is_none_or(|removal| removal.attributes != attributes) {
            let removal = Removal {
                attributes,
                since: self.app.clock.now(),
                actor: self.actor.clone(),
            };
            integration = self.app.store.mark_for_removal(id, &removal).await?;
        }
        let sync_request = SyncRequest {
            force: true,
            ..SyncRequest::automatic(id.clone())
        };
        let run = Box::pin(sync::sync(self.app, &sync_request, self.invocation)).await;
        let version = integration.config_version;
        let sync = self.publish_change(id, "removed", version).await;
        let run = match run {
            // Another run has just finished the removal.
            Err(StoreError::NoIntegration { .. }) => {
                let (id, reason) = (&self.invocation.id, "removed by another run");
                SyncResponse {
                    integration_removed: true,
                    ..SyncResponse::skipped(&sync_request, id, reason)
                }
            }
            run => run?,
        };
        let mut answer = json!({
            "integration": id,
            "removed": run.integration_removed,
            "attributes": attributes,
            "deletedAttributes": run.removed,
        });
        if run.integration_removed {
            tracing::info!(
                integration = %id,
                run_id = self.invocation.id,
                actor = self.actor,
                "removed {id}"
            );
        } else {
            answer["error"] = run.error.into();
            answer["sync"] = sync.into();
        }
        Ok(answer)
    }

    /// Checks a stored integration. Writes nothing.
    pub(super) async fn check(&self, id: &IntegrationId) -> Result<Value, HandlerError> {
        let budget = self.app.budget(self.invocation);
        let checks = check_stored(self.app, id, &budget).await?;
        tracing::info!(
            integration = %id,
            run_id = self.invocation.id,
            failed = checks.iter().filter(|check| check.result == CheckResult::Failed).count(),
            "checked {id}"
        );
        Ok(json!({ "integration": id, "ok": check::passes(&checks), "checks": checks }))
    }

    fn audit_context(&self, id: &IntegrationId) -> AuditContext {
        self.app.audit_context(id, self.invocation, &self.actor)
    }

    /// Publishes the event of a change. The change takes effect without it: the next scheduled run sees that the version
    /// is newer than the status.
    async fn publish_change(
        &self,
        id: &IntegrationId,
        change: &'static str,
        config_version: u64,
    ) -> String {
        let event = Event::IntegrationChanged {
            integration: id.clone(),
            change,
            config_version,
        };
        match self.app.events.put(&[event]).await {
            Ok(()) => "requested: it starts within seconds".to_owned(),
            Err(error) => format!(
                "not requested ({}); the next scheduled run does it",
                error_chain(&error)
            ),
        }
    }
}

/// Rejects settings with the attribute of another integration: both would overwrite each other's scores.
fn ensure_unique_attribute(
    settings: &Settings,
    others: &[Integration],
    root: &str,
) -> Result<(), FieldError> {
    let mut others = others.iter().flat_map(|other| &other.settings);
    let Some(other) = others.find(|other| settings.conflicts_with(other)) else {
        return Ok(());
    };
    let message = format!(
        "{} is already written in this tailnet by the integration {}; choose another key",
        settings.attribute_key, other.id
    );
    Err(FieldError::new(format!("{root}.attributeKey"), message))
}
