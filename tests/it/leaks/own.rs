//! Secrets must not leak from commands, invalid secrets, payloads that contain secrets, or failures of AWS services.

use aws_simulators::lambda::NoAnswer;
use serde_json::{Value, json};

use super::canaries::{API_KEY, Evidence, FALCON_SECRET, OAUTH_SECRET};
use super::echo::{Route, Shape};
use super::instance::{Instance, LONG, Level, connect, falcon_secret, force, oauth_secret};
use crate::contract::{files, text};
use crate::environment::TestEnvironment;
use crate::process::Process;

/// Every command, of an integration that works.
pub(super) async fn commands(level: Level) -> Evidence {
    let mut instance = Instance::start(level, false).await;
    for (name, secret) in [("falcon", falcon_secret()), ("tailscale", oauth_secret())] {
        let name = format!("falcon-posture-sync/corp/{name}");
        instance.env.services.put_secret(&name, secret);
    }
    let payloads = payloads();
    let is = |payload: &Value, command: &str| payload["command"] == command;
    let connect = payloads
        .iter()
        .find(|payload| is(payload, "connect"))
        .unwrap();
    for payload in &payloads {
        let said = instance.ask(payload.clone()).await;
        if is(payload, "connect") {
            assert_eq!(said.unwrap_err()["errorType"], "IntegrationExists");
        } else {
            assert!(said.is_ok(), "{payload}: {said:#?}");
        }
        if is(payload, "remove") {
            instance.ask(connect.clone()).await.unwrap();
            let key = json!({"tailscaleSecret": "corp/key"});
            instance.ask(update(&key)).await.unwrap();
            instance.calm().await;
        }
    }
    instance.end().await
}

fn update(changes: &Value) -> Value {
    json!({"command": "update", "integration": "corp", "changes": changes})
}

/// Another integration, which writes another attribute.
fn connect_labs(settings: &Value) -> Value {
    let mut labs = connect(json!({"id": "labs", "attributeKey": "custom:labs"}));
    let others = settings.as_object().unwrap().clone();
    labs["integration"].as_object_mut().unwrap().extend(others);
    labs
}

/// All payload files, those that remove last.
fn payloads() -> Vec<Value> {
    let mut payloads: Vec<Value> = files("events", "json")
        .iter()
        .map(|file| serde_json::from_str(&text(file)).unwrap())
        .collect();
    payloads.sort_by_key(|payload: &Value| (payload["command"] == "remove", payload.to_string()));
    payloads
}

/// Commands while secrets are missing or malformed.
pub(super) async fn secrets(level: Level) -> Evidence {
    let mut instance = Instance::start(level, false).await;
    instance.calm().await;
    let sound = [
        ("corp/falcon", falcon_secret()),
        ("corp/tailscale", oauth_secret()),
    ];
    for (name, good) in sound {
        for text in malformed() {
            instance.env.services.put_secret(name, json!(text));
            let answer = instance.ask(force()).await.unwrap();
            assert_eq!(answer["outcome"], "paused", "{name} {text:?}: {answer:#}");
            instance.note_status().await;
            for command in ["check", "status", "audit"] {
                let payload = json!({"command": command, "integration": "corp"});
                instance.ask(payload).await.unwrap();
            }
            let payload = json!({"command": "explain", "integration": "corp", "device": "nowhere"});
            instance.ask(payload).await.unwrap();
            let error = instance.ask(connect_labs(&json!({}))).await.unwrap_err();
            assert_eq!(
                error["errorType"], "CheckFailed",
                "{name} {text:?}: {error:#}"
            );
            // Accepted or rejected does not matter here.
            let _ = instance
                .ask(update(&json!({"falconSecret": "corp/absent"})))
                .await;
            let _ = instance
                .ask(update(&json!({"falconSecret": "corp/falcon"})))
                .await;
        }
        instance.env.services.put_secret(name, good);
        instance.calm().await;
    }
    let absent = connect_labs(&json!({"falconSecret": "corp/absent"}));
    assert_eq!(
        instance.ask(absent).await.unwrap_err()["errorType"],
        "CheckFailed"
    );
    instance.end().await
}

