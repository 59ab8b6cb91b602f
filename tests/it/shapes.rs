//! Snapshots of everything that leaves the process: answers, items, events, metric lines, log lines. Users and tools rely
//! on these names, so a changed snapshot is a change of the contract.

use std::collections::BTreeSet;
use std::time::Duration;

use posture_simulators::{Fault, FaultKind, GeneratorSpec, Matcher, Side};
use serde_json::{Map, Value, json};

use crate::environment::TestEnvironment;
use crate::preview::set_policy;
use crate::process::Process;

/// A small company with one of every trap, synced twice; between the syncs one score fell.
async fn environment() -> TestEnvironment {
    let env = TestEnvironment::connected(&GeneratorSpec {
        seed: 3,
        hosts: 40,
        devices: 24,
        duplicate_serial: 0.2,
        placeholder_serial: 0.1,
        unassessed: 0.1,
        no_identity: 0.1,
        external: 0.1,
        ..GeneratorSpec::default()
    })
    .await;
    env.sync().await;
    env.lower_a_score().await;
    env.sync().await;
    env
}

/// Replaces measured times, and sentences, which `messages.rs` lists: their wording is not part of the contract.
fn pinned(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| match name.as_str() {
                "durationMs" | "DurationMs" => (name, json!("<measured>")),
                "action" | "detail-type" => (name, value),
                _ => (name, pinned(value)),
            })
            .collect(),
        Value::Array(items) => items.into_iter().map(pinned).collect(),
        Value::String(text) if text.split(' ').count() > 2 => json!("<sentence>"),
        other => other,
    }
}

/// Replaces each value by its type: the log of a real process has other values each time.
fn kinds(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| (name.clone(), kinds(value)))
            .collect(),
        Value::Array(items) => items.first().map(kinds).into_iter().collect(),
        Value::String(_) => json!("text"),
        Value::Number(_) => json!("number"),
        Value::Bool(_) => json!("boolean"),
        Value::Null => Value::Null,
    }
}

fn command(name: &str, fields: Value) -> Value {
    let mut payload = json!({"command": name, "integration": "corp"});
    let Value::Object(fields) = fields else {
        panic!("fields are an object");
    };
    payload.as_object_mut().unwrap().extend(fields);
    payload
}

/// Returns one device of each finding that names devices, and one with a score.
async fn devices(env: &TestEnvironment, answer: &Value) -> BTreeSet<String> {
    let mut devices = BTreeSet::new();
    for finding in answer["findings"].as_array().unwrap() {
        let example = finding["examples"][0].as_str().unwrap();
        if example.ends_with(".ts.net") {
            devices.insert(example.to_owned());
        }
    }
    let records = env.items("nodes").await;
    devices.insert(records[3]["nodeId"].as_str().unwrap().to_owned());
    devices
}

#[tokio::test]
async fn answers() {
    let env = environment().await;
    let synced = env.force().await;
    let mut answers = Map::new();
    let mut explained = Vec::new();
    for device in devices(&env, &synced).await {
        explained.push(env.ask(command("explain", json!({"device": device}))).await);
    }
    answers.insert("explain".to_owned(), json!(explained));
    answers.insert("sync".to_owned(), synced);
    for (name, payload) in [
        ("check", command("check", json!({}))),
        ("status", command("status", json!({}))),
        ("status of all", json!({"command": "status"})),
        ("preview", command("preview", json!({"minScore": 70}))),
        ("audit", command("audit", json!({"limit": 2}))),
        (
            "audit, exported",
            command("audit", json!({"limit": 2, "format": "tailscale"})),
        ),
    ] {
        answers.insert(name.to_owned(), env.ask(payload).await);
    }
    // Nothing but the new score is to be written: as a plan, and then as what became of it.
    env.lower_a_score().await;
    env.app.clock.advance(Duration::from_mins(15));
    let dry = command("sync", json!({"dryRun": true}));
    answers.insert("sync, dry".to_owned(), env.ask(dry).await);
    let changes = json!({"maxHostAgeDays": 60});
    answers.insert("update".to_owned(), env.update(changes).await);
    answers.insert(
        "remove".to_owned(),
        env.ask(command("remove", json!({"actor": "amelie"}))).await,
    );
    answers.insert(
        "connect".to_owned(),
        env.connect(json!({"maxHostAgeDays": 60})).await,
    );
    insta::assert_json_snapshot!(pinned(answers.into()));
}

#[tokio::test]
async fn a_policy_that_is_previewed() {
    let env = environment().await;
    let policy = json!({"postures": {
        "posture:trusted": ["custom:ztaScore >= 70"], "posture:other": ["node:os IN ['macos']", "custom:ztaScore > 20"]
    }});
    set_policy(&env, &policy.to_string());
    let answer = env.ask(command("preview", json!({"policy": true}))).await;
    insta::assert_json_snapshot!(pinned(answer));
}

