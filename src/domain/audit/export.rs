//! Audit records in the format of Tailscale's own configuration audit log, for tools that read it.
//!
//! The names and words are those of `GET /tailnet/{tailnet}/logging/configuration`. There an integration is a property of
//! the tailnet, and an attribute is one of a node.

use serde::Serialize;
use serde_json::Value;

use super::{Action, AuditRecord, TargetKind};

/// The actor of scheduled and event-driven runs.
const SYSTEM_ACTOR: &str = "falcon-posture-sync";

/// The log's value for a change that is not deferred.
const NOT_DEFERRED: &str = "0001-01-01T00:00:00Z";

/// An entry of the configuration audit log.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ExportedRecord {
    event_time: String,
    #[serde(rename = "type")]
    kind: &'static str,
    deferred_at: &'static str,
    #[serde(rename = "eventGroupID")]
    event_group_id: String,
    origin: &'static str,
    actor: ExportedActor,
    target: ExportedTarget,
    action: &'static str,
    old: Value,
    new: Value,
    action_details: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct ExportedActor {
    id: String,
    #[serde(rename = "type")]
    kind: &'static str,
    display_name: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct ExportedTarget {
    id: String,
    name: String,
    #[serde(rename = "type")]
    kind: &'static str,
    property: &'static str,
}

impl From<AuditRecord> for ExportedRecord {
    fn from(record: AuditRecord) -> Self {
        let (kind, property) = match record.target.kind {
            TargetKind::Integration => ("TAILNET", "POSTURE_INTEGRATION"),
            TargetKind::Node => ("NODE", "ATTRIBUTES"),
        };
        let action = match record.action {
            Action::CreateIntegration => "CREATE",
            Action::RemoveIntegration => "DELETE",
            Action::UpdateNodeAttribute if record.old.is_null() => "CREATE",
            Action::UpdateNodeAttribute if record.new.is_null() => "DELETE",
            Action::UpdateIntegration | Action::UpdateNodeAttribute => "UPDATE",
        };
        Self {
            action_details: details(&record),
            event_time: record.event_time,
            kind: "CONFIG",
            deferred_at: NOT_DEFERRED,
            event_group_id: record.run_id,
            origin: "CONFIG_API",
            actor: ExportedActor {
                kind: if record.actor == SYSTEM_ACTOR {
                    "AUTOMATED_WORKER"
                } else {
                    "USER"
                },
                display_name: record.actor.clone(),
                id: record.actor,
            },
            target: ExportedTarget {
                id: record.target.id,
                name: record.target.name,
                kind,
                property,
            },
            action,
            old: record.old,
            new: record.new,
        }
    }
}

/// Formats the integration and the details: `integration corp; aid …; reason …`.
fn details(record: &AuditRecord) -> String {
    let mut parts = vec![format!("integration {}", record.integration_id)];
    if let Value::Object(details) = &record.details {
        parts.extend(details.iter().map(|(name, value)| match value {
            Value::String(text) => format!("{name} {text}"),
            other => format!("{name} {other}"),
        }));
    }
    parts.join("; ")
}