fn malformed() -> Vec<String> {
    let id = "0".repeat(32);
    vec![
        FALCON_SECRET.to_owned(),
        OAUTH_SECRET.to_owned(),
        String::new(),
        format!("\"{FALCON_SECRET}\""),
        format!("[\"{FALCON_SECRET}\"]"),
        format!("{{\"clientSecret\":\"{FALCON_SECRET}\"}}"),
        format!("{{\"clientId\":\"{FALCON_SECRET}\"}}"),
        format!("{{\"clientId\":\"{id}\",\"clientSecret\":[\"{FALCON_SECRET}\"]}}"),
        format!("{{\"clientId\":{{\"{FALCON_SECRET}\":1}},\"clientSecret\":\"{FALCON_SECRET}\"}}"),
        format!("{{\"clientId\":\"{id}\",\"clientSecret\":\"{FALCON_SECRET}"),
        format!("{{\"clientId\":\"{id}\",\"clientSecret\":\"{FALCON_SECRET}\"}} {OAUTH_SECRET}"),
        format!("{{\"clientId\":\"{id}\",\"clientSecret\":\"{FALCON_SECRET}-an-old-one\"}}"),
        format!("{{\"{FALCON_SECRET}\":\"{OAUTH_SECRET}\"}}"),
        format!("{{\"apiKey\":\"{API_KEY}\\n-and-more\"}}"),
        format!("{{\"apiKey\":\"{API_KEY}-an-old-one\"}}"),
        format!("{{\"apiKey\":{{\"key\":\"{API_KEY}\"}}}}"),
        format!("\u{0}\u{1}{FALCON_SECRET}\u{7f}\u{fffd}"),
        format!("clientId={id}\nclientSecret={FALCON_SECRET}\n"),
    ]
}

/// Secrets pasted into payloads.
pub(super) async fn pasted(level: Level) -> Evidence {
    let mut instance = Instance::start(level, false).await;
    let both = json!({"clientId": "0".repeat(32), "clientSecret": FALCON_SECRET});
    let mut beside = connect(json!({"id": "labs"}));
    beside["apiKey"] = json!(API_KEY);
    for payload in [
        connect(json!({"clientSecret": FALCON_SECRET})),
        connect(json!({"falcon": both})),
        connect(json!({"falconSecret": both})),
        connect(json!({"falconSecret": both.to_string()})),
        connect(json!({"falconSecret": FALCON_SECRET})),
        connect(json!({"tailscaleSecret": OAUTH_SECRET})),
        connect(json!({"tailscaleSecret": API_KEY})),
        connect(json!({"tailscaleSecret": [API_KEY]})),
        beside,
        update(&json!({"clientSecret": FALCON_SECRET})),
        update(&json!({"falconSecret": both})),
        update(&json!({"falconSecret": both.to_string()})),
        update(&json!({"tailscaleSecret": OAUTH_SECRET})),
        json!({"command": "sync", "integration": "corp", "apiKey": API_KEY}),
        json!({"command": "check", "integration": "corp", "secret": both}),
        both.clone(),
        json!(API_KEY),
        json!([both]),
    ] {
        let error = instance.ask(payload.clone()).await.unwrap_err();
        assert_eq!(error["errorType"], "BadInput", "{payload}: {error:#}");
    }
    instance.end().await
}

