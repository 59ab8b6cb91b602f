//! `update`: changes of an integration's settings.

use std::collections::BTreeSet;

use aws_sdk_dynamodb::types::AttributeValue;
use falcon_posture_sync::handler::HandlerError;
use falcon_posture_sync::settings::IntegrationId;
use falcon_posture_sync::store::{FinishOutcome, StoreError};
use jiff::SignedDuration;
use posture_simulators::GeneratorSpec;
use serde_json::{Value, json};

use crate::environment::{KEY, TestEnvironment, chain};
use crate::process::Process;

/// Returns the audit records of integrations: action, actor, old, new.
async fn history(env: &TestEnvironment) -> Vec<Value> {
    let mut records = env.items("audit").await;
    records.retain(|record| record["target"]["type"] == "Integration");
    records
}

fn update(changes: &Value) -> Value {
    json!({"command": "update", "integration": "corp", "changes": changes, "actor": "amelie"})
}

#[tokio::test]
async fn a_change_is_the_next_version_audited_and_announced() {
    let env = TestEnvironment::synced().await;
    env.services.state().events.clear();
    let answer = env
        .update(json!({"maxHostAgeDays": 60, "maxRemovals": {"percent": 50}}))
        .await;
    assert_eq!(answer["configVersion"], 2);
    assert_eq!(answer["changed"], json!(["maxHostAgeDays", "maxRemovals"]));
    assert_eq!(answer["sync"], "requested: it starts within seconds");
    let corp = env.corp().await;
    assert_eq!(
        (&corp["configVersion"], &corp["configUpdatedBy"]),
        (&json!(2), &json!("amelie"))
    );
    assert_eq!(corp["maxRemovals"], json!({"percent": 50, "atLeast": 2}));
    assert_eq!(corp["status"]["outcome"], "synced", "the rest stays");
    let record = history(&env).await.pop().unwrap();
    assert_eq!(record["action"], "Update posture integration");
    assert_eq!(record["actor"], "amelie");
    assert_eq!(record["old"]["maxHostAgeDays"], 30);
    assert_eq!(record["new"]["maxHostAgeDays"], 60);
    assert_eq!(
        record["details"],
        json!({"configVersion": 2, "changed": ["maxHostAgeDays", "maxRemovals"]})
    );
    let events = env.services.state().events.clone();
    assert_eq!(
        events[0]["detail"],
        json!({"integration": "corp", "change": "updated", "configVersion": 2})
    );
    assert_eq!(env.ask(events[0].clone()).await["outcome"], "unchanged");
    assert_eq!(env.corp().await["status"]["configVersion"], 2);

    let answer = env.update(json!({"maxHostAgeDays": null})).await;
    assert_eq!(answer["changed"], json!(["maxHostAgeDays"]));
    assert_eq!(env.corp().await["maxHostAgeDays"], Value::Null);
}

#[tokio::test]
async fn what_changes_nothing_is_no_change() {
    let env = TestEnvironment::synced().await;
    env.services.state().events.clear();
    let before = env.corp().await;
    let answer = env
        .update(json!({"attributeKey": KEY, "enabled": true, "onContained": null, "maxHostAgeDays": 30, "id": "corp"}))
        .await;
    assert_eq!(answer["configVersion"], 1);
    assert_eq!(answer["changed"], json!([]));
    assert_eq!(env.corp().await, before);
    assert_eq!(history(&env).await.len(), 1);
    assert!(env.services.state().events.is_empty());
}

#[tokio::test]
async fn a_change_that_cannot_be_changes_nothing() {
    let env = TestEnvironment::synced().await;
    env.services.state().events.clear();
    let before = env.corp().await;
    for (changes, words) in [
        (json!({"colour": "red"}), "changes.colour: unknown setting"),
        (
            json!({"cloudId": "us-9"}),
            "changes.cloudId: unknown CrowdStrike cloud \"us-9\"",
        ),
        (
            json!({"attributeKey": "falcon:ztaScore", "cloudId": 7}),
            "changes.cloudId",
        ),
        (
            json!({"maxRemovals": {"percent": 101}}),
            "changes.maxRemovals.percent: must be an integer from 0 to 100, not 101",
        ),
        (
            json!({"id": "labs"}),
            "changes.id: the name of an integration cannot change",
        ),
    ] {
        let error = chain(&env.try_ask(update(&changes)).await.unwrap_err());
        assert!(error.contains(words), "{error}");
    }
    let absent = json!({"command": "update", "integration": "labs", "changes": {}});
    let error = env.try_ask(absent).await.unwrap_err();
    assert!(matches!(
        error,
        HandlerError::Store(StoreError::NoIntegration { .. })
    ));
    assert_eq!(env.corp().await, before);
    assert_eq!(history(&env).await.len(), 1);
    assert!(env.services.state().events.is_empty());
}

