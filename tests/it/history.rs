//! Queries of the audit records.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::environment::{KEY, TAILNET, TestEnvironment};

async fn audit(env: &TestEnvironment, fields: Value) -> Vec<Value> {
    page(env, fields).await.0
}

async fn page(env: &TestEnvironment, fields: Value) -> (Vec<Value>, Value) {
    let mut payload = json!({"command": "audit"});
    payload
        .as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    let mut answer = env.ask(payload).await;
    let Value::Array(records) = answer["records"].take() else {
        panic!("records are a list");
    };
    (records, answer["next"].take())
}

/// Starts with a history: the integration, 40 scores, one changed score, one changed setting.
async fn environment() -> TestEnvironment {
    let env = TestEnvironment::synced().await;
    env.lower_a_score().await;
    env.sync().await;
    env.update(json!({"maxHostAgeDays": 60})).await;
    env
}

#[tokio::test]
async fn records_are_found_by_integration_newest_first() {
    let env = environment().await;
    let records = audit(&env, json!({"integration": "corp"})).await;
    let mut stored = env.items("audit").await;
    stored.reverse();
    assert_eq!(records, stored);
    assert_eq!(records[0]["action"], "Update posture integration");
    assert_eq!(records[42]["action"], "Create posture integration");
    assert!(audit(&env, json!({"integration": "labs"})).await.is_empty());
}

#[tokio::test]
async fn records_are_found_by_device() {
    let env = environment().await;
    let node = env.items("nodes").await[3].clone();
    let (id, name) = (
        node["nodeId"].as_str().unwrap(),
        node["name"].as_str().unwrap(),
    );
    let records = audit(&env, json!({"integration": "corp", "device": id})).await;
    assert_eq!(records.len(), 2);
    assert_eq!(records[0]["new"], json!({KEY: 4}));
    assert_eq!(records[0]["old"], records[1]["new"]);
    let host = name.split('.').next().unwrap();
    let serial = node["serial"].as_str().unwrap().to_lowercase();
    for device in [name, host, &name.to_uppercase(), &serial] {
        let found = audit(&env, json!({"integration": "corp", "device": device})).await;
        assert_eq!(found, records, "{device}");
    }
    assert_eq!(audit(&env, json!({"device": id})).await, records);
    for (integration, device) in [("labs", id), ("corp", "nowhere")] {
        let found = audit(&env, json!({"integration": integration, "device": device})).await;
        assert!(found.is_empty());
    }
    // The records outlive the device and the integration.
    env.sims.tailscale().remove_device(TAILNET, id).unwrap();
    env.ask(json!({"command": "remove", "integration": "corp"}))
        .await;
    assert_eq!(audit(&env, json!({"device": id})).await, records);
}

#[tokio::test]
async fn records_are_found_by_time() {
    let env = environment().await;
    let all = audit(&env, json!({"integration": "corp"})).await;
    let time = |record: usize| all[record]["eventTime"].clone();
    let of =
        |since: Value, until: Value| json!({"integration": "corp", "since": since, "until": until});
    assert_eq!(audit(&env, of(time(1), Value::Null)).await, all[..2]);
    assert_eq!(audit(&env, of(time(1), time(0))).await, all[1..2]);
    assert_eq!(audit(&env, of(Value::Null, time(1))).await, all[2..]);
    assert!(
        audit(&env, of(json!("2999-01-01"), Value::Null))
            .await
            .is_empty()
    );
}

#[tokio::test]
async fn pages_are_whole_together() {
    let env = environment().await;
    let id = env.items("nodes").await[3]["nodeId"].clone();
    for (filter, limits) in [
        (json!({"integration": "corp"}), [1, 7, 42, 43, 44]),
        (
            json!({"integration": "corp", "device": id}),
            [1, 1, 2, 3, 1000],
        ),
    ] {
        let all = audit(&env, filter.clone()).await;
        for limit in limits {
            let mut fields = filter.clone();
            fields["limit"] = json!(limit);
            let mut together = Vec::new();
            loop {
                let (records, next) = page(&env, fields.clone()).await;
                assert!(records.len() <= limit);
                together.extend(records);
                if next.is_null() {
                    break;
                }
                fields["next"] = next;
            }
            assert_eq!(together, all, "{limit} at a time");
        }
    }
}

#[tokio::test]
async fn the_export_has_the_names_and_words_of_tailscales_log() {
    let env = environment().await;
    let gone = env.items("nodes").await[5]["aid"]
        .as_str()
        .unwrap()
        .to_owned();
    env.sims.falcon().remove_host("corp", &gone).unwrap();
    env.sync().await;
    env.ask(
        json!({"command": "remove", "integration": "corp", "attributes": "keep", "actor": "bob"}),
    )
    .await;
    let events = audit(&env, json!({"integration": "corp", "format": "tailscale"})).await;
    let records = audit(&env, json!({"integration": "corp"})).await;
    assert_eq!(events.len(), records.len());
    let names = [
        "eventTime",
        "type",
        "deferredAt",
        "eventGroupID",
        "origin",
        "actor",
        "target",
        "action",
        "old",
        "new",
        "actionDetails",
    ];
    for (event, record) in events.iter().zip(&records) {
        let keys: BTreeSet<&str> = event
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(keys, BTreeSet::from(names));
        for (ours, theirs) in [
            ("eventTime", "eventTime"),
            ("runId", "eventGroupID"),
            ("old", "old"),
            ("new", "new"),
        ] {
            assert_eq!(event[theirs], record[ours]);
        }
    }
    let kinds: Vec<(&str, &str, &str, &str)> = events
        .iter()
        .map(|event| {
            let text = |pointer: &str| event.pointer(pointer).unwrap().as_str().unwrap();
            (
                text("/target/type"),
                text("/target/property"),
                text("/action"),
                text("/actor/type"),
            )
        })
        .collect();
    assert_eq!(
        kinds[0],
        ("TAILNET", "POSTURE_INTEGRATION", "DELETE", "USER")
    );
    assert_eq!(
        kinds[1],
        ("NODE", "ATTRIBUTES", "DELETE", "AUTOMATED_WORKER")
    );
    assert_eq!(
        kinds[2],
        ("TAILNET", "POSTURE_INTEGRATION", "UPDATE", "USER")
    );
    assert_eq!(
        kinds[3],
        ("NODE", "ATTRIBUTES", "UPDATE", "AUTOMATED_WORKER")
    );
    assert_eq!(
        kinds[4],
        ("NODE", "ATTRIBUTES", "CREATE", "AUTOMATED_WORKER")
    );
    assert_eq!(
        kinds[44],
        ("TAILNET", "POSTURE_INTEGRATION", "CREATE", "USER")
    );
    let details = events[3]["actionDetails"].as_str().unwrap();
    let serial = records[3]["details"]["serial"].as_str().unwrap();
    assert!(
        details.starts_with("integration corp; aid ") && details.contains(serial),
        "{details}"
    );
}