/// URLs of the deployment that contain a secret: the function rejects them at start.
pub(super) async fn environment(level: Level) -> Evidence {
    let env = TestEnvironment::empty().await;
    let mut evidence = Evidence::default();
    for (variable, value) in [
        (
            "TAILSCALE_API_URL",
            format!("https://api:{API_KEY}@api.example.com"),
        ),
        (
            "TAILSCALE_API_URL",
            format!("https://api.example.com/?key={API_KEY}"),
        ),
        (
            "FALCON_CLOUDS_EXTRA",
            format!("lab=https://lab:{FALCON_SECRET}@example.com"),
        ),
    ] {
        let mut variables = level.variables().to_vec();
        variables.push((variable, value));
        let process = Process::start(&env, &variables).await;
        let said = process
            .invoke("run", &json!({"command": "status"}), LONG)
            .await;
        assert_eq!(said, Err(NoAnswer::Died));
        let printed = process.end();
        assert!(printed.contains(variable), "{printed}");
        evidence.add("the log", printed);
    }
    evidence
}

/// Calls of AWS services, each with a payload that causes it.
fn calls() -> Vec<(&'static str, Value)> {
    let corp = |command: &str| json!({"command": command, "integration": "corp"});
    vec![
        ("DescribeSecret", force()),
        ("GetSecretValue", force()),
        ("UpdateItem", force()),
        ("Query", force()),
        ("TransactWriteItems", force()),
        (
            "GetItem",
            json!({"command": "sync", "integration": "corp", "dryRun": true}),
        ),
        ("GetItem", corp("status")),
        ("Scan", json!({"command": "sync"})),
        ("Query", corp("audit")),
        ("PutEvents", update(&json!({}))),
    ]
}

const SHAPES: [Shape; 7] = [
    Shape::Error(400, "AccessDeniedException"),
    Shape::Error(400, "ResourceNotFoundException"),
    Shape::Error(400, "InvalidSignatureException"),
    Shape::Error(500, "InternalServerError"),
    Shape::Text(503),
    Shape::WrongJson,
    Shape::BrokenJson,
];

/// True if the answer reports the failure.
fn is_noticed(operation: &str, shape: Shape, said: &Result<Value, Value>) -> bool {
    let Ok(answer) = said else {
        return true;
    };
    let refused = shape == SHAPES[0] || shape == SHAPES[1];
    match operation {
        "PutEvents" => answer["sync"]
            .as_str()
            .unwrap()
            .starts_with("not requested"),
        // A secret of unknown version is fetched again; and the response to a transaction contains nothing.
        "DescribeSecret" if refused => answer["outcome"] == "unchanged",
        "TransactWriteItems" if shape == Shape::WrongJson => answer["outcome"] == "synced",
        _ => answer["outcome"] == "failed" || answer["outcome"] == "paused",
    }
}

/// AWS services reject calls and repeat the request. Runs the cases of one share.
pub(super) async fn refused(level: Level, share: usize, of: usize) -> Evidence {
    let mut instance = Instance::start(level, true).await;
    instance.calm().await;
    let all = calls()
        .into_iter()
        .flat_map(|call| SHAPES.map(|shape| (call.clone(), shape)));
    for (n, ((operation, mut payload), shape)) in all.enumerate().skip(share).step_by(of) {
        let mut stirred = None;
        match operation {
            "TransactWriteItems" => {
                instance.calm().await;
                stirred = Some(instance.stir().await);
            }
            // A newer version than the cached one.
            "GetSecretValue" => instance
                .env
                .services
                .put_secret("corp/falcon", falcon_secret()),
            // A new value: an update that changes nothing sends no event.
            "PutEvents" => payload["changes"]["maxHostAgeDays"] = json!(n + 1),
            _ => {}
        }
        let route = Route {
            method: operation,
            path: "",
            after: 0,
        };
        instance.echo.arm(route, shape);
        let said = instance.ask(payload).await;
        let met = instance.echo.disarm();
        assert!(met > 0, "{operation} was never called: {said:#?}");
        assert!(
            is_noticed(operation, shape, &said),
            "{operation} {shape:?}: {said:#?}"
        );
        if let Some(stirred) = stirred {
            instance.restore(stirred);
        }
    }
    instance.end().await
}
