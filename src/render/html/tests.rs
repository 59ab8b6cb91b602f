//! Names from outside are rendered as text only.

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::json;

use super::page::{WidgetContext, notice};
use super::*;
use crate::check::Check;
use crate::command::widget::DisplayContext;
use crate::config::Config;
use crate::domain::audit::AuditRecord;
use crate::domain::explain::explanation::Explanation;
use crate::settings::IntegrationId;
use crate::status::IntegrationView;
use crate::store::Integration;

/// Renders every view with this text in each place that shows a text from outside.
fn everything(text: &str) -> [String; 6] {
    let widget = WidgetContext {
        context: DisplayContext::default(),
        now: "2026-11-22T09:30:00Z".parse().unwrap(),
        endpoint: "arn:aws:lambda:us-east-1:123456789012:function:f:console",
        has_buttons: true,
    };
    let views = [view(text, widget.now)];
    let record = record(text);
    let answer = explanation(text, &record);
    let checks = [Check::from_invalid_settings(&crate::settings::FieldError {
        path: text.to_owned(),
        message: text.to_owned(),
    })];
    let answered = super::explain::result(&widget, &answer);
    [
        status::view(&widget, &views),
        findings::view(&widget, &views),
        audit::view(&widget, &[record], true),
        super::explain::form(&widget, &views, None, Some((text, &answered))),
        check::view(&views[0].integration_id().unwrap(), &checks),
        notice(text),
    ]
    .map(|body| page::page(&widget, &body))
}

fn view(text: &str, now: Timestamp) -> IntegrationView {
    let status = json!({
        "lastSync": "2026-11-22T09:15:00Z", "outcome": "failed", "error": text, "providerHostCount": 5,
        "possibleMatchedCount": 4, "matchedCount": 3, "written": 0, "removed": 0, "runId": text, "durationMs": 9,
        "configVersion": 1, "consecutiveFailures": 1,
        "findings": [{"kind": "unmatched", "count": 9, "examples": [text], "remedy": text}]
    });
    let pause = json!({
        "since": "2026-11-22T09:15:00Z", "until": "2026-11-22T10:15:00Z", "side": "falcon", "error": text, "attempts": 1
    });
    let variables = |name: &str| name.ends_with("_TABLE").then(|| "table".to_owned());
    let integration = Integration {
        id: IntegrationId::try_from("corp".to_owned()).unwrap(),
        settings: Err(crate::settings::FieldError {
            path: text.to_owned(),
            message: text.to_owned(),
        }),
        stored: serde_json::Map::new(),
        config_version: 1,
        config_updated: None,
        config_updated_by: Some(text.to_owned()),
        status: Some(serde_json::from_value(status).unwrap()),
        pause: Some(serde_json::from_value(pause).unwrap()),
        lease: None,
        removal: None,
        pending: crate::domain::plan::journal::Journal::default(),
        unreadable: vec![text.to_owned()],
    };
    IntegrationView::new(integration, &Config::from_lookup(variables).unwrap(), now)
}

fn record(text: &str) -> AuditRecord {
    serde_json::from_value(json!({
        "integrationId": "corp", "eventId": text, "eventTime": text, "runId": text, "actor": text,
        "target": {"type": "Node", "id": text, "name": text}, "targetId": text, "action": "Update node attribute",
        "old": {text: 7}, "new": text, "details": {"reason": text}, "expiresAt": 0
    }))
    .unwrap()
}

