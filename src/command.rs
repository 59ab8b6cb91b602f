//! Parses every payload that the function accepts. Code behind this module does not validate input again.

mod fields;
mod secret_event;
#[cfg(test)]
mod tests;
pub(crate) mod widget;

use std::collections::BTreeSet;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::clock::rfc3339;
use crate::domain::plan::deprovision::Attributes;
use crate::events::{Event, SOURCE};
use crate::preview::PreviewTarget;
use crate::settings::{
    FieldError, IntegrationId, SecretName, Settings, decode_with_path, default_true,
};
use crate::store::AuditQuery;
use crate::sync::{SyncRequest, Trigger};
use crate::text::redact;
use fields::{
    Cursor, DeviceRef, Limit, MinScore, TimeBound, decode_actor, decode_changes, decode_removals,
};
pub use widget::WidgetRequest;

/// A valid request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Sync every enabled integration: the command of the schedule.
    SyncAll,
    /// Sync one integration.
    Sync(SyncRequest),
    /// Add an integration.
    Connect(ConnectRequest),
    /// Change the settings of an integration.
    Update(UpdateRequest),
    /// Remove an integration.
    Remove(RemoveRequest),
    /// Check the credentials, scopes and prerequisites of an integration.
    Check(CheckRequest),
    /// Sync the integrations that use a secret with a new version.
    SecretChanged {
        /// The names by which the event may identify the secret.
        names: BTreeSet<SecretName>,
    },
    /// Return audit records.
    Audit(AuditQuery, AuditFormat),
    /// Explain the score of a device, or its absence.
    Explain(ExplainRequest),
    /// List the devices that would pass a posture, and those that would lose access.
    Preview(PreviewRequest),
    /// Render a widget of a dashboard, or perform one of its actions.
    Widget(WidgetRequest),
    /// Return the status of one integration, or of all.
    Status(StatusRequest),
}

/// The fields of the command `connect`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConnectRequest<S = Box<Settings>> {
    pub(crate) integration: S,
    #[serde(default, deserialize_with = "decode_actor")]
    pub(crate) actor: Option<String>,
    /// Check the integration before storing it.
    #[serde(default = "default_true")]
    pub(crate) check: bool,
}

/// The fields of the command `update`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpdateRequest {
    pub(crate) integration: IntegrationId,
    /// The new values by setting; `null` restores the default.
    #[serde(deserialize_with = "decode_changes")]
    pub(crate) changes: Map<String, Value>,
    #[serde(default, deserialize_with = "decode_actor")]
    pub(crate) actor: Option<String>,
    /// The version that the caller has read. Any other stored version is a conflict.
    pub(crate) config_version: Option<u64>,
}

/// The fields of the command `remove`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RemoveRequest {
    pub(crate) integration: IntegrationId,
    #[serde(default)]
    pub(crate) attributes: Attributes,
    #[serde(default, deserialize_with = "decode_actor")]
    pub(crate) actor: Option<String>,
}

/// The fields of the command `check`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CheckRequest {
    pub(crate) integration: IntegrationId,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AuditFields {
    integration: Option<IntegrationId>,
    device: Option<DeviceRef>,
    since: Option<TimeBound>,
    until: Option<TimeBound>,
    #[serde(default)]
    limit: Limit,
    next: Option<Cursor>,
    #[serde(default)]
    format: AuditFormat,
}

/// The fields of the command `explain`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExplainRequest {
    pub(crate) integration: IntegrationId,
    pub(crate) device: DeviceRef,
    #[serde(default)]
    pub(crate) format: Format,
}

/// The fields of the command `preview`. Exactly one of `minScore` and `policy` is given.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PreviewRequest {
    pub(crate) integration: IntegrationId,
    min_score: Option<MinScore>,
    #[serde(default)]
    policy: bool,
    #[serde(default)]
    pub(crate) format: Format,
}

/// The fields of the command `status`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StatusRequest {
    pub(crate) integration: Option<IntegrationId>,
    #[serde(default)]
    pub(crate) format: Format,
}

/// The fields of the command `sync`. Without an integration, all enabled ones are synced.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SyncFields {
    integration: Option<IntegrationId>,
    #[serde(default)]
    force: bool,
    #[serde(default)]
    dry_run: bool,
    #[serde(default, deserialize_with = "decode_removals")]
    allow_mass_removal: usize,
}

/// The shape of audit records in a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AuditFormat {
    /// The stored items.
    #[default]
    Stored,
    /// The format of Tailscale's configuration audit log.
    Tailscale,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Format {
    #[default]
    Json,
    /// Text for a terminal.
    Text,
}

