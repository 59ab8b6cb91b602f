//! What the function can be asked, parsed at the edge. Behind it, nothing is checked again.

use serde::Deserialize;
use serde_json::Value;

use crate::error::plain;
use crate::events::{Event, SOURCE};
use crate::integration::{IntegrationId, InvalidSettings, Settings};

/// A request that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Every enabled integration: what the schedule sends.
    SyncAll,
    /// One integration.
    Sync(SyncOne),
    /// A new integration.
    Connect {
        /// Its settings.
        settings: Box<Settings>,
        /// Who connects it, as the caller says.
        actor: Option<String>,
        /// Whether its credentials are tried first.
        check: bool,
    },
    /// How things are.
    Status {
        /// Of one integration, or of all.
        integration: Option<IntegrationId>,
    },
}

/// A sync of one integration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncOne {
    /// Which.
    pub integration: IntegrationId,
    /// Runs in spite of a pause.
    pub force: bool,
    /// Answers the plan and writes nothing.
    pub dry_run: bool,
    /// Lets a mass removal pass.
    pub allow_mass_removal: bool,
    /// Who asks.
    pub asked_by: AskedBy,
}

/// Who asks for a sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskedBy {
    /// A person, by a command.
    Person,
    /// The schedule or an event: the integration may be gone by now, and that is no fault.
    Event,
}

/// A payload that is none of ours.
#[derive(Debug, thiserror::Error)]
pub enum BadPayload {
    /// Neither a command nor an event.
    #[error("the payload is {0}; accepted is a JSON object: {ACCEPTED}")]
    Shape(&'static str),
    /// A command that does not exist.
    #[error("there is no command {0:?}; accepted is {ACCEPTED}")]
    UnknownCommand(String),
    /// An event that concerns nobody here.
    #[error("events of kind {0:?} are not handled; accepted is {ACCEPTED}")]
    UnknownEvent(String),
    /// A field that is missing, unknown, or holds something else than it should.
    #[error("{at}: {problem}")]
    Field {
        /// The field's path.
        at: String,
        /// What is wrong and what is accepted.
        problem: String,
    },
    /// Settings of an integration that cannot be taken.
    #[error(transparent)]
    Settings(#[from] InvalidSettings),
}

const ACCEPTED: &str = "{\"command\":\"sync\"|\"connect\"|\"status\", …}, or an EventBridge event \"Posture Integration \
                        Changed\" or \"Posture Sync Requested\" from the source \"falcon-posture-sync\"";

/// The fields of a `sync`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SyncFields {
    #[serde(rename = "command")]
    _command: String,
    integration: Option<IntegrationId>,
    #[serde(default)]
    force: bool,
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    allow_mass_removal: bool,
}

/// The fields of a `connect`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ConnectFields {
    #[serde(rename = "command")]
    _command: String,
    integration: Value,
    actor: Option<String>,
    #[serde(default = "yes")]
    check: bool,
}

/// The fields of a `status`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct StatusFields {
    #[serde(rename = "command")]
    _command: String,
    integration: Option<IntegrationId>,
}

fn yes() -> bool {
    true
}

/// The part of an EventBridge event that matters here.
#[derive(Deserialize)]
struct Envelope {
    source: String,
    detail: Detail,
}

/// The part of our own events' detail that matters here.
#[derive(Deserialize)]
struct Detail {
    integration: IntegrationId,
}

impl Command {
    /// Understands a payload.
    ///
    /// # Errors
    /// Says what is wrong with it, by the field's name, and what is accepted.
    pub fn parse(payload: Value) -> Result<Self, BadPayload> {
        let Value::Object(object) = &payload else {
            return Err(BadPayload::Shape(kind_of(&payload)));
        };
        match (object.get("command"), object.get("detail-type")) {
            (Some(Value::String(command)), _) => match command.as_str() {
                "sync" => Self::sync(fields(payload)?),
                "connect" => Self::connect(fields(payload)?),
                "status" => fields(payload)
                    .map(|StatusFields { integration, .. }| Self::Status { integration }),
                other => Err(BadPayload::UnknownCommand(plain(other, 60))),
            },
            (Some(_), _) => Err(BadPayload::Field {
                at: "command".to_owned(),
                problem: "accepted is the name of a command, as text".to_owned(),
            }),
            (None, Some(Value::String(kind))) => {
                let kind = plain(kind, 60);
                Self::event(&kind, payload)
            }
            (None, _) => Err(BadPayload::Shape("neither a command nor an event")),
        }
    }