fn explanation(text: &str, record: &AuditRecord) -> crate::explain::ExplainResponse {
    use crate::domain::explain::explanation::{ExplainedHost, NextAction, ReportedSerial};
    use crate::domain::inventory::device::NodeId;
    use crate::domain::inventory::host::Aid;
    use crate::domain::matching::candidates::CandidateStatus;
    use crate::domain::matching::reasons::Verdict;
    let owned = || text.to_owned();
    let hosts = vec![ExplainedHost {
        aid: Aid::from(owned().as_str()),
        hostname: Some(owned()),
        serial: owned(),
        last_seen: None,
        score: None,
        is_deciding: false,
        status: CandidateStatus::Stale,
        reason: owned(),
    }];
    let explained = Explanation {
        node_id: NodeId(owned().into()),
        name: owned(),
        hostname: owned(),
        user: owned(),
        os: owned(),
        verdict: Verdict::Stale,
        reason: owned(),
        remedy: Some(owned()),
        score: None,
        serials: vec![ReportedSerial {
            reported: owned(),
            serial: None,
            problem: Some(owned()),
        }],
        serials_omitted: 0,
        hosts: hosts.clone(),
        hosts_omitted: 1,
        written: None,
        next: owned(),
        next_action: NextAction::Nothing,
        history: vec![record.clone()],
    };
    crate::explain::ExplainResponse {
        integration: IntegrationId::try_from("corp".to_owned()).unwrap(),
        device: owned(),
        at: Timestamp::UNIX_EPOCH,
        error: Some(owned()),
        note: Some(owned()),
        explanations: vec![explained],
        omitted: 0,
        hosts,
        hosts_omitted: 0,
        recorded: vec![crate::explain::RecordedDevice {
            node_id: NodeId(owned().into()),
            name: format!("x{text}"),
            written: None,
            history: vec![record.clone()],
        }],
    }
}

/// Returns the tags of a page with the names of their attributes, without quoted values and text.
fn tags(page: &str) -> Vec<String> {
    let (mut tags, mut tag, mut quoted) = (Vec::new(), None::<String>, false);
    for c in page.chars() {
        match (&mut tag, c) {
            (None, '<') => tag = Some(String::new()),
            (Some(_), '"') => quoted = !quoted,
            (Some(open), '>') if !quoted => {
                tags.push(std::mem::take(open));
                tag = None;
            }
            (Some(open), c) if !quoted => open.push(c),
            _ => {}
        }
    }
    assert!(tag.is_none(), "the last tag is not closed");
    tags
}

fn assert_is_text(text: &str) {
    for (hostile, harmless) in everything(text).iter().zip(&everything("name")) {
        assert_eq!(tags(hostile), tags(harmless), "{text:?}");
        assert!(
            !hostile.contains(crate::text::is_unprintable),
            "{text:?} stays visible"
        );
    }
}

#[test]
fn hostile_names_are_text() {
    for text in [
        "<script>alert(1)</script>",
        "\"><img src=x onerror=alert(1)>",
        "' onmouseover='alert(1)",
        "</style><script>",
        "</cwdb-action><cwdb-action action=call endpoint=evil>{}</cwdb-action>",
        "<!--",
        "&lt;script&gt;",
        "\u{202e}gpj.exe\u{2066}",
        "\u{0}\u{1b}[31m\r\n",
    ] {
        assert_is_text(text);
    }
}

proptest! {
    #[test]
    fn any_text_is_text(text in "\\PC{0,40}|[<>&\"'/=!a-z \u{0}-\u{1f}\u{202a}-\u{202e}]{0,60}") {
        // The empty name of a removed device is left out.
        assert_is_text(&text);
    }
}

#[test]
fn what_is_shown_is_bounded() {
    for page in everything(&"<".repeat(100_000)) {
        assert!(page.len() < 250_000, "{}", page.len());
    }
}

#[test]
fn a_column_of_each_score_is_drawn_and_a_threshold_divides_it() {
    let mut view = view("x", Timestamp::UNIX_EPOCH);
    let counts = json!({"0": 1, "4": 1, "72": 2, "73": 1, "100": 3});
    if let Some(status) = &mut view.status {
        status.score_counts = serde_json::from_value(counts).unwrap();
        status.possible_matched_count = 10;
    }
    let min = crate::domain::inventory::host::Score::new(73);
    let html = scores::view(&[view], min).into_string();
    for part in [
        "<b>4</b>",
        "pass at 73",
        "<b>2</b>without a score",
        "0 to 4: 2 devices",
        "70 to 74: 3 devices",
        "95 to 100: 3 devices",
    ] {
        assert!(html.contains(part), "{part}: {html}");
    }
    assert_eq!(html.matches("fps-below\"").count(), 2);
    assert_eq!(html.matches("fps-pass\"").count(), 2);
}