/// The payload is neither a command nor an event nor the request of a widget.
#[derive(Debug, thiserror::Error)]
pub enum InvalidPayload {
    /// The payload is neither a command nor an event.
    #[error("unsupported payload ({0}): must be a JSON object, {ACCEPTED}")]
    Shape(&'static str),
    /// The command does not exist.
    #[error("unknown command {0:?}: must be {ACCEPTED}")]
    UnknownCommand(String),
    /// The event is not one that the function handles.
    #[error("unsupported event {0:?}: must be {ACCEPTED}")]
    UnknownEvent(String),
    /// A field is missing, unknown or invalid.
    #[error(transparent)]
    Field(#[from] FieldError),
}

const ACCEPTED: &str = "{\"command\":\"sync\"|\"connect\"|\"update\"|\"remove\"|\"check\"|\"status\"|\"preview\"|\"explain\"|\"audit\", …}, or an \
                        EventBridge event \"Posture Integration Changed\" or \"Posture Sync Requested\" from the source \
                        \"falcon-posture-sync\", or one of Secrets Manager's about a new version of a secret, or a call of a CloudWatch dashboard's \
                        custom widget";

/// The fields in use of this function's own events.
#[derive(Deserialize)]
struct Envelope {
    source: String,
    detail: Detail,
}

#[derive(Deserialize)]
struct Detail {
    integration: IntegrationId,
}

impl Command {
    /// Parses a payload.
    ///
    /// # Errors
    /// Names the invalid field and the accepted values.
    pub fn parse(payload: Value) -> Result<Self, InvalidPayload> {
        let Value::Object(mut fields) = payload else {
            return Err(InvalidPayload::Shape(json_type(&payload)));
        };
        // Checked first, so that no parameter of a widget can turn its request into a command.
        if WidgetRequest::matches(&fields) {
            return Ok(Self::Widget(WidgetRequest::parse(&fields)));
        }
        match fields.remove("command") {
            Some(Value::String(command)) => Self::from_fields(&command, fields.into()),
            Some(_) => {
                Err(FieldError::new("command", "must be the name of a command, as a string").into())
            }
            None => Self::from_event(fields),
        }
    }

    fn from_fields(command: &str, fields: Value) -> Result<Self, InvalidPayload> {
        Ok(match command {
            "sync" => decode::<SyncFields>(fields)?.into_command()?,
            "connect" => {
                let request: ConnectRequest<Value> = decode(fields)?;
                let settings = Settings::parse(request.integration, "integration")?;
                Self::Connect(ConnectRequest {
                    integration: Box::new(settings),
                    actor: request.actor,
                    check: request.check,
                })
            }
            "update" => Self::Update(decode(fields)?),
            "remove" => Self::Remove(decode(fields)?),
            "check" => Self::Check(decode(fields)?),
            "preview" => Self::Preview(decode::<PreviewRequest>(fields)?.validate()?),
            "audit" => decode::<AuditFields>(fields)?.into_command()?,
            "explain" => Self::Explain(decode(fields)?),
            "status" => Self::Status(decode(fields)?),
            other => return Err(InvalidPayload::UnknownCommand(redact(other, 60))),
        })
    }

    fn from_event(event: Map<String, Value>) -> Result<Self, InvalidPayload> {
        let Some(Value::String(kind)) = event.get("detail-type") else {
            return Err(InvalidPayload::Shape("not a command or an event"));
        };
        let kind = redact(kind, 60);
        let event = Value::Object(event);
        if let Some(names) = secret_event::secret_names(&kind, &event) {
            if names.is_empty() {
                return Err(FieldError::new("detail", "the event has no secret").into());
            }
            return Ok(Self::SecretChanged { names });
        }
        if ![Event::INTEGRATION_CHANGED, Event::SYNC_REQUESTED].contains(&kind.as_str()) {
            return Err(InvalidPayload::UnknownEvent(kind));
        }
        let Envelope { source, detail } = decode(event)?;
        if source != SOURCE {
            let event = format!("{kind} from {}", redact(&source, 60));
            return Err(InvalidPayload::UnknownEvent(event));
        }
        Ok(Self::Sync(SyncRequest::automatic(detail.integration)))
    }
}

impl SyncFields {
    fn into_command(self) -> Result<Command, FieldError> {
        if let Some(integration) = self.integration {
            return Ok(Command::Sync(SyncRequest {
                integration,
                force: self.force,
                dry_run: self.dry_run,
                allow_mass_removal: self.allow_mass_removal,
                trigger: Trigger::Manual,
            }));
        }
        for (is_set, name) in [
            (self.force, "force"),
            (self.dry_run, "dryRun"),
            (self.allow_mass_removal > 0, "allowMassRemoval"),
        ] {
            if is_set {
                let message = "is for one integration; give it in \"integration\"";
                return Err(FieldError::new(name, message));
            }
        }
        Ok(Command::SyncAll)
    }
}

impl PreviewRequest {
    fn validate(self) -> Result<Self, FieldError> {
        if self.min_score.is_some() == self.policy {
            let message = "must have either \"minScore\", such as 70, or \"policy\":true";
            return Err(FieldError::new("minScore", message));
        }
        Ok(self)
    }

    pub(crate) fn target(&self) -> PreviewTarget {
        match self.min_score {
            Some(MinScore(score)) => PreviewTarget::MinScore(score),
            None => PreviewTarget::Policy,
        }
    }
}

impl AuditFields {
    fn into_command(self) -> Result<Command, FieldError> {
        let query = AuditQuery {
            integration: self.integration,
            device: self.device.map(|device| device.0),
            since: self.since.map(|bound| bound.0),
            until: self.until.map(|bound| bound.0),
            limit: self.limit.0,
            next: self.next.map(|cursor| cursor.0),
        };
        let AuditQuery { since, until, .. } = query;
        if query.integration.is_none() && query.device.is_none() {
            let message = "give an integration, or the node id of a device";
            return Err(FieldError::new("integration", message));
        }
        if since.zip(until).is_some_and(|(since, until)| since > until) {
            return Err(FieldError::new("until", "is before since"));
        }
        // The cursor is an event id, which begins with the time of the event.
        if let (Some(id), Some(since)) = (&query.next, since)
            && *id < rfc3339(since)
        {
            return Err(FieldError::new("next", "does not belong to this search"));
        }
        Ok(Command::Audit(query, self.format))
    }
}

fn json_type(payload: &Value) -> &'static str {
    match payload {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn decode<T: DeserializeOwned>(payload: Value) -> Result<T, FieldError> {
    decode_with_path(payload, None)
}