    fn sync(fields: SyncFields) -> Result<Self, BadPayload> {
        if let Some(integration) = fields.integration {
            return Ok(Self::Sync(SyncOne {
                integration,
                force: fields.force,
                dry_run: fields.dry_run,
                allow_mass_removal: fields.allow_mass_removal,
                asked_by: AskedBy::Person,
            }));
        }
        for (set, name) in [
            (fields.force, "force"),
            (fields.dry_run, "dryRun"),
            (fields.allow_mass_removal, "allowMassRemoval"),
        ] {
            if set {
                return Err(BadPayload::Field {
                    at: name.to_owned(),
                    problem: "is for one integration; name it in \"integration\"".to_owned(),
                });
            }
        }
        Ok(Self::SyncAll)
    }

    fn connect(fields: ConnectFields) -> Result<Self, BadPayload> {
        Ok(Self::Connect {
            settings: Box::new(Settings::parse(fields.integration, "integration")?),
            actor: fields.actor.map(|actor| plain(&actor, 200)),
            check: fields.check,
        })
    }

    fn event(kind: &str, payload: Value) -> Result<Self, BadPayload> {
        if ![Event::INTEGRATION_CHANGED, Event::SYNC_REQUESTED].contains(&kind) {
            return Err(BadPayload::UnknownEvent(kind.to_owned()));
        }
        let event: Envelope = fields(payload)?;
        if event.source != SOURCE {
            return Err(BadPayload::UnknownEvent(format!(
                "{kind} from {}",
                plain(&event.source, 60)
            )));
        }
        Ok(Self::Sync(SyncOne {
            integration: event.detail.integration,
            force: false,
            dry_run: false,
            allow_mass_removal: false,
            asked_by: AskedBy::Event,
        }))
    }
}

fn kind_of(payload: &Value) -> &'static str {
    match payload {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn fields<T: for<'de> Deserialize<'de>>(payload: Value) -> Result<T, BadPayload> {
    serde_path_to_error::deserialize(payload).map_err(|error| {
        let at = error.path().to_string();
        BadPayload::Field {
            at: if at == "." { "payload".to_owned() } else { at },
            problem: error.into_inner().to_string(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(payload: &Value, expect: &str) {
        let error = Command::parse(payload.clone())
            .expect_err("is refused")
            .to_string();
        assert!(error.contains(expect), "{payload}: {error}");
    }

    #[test]
    fn payloads_that_are_none_of_ours_are_told_what_is_accepted() {
        for payload in [
            json!(null),
            json!([]),
            json!("sync"),
            json!(17),
            json!({}),
            json!({"x": 1}),
        ] {
            refused(&payload, "\"sync\"|\"connect\"|\"status\"");
        }
        refused(&json!({"command": "sink"}), "there is no command \"sink\"");
        refused(
            &json!({"command": 7}),
            "command: accepted is the name of a command",
        );
        refused(
            &json!({"detail-type": "Object Created"}),
            "\"Object Created\" are not handled",
        );
    }

    #[test]
    fn fields_are_named() {
        refused(
            &json!({"command": "sync", "integration": "A B"}),
            "integration: \"A B\" is not accepted",
        );
        refused(
            &json!({"command": "sync", "integration": "corp", "forced": true}),
            "unknown field `forced`",
        );
        refused(
            &json!({"command": "sync", "integration": "corp", "force": "yes"}),
            "force: invalid type",
        );
        refused(
            &json!({"command": "sync", "dryRun": true}),
            "dryRun: is for one integration",
        );
        refused(
            &json!({"command": "connect"}),
            "missing field `integration`",
        );
        refused(
            &json!({"command": "connect", "integration": []}),
            "integration: ",
        );
        refused(
            &json!({"command": "connect", "integration": {"id": "corp"}}),
            "integration: missing field `provider`",
        );
    }

    #[test]
    fn events_of_others_are_refused() {
        let event = |source: &str, detail: Value| json!({"detail-type": "Posture Sync Requested", "source": source, "detail": detail});
        refused(
            &event("somebody", json!({"integration": "corp"})),
            "from somebody",
        );
        refused(
            &event(SOURCE, json!({})),
            "detail: missing field `integration`",
        );
        assert!(matches!(
            Command::parse(event(
                SOURCE,
                json!({"integration": "corp", "reason": "schedule"})
            )),
            Ok(Command::Sync(SyncOne {
                asked_by: AskedBy::Event,
                force: false,
                ..
            }))
        ));
    }
}
