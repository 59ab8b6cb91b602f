//! What the function can be asked, parsed at the edge. Behind it, nothing is checked again.

mod fields;
mod secret_event;
#[cfg(test)]
mod tests;
pub(crate) mod widget;

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::clock::rfc3339;
use crate::domain::plan::deprovision::Attributes;
use crate::events::{Event, SOURCE};
use crate::preview::PreviewTarget;
use crate::settings::{IntegrationId, InvalidSettings, SecretName, Settings};
use crate::store::AuditQuery;
use crate::sync::{SyncRequest, Trigger};
use crate::text::{redact, sanitize};
use fields::{
    AuditFields, CheckFields, ConnectFields, ExplainFields, MinScore, Next, PreviewFields,
    RemoveFields, StatusFields, SyncFields, UpdateFields,
};
pub use widget::WidgetRequest;

/// A request that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Every enabled integration: what the schedule sends.
    SyncAll,
    /// One integration.
    Sync(SyncRequest),
    /// A new integration.
    Connect {
        /// Its settings.
        settings: Box<Settings>,
        /// Who connects it, as the caller says.
        actor: Option<String>,
        /// Whether its credentials are tried first.
        check: bool,
    },
    /// Other settings for an integration.
    Update {
        /// Which.
        integration: IntegrationId,
        /// The settings that shall be others, by name.
        changes: Map<String, Value>,
        /// Who changes them, as the caller says.
        actor: Option<String>,
        /// The version that the caller has seen: another one is a conflict.
        config_version: Option<u64>,
    },
    /// The end of an integration.
    Remove {
        /// Which.
        integration: IntegrationId,
        /// What becomes of the attributes that it wrote.
        attributes: Attributes,
        /// Who removes it, as the caller says.
        actor: Option<String>,
    },
    /// Whether an integration can work: its credentials, scopes and prerequisites.
    Check {
        /// Which.
        integration: IntegrationId,
    },
    /// A secret has a new version: those who use it are synced.
    SecretChanged {
        /// The names by which the event may mean it.
        names: BTreeSet<SecretName>,
    },
    /// Audit records.
    Audit {
        /// Which.
        search: AuditQuery,
        /// In which shape.
        format: AuditFormat,
    },
    /// Why a device has its score, or none.
    Explain {
        /// Which integration.
        integration: IntegrationId,
        /// Which device: a node id, a name, or a serial.
        device: String,
        /// For a program or a person.
        format: Format,
    },
    /// Who would pass a posture, and who would lose access.
    Preview {
        /// Of this integration.
        integration: IntegrationId,
        /// The postures to evaluate.
        target: PreviewTarget,
        /// For a program or a person.
        format: Format,
    },
    /// A dashboard's widget, or what is done in one.
    Widget(WidgetRequest),
    /// How things are.
    Status {
        /// Of one integration, or of all.
        integration: Option<IntegrationId>,
        /// For a program or a person.
        format: Format,
    },
}

/// The shapes of audit records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AuditFormat {
    /// As they are stored.
    #[default]
    Stored,
    /// As Tailscale's configuration audit log has them.
    Tailscale,
}

/// Whom an answer is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Format {
    /// A program: JSON.
    #[default]
    Json,
    /// A person at a terminal: text, some lines of 100 characters at most but for names.
    Text,
}

/// How much of an actor's name is kept.
const ACTOR_CHARS: usize = 200;

/// How much of a field's path is repeated, and of what is wrong with it: the longest list of what is accepted fits.
const PATH_CHARS: usize = 120;
const PROBLEM_CHARS: usize = 400;

/// A payload that is none of ours.
#[derive(Debug, thiserror::Error)]
pub enum InvalidPayload {
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

const ACCEPTED: &str = "{\"command\":\"sync\"|\"connect\"|\"update\"|\"remove\"|\"check\"|\"status\"|\"preview\"|\"explain\"|\"audit\", …}, or an \
                        EventBridge event \"Posture Integration Changed\" or \"Posture Sync Requested\" from the source \
                        \"falcon-posture-sync\", or one of Secrets Manager's about a new version of a secret, or a call of a CloudWatch dashboard's \
                        custom widget";

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
    pub fn parse(payload: Value) -> Result<Self, InvalidPayload> {
        let Value::Object(object) = &payload else {
            return Err(InvalidPayload::Shape(kind_of(&payload)));
        };
        // Before all else: nothing that a dashboard adds makes its call a command.
        if WidgetRequest::matches(object) {
            return Ok(Self::Widget(WidgetRequest::parse(object)));
        }
        match (object.get("command"), object.get("detail-type")) {
            (Some(Value::String(command)), _) => match command.as_str() {
                "sync" => Self::sync(fields(payload)?),
                "connect" => Self::connect(fields(payload)?),
                "update" => Self::update(fields(payload)?),
                "remove" => fields(payload).map(|fields: RemoveFields| Self::Remove {
                    integration: fields.integration,
                    attributes: fields.attributes,
                    actor: fields.actor.map(|actor| sanitize(&actor, ACTOR_CHARS)),
                }),
                "check" => fields(payload)
                    .map(|CheckFields { integration, .. }| Self::Check { integration }),
                "preview" => Self::preview(fields(payload)?),
                "audit" => Self::audit(fields(payload)?),
                "explain" => fields(payload).map(|fields: ExplainFields| Self::Explain {
                    integration: fields.integration,
                    device: fields.device.0,
                    format: fields.format,
                }),
                "status" => fields(payload).map(|fields: StatusFields| Self::Status {
                    integration: fields.integration,
                    format: fields.format,
                }),
                other => Err(InvalidPayload::UnknownCommand(redact(other, 60))),
            },
            (Some(_), _) => Err(InvalidPayload::Field {
                at: "command".to_owned(),
                problem: "accepted is the name of a command, as text".to_owned(),
            }),
            (None, Some(Value::String(kind))) => {
                let kind = redact(kind, 60);
                Self::event(&kind, payload)
            }
            (None, _) => Err(InvalidPayload::Shape("neither a command nor an event")),
        }
    }

