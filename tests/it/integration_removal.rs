//! `remove`: removal of an integration.

use std::sync::{Arc, mpsc};

use posture_simulators::{Fault, GeneratorSpec, Matcher, Side};
use serde_json::{Value, json};

use crate::environment::{KEY, TAILNET, TestEnvironment, chain};

fn remove() -> Value {
    json!({"command": "remove", "integration": "corp", "actor": "amelie"})
}

fn keep() -> Value {
    json!({"command": "remove", "integration": "corp", "attributes": "keep", "actor": "bob"})
}

/// The actions on the integration itself, in order.
async fn life(env: &TestEnvironment) -> Vec<Value> {
    let mut records = env.items("audit").await;
    records.retain(|record| record["target"]["type"] == "Integration");
    records
        .into_iter()
        .map(|mut record| record["action"].take())
        .collect()
}

/// Asserts that only the audit trail is left, and that it is complete.
async fn assert_gone(env: &TestEnvironment) {
    assert!(env.scores().is_empty());
    assert!(env.items("nodes").await.is_empty());
    assert!(env.items("integrations").await.is_empty());
    env.assert_audited().await;
}

fn patches() -> Matcher {
    Matcher::side(Side::Tailscale)
        .method("PATCH")
        .path("/api/v2/tailnet/-/device-attributes")
}

#[tokio::test]
async fn a_removal_takes_everything_away_and_is_recorded() {
    let env = TestEnvironment::synced().await;
    env.update(json!({"maxHostAgeDays": 60})).await;
    env.services.state().events.clear();
    let answer = env.ask(remove()).await;
    assert_eq!(
        answer,
        json!({"integration": "corp", "removed": true, "attributes": "delete", "deletedAttributes": 40})
    );
    assert_gone(&env).await;
    assert_eq!(
        life(&env).await,
        [
            "Create posture integration",
            "Update posture integration",
            "Removed posture integration"
        ]
    );
    let records = env.items("audit").await;
    let removed = records
        .iter()
        .find(|record| record["action"] == "Removed posture integration")
        .unwrap();
    assert_eq!(removed["actor"], "amelie");
    assert_eq!(
        (&removed["old"]["maxHostAgeDays"], &removed["new"]),
        (&json!(60), &Value::Null)
    );
    assert_eq!(removed["details"]["attributes"], "delete");
    let event = env.services.state().events[0].clone();
    assert_eq!(
        event["detail"],
        json!({"integration": "corp", "change": "removed", "configVersion": 3})
    );
    assert_eq!(env.ask(event).await["outcome"], "skipped");
    let again = env.try_ask(remove()).await.unwrap_err();
    assert!(chain(&again).contains("there is no integration \"corp\""));

    env.connect(json!({})).await;
    assert_eq!(env.sync().await["written"], 40, "a name can be used again");
}

#[tokio::test]
async fn attributes_can_be_kept() {
    let env = TestEnvironment::synced().await;
    let scores = env.scores();
    env.requests();
    let answer = env.ask(keep()).await;
    assert_eq!(
        (&answer["removed"], &answer["deletedAttributes"]),
        (&json!(true), &json!(0))
    );
    assert_eq!(env.scores(), scores);
    assert!(env.items("nodes").await.is_empty());
    assert!(env.items("integrations").await.is_empty());
    assert!(env.requests().is_empty(), "nobody is asked");
    assert_eq!(env.node_audit().await.len(), 40, "no attribute changed");
    assert_eq!(life(&env).await.len(), 2);
}