#[tokio::test]
async fn an_item_that_was_spoilt_by_hand_can_be_mended() {
    let env = TestEnvironment::synced().await;
    let red = AttributeValue::S("red".to_owned());
    env.edit("colour", red).await;
    assert_eq!(env.sync().await["outcome"], "failed");
    let answer = env.update(json!({"colour": null})).await;
    assert_eq!(answer["changed"], json!(["colour"]));
    assert_eq!(env.sync().await["outcome"], "unchanged");
}

#[tokio::test]
async fn a_version_that_is_not_the_callers_is_a_conflict() {
    let env = TestEnvironment::synced().await;
    let mut payload = update(&json!({"enabled": false}));
    payload["configVersion"] = json!(7);
    let error = env.try_ask(payload.clone()).await.unwrap_err();
    assert!(
        chain(&error).contains("they have changed since version 7"),
        "{error}"
    );
    payload["configVersion"] = json!(1);
    assert_eq!(env.ask(payload).await["configVersion"], 2);
}

#[tokio::test]
async fn an_event_that_is_lost_is_said_and_the_next_tick_catches_up() {
    let env = TestEnvironment::synced().await;
    env.services.state().bus_is_down = true;
    let answer = env.update(json!({"attributeKey": "custom:moved"})).await;
    let sync = answer["sync"].as_str().unwrap();
    assert!(
        sync.starts_with("not requested (") && sync.ends_with("the next scheduled run does it"),
        "{sync}"
    );
    assert_eq!(env.sync().await["written"], 40);
    assert_eq!(env.scores_at("custom:moved"), env.expected());
    assert!(env.scores().is_empty());
    assert_eq!(env.corp().await["status"]["configVersion"], 2);
}

#[tokio::test]
async fn two_integrations_never_write_one_key_in_one_tailnet() {
    let env = TestEnvironment::synced().await;
    let labs = |key: &str| {
        json!({"command": "connect", "integration": {
            "id": "labs", "provider": "falcon", "cloudId": "us-1", "attributeKey": key,
            "falconSecret": "corp/falcon", "tailscaleSecret": "corp/tailscale"
        }})
    };
    let error = env.try_ask(labs("custom:ZtaScore")).await.unwrap_err();
    let text = chain(&error);
    assert!(
        text.contains("integration.attributeKey: custom:ZtaScore is already written in this tailnet by the integration corp"),
        "{text}"
    );
    env.ask(labs("custom:other")).await;
    let error = env
        .try_ask(update(&json!({"attributeKey": "custom:other"})))
        .await
        .unwrap_err();
    assert!(
        chain(&error).contains("changes.attributeKey: custom:other is already written"),
        "{error}"
    );
    assert_eq!(env.items("integrations").await.len(), 2);
}

/// Two integrations of one tailnet are found by their devices if the settings do not tell.
#[tokio::test]
async fn a_tailnet_is_known_by_its_devices() {
    let env = TestEnvironment::synced().await;
    env.services.put_secret(
        "labs/tailscale",
        crate::environment::tailscale_secret("example.com"),
    );
    let labs = json!({"command": "connect", "integration": {
        "id": "labs", "provider": "falcon", "cloudId": "us-1",
        "falconSecret": "corp/falcon", "tailscaleSecret": "labs/tailscale"
    }});
    let error = chain(&env.try_ask(labs).await.unwrap_err());
    assert!(
        error.contains("the integration corp writes custom:ztaScore in this tailnet, too"),
        "{error}"
    );
    assert_eq!(env.items("integrations").await.len(), 1);
}

