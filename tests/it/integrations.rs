//! Integrations: connecting them, requesting their runs, and changing their settings.

use std::sync::Arc;

use posture_simulators::{Account, GeneratorSpec, Matcher, Side, Tailnet};
use serde_json::{Value, json};

use crate::environment::{KEY, TestEnvironment, falcon_secret, tailscale_secret};

#[tokio::test]
async fn one_integration_runs_in_place_and_several_are_requested() {
    let env = TestEnvironment::synced().await;
    assert_eq!(env.sync().await["integration"], "corp");
    for name in ["labs", "shop"] {
        let tailnet = format!("{name}.example.com");
        env.sims.falcon().put_account(Account::new(name));
        env.sims.tailscale().put_tailnet(Tailnet::new(&tailnet));
        env.services
            .put_secret(&format!("{name}/falcon"), falcon_secret(name));
        env.services
            .put_secret(&format!("{name}/tailscale"), tailscale_secret(&tailnet));
        env
            .connect(json!({
                "id": name, "falconSecret": format!("{name}/falcon"), "tailscaleSecret": format!("{name}/tailscale")
            }))
            .await;
    }
    env.connect(json!({"id": "dormant", "enabled": false, "attributeKey": "custom:dormant"}))
        .await;
    env.services.state().events.clear();
    let answer = env.sync().await;
    assert_eq!(answer, json!({"requested": ["corp", "labs", "shop"]}));
    let events = env.services.state().events.clone();
    assert_eq!(events.len(), 3);
    assert_eq!(
        events[0],
        json!({
            "source": "falcon-posture-sync", "detail-type": "Posture Sync Requested",
            "detail": {"integration": "corp", "reason": "schedule"}
        })
    );
    for event in events {
        assert_eq!(env.ask(event).await["outcome"], "unchanged");
    }
    let dormant = env
        .ask(json!({"command": "sync", "integration": "dormant"}))
        .await;
    assert_eq!(
        (&dormant["outcome"], &dormant["error"]),
        (&json!("skipped"), &json!("it is disabled"))
    );
}

#[tokio::test]
async fn connecting_stores_audits_and_requests_the_first_sync() {
    let env = TestEnvironment::empty().await;
    env.load(&GeneratorSpec::plain(5, 5));
    env.connect(json!({"maxHostAgeDays": 30})).await;
    let corp = env.corp().await;
    assert_eq!(corp["configVersion"], 1);
    assert_eq!(corp["maxHostAgeDays"], 30);
    let audit = env.items("audit").await;
    assert_eq!(audit.len(), 1);
    assert_eq!(audit[0]["action"], "Create posture integration");
    assert_eq!(audit[0]["target"]["type"], "Integration");
    assert_eq!(audit[0]["actor"], "amelie");
    assert_eq!(audit[0]["old"], Value::Null);
    assert_eq!(audit[0]["new"]["cloudId"], "us-1");
    let event = env.services.state().events[0].clone();
    assert_eq!(
        event["detail"],
        json!({"integration": "corp", "change": "created", "configVersion": 1})
    );
    assert_eq!(env.ask(event).await["outcome"], "synced");
    assert_eq!(env.scores(), env.expected());
}

#[tokio::test]
async fn a_bus_that_is_down_does_not_undo_a_connect() {
    let env = TestEnvironment::empty().await;
    env.services.state().bus_is_down = true;
    let answer = env
        .ask(json!({"command": "connect", "integration": {
            "id": "corp", "provider": "falcon", "cloudId": "us-1",
            "falconSecret": "corp/falcon", "tailscaleSecret": "corp/tailscale"
        }}))
        .await;
    assert!(
        answer["sync"]
            .as_str()
            .unwrap()
            .starts_with("not requested"),
        "{answer}"
    );
    assert_eq!(env.corp().await["configUpdatedBy"], "unknown");
}