#[tokio::test]
async fn what_is_cut_short_is_finished_by_the_next_tick() {
    let env = TestEnvironment::connected(&GeneratorSpec::plain(150, 120)).await;
    env.sync().await;
    env.sims
        .faults()
        .add(Fault::status(patches(), 503).after(1).always());
    let answer = env.ask(remove()).await;
    assert_eq!(answer["removed"], false, "{answer:#}");
    let error = answer["error"].as_str().unwrap();
    assert!(
        error.starts_with("Could not remove the integration: Tailscale: attribute write failed"),
        "{error}"
    );
    let corp = env.corp().await;
    assert_eq!(corp["removal"]["actor"], "amelie");
    assert_eq!(corp["status"]["errorKind"], "unavailable");
    assert!(!env.scores().is_empty());
    let shown = env
        .ask(json!({"command": "status", "integration": "corp"}))
        .await;
    assert_eq!(shown["removal"]["attributes"], "delete");
    let update = json!({"command": "update", "integration": "corp", "changes": {"enabled": false}});
    let conflict = chain(&env.try_ask(update).await.unwrap_err());
    assert!(
        conflict.contains("the integration is being removed"),
        "{conflict}"
    );
    let dry = json!({"command": "sync", "integration": "corp", "dryRun": true});
    assert_eq!(env.ask(dry).await["error"], "it is being removed");

    env.sims.faults().clear();
    env.outlive_writes().await;
    let tick = env.sync().await;
    assert_eq!(
        (&tick["outcome"], &tick["integrationRemoved"]),
        (&json!("synced"), &json!(true))
    );
    assert_gone(&env).await;
    assert_eq!(life(&env).await.len(), 2);
    assert_eq!(env.sync().await, json!({"requested": []}));
}

#[tokio::test]
async fn a_disabled_or_paused_integration_can_be_removed() {
    let env = TestEnvironment::synced().await;
    env.update(json!({"enabled": false})).await;
    assert_eq!(env.ask(remove()).await["removed"], true);
    assert_gone(&env).await;

    // Falcon's refusal does not matter: a removal needs Tailscale only.
    let env = TestEnvironment::synced().await;
    let wrong = json!({"clientId": "0".repeat(32), "clientSecret": "wrong"});
    env.services.put_secret("corp/falcon", wrong);
    assert_eq!(env.sync().await["outcome"], "paused");
    assert_eq!(env.ask(remove()).await["removed"], true);
    assert_gone(&env).await;
}

#[tokio::test]
async fn where_tailscale_refuses_the_attributes_can_be_left_behind() {
    let env = TestEnvironment::synced().await;
    env.sims
        .tailscale()
        .configure(TAILNET, |tailnet| tailnet.oauth_clients.clear())
        .unwrap();
    let answer = env.ask(remove()).await;
    assert_eq!(answer["removed"], false);
    assert!(
        answer["error"]
            .as_str()
            .unwrap()
            .contains("the credential was rejected")
    );
    env.requests();
    assert_eq!(env.sync().await["outcome"], "paused");
    assert!(
        env.requests().is_empty(),
        "a pause holds for a removal, too"
    );

    assert_eq!(env.ask(keep()).await["removed"], true);
    assert_eq!(env.scores().len(), 40);
    assert!(env.items("integrations").await.is_empty());
    let records = env.items("audit").await;
    let removed = records
        .iter()
        .find(|record| record["action"] == "Removed posture integration");
    assert_eq!(removed.unwrap()["actor"], "bob");
}

#[tokio::test]
async fn a_device_that_left_does_not_stand_in_the_way() {
    let env = TestEnvironment::synced().await;
    let node = env.scores().into_keys().next().unwrap();
    env.sims.tailscale().remove_device(TAILNET, &node).unwrap();
    let answer = env.ask(remove()).await;
    assert_eq!(answer["deletedAttributes"], 39, "{answer:#}");
    assert_gone(&env).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_in_mid_run_is_carried_out_by_that_run() {
    let env = Arc::new(TestEnvironment::synced().await);
    let other = Arc::clone(&env);
    let listing = Matcher::side(Side::Tailscale).path("/api/v2/tailnet/-/devices");
    let (tell, told) = mpsc::channel();
    env.during_with_runtime(listing, move |runtime| {
        tell.send(runtime.block_on(other.ask(remove()))).unwrap();
    });
    let answer = env.sync().await;
    let refused = told.recv().unwrap();
    assert_eq!(
        (&refused["removed"], &refused["error"]),
        (&json!(false), &json!("another run of it is in progress"))
    );
    assert_eq!(answer["integrationRemoved"], true, "{answer:#}");
    assert_gone(&env).await;
}

#[tokio::test]
async fn attributes_under_a_key_of_the_past_go_too() {
    let env = TestEnvironment::synced().await;
    env.update(json!({"attributeKey": "custom:moved"})).await;
    assert_eq!(env.ask(remove()).await["deletedAttributes"], 40);
    assert!(env.scores_at(KEY).is_empty());
    assert_gone(&env).await;
}
