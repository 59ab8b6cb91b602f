//! The dashboard's widgets, through the handler, and the pages that `make console` opens in a browser.

mod pages;

use lambda_runtime::Diagnostic;
use posture_simulators::{Account, GeneratorSpec, Side};
use serde_json::{Value, json};

use crate::environment::{TestEnvironment, falcon_secret};
use crate::second_integration::Integration;

const ARN: &str = "arn:aws:lambda:us-east-1:123456789012:function:falcon-posture-sync";

/// Returns the payload that a dashboard sends for a widget with these parameters.
fn widget(parameters: Value) -> Value {
    let mut payload = parameters;
    payload["widgetContext"] = json!({
        "theme": "light", "timezone": {"label": "UTC", "offsetISO": "+00:00", "offsetInMinutes": 0},
        "forms": {"all": {}}, "width": 588, "height": 369
    });
    payload
}

async fn shown(env: &TestEnvironment, parameters: Value) -> String {
    let answer = env.ask(widget(parameters)).await;
    answer.as_str().unwrap().to_owned()
}

pub(crate) async fn view(env: &TestEnvironment, view: &str) -> String {
    shown(env, json!({"view": view})).await
}

fn assert_says(html: &str, parts: &[&str]) {
    for part in parts {
        assert!(html.contains(part), "{part:?} is not in {html}");
    }
}

fn with_buttons(mut env: TestEnvironment) -> TestEnvironment {
    env.app.config.console_buttons = true;
    env
}

#[tokio::test]
async fn a_healthy_integration_is_shown_from_all_sides() {
    let env = TestEnvironment::synced().await;
    env.requests();
    assert_says(
        &view(&env, "overview").await,
        &[
            "</svg>ok</span>",
            ">corp<",
            "40 of 40",
            "60 Falcon hosts",
            "synced",
        ],
    );
    assert_says(
        &shown(&env, json!({"view": "scores", "minScore": 70})).await,
        &["pass at 70", "threshold 70", "<svg role=\"img\""],
    );
    assert_says(
        &view(&env, "history").await,
        &["40 written", "the last 24 hours"],
    );
    assert_says(&view(&env, "audit").await, &["falcon-posture-sync", "none"]);
    assert_says(&view(&env, "findings").await, &["have no findings"]);
    assert_says(&view(&env, "explain").await, &["name=\"device\"", ARN]);
    assert!(env.requests().is_empty(), "nobody is asked for a view");
}

#[tokio::test]
async fn scores_that_pass_are_counted() {
    let env = TestEnvironment::synced().await;
    let html = shown(&env, json!({"view": "scores", "minScore": "50"})).await;
    let pass = env.scores().values().filter(|score| **score >= 50).count();
    assert_says(
        &html,
        &[
            &format!("<b>{pass}</b>"),
            &format!("<b>{}</b>", 40 - pass),
            "<b>0</b>without a score",
        ],
    );
}

#[tokio::test]
async fn nothing_is_connected() {
    let env = TestEnvironment::empty().await;
    for (name, part) in [
        ("overview", "make connect"),
        ("scores", "No device has a score"),
        ("history", "Nothing was synced"),
        ("findings", "Nothing was synced"),
        ("audit", "No change is recorded"),
        ("explain", "name=\"device\""),
    ] {
        assert_says(&view(&env, name).await, &[part]);
    }
}

#[tokio::test]
async fn a_pause_and_its_reason_are_shown() {
    let env = TestEnvironment::synced().await;
    lock_out(&env);
    env.sync().await;
    assert_says(
        &view(&env, "overview").await,
        &["</svg>paused</span>", "Paused until", "Falcon", "1 refusal"],
    );
}

#[tokio::test]
async fn one_integration_can_be_chosen() {
    let env = TestEnvironment::synced().await;
    let spec = GeneratorSpec::plain(10, 5);
    Integration::connect(&env, Account::new("labs"), &spec).await;
    let all = view(&env, "overview").await;
    assert_says(&all, &["2 integrations", ">corp<", ">labs<", "1 new"]);
    let labs = shown(&env, json!({"view": "overview", "integration": "labs"})).await;
    assert!(labs.contains("labs") && !labs.contains("corp"), "{labs}");
    let audit = shown(&env, json!({"view": "audit", "integration": "labs"})).await;
    assert!(
        audit.contains("connected") && !audit.contains("corp"),
        "{audit}"
    );
}

#[tokio::test]
async fn what_is_not_understood_is_told_where_the_widget_would_be() {
    let env = TestEnvironment::empty().await;
    for (parameters, part) in [
        (
            json!({"view": "<b>"}),
            "view: must be overview, scores, history, findings, audit or explain, not &quot;&lt;b&gt;&quot;",
        ),
        (json!({"view": 7}), "audit or explain, not 7"),
        (
            json!({"integration": "A B"}),
            "integration: must be a name of lower-case letters",
        ),
        (json!({"integration": "corp"}), "There is no integration"),
        (json!({"view": "scores", "minScore": 101}), "from 0 to 100"),
        (json!({"action": "burn"}), "no such button"),
        (json!({"action": "sync"}), "has no integration"),
    ] {
        let html = shown(&env, parameters).await;
        assert_says(&html, &["fps-note", part]);
        assert!(!html.contains("<b>"), "{html}");
    }
}

