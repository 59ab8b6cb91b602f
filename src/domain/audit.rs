//! Audit records: exactly one for each change, never altered afterwards.

pub(crate) mod export;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::clock::rfc3339;
use crate::domain::inventory::host::Score;
use crate::domain::plan::Change;
use crate::domain::plan::deprovision::Removal;
use crate::settings::{AttributeKey, IntegrationId, Settings};

/// The actor of scheduled and event-driven runs.
pub(crate) const SYSTEM_ACTOR: &str = "falcon-posture-sync";

/// A change: who changed what, when, from what to what, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditRecord {
    pub(crate) integration_id: IntegrationId,
    /// Unique in the integration, and ordered by time.
    pub(crate) event_id: String,
    /// RFC 3339 in UTC.
    pub(crate) event_time: String,
    /// The run or invocation.
    pub(crate) run_id: String,
    pub(crate) actor: String,
    pub(crate) target: AuditTarget,
    /// `target.id`, for the table's index.
    pub(crate) target_id: String,
    pub(crate) action: Action,
    pub(crate) old: Value,
    pub(crate) new: Value,
    /// The reason, and the evidence for it.
    pub(crate) details: Value,
    /// When DynamoDB may delete the item, in epoch seconds.
    pub(crate) expires_at: i64,
}

/// The thing that was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AuditTarget {
    #[serde(rename = "type")]
    pub(crate) kind: TargetKind,
    /// A node id, or an integration's id.
    pub(crate) id: String,
    /// The readable name.
    pub(crate) name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum TargetKind {
    Integration,
    Node,
}

/// The kinds of changes, in the words of Tailscale's own audit log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Action {
    #[serde(rename = "Create posture integration")]
    CreateIntegration,
    #[serde(rename = "Update posture integration")]
    UpdateIntegration,
    #[serde(rename = "Removed posture integration")]
    RemoveIntegration,
    /// A device's attribute was set, changed or deleted.
    #[serde(rename = "Update node attribute")]
    UpdateNodeAttribute,
}

/// The fields that all records of one run or invocation share.
#[derive(Clone, Debug)]
pub struct AuditContext {
    /// The integration that changes, or whose devices change.
    pub integration: IntegrationId,
    /// The run or invocation.
    pub run_id: String,
    /// The person, or the function itself.
    pub actor: String,
    /// How long DynamoDB keeps the records, in days.
    pub retention_days: u32,
}

impl AuditContext {
    /// Records the change of a device's attribute, which was sent at `sent_at` and which Tailscale accepted. The id of the
    /// record follows from that time, so that a change is recorded once, whichever run records it.
    pub fn attribute_changed(&self, change: &Change, sent_at: Timestamp) -> AuditRecord {
        let mut details = json!({ "reason": change.reason });
        if let Some(new) = &change.new {
            details["aid"] = json!(new.aid);
            details["serial"] = json!(new.serial);
            if let Some(hostname) = &new.falcon_hostname {
                details["falconHostname"] = json!(hostname);
            }
        } else if let Some(old) = &change.old {
            details["aid"] = json!(old.aid);
            details["serial"] = json!(old.serial);
        }
        if change.expired.is_some() {
            details["expired"] = json!(true);
        }
        if change.is_approved {
            details["approved"] = json!(true);
        }
        let target = AuditTarget {
            kind: TargetKind::Node,
            id: change.node_id.to_string(),
            name: change.name.to_string(),
        };
        // An attribute is stored as an object: `{"custom:ztaScore": 71}`.
        let attribute = |key: &AttributeKey, score: Score| json!({ key.as_str(): score });
        let (old, new) = (change.old.as_ref(), change.new.as_ref());
        AuditRecord {
            old: json!(old.map(|old| attribute(&old.key, old.score))),
            new: json!(new.map(|new| attribute(&new.key, new.score))),
            details,
            ..self.record(target, Action::UpdateNodeAttribute, sent_at)
        }
    }

    /// Records a change that was sent and may have been made or not, which nobody can tell any more.
    pub fn attribute_unknown(&self, change: &Change, sent_at: Timestamp) -> AuditRecord {
        let mut record = self.attribute_changed(change, sent_at);
        record.details["unknown"] = json!(true);
        record.details["reason"] = json!(
            "a run sent this change and could not record it; whether it was made cannot be told"
        );
        record
    }

    pub(crate) fn integration_created(&self, settings: &Settings, now: Timestamp) -> AuditRecord {
        AuditRecord {
            new: settings.to_map().into(),
            details: json!({ "configVersion": 1 }),
            ..self.integration_record(Action::CreateIntegration, now)
        }
    }

    /// Records changed settings; `old` is the stored map.
    pub(crate) fn integration_updated(
        &self,
        old: &Map<String, Value>,
        new: &Settings,
        config_version: u64,
        now: Timestamp,
    ) -> AuditRecord {
        let changed = new.changed_fields(old);
        AuditRecord {
            old: old.clone().into(),
            new: new.to_map().into(),
            details: json!({ "configVersion": config_version, "changed": changed }),
            ..self.integration_record(Action::UpdateIntegration, now)
        }
    }

    /// Records a completed removal.
    pub(crate) fn integration_removed(
        &self,
        old: &Map<String, Value>,
        removal: &Removal,
        now: Timestamp,
    ) -> AuditRecord {
        let requested = rfc3339(removal.since);
        AuditRecord {
            old: old.clone().into(),
            details: json!({ "attributes": removal.attributes, "requested": requested }),
            ..self.integration_record(Action::RemoveIntegration, now)
        }
    }

    fn integration_record(&self, action: Action, now: Timestamp) -> AuditRecord {
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