#[tokio::test]
async fn secrets_are_fetched_once_for_as_long_as_their_version_stays() {
    let env = TestEnvironment::synced().await;
    assert_eq!(env.services.calls("GetSecretValue"), 2);
    env.sync().await;
    env.sync().await;
    assert_eq!(env.services.calls("GetSecretValue"), 2);
    env.services
        .put_secret("corp/falcon", falcon_secret("corp"));
    assert_eq!(env.sync().await["outcome"], "unchanged");
    assert_eq!(env.services.calls("GetSecretValue"), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_settings_in_mid_run_is_followed_by_another_run() {
    let env = TestEnvironment::synced().await;
    env.lower_a_score().await;
    let env = Arc::new(env);
    let other = Arc::clone(&env);
    // While the run lists the devices, another key is set, and the event of the change arrives at once.
    let listing = Matcher::side(Side::Tailscale).path("/api/v2/tailnet/-/devices");
    env.during_with_runtime(listing, move |runtime| {
        runtime.block_on(other.update(json!({"attributeKey": "custom:moved"})));
        let event = other.services.state().events.pop().unwrap();
        assert_eq!(runtime.block_on(other.ask(event))["outcome"], "skipped");
    });
    let answer = env.sync().await;
    assert_eq!(answer["outcome"], "synced", "{answer:#}");
    assert_eq!(env.scores_at("custom:moved"), env.expected());
    assert!(env.scores().is_empty(), "nothing is left under the old key");
    let corp = env.corp().await;
    assert_eq!(corp["status"]["configVersion"], 2);
    assert_eq!(corp["lease"], Value::Null);
    assert_eq!(env.sync().await["outcome"], "unchanged");
}

#[tokio::test]
async fn a_changed_key_moves_the_scores() {
    let env = TestEnvironment::synced().await;
    env.update(json!({"attributeKey": "custom:moved"})).await;
    let answer = env.sync().await;
    assert_eq!(
        (&answer["written"], &answer["removed"]),
        (&json!(40), &json!(0))
    );
    assert_eq!(env.scores_at("custom:moved"), env.expected());
    assert!(env.scores().is_empty());
    let audit = env.node_audit().await;
    assert_eq!(audit.len(), 80, "one record for each device's move");
    let moved = audit
        .iter()
        .filter(|r| r["old"].get(KEY).is_some() && r["new"].get("custom:moved").is_some());
    assert_eq!(moved.count(), 40);
    assert_eq!(env.sync().await["outcome"], "unchanged");
}

/// Renames the secret in an event of Secrets Manager: the payload files name the Falcon secret of `corp`.
fn about(secret: &str, file: &str) -> Value {
    let text = std::fs::read_to_string(format!("{}/events/{file}", env!("CARGO_MANIFEST_DIR")));
    let text = text
        .unwrap()
        .replace("falcon-posture-sync/corp/falcon", secret);
    serde_json::from_str(&text).unwrap()
}

#[tokio::test]
async fn a_new_version_of_a_secret_ends_the_pause_of_those_who_use_it() {
    for file in [
        "secret-label-updated.json",
        "secret-put.json",
        "secret-rotated.json",
    ] {
        let env = TestEnvironment::synced().await;
        let wrong = json!({"clientId": "0".repeat(32), "clientSecret": "wrong"});
        env.services.put_secret("corp/falcon", wrong);
        assert_eq!(env.sync().await["outcome"], "paused");
        assert_eq!(
            env.ask(about("corp/falcon", file)).await["outcome"],
            "paused"
        );
        env.lower_a_score().await;
        env.services
            .put_secret("corp/falcon", falcon_secret("corp"));
        let event = about("corp/falcon", file);
        assert_eq!(env.ask(event.clone()).await["outcome"], "synced", "{file}");
        let audit = env.items("audit").await;
        assert_eq!(
            env.ask(event).await["outcome"],
            "unchanged",
            "twice does no harm"
        );
        assert_eq!(env.items("audit").await, audit);
        let nobodys = about("labs/falcon", file);
        assert_eq!(env.ask(nobodys).await, json!({"requested": []}));
    }
}

#[tokio::test]
async fn a_secret_of_several_integrations_requests_a_sync_of_each() {
    let env = TestEnvironment::synced().await;
    for (id, enabled) in [("labs", true), ("dormant", false)] {
        env.connect_unchecked(
            json!({"id": id, "attributeKey": format!("custom:{id}"), "enabled": enabled}),
        )
        .await;
    }
    env.services.state().events.clear();
    let answer = env
        .ask(about("corp/falcon", "secret-label-updated.json"))
        .await;
    assert_eq!(answer, json!({"requested": ["corp", "labs"]}));
    assert_eq!(
        env.services.state().events[1]["detail"],
        json!({"integration": "labs", "reason": "secret"})
    );
}