#[tokio::test]
async fn two_hundred_updates_at_once_leave_no_gap_and_no_update_without_a_record() {
    let env = TestEnvironment::connected(&GeneratorSpec::plain(5, 5)).await;
    let updates = (31..=230).map(|days| env.try_ask(update(&json!({"maxHostAgeDays": days}))));
    let mut versions = BTreeSet::new();
    let mut conflicts = 0;
    for answer in futures::future::join_all(updates).await {
        match answer {
            Ok(answer) => assert!(versions.insert(answer["configVersion"].as_u64().unwrap())),
            Err(HandlerError::Store(StoreError::Conflict { .. })) => conflicts += 1,
            Err(error) => panic!("{}", chain(&error)),
        }
    }
    let latest = versions.last().copied().unwrap();
    assert_eq!(versions, (2..=latest).collect());
    assert_eq!(versions.len() + conflicts, 200);
    assert!(conflicts > 0, "some met");
    let mut records = history(&env).await;
    assert_eq!(records.len(), usize::try_from(latest).unwrap());
    records.sort_by_key(|record| record["details"]["configVersion"].as_u64());
    for pair in records.windows(2) {
        assert_eq!(
            pair[0]["new"], pair[1]["old"],
            "each change begins where the one before ended"
        );
    }
    let corp = env.corp().await;
    assert_eq!(corp["configVersion"], latest);
    assert_eq!(
        corp["maxHostAgeDays"],
        records.last().unwrap()["new"]["maxHostAgeDays"]
    );
}

#[tokio::test]
async fn the_actor_is_who_is_named_else_who_invokes_else_unknown() {
    let mut env = TestEnvironment::synced().await;
    env.caller = Some("eu-central-1:amelie".to_owned());
    for (given, expect) in [
        (json!("bob"), "bob"),
        (json!(" "), "eu-central-1:amelie"),
        (json!(null), "eu-central-1:amelie"),
    ] {
        let days = 1 + history(&env).await.len();
        let mut payload = update(&json!({"maxHostAgeDays": days}));
        payload["actor"] = given;
        env.ask(payload).await;
        assert_eq!(history(&env).await.pop().unwrap()["actor"], expect);
    }
}

#[tokio::test]
async fn a_run_that_has_nothing_to_do_does_not_miss_a_change_either() {
    let env = TestEnvironment::synced().await;
    let (store, now) = (&env.app.store, env.app.clock.now());
    let id = IntegrationId::try_from("corp".to_owned()).unwrap();
    let until = now.saturating_add(SignedDuration::from_hours(1)).unwrap();
    store
        .acquire(&id, "idle", "term", now, until)
        .await
        .unwrap()
        .unwrap();
    env.update(json!({"enabled": false})).await;
    let left = store.release(&id, "term", 1).await.unwrap();
    assert_eq!(left, FinishOutcome::SettingsChanged, "it has to look again");
    assert_eq!(env.sync().await, json!({"requested": []}));
    assert_eq!(
        store.release(&id, "term", 2).await.unwrap(),
        FinishOutcome::Released
    );
    assert_eq!(
        store.release(&id, "term", 2).await.unwrap(),
        FinishOutcome::LeaseLost
    );
}

/// A person may have written the item by hand.
#[tokio::test]
async fn an_item_without_a_version_works_and_gets_one() {
    let env = TestEnvironment::synced().await;
    env.tables
        .update_item()
        .table_name("integrations")
        .key("id", AttributeValue::S("corp".to_owned()))
        .update_expression("REMOVE configVersion")
        .send()
        .await
        .unwrap();
    assert_eq!(env.sync().await["outcome"], "unchanged");
    env.assert_sound().await;
    assert_eq!(
        env.update(json!({"maxHostAgeDays": 60})).await["configVersion"],
        1
    );
    assert_eq!(env.sync().await["outcome"], "unchanged");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lambdas_own_word_for_who_invokes_reaches_the_record() {
    let mut env = TestEnvironment::live(GeneratorSpec::plain(2, 2)).await;
    env.caller = Some("eu-central-1:amelie".to_owned());
    let process = Process::start(&env, &[]).await;
    let mut payload = update(&json!({"maxHostAgeDays": 60}));
    payload.as_object_mut().unwrap().remove("actor");
    process.ask("by-amelie", &payload).await;
    let record = history(&env).await.pop().unwrap();
    assert_eq!(
        (&record["actor"], &record["runId"]),
        (&json!("eu-central-1:amelie"), &json!("by-amelie"))
    );
}
