//! `Posture Sync State Changed`: sent when the state changes, and only then.

use std::time::Duration;

use posture_simulators::{Fault, GeneratorSpec, Matcher, Side};
use serde_json::{Value, json};

use crate::environment::TestEnvironment;

/// Returns the announced changes, from and to.
fn told(env: &TestEnvironment) -> Vec<(Value, Value)> {
    details(env)
        .into_iter()
        .map(|detail| (detail["from"].clone(), detail["to"].clone()))
        .collect()
}

fn details(env: &TestEnvironment) -> Vec<Value> {
    let held = env.services.state();
    let changes = held
        .events
        .iter()
        .filter(|event| event["detail-type"] == "Posture Sync State Changed");
    changes
        .map(|event| {
            assert_eq!(event["source"], "falcon-posture-sync");
            event["detail"].clone()
        })
        .collect()
}

fn falcon_is_down(env: &TestEnvironment) {
    let hosts = Matcher::side(Side::Falcon).path("/devices");
    env.sims.faults().add(Fault::status(hosts, 400).always());
}

#[tokio::test]
async fn a_first_success_is_what_everybody_expects() {
    let env = TestEnvironment::synced().await;
    env.sync().await;
    assert_eq!(told(&env), []);
    assert_eq!(env.corp().await["status"]["announced"], "ok");
}

#[tokio::test]
async fn failures_are_told_once_with_their_reason_and_so_is_their_end() {
    let env = TestEnvironment::synced().await;
    falcon_is_down(&env);
    for _ in 0..3 {
        assert_eq!(env.sync().await["outcome"], "failed");
    }
    let first = details(&env);
    assert_eq!(first.len(), 1);
    let error = first[0]["error"].as_str().unwrap();
    assert!(error.contains("Falcon: host listing failed"), "{error}");
    assert_eq!(
        first[0],
        json!({"integration": "corp", "from": "ok", "to": "failing", "error": error})
    );
    env.sims.faults().clear();
    env.sync().await;
    env.sync().await;
    assert_eq!(
        details(&env)[1..],
        [json!({"integration": "corp", "from": "failing", "to": "ok", "error": null})]
    );
}

#[tokio::test]
async fn a_pause_is_told_and_so_is_its_end() {
    let env = TestEnvironment::synced().await;
    let good = crate::environment::falcon_secret("corp");
    env.services
        .put_secret("corp/falcon", json!({"clientId": "x", "clientSecret": "y"}));
    for _ in 0..3 {
        assert_eq!(env.sync().await["outcome"], "paused");
    }
    env.services.put_secret("corp/falcon", good);
    assert_eq!(env.sync().await["outcome"], "unchanged");
    let (ok, paused) = (json!("ok"), json!("paused"));
    assert_eq!(told(&env), [(ok.clone(), paused.clone()), (paused, ok)]);
}

#[tokio::test]
async fn held_removals_are_told_and_so_is_their_end() {
    let env = TestEnvironment::synced().await;
    let devices = env
        .sims
        .tailscale()
        .devices(crate::environment::TAILNET)
        .unwrap();
    for device in devices.iter().take(20) {
        let mut device = device.clone();
        device.posture_identity = None;
        env.sims
            .tailscale()
            .put_device(crate::environment::TAILNET, device)
            .unwrap();
    }
    assert_eq!(env.sync().await["outcome"], "held");
    assert_eq!(env.sync().await["outcome"], "held");
    env.ask(json!({"command": "sync", "integration": "corp", "allowMassRemoval": 1000}))
        .await;
    let (ok, held) = (json!("ok"), json!("held"));
    assert_eq!(told(&env), [(ok.clone(), held.clone()), (held, ok)]);
    let why = details(&env)[0]["error"].as_str().unwrap().to_owned();
    assert!(
        why.contains("20 of 40 attributes would be removed"),
        "{why}"
    );
}

#[tokio::test]
async fn an_integration_that_never_worked_is_told_of_without_a_state_before() {
    let env = TestEnvironment::connected(&GeneratorSpec::plain(10, 5)).await;
    falcon_is_down(&env);
    env.sync().await;
    env.sync().await;
    assert_eq!(told(&env), [(Value::Null, json!("failing"))]);
}

#[tokio::test]
async fn what_the_bus_did_not_take_is_told_by_a_later_run() {
    let env = TestEnvironment::synced().await;
    falcon_is_down(&env);
    env.services.state().bus_is_down = true;
    assert_eq!(env.sync().await["outcome"], "failed");
    assert_eq!(env.corp().await["status"]["announced"], "ok");
    env.assert_sound().await;
    env.services.state().bus_is_down = false;
    env.sync().await;
    env.sync().await;
    assert_eq!(told(&env), [(json!("ok"), json!("failing"))]);
}

#[tokio::test]
async fn what_came_and_went_while_the_bus_was_down_is_nobodys_news() {
    let env = TestEnvironment::synced().await;
    env.services.state().bus_is_down = true;
    falcon_is_down(&env);
    env.sync().await;
    env.sims.faults().clear();
    env.sync().await;
    env.services.state().bus_is_down = false;
    env.app.clock.advance(Duration::from_mins(15));
    env.sync().await;
    assert_eq!(told(&env), []);
}
