//! The tables of the model against the real store, by random sequences of calls.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::types::AttributeValue;
use falcon_posture_sync::domain::audit::AuditContext;
use falcon_posture_sync::domain::inventory::device::NodeId;
use falcon_posture_sync::domain::plan::journal::journal_key;
use falcon_posture_sync::settings::IntegrationId;
use falcon_posture_sync::store::{FinishOutcome, Settlement, StoreError};
use jiff::{SignedDuration, Timestamp};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use super::PROTOCOL;
use super::tables::{
    Audited, Entry, Key, Lease, NEVER, NODE, Record, SentAt, Settled, Tables, change, expiry,
    run_id, time,
};
use crate::environment::{KEY, TestEnvironment};

/// An entry that changes nothing.
const NOTHING: Entry = Entry {
    run: 9,
    sent_at: SentAt {
        epoch: 0,
        number: 0,
    },
    new: None,
    ends: NEVER,
};

/// A call of the store. Runs, terms and entries are told by small numbers, so that they meet.
#[derive(Clone, Copy, Debug)]
enum Call {
    Acquire(Lease),
    PutJournal(Option<Lease>, Key, Entry, Option<Key>),
    Record(Option<Record>, Entry),
    Settle(Lease, (Key, Entry), Settled),
    Release(Lease),
    Delete(Lease),
}

fn lease() -> impl Strategy<Value = Lease> {
    (1..3_u8, 1..3_u8, 0..2_u8).prop_map(|(run, term, epoch)| Lease { run, term, epoch })
}

fn key() -> impl Strategy<Value = Key> {
    (1..3_u8, 0..2_u8)
}

fn entry() -> impl Strategy<Value = Entry> {
    let new = proptest::option::of(1..3_u8);
    (1..3_u8, 0..2_u8, 0..3_u8, new, ends()).prop_map(|(run, epoch, number, new, ends)| Entry {
        run,
        sent_at: SentAt { epoch, number },
        new,
        ends,
    })
}

fn ends() -> impl Strategy<Value = u8> {
    prop_oneof![Just(NEVER), 0..4_u8]
}

fn record() -> impl Strategy<Value = Option<Record>> {
    let record = |(score, run, ends)| Record { score, run, ends };
    proptest::option::of((1..3_u8, 1..3_u8, ends()).prop_map(record))
}

fn settled() -> impl Strategy<Value = Settled> {
    prop_oneof![
        (record(), ends()).prop_map(|(old, ends)| Settled::Made(old, ends)),
        Just(Settled::NotMade),
        record().prop_map(Settled::Unknown),
    ]
}

fn call() -> impl Strategy<Value = Call> {
    let optional = proptest::option::weighted(0.8, lease());
    let recorded = proptest::option::weighted(0.2, key());
    prop_oneof![
        3 => lease().prop_map(Call::Acquire),
        4 => (optional, key(), entry(), recorded)
            // An update cannot set and remove one path.
            .prop_map(|(lease, key, entry, recorded)| {
                Call::PutJournal(lease, key, entry, recorded.filter(|recorded| *recorded != key))
            }),
        3 => (record(), entry()).prop_map(|(old, entry)| Call::Record(old, entry)),
        4 => (lease(), key(), entry(), settled())
            .prop_map(|(lease, key, entry, settled)| Call::Settle(lease, (key, entry), settled)),
        1 => lease().prop_map(Call::Release),
        1 => lease().prop_map(Call::Delete),
    ]
}

fn in_model(tables: &mut Tables, call: Call) -> bool {
    match call {
        Call::Acquire(lease) => tables.acquire(PROTOCOL, lease, false),
        Call::PutJournal(lease, key, entry, recorded) => {
            tables.put_journal(PROTOCOL, lease, key, entry, recorded)
        }
        Call::Record(old, entry) => tables.record(old, entry, entry.sent_at),
        Call::Settle(lease, entry, settled) => {
            tables.settle(PROTOCOL, lease, entry, settled, entry.1.sent_at)
        }
        Call::Release(lease) => tables.finish(PROTOCOL, lease, &[]),
        Call::Delete(lease) => tables.delete(PROTOCOL, lease),
    }
}

/// Returns whether a condition held.
fn held<T>(result: Result<T, StoreError>) -> bool {
    match result {
        Ok(_) => true,
        Err(StoreError::Overtaken(_) | StoreError::NoIntegration(_)) => false,
        Err(error) => panic!("{error:?}"),
    }
}

fn store_key((term, number): Key) -> String {
    journal_key(&term_name(term), number.into())
}

fn term_name(term: u8) -> String {
    format!("term-{term}")
}

fn context(run: u8) -> AuditContext {
    AuditContext {
        integration: corp(),
        run_id: run_id(run),
        actor: "model".to_owned(),
        retention_days: 1,
    }
}

fn corp() -> IntegrationId {
    "corp".to_owned().try_into().unwrap()
}

