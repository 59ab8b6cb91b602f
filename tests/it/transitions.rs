//! `Posture Sync State Changed`: sent when the state changes, and only then.

use std::time::Duration;

use posture_simulators::{Fault, GeneratorSpec, Matcher, Side};
use serde_json::{Value, json};

use crate::world::TestEnvironment;

/// Returns the announced changes, from and to.
fn told(stage: &TestEnvironment) -> Vec<(Value, Value)> {
    details(stage)
        .into_iter()
        .map(|detail| (detail["from"].clone(), detail["to"].clone()))
        .collect()
}

fn details(stage: &TestEnvironment) -> Vec<Value> {
    let held = stage.services.state();
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

fn falcon_is_down(stage: &TestEnvironment) {
    let hosts = Matcher::side(Side::Falcon).path("/devices");
    stage.sims.faults().add(Fault::status(hosts, 400).always());
}

#[tokio::test]
async fn a_first_success_is_what_everybody_expects() {
    let stage = TestEnvironment::synced().await;
    stage.sync().await;
    assert_eq!(told(&stage), []);
    assert_eq!(stage.corp().await["status"]["announced"], "ok");
}

#[tokio::test]
async fn failures_are_told_once_with_their_reason_and_so_is_their_end() {
    let stage = TestEnvironment::synced().await;
    falcon_is_down(&stage);
    for _ in 0..3 {
        assert_eq!(stage.sync().await["outcome"], "failed");
    }
    let first = details(&stage);
    assert_eq!(first.len(), 1);
    let error = first[0]["error"].as_str().unwrap();
    assert!(error.contains("Falcon refused the host listing"), "{error}");
    assert_eq!(
        first[0],
        json!({"integration": "corp", "from": "ok", "to": "failing", "error": error})
    );
    stage.sims.faults().clear();
    stage.sync().await;
    stage.sync().await;
    assert_eq!(
        details(&stage)[1..],
        [json!({"integration": "corp", "from": "failing", "to": "ok", "error": null})]
    );
}

#[tokio::test]
async fn a_pause_is_told_and_so_is_its_end() {
    let stage = TestEnvironment::synced().await;
    let good = crate::world::falcon_secret("corp");
    stage
        .services
        .put_secret("corp/falcon", json!({"clientId": "x", "clientSecret": "y"}));
    for _ in 0..3 {
        assert_eq!(stage.sync().await["outcome"], "paused");
    }
    stage.services.put_secret("corp/falcon", good);
    assert_eq!(stage.sync().await["outcome"], "unchanged");
    let (ok, paused) = (json!("ok"), json!("paused"));
    assert_eq!(told(&stage), [(ok.clone(), paused.clone()), (paused, ok)]);
}

#[tokio::test]
async fn held_removals_are_told_and_so_is_their_end() {
    let stage = TestEnvironment::synced().await;
    let devices = stage
        .sims
        .tailscale()
        .devices(crate::world::TAILNET)
        .unwrap();
    for device in devices.iter().take(20) {
        let mut device = device.clone();
        device.posture_identity = None;
        stage
            .sims
            .tailscale()
            .put_device(crate::world::TAILNET, device)
            .unwrap();
    }
    assert_eq!(stage.sync().await["outcome"], "held");
    assert_eq!(stage.sync().await["outcome"], "held");
    stage
        .ask(json!({"command": "sync", "integration": "corp", "allowMassRemoval": true}))
        .await;
    let (ok, held) = (json!("ok"), json!("held"));
    assert_eq!(told(&stage), [(ok.clone(), held.clone()), (held, ok)]);
    let why = details(&stage)[0]["error"].as_str().unwrap().to_owned();
    assert!(
        why.contains("20 of 40 attributes would be removed"),
        "{why}"
    );
}

#[tokio::test]
async fn an_integration_that_never_worked_is_told_of_without_a_state_before() {
    let stage = TestEnvironment::connected(&GeneratorSpec::plain(10, 5)).await;
    falcon_is_down(&stage);
    stage.sync().await;
    stage.sync().await;
    assert_eq!(told(&stage), [(Value::Null, json!("failing"))]);
}

#[tokio::test]
async fn what_the_bus_did_not_take_is_told_by_a_later_run() {
    let stage = TestEnvironment::synced().await;
    falcon_is_down(&stage);
    stage.services.state().bus_is_down = true;
    assert_eq!(stage.sync().await["outcome"], "failed");
    assert_eq!(stage.corp().await["status"]["announced"], "ok");
    stage.assert_sound().await;
    stage.services.state().bus_is_down = false;
    stage.sync().await;
    stage.sync().await;
    assert_eq!(told(&stage), [(json!("ok"), json!("failing"))]);
}

#[tokio::test]
async fn what_came_and_went_while_the_bus_was_down_is_nobodys_news() {
    let stage = TestEnvironment::synced().await;
    stage.services.state().bus_is_down = true;
    falcon_is_down(&stage);
    stage.sync().await;
    stage.sims.faults().clear();
    stage.sync().await;
    stage.services.state().bus_is_down = false;
    stage.world.clock.advance(Duration::from_mins(15));
    stage.sync().await;
    assert_eq!(told(&stage), []);
}
