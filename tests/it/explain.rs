//! Explanations: why a device has its score, or none.

mod random;
mod records;
mod single;
mod texts;

use falcon_posture_sync::domain::explain::ExplainContext;
use jiff::Timestamp;
use posture_simulators::{Device, Fault, GeneratorSpec, Host, Matcher, Side};
use serde_json::{Value, json};

use crate::environment::{KEY, TAILNET, TestEnvironment, chain};

const EVENT: &str = "2026-01-15T11:00:00Z";

/// Asks `corp` for the explanation of a device.
async fn explain(env: &TestEnvironment, device: &str) -> Value {
    let payload = json!({"command": "explain", "integration": "corp", "device": device});
    let answer = env.ask(payload).await;
    assert_eq!(answer["integration"], "corp");
    answer
}

async fn text(env: &TestEnvironment, device: &str) -> String {
    let payload =
        json!({"command": "explain", "integration": "corp", "device": device, "format": "text"});
    let answer = env.ask(payload).await;
    answer.as_str().unwrap().to_owned()
}

fn nodes(answer: &Value) -> Vec<&str> {
    let explanations = answer["explanations"].as_array().unwrap();
    let node = explanations
        .iter()
        .map(|explanation| &explanation["nodeId"]);
    node.map(|node| node.as_str().unwrap()).collect()
}

fn note(answer: &Value) -> &str {
    answer["note"].as_str().unwrap_or_default()
}

/// Adds a host, a device with its serial, and a score of the host.
fn pair(env: &TestEnvironment, node: &str, name: &str, serial: &str, score: impl Into<Value>) {
    let device = Device::new(node, name, [serial]);
    env.sims.tailscale().put_device(TAILNET, device).unwrap();
    host(env, node, serial, score);
}

/// Adds a host with a serial, and its score unless that is null. The aid is made from a word.
fn host(env: &TestEnvironment, word: &str, serial: &str, score: impl Into<Value>) {
    let aid = aid(word);
    let host = Host::new(&aid, serial, &format!("{word}-host"), EVENT);
    env.sims.falcon().put_host("corp", host).unwrap();
    let score = score.into();
    if !score.is_null() {
        env.sims.falcon().set_score("corp", &aid, score).unwrap();
    }
}

fn aid(word: &str) -> String {
    let number = word
        .bytes()
        .fold(0_u128, |number, byte| (number << 8) | u128::from(byte));
    format!("{number:032x}")
}

/// Starts with three devices that have a score.
async fn small() -> TestEnvironment {
    let env = TestEnvironment::empty().await;
    env.connect(json!({})).await;
    pair(&env, "nAlice", "alice-mac", "C02ALICE", 81);
    pair(&env, "nBob", "bob-pc", "C02BOB", 64);
    pair(&env, "nCarol", "carol-mac", "C02CAROL", 33);
    assert_eq!(env.sync().await["written"], 3);
    env
}

#[tokio::test]
async fn the_function_answers_what_the_pure_part_says() {
    let env = TestEnvironment::connected(&GeneratorSpec::default()).await;
    env.sync().await;
    let devices = env.sims.tailscale().devices(TAILNET).unwrap();
    for device in devices.iter().step_by(9) {
        let snapshot = random::snapshot(&env).await;
        let scene = ExplainContext::new(&snapshot);
        let id =
            falcon_posture_sync::domain::inventory::device::NodeId(device.node_id.as_str().into());
        let answer = explain(&env, &device.node_id).await;
        let explanation = &answer["explanations"][0];
        let history = serde_json::from_value(explanation["history"].clone()).unwrap();
        let expect = serde_json::to_value(scene.explain(&id, history)).unwrap();
        assert_eq!(*explanation, expect);
        assert_eq!(
            explanation["score"].as_i64(),
            env.scores().get(&device.node_id).copied()
        );
    }
}

