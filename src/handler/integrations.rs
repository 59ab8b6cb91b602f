//! Connecting, changing, removing and checking integrations.

use serde_json::{Map, Value, json};

use super::HandlerError;
use crate::app::{App, Invocation};
use crate::check::{self, Check, CheckResult};
use crate::clock::Deadline;
use crate::domain::audit;
use crate::domain::plan::deprovision::{Attributes, Removal};
use crate::events::Event;
use crate::settings::{IntegrationId, InvalidSettings, Settings};
use crate::store::{Integration, SettingsUpdate, StoreError};
use crate::sync::{self, SyncRequest, SyncResponse};
use crate::text::error_chain;
use crate::upstream::retry::CallBudget;

/// A person's request, and in whose name it is recorded.
pub(super) struct IntegrationCommands<'a> {
    world: &'a App,
    invocation: &'a Invocation,
    actor: String,
}

impl<'a> IntegrationCommands<'a> {
    /// In the name that is given, else of the identity that invokes, where Lambda tells it.
    pub(super) fn new(world: &'a App, invocation: &'a Invocation, actor: Option<String>) -> Self {
        let actor = actor
            .filter(|actor| !actor.trim().is_empty())
            .or_else(|| invocation.caller.clone())
            .unwrap_or_else(|| "unknown".to_owned());
        Self {
            world,
            invocation,
            actor,
        }
    }

    /// Stores a new integration, if it can work.
    pub(super) async fn connect(
        &self,
        settings: &Settings,
        check: bool,
    ) -> Result<Value, HandlerError> {
        self.world.config.validate(settings)?;
        let others = self.world.store.integrations().await?.readable;
        refuse_collision(settings, &others, "integration")?;
        let checks = if check {
            Some(self.connectable(settings, &others).await?)
        } else {
            None
        };
        let now = self.world.clock.now();
        let record = self.audit(&settings.id).integration_created(settings, now);
        self.world
            .store
            .create(settings, &self.actor, now, &record)
            .await?;
        tracing::info!(
            integration = %settings.id,
            run_id = self.invocation.id,
            actor = self.actor,
            "connected {}",
            settings.id
        );
        let sync = self.announce(&settings.id, "created", 1).await;
        let mut answer = json!({ "integration": settings.id, "configVersion": 1, "sync": sync });
        if let Some(checks) = checks {
            answer["checks"] = serde_json::to_value(checks)?;
        }
        Ok(answer)
    }

    async fn connectable(
        &self,
        settings: &Settings,
        others: &[Integration],
    ) -> Result<Vec<Check>, HandlerError> {
        let integration = settings.id.clone();
        if others.iter().any(|other| other.id == integration) {
            return Err(StoreError::IntegrationExists { integration }.into());
        }
        let checks = check::check(self.world, settings, others, &self.budget()).await?;
        if check::passes(&checks) {
            Ok(checks)
        } else {
            Err(HandlerError::Check {
                integration,
                checks,
            })
        }
    }

    /// Stores changed settings, if they differ from what is stored.
    pub(super) async fn update(
        &self,
        id: &IntegrationId,
        changes: &Map<String, Value>,
        seen_version: Option<u64>,
    ) -> Result<Value, HandlerError> {
        let integration = self.world.store.integration(id).await?;
        let version = integration.config_version;
        if seen_version.is_some_and(|seen| seen != version) || integration.removal.is_some() {
            return Err(StoreError::Conflict {
                integration: id.clone(),
                read: seen_version.unwrap_or(version),
            }
            .into());
        }
        let settings = Settings::changed(&integration.stored, changes)?;
        self.world
            .config
            .validate(&settings)
            .map_err(|error| error.under("changes"))?;
        let differing = settings.differences(&integration.stored);
        if differing.is_empty() {
            return Ok(json!({
                "integration": id, "configVersion": version, "changed": differing,
                "sync": "not requested: nothing differs from what is stored",
            }));
        }
        let others = self.world.store.integrations().await?.readable;
        refuse_collision(&settings, &others, "changes")?;
        let now = self.world.clock.now();
        let next = version + 1;
        let record = self
            .audit(id)
            .integration_updated(&integration.stored, &settings, next, now);
        let rewrite = SettingsUpdate {
            integration: &integration,
            settings: &settings,
            actor: &self.actor,
            now,
            audit: &record,
        };
        self.world.store.update_settings(&rewrite).await?;
        tracing::info!(
            integration = %id,
            run_id = self.invocation.id,
            actor = self.actor,
            config_version = next,
            "updated {id}: {}",
            differing.join(", ")
        );
        let sync = self.announce(id, "updated", next).await;
        Ok(json!({ "integration": id, "configVersion": next, "changed": differing, "sync": sync }))
    }

