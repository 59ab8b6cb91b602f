//! Edited items in the tables give an error or a value, never a crash.

use std::collections::HashMap;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use falcon_posture_sync::settings::IntegrationId;
use falcon_posture_sync::store::{AuditQuery, StoreError};
use falcon_posture_sync::text::error_chain;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::FileFailurePersistence;
use serde_json::json;

use crate::environment::TestEnvironment;

type Item = HashMap<String, AttributeValue>;

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        select(vec![
            "",
            "corp",
            "m4rk3d",
            "2026-01-01T00:00:00Z",
            "9999-99-99",
            "../..",
            "falcon",
            "\u{202e}\u{1b}[31m"
        ])
        .prop_map(str::to_owned),
        (1..4_000_usize).prop_map(|times| "m4rk3d\n".repeat(times)),
    ]
}

fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|n| n.to_string()),
        (-2..103_i64).prop_map(|n| n.to_string()),
        select(vec![
            "55.5",
            "1E+125",
            "-1E-130",
            "18446744073709551616",
            "99999999999999999999999999999999999999"
        ])
        .prop_map(str::to_owned),
    ]
}

/// Generates a value of any of the ten types.
fn value() -> impl Strategy<Value = AttributeValue> {
    let leaf = prop_oneof![
        3 => text().prop_map(AttributeValue::S),
        3 => number().prop_map(AttributeValue::N),
        1 => any::<bool>().prop_map(AttributeValue::Bool),
        1 => Just(AttributeValue::Null(true)),
        1 => vec(any::<u8>(), 0..20).prop_map(|bytes| AttributeValue::B(Blob::new(bytes))),
        1 => Just(AttributeValue::Ss(vec!["a".to_owned(), "b".to_owned()])),
        1 => Just(AttributeValue::Ns(vec!["1".to_owned(), "2.5".to_owned()])),
        1 => Just(AttributeValue::Bs(vec![Blob::new([0_u8]), Blob::new([255_u8])])),
    ];
    leaf.prop_recursive(3, 20, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(AttributeValue::L),
            btree_map(name(), inner, 0..5)
                .prop_map(|map| AttributeValue::M(map.into_iter().collect())),
        ]
    })
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => select(vec![
            "configVersion", "configUpdated", "status", "pause", "lease", "removal", "enabled", "maxRemovals", "percent",
            "attributeKey", "lastSync", "outcome", "error", "findings", "owner", "until", "since", "side", "attempts",
            "score", "serial", "name", "hostname", "aid", "writtenAt", "runId", "eventTime", "actor", "target", "type",
            "id", "action", "old", "new", "details", "expiresAt", "provider", "cloudId", "falconSecret", "tailnet",
        ])
        .prop_map(str::to_owned),
        1 => "[a-z\u{e9} ]{1,12}",
    ]
}

/// Generates edits for one item of each table.
fn edits() -> impl Strategy<Value = [Vec<(String, AttributeValue)>; 3]> {
    let edits = || vec((name(), value()), 1..4);
    [edits(), edits(), edits()]
}

const TABLES: [(&str, &[&str]); 3] = [
    ("integrations", &["id"]),
    ("nodes", &["integrationId", "nodeId"]),
    ("audit", &["integrationId", "eventId", "targetId"]),
];

async fn first(env: &TestEnvironment, table: &str) -> Item {
    let scan = env
        .tables
        .scan()
        .table_name(table)
        .limit(1)
        .send()
        .await
        .unwrap();
    scan.items.unwrap().remove(0)
}

/// Puts an edited item. The table may reject the edit.
async fn put(
    env: &TestEnvironment,
    (table, keys): (&str, &[&str]),
    item: &Item,
    edits: Vec<(String, AttributeValue)>,
) {
    let mut item = item.clone();
    item.extend(
        edits
            .into_iter()
            .filter(|(name, _)| !keys.contains(&name.as_str())),
    );
    let _ = env
        .tables
        .put_item()
        .table_name(table)
        .set_item(Some(item))
        .send()
        .await;
}

#[track_caller]
fn assert_error_fit(error: &StoreError) {
    super::assert_text_fit(&error_chain(error));
}

/// Calls every function that reads the tables.
async fn read(env: &TestEnvironment) {
    let corp: IntegrationId = "corp".to_owned().try_into().unwrap();
    let store = &env.app.store;
    match store.integration(&corp).await {
        Ok(integration) => {
            if let Err(error) = &integration.settings {
                super::assert_text_fit(&error.to_string());
            }
        }
        Err(error) => assert_error_fit(&error),
    }
    store.integrations().await.unwrap();
    if let Err(error) = store.nodes(&corp).await {
        assert_error_fit(&error);
    }
    for (integration, device) in [
        (Some(&corp), None),
        (Some(&corp), Some("C02")),
        (None, Some("n1")),
    ] {
        let search = AuditQuery {
            integration: integration.cloned(),
            device: device.map(str::to_owned),
            limit: 5,
            ..AuditQuery::default()
        };
        if let Err(error) = store.search_audit(&search).await {
            assert_error_fit(&error);
        }
    }
}

#[test]
fn whatever_is_in_an_item_it_is_a_value_or_an_error_of_one_line() {
    let config = ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::with_cases(120)
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let env = runtime.block_on(TestEnvironment::synced());
    let items: Vec<Item> = TABLES
        .iter()
        .map(|(table, _)| runtime.block_on(first(&env, table)))
        .collect();
    proptest!(config, |(edits in edits())| {
        runtime.block_on(async {
            for ((table, item), edits) in TABLES.into_iter().zip(&items).zip(edits) {
                put(&env, table, item, edits).await;
            }
            read(&env).await;
            // Commands read the same items: they may fail, but not panic.
            for payload in [
                json!({"command": "status"}),
                json!({"command": "status", "integration": "corp"}),
                json!({"command": "audit", "integration": "corp"}),
                json!({"command": "sync", "integration": "corp", "dryRun": true}),
            ] {
                if let Err(error) = env.try_ask(payload).await {
                    super::assert_text_fit(&error_chain(&error));
                }
            }
        });
    });
}