    fn sync(fields: SyncFields) -> Result<Self, InvalidPayload> {
        if let Some(integration) = fields.integration {
            return Ok(Self::Sync(SyncRequest {
                integration,
                force: fields.force,
                dry_run: fields.dry_run,
                allow_mass_removal: fields.allow_mass_removal,
                trigger: Trigger::Manual,
            }));
        }
        for (set, name) in [
            (fields.force, "force"),
            (fields.dry_run, "dryRun"),
            (fields.allow_mass_removal, "allowMassRemoval"),
        ] {
            if set {
                return Err(InvalidPayload::Field {
                    at: name.to_owned(),
                    problem: "is for one integration; name it in \"integration\"".to_owned(),
                });
            }
        }
        Ok(Self::SyncAll)
    }

    fn connect(fields: ConnectFields) -> Result<Self, InvalidPayload> {
        Ok(Self::Connect {
            settings: Box::new(Settings::parse(fields.integration, "integration")?),
            actor: fields.actor.map(|actor| sanitize(&actor, ACTOR_CHARS)),
            check: fields.check,
        })
    }

    fn preview(fields: PreviewFields) -> Result<Self, InvalidPayload> {
        let target = match (fields.min_score, fields.policy) {
            (Some(MinScore(score)), false) => PreviewTarget::MinScore(score),
            (None, true) => PreviewTarget::Policy,
            _ => {
                return Err(InvalidPayload::Field {
                    at: "minScore".to_owned(),
                    problem: "accepted is either \"minScore\", such as 70, or \"policy\":true"
                        .to_owned(),
                });
            }
        };
        Ok(Self::Preview {
            integration: fields.integration,
            target,
            format: fields.format,
        })
    }

    fn update(fields: UpdateFields) -> Result<Self, InvalidPayload> {
        let Value::Object(changes) = fields.changes else {
            return Err(InvalidPayload::Field {
                at: "changes".to_owned(),
                problem: "accepted is an object of the settings to change, by name".to_owned(),
            });
        };
        Ok(Self::Update {
            integration: fields.integration,
            changes,
            actor: fields.actor.map(|actor| sanitize(&actor, ACTOR_CHARS)),
            config_version: fields.config_version,
        })
    }

    fn audit(fields: AuditFields) -> Result<Self, InvalidPayload> {
        let refuse = |at: &str, problem: &str| {
            Err(InvalidPayload::Field {
                at: at.to_owned(),
                problem: problem.to_owned(),
            })
        };
        let (since, until) = (fields.since.map(|t| t.0), fields.until.map(|t| t.0));
        if fields.integration.is_none() && fields.device.is_none() {
            return refuse(
                "integration",
                "name an integration, or a device by its node id",
            );
        }
        if since.zip(until).is_some_and(|(since, until)| since > until) {
            return refuse("until", "is before since");
        }
        // The cursor is an event id, which begins with its time.
        let next = fields.next.map(|Next(id)| id);
        let starts_before = |next: &String| since.is_some_and(|since| *next < rfc3339(since));
        if next.as_ref().is_some_and(starts_before) {
            return refuse("next", "is not of a page of this search");
        }
        Ok(Self::Audit {
            search: AuditQuery {
                integration: fields.integration,
                device: fields.device.map(|device| device.0),
                since,
                until,
                limit: fields.limit.0,
                next,
            },
            format: fields.format,
        })
    }

    fn event(kind: &str, payload: Value) -> Result<Self, InvalidPayload> {
        if let Some(names) = secret_event::names(kind, &payload) {
            return match names {
                names if names.is_empty() => Err(InvalidPayload::Field {
                    at: "detail".to_owned(),
                    problem: "the event names no secret".to_owned(),
                }),
                names => Ok(Self::SecretChanged { names }),
            };
        }
        if ![Event::INTEGRATION_CHANGED, Event::SYNC_REQUESTED].contains(&kind) {
            return Err(InvalidPayload::UnknownEvent(kind.to_owned()));
        }
        let event: Envelope = fields(payload)?;
        if event.source != SOURCE {
            return Err(InvalidPayload::UnknownEvent(format!(
                "{kind} from {}",
                redact(&event.source, 60)
            )));
        }
        Ok(Self::Sync(SyncRequest::automatic(event.detail.integration)))
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

fn fields<T: for<'de> Deserialize<'de>>(payload: Value) -> Result<T, InvalidPayload> {
    serde_path_to_error::deserialize(payload).map_err(|error| {
        let at = error.path().to_string();
        InvalidPayload::Field {
            at: if at == "." {
                "payload".to_owned()
            } else {
                redact(&at, PATH_CHARS)
            },
            // It quotes what was sent.
            problem: redact(&error.into_inner().to_string(), PROBLEM_CHARS),
        }
    })
}
