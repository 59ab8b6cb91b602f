//! Audit records in the format of Tailscale's own configuration audit log, for tools that read it.
//!
//! The names and words are those of `GET /tailnet/{tailnet}/logging/configuration`. There an integration is a property of
//! the tailnet, and an attribute is one of a node.

use serde_json::{Value, json};

use super::{Action, AuditRecord, SYSTEM_ACTOR, TargetKind};

/// The log's value for a change that is not deferred.
const NOT_DEFERRED: &str = "0001-01-01T00:00:00Z";

/// Formats a record as an entry of the configuration audit log.
pub(crate) fn export(record: &AuditRecord) -> Value {
    let (target_type, property) = match record.target.kind {
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
    let actor_type = if record.actor == SYSTEM_ACTOR {
        "AUTOMATED_WORKER"
    } else {
        "USER"
    };
    json!({
        "eventTime": record.event_time,
        "type": "CONFIG",
        "deferredAt": NOT_DEFERRED,
        "eventGroupID": record.run_id,
        "origin": "CONFIG_API",
        "actor": { "id": record.actor, "type": actor_type, "displayName": record.actor },
        "target": {
            "id": record.target.id,
            "name": record.target.name,
            "type": target_type,
            "property": property,
        },
        "action": action,
        "old": record.old,
        "new": record.new,
        "actionDetails": details(record),
    })
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