#[tokio::test]
async fn a_widget_describes_itself() {
    let env = TestEnvironment::empty().await;
    for payload in [json!({"describe": true}), widget(json!({"describe": true}))] {
        let answer = env.ask(payload).await;
        assert_says(
            answer.as_str().unwrap(),
            &["## Falcon posture sync", "minScore"],
        );
    }
}

#[tokio::test]
async fn buttons_are_neither_shown_nor_served_unless_allowed() {
    let env = TestEnvironment::synced().await;
    assert!(!view(&env, "overview").await.contains("<button"));
    env.requests();
    for action in ["sync", "check"] {
        let html = shown(&env, json!({"action": action, "integration": "corp"})).await;
        assert_says(&html, &["Buttons are disabled"]);
    }
    assert!(env.requests().is_empty());
    assert!(requested(&env).is_empty());
}

/// Returns the reasons of the syncs of `corp` that were requested.
fn requested(env: &TestEnvironment) -> Vec<String> {
    let held = env.services.state();
    let events = &held.events;
    let requests = events
        .iter()
        .filter(|event| event["detail-type"] == "Posture Sync Requested");
    requests
        .map(|event| {
            assert_eq!(event["detail"]["integration"], "corp");
            event["detail"]["reason"].as_str().unwrap().to_owned()
        })
        .collect()
}

#[tokio::test]
async fn a_button_asks_for_a_sync() {
    let env = with_buttons(TestEnvironment::synced().await);
    assert_says(
        &view(&env, "overview").await,
        &[
            "confirmation=\"Sync corp now?\"",
            "{&quot;action&quot;:&quot;sync&quot;,&quot;integration&quot;:&quot;corp&quot;}</cwdb-action>",
            &format!("endpoint=\"{ARN}\""),
        ],
    );
    env.requests();
    let button = json!({"action": "sync", "integration": "corp"});
    assert_says(&shown(&env, button.clone()).await, &["Requested a sync of"]);
    assert_eq!(requested(&env), ["console"]);
    assert!(env.requests().is_empty(), "the run is another invocation");
    env.update(json!({"enabled": false})).await;
    assert_says(&shown(&env, button).await, &["corp is disabled"]);
    assert_eq!(requested(&env), ["console"]);
}

#[tokio::test]
async fn a_button_checks() {
    let env = with_buttons(TestEnvironment::synced().await);
    let button = json!({"action": "check", "integration": "corp"});
    assert_says(
        &shown(&env, button.clone()).await,
        &["corp can work", "passed"],
    );
    lock_out(&env);
    assert_says(
        &shown(&env, button).await,
        &["corp cannot work", "Falcon token", "failed"],
    );
}

#[tokio::test]
async fn the_consoles_alias_serves_widgets_only() {
    let mut env = TestEnvironment::synced().await;
    env.alias = Some("console".to_owned());
    let before = env.items("integrations").await;
    for payload in [
        json!({"command": "sync"}),
        json!({"command": "remove", "integration": "corp"}),
        json!({"command": "status"}),
        json!({"command": "explain", "integration": "corp", "device": "x"}),
        json!({"command": "remove", "integration": "corp", "describe": true}),
        json!({"source": "falcon-posture-sync", "detail-type": "Posture Sync Requested", "detail": {"integration": "corp"}}),
        json!({"x": 1}),
        json!(null),
    ] {
        let error = env.try_ask(payload.clone()).await.unwrap_err();
        assert_eq!(
            Diagnostic::from(error).error_type,
            "NotAllowed",
            "{payload}"
        );
    }
    // No other field of the payload turns the request of a widget into a command.
    let html = shown(&env, json!({"command": "remove", "integration": "corp"})).await;
    assert_says(&html, &["</svg>ok</span>"]);
    assert_eq!(env.items("integrations").await, before);
}

/// Stores a new Falcon secret that Falcon rejects.
fn lock_out(env: &TestEnvironment) {
    let mut secret = falcon_secret("corp");
    secret["clientSecret"] = "not-it".into();
    env.services.put_secret("corp/falcon", secret);
}

/// Returns the payload that a dashboard sends for the form with these inputs.
async fn explain(env: &TestEnvironment, inputs: Value) -> String {
    let mut payload = widget(json!({"view": "explain", "action": "explain"}));
    payload["widgetContext"]["forms"]["all"] = inputs;
    env.ask(payload).await.as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_device_is_explained() {
    let env = TestEnvironment::synced().await;
    let (node, score) = env.scores().pop_first().unwrap();
    let html = explain(&env, json!({"integration": "", "device": node})).await;
    assert_says(
        &html,
        &[
            &format!("score {score}</span>"),
            &format!("value=\"{node}\""),
            "Because",
            "Counts:",
        ],
    );
    for (inputs, part) in [
        (json!({}), "Enter a device"),
        (json!({"device": " "}), "Enter a device"),
        (
            json!({"device": "<nobody>"}),
            "No device, host or record matches",
        ),
        (
            json!({"device": "x", "integration": "labs"}),
            "no integration",
        ),
        (json!({"device": "x".repeat(256)}), "255 characters"),
    ] {
        assert_says(&explain(&env, inputs).await, &[part]);
    }
    env.sims.requests().clear();
    view(&env, "explain").await;
    assert_eq!(env.sims.requests().of(Side::Falcon).len(), 0);
}