#[tokio::test]
async fn a_device_is_found_by_its_id_its_name_or_a_serial() {
    let env = small().await;
    for device in [
        "nAlice",
        "alice-mac.tail0sim.ts.net",
        "ALICE-MAC",
        " alice-mac ",
        "c02alice",
    ] {
        let answer = explain(&env, device).await;
        assert_eq!(nodes(&answer), ["nAlice"], "{device}");
        assert_eq!(answer["device"], device);
        assert_eq!(answer["note"], Value::Null);
        let explanation = &answer["explanations"][0];
        assert_eq!(explanation["verdict"], "scored");
        assert_eq!(explanation["written"]["score"], 81);
        assert_eq!(explanation["nextAction"], "nothing");
        let record = &explanation["history"][0];
        assert_eq!(record["new"], json!({KEY: 81}));
        let time = |text: &Value| text.as_str().unwrap().parse::<Timestamp>().unwrap();
        assert_eq!(
            time(&record["eventTime"]),
            time(&explanation["written"]["writtenAt"])
        );
    }
    let answer = explain(&env, "nalice").await;
    assert!(nodes(&answer).is_empty(), "an id is told as it is");
}

#[tokio::test]
async fn all_that_are_meant_are_explained_up_to_ten() {
    let env = small().await;
    for number in 0..12 {
        let mut device = Device::new(&format!("nTwin{number:02}"), "twin", ["C02TWIN"]);
        device.name = format!("twin-{number}.tail0sim.ts.net");
        env.sims.tailscale().put_device(TAILNET, device).unwrap();
    }
    for device in ["twin", "C02TWIN"] {
        let answer = explain(&env, device).await;
        assert_eq!(nodes(&answer).len(), 10, "{device}");
        assert_eq!(answer["omitted"], 2);
        assert!(note(&answer).starts_with("12 devices match"), "{answer:#}");
    }
    let answer = explain(&env, "twin-7").await;
    assert_eq!(nodes(&answer), ["nTwin07"]);
    assert!(
        text(&env, "twin")
            .await
            .ends_with("\n2 more are left out.\n")
    );
}

#[tokio::test]
async fn a_host_without_a_device_is_told() {
    let env = small().await;
    host(&env, "lost", "C02LOST", 50);
    host(&env, "lost2", "c02lost ", Value::Null);
    let answer = explain(&env, "c02lost").await;
    assert!(nodes(&answer).is_empty());
    assert!(
        note(&answer).starts_with(
            "No device of the tailnet reports the serial number C02LOST, but Falcon has 2 hosts"
        ),
        "{answer:#}"
    );
    let hosts = answer["hosts"].as_array().unwrap();
    assert_eq!(hosts[0]["aid"], aid("lost"));
    assert_eq!(
        (&hosts[0]["score"], &hosts[0]["decides"]),
        (&json!(50), &json!(false))
    );
    assert_eq!(hosts[1]["standing"], "unassessed");
    let text = text(&env, "c02lost").await;
    assert!(
        text.contains("lost-host, score 50, seen 2026-01-15T11:00:00Z"),
        "{text}"
    );
}

#[tokio::test]
async fn what_nobody_knows_is_no_error() {
    let env = small().await;
    for (device, words) in [
        ("nowhere", "searched 3 devices by node id"),
        ("nowhere", "and 3 Falcon hosts by serial number"),
        (
            "To be filled by O.E.M.",
            "As a serial number it is a vendor's placeholder",
        ),
        (" ", "As a serial number it is empty"),
        (
            "x'; DROP TABLE nodes; --\u{202e}",
            "No device, host or record matches",
        ),
    ] {
        let answer = explain(&env, device).await;
        assert!(note(&answer).contains(words), "{answer:#}");
        assert_eq!(answer["explanations"], json!([]));
        assert_eq!(answer["traces"], Value::Null);
        assert!(
            text(&env, device)
                .await
                .starts_with("No device, host or record matches")
        );
    }
    for (payload, words) in [
        (
            json!({"command": "explain", "integration": "corp"}),
            "missing field `device`",
        ),
        (
            json!({"command": "explain", "device": "nBob"}),
            "missing field `integration`",
        ),
        (
            json!({"command": "explain", "integration": "labs", "device": "nBob"}),
            "no integration \"labs\"",
        ),
    ] {
        let error = chain(&env.try_ask(payload).await.unwrap_err());
        assert!(error.contains(words), "{error}");
    }
}