async fn in_store(env: &TestEnvironment, version: u64, call: Call) -> bool {
    let (store, id) = (&env.app.store, &corp());
    match call {
        Call::Acquire(lease) => {
            let now = time(lease.epoch);
            let until = now + SignedDuration::from_mins(15);
            let (run, term) = (run_id(lease.run), term_name(lease.term));
            match store.acquire(id, &run, &term, now, until).await {
                Ok(integration) => integration.is_some(),
                error => held(error),
            }
        }
        Call::PutJournal(lease, key, entry, recorded) => {
            let term = lease.map(|lease| term_name(lease.term));
            let (key, recorded) = (store_key(key), recorded.map(store_key));
            let (term, recorded) = (term.as_deref(), recorded.as_slice());
            held(
                store
                    .put_journal(id, term, &key, &entry.to_code(), recorded)
                    .await,
            )
        }
        Call::Record(old, entry) => {
            let changes = [change(old, entry)];
            held(
                store
                    .record_changes(&context(entry.run), &changes, entry.sent_at.time())
                    .await,
            )
        }
        Call::Settle(lease, (key, entry), settled) => {
            let mut settlement = Settlement::default();
            match settled {
                Settled::Made(old, ends) => {
                    settlement.made.push(change(old, Entry { ends, ..entry }));
                }
                Settled::NotMade => {}
                Settled::Unknown(old) => settlement.unknown.push(change(old, entry)),
            }
            settlement.nodes.push(NodeId(NODE.into()));
            let (key, term) = (store_key(key), term_name(lease.term));
            let (context, entry) = (context(entry.run), entry.to_code());
            held(
                store
                    .settle(&term, &context, (&key, &entry), &settlement, true)
                    .await,
            )
        }
        Call::Release(lease) => {
            let released = store.release(id, &term_name(lease.term), version).await;
            released.unwrap() == FinishOutcome::Released
        }
        Call::Delete(lease) => {
            // The record of the removal is one of a device here, with a time of its own.
            let record =
                context(9).attribute_changed(&change(None, NOTHING), Timestamp::UNIX_EPOCH);
            let term = term_name(lease.term);
            let deleted = store.delete_integration(&term, version, &record).await;
            deleted.unwrap() == FinishOutcome::Released
        }
    }
}

/// Returns the state of the model's tables as JSON, in the form of `of_store`.
fn of_model(tables: &Tables) -> Value {
    let lease = tables
        .lease
        .map(|lease| json!([run_id(lease.run), term_name(lease.term)]));
    let journal: BTreeMap<String, Value> = tables
        .journal
        .iter()
        .map(|(key, entry)| (store_key(*key), json!(entry.to_code())))
        .collect();
    let record = tables
        .record
        .map(|record| json!([record.score, run_id(record.run), expiry(record.ends)]));
    let audit: Vec<Value> = tables
        .audit
        .iter()
        .map(|((at, run), audit)| {
            let (new, is_unknown) = match audit.audited {
                Audited::Changed(_, new) => (new, false),
                Audited::Unknown(new) => (new, true),
            };
            json!([at.time().as_millisecond(), run_id(*run), new, is_unknown])
        })
        .collect();
    let item = (!tables.is_deleted).then(|| json!({"lease": lease, "journal": journal}));
    json!({"item": item, "record": record, "audit": audit})
}

async fn of_store(env: &TestEnvironment) -> Value {
    let items = env.items("integrations").await;
    let item = items.first().map(|item| {
        let lease = &item["lease"];
        let lease = (!lease.is_null()).then(|| json!([lease["owner"], lease["term"]]));
        let journal = match &item["pending"] {
            Value::Null => json!({}),
            journal => journal.clone(),
        };
        json!({"lease": lease, "journal": journal})
    });
    let nodes = env.items("nodes").await;
    let record = nodes.first().map(|record| {
        let expiry = record["expiry"].as_str();
        let expiry: Option<Timestamp> = expiry.map(|expiry| expiry.parse().unwrap());
        json!([record["score"], record["runId"], expiry])
    });
    let audit = env.node_audit().await;
    let audit = audit.iter().filter(|record| record["runId"] != "run-9");
    let audit: Vec<Value> = audit
        .map(|record| {
            let time: Timestamp = record["eventTime"].as_str().unwrap().parse().unwrap();
            let is_unknown = record["details"]["unknown"] == true;
            json!([
                time.as_millisecond(),
                record["runId"],
                record["new"][KEY],
                is_unknown
            ])
        })
        .collect();
    json!({"item": item, "record": record, "audit": audit})
}

async fn compare(env: &TestEnvironment, calls: &[Call]) -> Result<(), TestCaseError> {
    env.dynamodb.clear().unwrap();
    env.connect_unchecked(json!({})).await;
    let removal = [
        ("attributes", "keep"),
        ("since", "2026-01-15T12:00:00Z"),
        ("actor", "model"),
    ];
    let removal = removal.map(|(name, text)| (name.to_owned(), AttributeValue::S(text.to_owned())));
    env.edit("removal", AttributeValue::M(removal.into())).await;
    let version = env.corp().await["configVersion"].as_u64().unwrap();
    let mut tables = Tables::default();
    for (n, call) in calls.iter().enumerate() {
        // The journal begins with the first lease.
        let has_journal = |item: &Value| !item["pending"].is_null();
        let is_early = !env.items("integrations").await.iter().any(has_journal);
        if is_early && matches!(call, Call::PutJournal(None, ..)) {
            continue;
        }
        let (expected, done) = (
            in_model(&mut tables, *call),
            in_store(env, version, *call).await,
        );
        prop_assert_eq!(done, expected, "call {} of {:?}", n, calls);
        prop_assert_eq!(
            of_store(env).await,
            of_model(&tables),
            "call {} of {:?}",
            n,
            calls
        );
    }
    Ok(())
}

#[test]
fn the_tables_of_the_model_are_those_of_the_store() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let env = runtime.block_on(TestEnvironment::empty());
    let config = Config {
        cases: 300,
        failure_persistence: None,
        ..Config::default()
    };
    let result = TestRunner::new(config).run(&vec(call(), 1..14), |calls| {
        runtime.block_on(compare(&env, &calls))
    });
    result.unwrap();
}
