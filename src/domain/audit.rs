//! Audit records: one for exactly each change, never altered afterwards.

pub mod export;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::clock::rfc3339;
use crate::domain::plan::Change;
use crate::domain::plan::deprovision::Removal;
use crate::settings::{AttributeKey, IntegrationId, Settings};

/// Who changed what, when, and from what to what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditRecord {
    /// The integration.
    pub integration_id: IntegrationId,
    /// Unique in the integration, and ordered by time.
    pub event_id: String,
    /// When, RFC 3339 in UTC.
    pub event_time: String,
    /// The run or invocation.
    pub run_id: String,
    /// Who.
    pub actor: String,
    /// What was changed.
    pub target: AuditTarget,
    /// `target.id`, where the table's index finds it.
    pub target_id: String,
    /// What was done, in the words of Tailscale's own audit log.
    pub action: Action,
    /// Before.
    pub old: Value,
    /// After.
    pub new: Value,
    /// Why.
    pub details: Value,
    /// When DynamoDB may drop it, epoch seconds.
    pub expires_at: i64,
}

/// What was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditTarget {
    /// Its kind.
    #[serde(rename = "type")]
    pub kind: TargetKind,
    /// A node id, or an integration's id.
    pub id: String,
    /// Its readable name.
    pub name: String,
}

/// The kinds of things that change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TargetKind {
    /// An integration's settings.
    Integration,
    /// A device's attribute.
    Node,
}

/// The kinds of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// An integration was connected.
    #[serde(rename = "Create posture integration")]
    CreateIntegration,
    /// An integration's settings were changed.
    #[serde(rename = "Update posture integration")]
    UpdateIntegration,
    /// An integration was removed.
    #[serde(rename = "Removed posture integration")]
    RemoveIntegration,
    /// A device's attribute was set, changed or deleted.
    #[serde(rename = "Update node attribute")]
    UpdateNodeAttribute,
}

/// What all records of one run or invocation share.
#[derive(Clone, Debug)]
pub struct AuditContext {
    /// The integration.
    pub integration: IntegrationId,
    /// The run or invocation.
    pub run_id: String,
    /// Who.
    pub actor: String,
    /// How long records are kept, in days.
    pub retention_days: u32,
}

impl AuditContext {
    /// The record of a device's change that Tailscale accepted at `now`.
    pub fn node(&self, change: &Change, now: Timestamp) -> AuditRecord {
        let mut details = BTreeMap::from([("reason", json!(change.reason))]);
        if let Some(new) = &change.new {
            details.insert("aid", json!(new.aid));
            details.insert("serial", json!(new.serial));
            if let Some(hostname) = &new.falcon_hostname {
                details.insert("falconHostname", json!(hostname));
            }
        } else if let Some(old) = &change.old {
            details.insert("aid", json!(old.aid));
            details.insert("serial", json!(old.serial));
        }
        self.record(
            AuditTarget {
                kind: TargetKind::Node,
                id: change.node_id.to_string(),
                name: change.name.to_string(),
            },
            Action::UpdateNodeAttribute,
            now,
        )
        .from(
            change
                .old
                .as_ref()
                .map(|old| attribute(&old.key, old.score.get())),
        )
        .to(change
            .new
            .as_ref()
            .map(|new| attribute(&new.key, new.score.get())))
        .because(json!(details))
    }

    /// The record of a new integration.
    pub fn created(&self, settings: &Settings, now: Timestamp) -> AuditRecord {
        self.integration(Action::CreateIntegration, now)
            .to(Some(settings.to_map().into()))
            .because(json!({ "configVersion": 1 }))
    }

    /// The record of changed settings; `old` is what was stored.
    pub fn updated(
        &self,
        old: &Map<String, Value>,
        new: &Settings,
        config_version: u64,
        now: Timestamp,
    ) -> AuditRecord {
        self.integration(Action::UpdateIntegration, now)
            .from(Some(old.clone().into()))
            .to(Some(new.to_map().into()))
            .because(json!({
                "configVersion": config_version,
                "changed": new.differences(old),
            }))
    }

    /// The record of a removal that is complete.
    pub fn removed(
        &self,
        old: &Map<String, Value>,
        removal: &Removal,
        now: Timestamp,
    ) -> AuditRecord {
        self.integration(Action::RemoveIntegration, now)
            .from(Some(old.clone().into()))
            .because(json!({
                "attributes": removal.attributes,
                "requested": rfc3339(removal.since),
            }))
    }

    fn integration(&self, action: Action, now: Timestamp) -> AuditRecord {
        let target = AuditTarget {
            kind: TargetKind::Integration,
            id: self.integration.to_string(),
            name: self.integration.to_string(),
        };
        self.record(target, action, now)
    }

    fn record(&self, target: AuditTarget, action: Action, now: Timestamp) -> AuditRecord {
        let retention = SignedDuration::from_hours(24 * i64::from(self.retention_days));
        let event_time = rfc3339(now);
        AuditRecord {
            integration_id: self.integration.clone(),
            event_id: format!("{event_time}#{}#{}", target.id, self.run_id),
            event_time,
            run_id: self.run_id.clone(),
            actor: self.actor.clone(),
            target_id: target.id.clone(),
            target,
            action,
            old: Value::Null,
            new: Value::Null,
            details: Value::Null,
            expires_at: now.as_second().saturating_add(retention.as_secs()),
        }
    }
}

impl AuditRecord {
    fn from(mut self, old: Option<Value>) -> Self {
        self.old = old.unwrap_or_default();
        self
    }

    fn to(mut self, new: Option<Value>) -> Self {
        self.new = new.unwrap_or_default();
        self
    }

    fn because(mut self, details: Value) -> Self {
        self.details = details;
        self
    }
}

/// An object by attribute key, as the records of a node hold it.
fn attribute(key: &AttributeKey, score: u8) -> Value {
    json!({ key.as_str(): score })
}