#[tokio::test]
async fn scores_that_are_none_are_told() {
    let env = small().await;
    for score in [json!(101), json!("70"), json!(-1), json!({"overall": 70})] {
        env.sims
            .falcon()
            .set_score("corp", &aid("nBob"), score.clone())
            .unwrap();
        let answer = explain(&env, "nBob").await;
        let explanation = &answer["explanations"][0];
        assert_eq!(explanation["verdict"], "unassessed", "{score}");
        assert_eq!(explanation["hosts"][0]["standing"], "invalid");
        assert_eq!(explanation["hosts"][0]["score"], Value::Null);
        assert!(
            explanation["because"]
                .as_str()
                .unwrap()
                .contains("not an integer from 0 to 100")
        );
        assert!(
            explanation["remedy"]
                .as_str()
                .unwrap()
                .contains("report it to CrowdStrike")
        );
    }
}

#[tokio::test]
async fn what_waits_is_told_with_what_it_waits_for() {
    let env = small().await;
    let falcon = env.sims.falcon();
    falcon.remove_score("corp", &aid("nBob")).unwrap();
    let look_up = Matcher::side(Side::Falcon).path("/zero-trust-assessment/entities");
    env.sims.faults().add(Fault::status(look_up, 503).always());
    let answer = explain(&env, "nBob").await;
    assert_eq!(
        answer["explanations"][0]["nextAction"], "waits",
        "{answer:#}"
    );
    env.sims.faults().clear();

    env.update(json!({"maxRemovals": {"percent": 0, "atLeast": 0}}))
        .await;
    let answer = explain(&env, "nBob").await;
    let explanation = &answer["explanations"][0];
    assert_eq!(explanation["nextAction"], "held");
    let next = explanation["next"].as_str().unwrap();
    assert!(
        next.contains("maxRemovals allows 0 % or 0") && next.contains("allowMassRemoval"),
        "{next}"
    );

    env.update(json!({"maxRemovals": null, "enabled": false}))
        .await;
    let answer = explain(&env, "nBob").await;
    assert_eq!(
        answer["explanations"][0]["next"],
        "removes custom:ztaScore, which is 64, once the integration is enabled again"
    );
}

#[tokio::test]
async fn what_a_dead_run_left_open_is_told() {
    let env = small().await;
    env.sims
        .falcon()
        .set_score("corp", &aid("nBob"), 12)
        .unwrap();
    // Tailscale accepts the write, and its response is lost.
    let write = Matcher::side(Side::Tailscale).method("PATCH");
    env.sims
        .faults()
        .add(Fault::status(write, 503).processed().always());
    assert_eq!(env.sync().await["outcome"], "failed");
    env.sims.faults().clear();
    let answer = explain(&env, "nBob").await;
    let next = answer["explanations"][0]["next"].as_str().unwrap();
    let run = env.last_run();
    assert!(
        run != "run-1" && next.starts_with("first reads the attribute of the device, since run "),
        "{next}"
    );
    assert!(
        next.ends_with("then it changes custom:ztaScore from 64 to 12"),
        "{next}"
    );
}

#[tokio::test]
async fn explaining_only_reads() {
    let env = small().await;
    env.sims.falcon().remove_host("corp", &aid("nBob")).unwrap();
    pair(&env, "nDave", "dave", "C02DAVE", 5);
    let tables = async || {
        let mut tables = Vec::new();
        for table in ["integrations", "nodes", "audit"] {
            tables.push(env.items(table).await);
        }
        tables
    };
    let (before, events) = (tables().await, env.services.state().events.len());
    env.requests();
    for device in ["nAlice", "bob-pc", "dave", "C02CAROL", "nowhere"] {
        explain(&env, device).await;
        text(&env, device).await;
    }
    assert_eq!(tables().await, before);
    assert_eq!(env.services.state().events.len(), events);
    for route in env.requests().keys() {
        let is_token = ["POST /oauth2/token", "POST /api/v2/oauth/token"].contains(&route.as_str());
        assert!(is_token || route.starts_with("GET "), "{route}");
    }
}
