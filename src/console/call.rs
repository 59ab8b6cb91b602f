//! A widget's call, parsed at the edge.

use serde_json::{Map, Value};

use crate::domain::host::Score;
use crate::error::plain;
use crate::integration::IntegrationId;

/// How much of what was sent is repeated.
const SAID_CHARS: usize = 60;

/// How much of a device's name is looked for, like in the command `explain`.
const DEVICE_BYTES: usize = 255;

/// A widget's call that was understood, or not: then it is told why, where the widget would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// What is asked for.
    pub(super) ask: Result<Ask, String>,
    /// How it is shown.
    pub(super) context: Context,
}

/// What a widget can ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// What its parameters are.
    Describe,
    /// A view.
    Show {
        view: View,
        /// Only this integration.
        integration: Option<IntegrationId>,
        /// A threshold of scores.
        min_score: Option<Score>,
    },
    /// Why a device has its score: the form was sent.
    Explain {
        /// Which one was chosen.
        integration: Option<IntegrationId>,
        /// What was written into the form.
        device: String,
        /// The integration that the widget is about.
        only: Option<IntegrationId>,
    },
    /// The button for a sync.
    Sync(IntegrationId),
    /// The button for a check.
    Check(IntegrationId),
}

/// What a widget can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    Overview,
    Scores,
    History,
    Findings,
    Audit,
    Explain,
}

/// How a dashboard wants things shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Context {
    /// Light on dark.
    pub(super) dark: bool,
    /// Its time zone: so many minutes east of UTC.
    pub(super) offset_minutes: i32,
}

impl Call {
    /// Whether a payload is a widget's call, good or bad.
    pub fn is_one(payload: &Map<String, Value>) -> bool {
        let describes = payload.get("describe") == Some(&Value::Bool(true));
        payload.contains_key("widgetContext") || (describes && !payload.contains_key("command"))
    }

    /// Understands it.
    pub fn parse(payload: &Map<String, Value>) -> Self {
        let context = payload.get("widgetContext").unwrap_or(&Value::Null);
        Self {
            ask: ask(payload, context),
            context: Context {
                dark: context["theme"] == "dark",
                offset_minutes: offset(&context["timezone"]),
            },
        }
    }
}

fn ask(payload: &Map<String, Value>, context: &Value) -> Result<Ask, String> {
    if payload.get("describe") == Some(&Value::Bool(true)) {
        return Ok(Ask::Describe);
    }
    let integration = integration(payload.get("integration"))?;
    match payload.get("action").map(Value::as_str) {
        None => Ok(Ask::Show {
            view: view(payload.get("view"))?,
            integration,
            min_score: min_score(payload.get("minScore"))?,
        }),
        Some(Some("explain")) => {
            let form = &context["forms"]["all"];
            Ok(Ask::Explain {
                integration: match &integration {
                    Some(only) => Some(only.clone()),
                    None => self::integration(form.get("integration"))?,
                },
                device: device(form.get("device"))?,
                only: integration,
            })
        }
        Some(action @ Some("sync" | "check")) => {
            let id = integration.ok_or("The button names no integration.")?;
            Ok(if action == Some("sync") {
                Ask::Sync(id)
            } else {
                Ask::Check(id)
            })
        }
        Some(_) => Err("There is no such button.".to_owned()),
    }
}

fn view(view: Option<&Value>) -> Result<View, String> {
    let Some(view) = view else {
        return Ok(View::Overview);
    };
    match view.as_str() {
        Some("overview") => Ok(View::Overview),
        Some("scores") => Ok(View::Scores),
        Some("history") => Ok(View::History),
        Some("findings") => Ok(View::Findings),
        Some("audit") => Ok(View::Audit),
        Some("explain") => Ok(View::Explain),
        _ => Err(format!(
            "There is no view {}. The parameter view of a widget is overview, scores, history, findings, audit or explain.",
            told(view)
        )),
    }
}

/// An empty choice is none.
fn integration(value: Option<&Value>) -> Result<Option<IntegrationId>, String> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(value) => {
            let id = value
                .as_str()
                .map(str::to_owned)
                .map(IntegrationId::try_from);
            match id {
                Some(Ok(id)) => Ok(Some(id)),
                _ => Err(format!(
                    "{} is no name of an integration, which has lower-case letters, digits and hyphens.",
                    told(value)
                )),
            }
        }
    }
}

/// A number, or one in words, as forms and YAML send it.
fn min_score(value: Option<&Value>) -> Result<Option<Score>, String> {
    let number = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text.trim().parse().ok(),
        Some(value) => value.as_i64(),
    };
    let score = number.and_then(Score::new);
    score.map(Some).ok_or_else(|| {
        "The parameter minScore of a widget is a whole number from 0 to 100.".to_owned()
    })
}

fn device(value: Option<&Value>) -> Result<String, String> {
    let device = value.and_then(Value::as_str).unwrap_or_default();
    if device.len() > DEVICE_BYTES {
        return Err(format!(
            "A device is named by {DEVICE_BYTES} characters at most."
        ));
    }
    Ok(device.to_owned())
}

/// Minutes east of UTC. The sign of `offsetInMinutes` is written nowhere, that of `+05:30` is clear.
fn offset(timezone: &Value) -> i32 {
    let iso = timezone["offsetISO"].as_str().and_then(|iso| {
        let (sign, rest) = match iso.split_at_checked(1)? {
            ("+", rest) => (1, rest),
            ("-", rest) => (-1, rest),
            _ => return None,
        };
        let (hours, minutes) = rest.split_once(':')?;
        let (hours, minutes): (u8, u8) = (hours.parse().ok()?, minutes.parse().ok()?);
        Some(sign * (i32::from(hours) * 60 + i32::from(minutes)))
    });
    let minutes = timezone["offsetInMinutes"].as_i64();
    let minutes = iso.or_else(|| minutes.and_then(|minutes| minutes.try_into().ok()));
    // From UTC-12 to UTC+14, as there are.
    minutes
        .filter(|minutes| (-720..=840).contains(minutes))
        .unwrap_or(0)
}

fn told(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{:?}", plain(text, SAID_CHARS)),
        other => plain(&other.to_string(), SAID_CHARS),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_are_told_in_the_dashboards_zone() {
        for (timezone, expect) in [
            (json!({"offsetISO": "+05:30", "offsetInMinutes": -330}), 330),
            (json!({"offsetISO": "-08:00"}), -480),
            (json!({"offsetISO": "-00:30"}), -30),
            (json!({"offsetInMinutes": 60}), 60),
            (json!({"offsetISO": "é5:30", "offsetInMinutes": 99_999}), 0),
            (json!({"offsetISO": "+255:255"}), 0),
            (json!({"offsetISO": ""}), 0),
            (json!("UTC"), 0),
            (Value::Null, 0),
        ] {
            assert_eq!(offset(&timezone), expect, "{timezone}");
        }
    }
}