    /// Removes an integration and, unless they shall be kept, the attributes that it wrote. What cannot be done now is
    /// done by the next run.
    pub(super) async fn remove(
        &self,
        id: &IntegrationId,
        attributes: Attributes,
    ) -> Result<Value, HandlerError> {
        let integration = self.marked(id, attributes).await?;
        let request = SyncRequest {
            force: true,
            ..SyncRequest::automatic(id.clone())
        };
        let run = Box::pin(sync::sync(self.world, &request, self.invocation)).await;
        let sync = self
            .announce(id, "removed", integration.config_version)
            .await;
        let run = match run {
            // Another run has just finished the job.
            Err(StoreError::NoIntegration { .. }) => SyncResponse {
                integration_removed: true,
                ..SyncResponse::skipped(&request, &self.invocation.id, "removed by another run")
            },
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

    /// The integration with the wish to remove it, which may have been there already.
    async fn marked(
        &self,
        id: &IntegrationId,
        attributes: Attributes,
    ) -> Result<Integration, StoreError> {
        let integration = self.world.store.integration(id).await?;
        if integration
            .removal
            .as_ref()
            .is_some_and(|removal| removal.attributes == attributes)
        {
            return Ok(integration);
        }
        let removal = Removal {
            attributes,
            since: self.world.clock.now(),
            actor: self.actor.clone(),
        };
        self.world.store.mark_for_removal(id, &removal).await
    }

    /// Checks whether a stored integration can work. Writes nothing.
    pub(super) async fn check(&self, id: &IntegrationId) -> Result<Value, HandlerError> {
        let others = self.world.store.integrations().await?.readable;
        let integration = self.world.store.integration(id).await?;
        let checks = match &integration.settings {
            Ok(settings) => check::check(self.world, settings, &others, &self.budget()).await?,
            Err(error) => vec![Check::from_invalid_settings(error)],
        };
        tracing::info!(
            integration = %id,
            run_id = self.invocation.id,
            failed = checks.iter().filter(|check| check.result == CheckResult::Failed).count(),
            "checked {id}"
        );
        Ok(json!({ "integration": id, "ok": check::passes(&checks), "checks": checks }))
    }

    fn budget(&self) -> CallBudget {
        let deadline = Deadline::new(self.world.clock.clone(), self.invocation.deadline);
        CallBudget::new(self.world.retries, self.world.clock.clone(), deadline)
    }

    fn audit(&self, id: &IntegrationId) -> audit::AuditContext {
        self.world.audit(id, self.invocation, &self.actor)
    }

    /// Puts the event of a change on the bus. The change stands without it: the next scheduled run sees that the
    /// version is ahead of the status's.
    async fn announce(
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
        match self.world.events.put(&[event]).await {
            Ok(()) => "requested: it starts within seconds".to_owned(),
            Err(error) => format!(
                "not requested ({}); the next scheduled run does it",
                error_chain(&error)
            ),
        }
    }
}

/// Two integrations that write one key in one tailnet would undo each other's work.
fn refuse_collision(
    settings: &Settings,
    others: &[Integration],
    root: &str,
) -> Result<(), InvalidSettings> {
    match check::conflicting_integration(settings, others) {
        None => Ok(()),
        Some(other) => Err(InvalidSettings {
            path: format!("{root}.attributeKey"),
            problem: format!(
                "{} is written in this tailnet by the integration {other} already; choose another key",
                settings.attribute_key
            ),
        }),
    }
}