/// Covers the item of an integration in each state, the record of a node, and audit records of each kind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn items() {
    let env = environment().await;
    let mut items = Map::new();
    let mut keep = |name: &str, item: Value| items.insert(name.to_owned(), pinned(item));
    keep("integration, synced", env.corp().await);
    let records = env.items("nodes").await;
    keep("node record", records[3].clone());
    let changed = &records[3]["nodeId"];
    let audit = env.node_audit().await;
    let of_node = audit
        .into_iter()
        .filter(|record| record["target"]["id"] == *changed);
    keep("audit records of a node", of_node.collect());

    // More than half of the devices would lose their scores.
    for record in &records[..records.len() * 2 / 3] {
        let aid = record["aid"].as_str().unwrap();
        env.sims.falcon().remove_score("corp", aid).unwrap();
    }
    assert_eq!(env.sync().await["outcome"], "held");
    keep("integration, held", env.corp().await);

    // Tailscale accepts a score, and the transaction that records it is refused.
    let aid = records.last().unwrap()["aid"].as_str().unwrap();
    env.sims.falcon().set_score("corp", aid, 5).unwrap();
    let taken = env.take_record(records.last().unwrap()["nodeId"].as_str().unwrap());
    let patch = Matcher::side(Side::Tailscale).path("/api/v2/tailnet/-/device-attributes");
    env.during(patch, taken);
    env.try_ask(json!({"command": "sync"})).await.unwrap_err();
    let mut with_journal = env.corp().await;
    let journal = with_journal["pending"].as_object_mut().unwrap();
    // Each acquisition of the lease has another term.
    *journal = std::mem::take(journal)
        .into_iter()
        .map(|(key, entry)| (format!("<term>{}", &key[16..]), entry))
        .collect();
    keep("integration, with a journal", with_journal);
    env.outlive_writes().await;

    // The credential is refused: a pause.
    env.services.put_secret(
        "corp/falcon",
        json!({"clientId": "x", "clientSecret": "wrong"}),
    );
    env.force().await;
    keep("integration, paused", env.corp().await);

    // It is removed, and its attributes cannot be deleted yet.
    let down = Fault::new(Matcher::side(Side::Tailscale), FaultKind::Reset).always();
    env.sims.faults().add(down);
    env.update(json!({"maxHostAgeDays": 60})).await;
    let answer = env.ask(command("remove", json!({"actor": "amelie"}))).await;
    assert_eq!(answer["removed"], false, "{answer:#}");
    keep("integration, being removed", env.corp().await);
    let mut audit = env.items("audit").await;
    audit.retain(|record| record["target"]["type"] != "Node");
    keep("audit records of the integration", json!(audit));
    insta::assert_json_snapshot!(items);
}

#[tokio::test]
async fn events_and_metric_lines() {
    let env = environment().await;
    env.update(json!({"maxHostAgeDays": 90})).await;
    env.services.state().events.clear();
    env.app.metrics.drain();
    env.update(json!({"maxHostAgeDays": 60})).await;
    let labs = json!({"id": "labs", "attributeKey": "custom:labs"});
    env.connect(labs).await;
    env.sync().await;
    env.ask(command("sync", json!({"integration": "corp"})))
        .await;
    env.services.put_secret(
        "corp/falcon",
        json!({"clientId": "x", "clientSecret": "wrong"}),
    );
    env.force().await;
    let events = pinned(json!(env.services.state().events));
    let metrics = pinned(json!(env.app.metrics.drain()));
    insta::assert_json_snapshot!(json!({"events": events, "metrics": metrics}));
}

/// Covers the log lines of a run that retries a call, and of a run that fails.
#[tokio::test(flavor = "multi_thread")]
async fn log_lines() {
    let env = TestEnvironment::live(GeneratorSpec::plain(20, 10)).await;
    let hosts = || Matcher::side(Side::Falcon).path("/devices");
    env.sims.faults().add(Fault::status(hosts(), 503));
    let function = Process::start(&env, &[]).await;
    function.ask("run-a", &json!({"command": "sync"})).await;
    env.services.put_secret(
        "corp/falcon",
        json!({"clientId": "x", "clientSecret": "wrong"}),
    );
    function.ask("run-b", &json!({"command": "sync"})).await;
    let printed = function.end();
    let lines = printed
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    let logged: Vec<Value> = lines
        .filter(|line: &Value| line.get("_aws").is_none())
        .map(|line| kinds(&line))
        .collect();
    insta::assert_json_snapshot!(logged);
}
