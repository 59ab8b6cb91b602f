//! Parses the call of a dashboard's widget.

use serde_json::{Map, Value};

use crate::domain::inventory::host::Score;
use crate::settings::IntegrationId;
use crate::text::sanitize;

/// Maximum characters of a bad value in a message.
const MAX_QUOTED_CHARS: usize = 60;
/// Maximum bytes of a device query, as in the command `explain`.
const DEVICE_BYTES: usize = 255;
const NO_INTEGRATION: &str = "The button has no integration.";

/// The call of a widget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WidgetRequest {
    /// The action, or a message that is shown in the widget's place.
    pub(crate) action: Result<WidgetAction, String>,
    pub(crate) context: DisplayContext,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WidgetAction {
    /// Describe the parameters of widgets.
    Describe,
    Show {
        view: WidgetView,
        /// The only integration to show.
        integration: Option<IntegrationId>,
        /// Lower bound of the scores that are highlighted.
        min_score: Option<Score>,
    },
    /// Explain a device: the form was submitted.
    Explain {
        /// The integration that was chosen in the form.
        integration: Option<IntegrationId>,
        /// The device query that was entered in the form.
        device: String,
        /// The integration that the widget is limited to.
        only: Option<IntegrationId>,
    },
    Sync(IntegrationId),
    Check(IntegrationId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WidgetView {
    Overview,
    Scores,
    History,
    Findings,
    Audit,
    Explain,
}

/// How the dashboard displays widgets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DisplayContext {
    pub(crate) is_dark: bool,
    /// Offset of its time zone, in minutes east of UTC.
    pub(crate) offset_minutes: i32,
}

impl WidgetRequest {
    /// Returns whether a payload is the call of a widget, valid or not.
    pub fn matches(payload: &Map<String, Value>) -> bool {
        let describes = payload.get("describe") == Some(&Value::Bool(true));
        payload.contains_key("widgetContext") || (describes && !payload.contains_key("command"))
    }

    /// Parses the call of a widget.
    pub fn parse(payload: &Map<String, Value>) -> Self {
        let context = payload.get("widgetContext").unwrap_or(&Value::Null);
        Self {
            action: parse_action(payload, context),
            context: DisplayContext {
                is_dark: context["theme"] == "dark",
                offset_minutes: parse_offset(&context["timezone"]),
            },
        }
    }
}

fn parse_action(payload: &Map<String, Value>, context: &Value) -> Result<WidgetAction, String> {
    if payload.get("describe") == Some(&Value::Bool(true)) {
        return Ok(WidgetAction::Describe);
    }
    let integration = parse_integration(payload.get("integration"))?;
    match payload.get("action").map(Value::as_str) {
        None => Ok(WidgetAction::Show {
            view: parse_view(payload.get("view"))?,
            integration,
            min_score: parse_min_score(payload.get("minScore"))?,
        }),
        Some(Some("explain")) => {
            let form = &context["forms"]["all"];
            Ok(WidgetAction::Explain {
                integration: match &integration {
                    Some(only) => Some(only.clone()),
                    None => parse_integration(form.get("integration"))?,
                },
                device: parse_device(form.get("device"))?,
                only: integration,
            })
        }
        Some(Some("sync")) => Ok(WidgetAction::Sync(integration.ok_or(NO_INTEGRATION)?)),
        Some(Some("check")) => Ok(WidgetAction::Check(integration.ok_or(NO_INTEGRATION)?)),
        Some(_) => Err("There is no such button.".to_owned()),
    }
}

fn parse_view(view: Option<&Value>) -> Result<WidgetView, String> {
    let Some(view) = view else {
        return Ok(WidgetView::Overview);
    };
    match view.as_str() {
        Some("overview") => Ok(WidgetView::Overview),
        Some("scores") => Ok(WidgetView::Scores),
        Some("history") => Ok(WidgetView::History),
        Some("findings") => Ok(WidgetView::Findings),
        Some("audit") => Ok(WidgetView::Audit),
        Some("explain") => Ok(WidgetView::Explain),
        _ => Err(format!(
            "view: must be overview, scores, history, findings, audit or explain, not {}.",
            quote(view)
        )),
    }
}

/// Parses an integration's id. An empty choice in the form is `None`.
fn parse_integration(value: Option<&Value>) -> Result<Option<IntegrationId>, String> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(value) => match value.as_str().map(|text| text.to_owned().try_into()) {
            Some(Ok(id)) => Ok(Some(id)),
            _ => Err(format!(
                "integration: must be a name of lower-case letters, digits and hyphens, not {}.",
                quote(value)
            )),
        },
    }
}

/// Parses a score from a number, or from a text, as forms and YAML send it.
fn parse_min_score(value: Option<&Value>) -> Result<Option<Score>, String> {
    let number = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text.trim().parse().ok(),
        Some(value) => value.as_i64(),
    };
    let score = number.and_then(Score::new).map(Some);
    score.ok_or_else(|| "minScore: must be an integer from 0 to 100.".to_owned())
}

fn parse_device(value: Option<&Value>) -> Result<String, String> {
    let device = value.and_then(Value::as_str).unwrap_or_default();
    if device.len() > DEVICE_BYTES {
        return Err(format!(
            "The device's name must have at most {DEVICE_BYTES} characters."
        ));
    }
    Ok(device.to_owned())
}

/// Returns the minutes east of UTC. `offsetISO` is preferred, because the sign of `offsetInMinutes` is not documented.
fn parse_offset(timezone: &Value) -> i32 {
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
    let plain = || timezone["offsetInMinutes"].as_i64()?.try_into().ok();
    // Time zones range from UTC-12 to UTC+14.
    iso.or_else(plain)
        .filter(|minutes| (-720..=840).contains(minutes))
        .unwrap_or(0)
}

fn quote(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{:?}", sanitize(text, MAX_QUOTED_CHARS)),
        other => sanitize(&other.to_string(), MAX_QUOTED_CHARS),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_are_shown_in_the_dashboards_zone() {
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
            assert_eq!(parse_offset(&timezone), expect, "{timezone}");
        }
    }
}
