//! A busy DynamoDB: throttled calls and transaction conflicts.

use std::sync::{Arc, Mutex};

use aws_sdk_dynamodb::Client;
use axum::http::StatusCode;
use falcon_posture_sync::store::Store;
use futures::FutureExt as _;
use futures::future::join_all;
use posture_simulators::GeneratorSpec;
use serde_json::{Value, json};

use crate::aws;
use crate::environment::TestEnvironment;
use crate::process::relay::{Answered, Asked, Relay, Watch};

/// An error of DynamoDB.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Refusal {
    /// An exception of this name.
    Exception(&'static str),
    /// A cancelled transaction, with this reason for one of its items.
    Cancelled(&'static str),
}

impl Refusal {
    pub(crate) fn answer(self, asked: &Asked) -> Answered {
        let name = |name: &str| format!("com.amazonaws.dynamodb.v20120810#{name}");
        let body = match self {
            Self::Exception(kind) => json!({"__type": name(kind), "message": "busy"}),
            Self::Cancelled(code) => {
                let body: Value = serde_json::from_slice(&asked.body).unwrap();
                let items = body["TransactItems"].as_array().unwrap().len();
                let mut reasons = vec![json!({"Code": "None"}); items];
                reasons[items / 2] = json!({"Code": code, "Message": "busy"});
                json!({
                    "__type": name("TransactionCanceledException"), "CancellationReasons": reasons,
                    "Message": "Transaction cancelled, please refer cancellation reasons for specific reasons",
                })
            }
        };
        let mut answered = Answered {
            status: StatusCode::BAD_REQUEST,
            body: body.to_string().into(),
            ..Answered::nothing()
        };
        let kind = "application/x-amz-json-1.0".parse().unwrap();
        answered.headers.insert("content-type", kind);
        answered
    }
}

/// Rejects the first calls of an operation.
struct Busy {
    operation: &'static str,
    refusal: Refusal,
    left: Mutex<usize>,
}

impl Watch for Busy {
    fn before(&self, asked: &mut Asked) -> Option<Answered> {
        if asked.aws_operation() != Some(self.operation) {
            return None;
        }
        let mut left = self.left.lock().unwrap();
        *left = left.checked_sub(1)?;
        Some(self.refusal.answer(asked))
    }

    fn after(&self, _: &Asked, _: &Answered) {}
}

/// Runs against a DynamoDB that rejects the first calls of an operation: the run succeeds and records everything.
async fn comes_through(operation: &'static str, refusal: Refusal, times: usize) {
    let mut env = TestEnvironment::connected(&GeneratorSpec::plain(60, 60)).await;
    let busy = Arc::new(Busy {
        operation,
        refusal,
        left: Mutex::new(times),
    });
    let relay = Relay::to(env.dynamodb.url(), busy.clone()).await;
    let client = Client::new(&aws::sdk(&relay.url()));
    env.app.store = Store::new(client, &env.app.config);
    let answer = env.sync().await;
    let what = format!("{times} times {refusal:?} at {operation}");
    assert_eq!(answer["outcome"], "synced", "{what}: {answer:#}");
    assert_eq!(*busy.left.lock().unwrap(), 0, "{what}: all were met");
    assert_eq!(env.scores(), env.expected(), "{what}");
    assert_eq!(env.items("nodes").await.len(), 60, "{what}");
    assert_eq!(env.corp().await["status"]["outcome"], "synced", "{what}");
    env.assert_sound().await;
    assert_eq!(env.sync().await["outcome"], "unchanged", "{what}");
    env.assert_sound().await;
}

#[tokio::test]
async fn transactions_in_the_way_of_others_are_made_again() {
    let cases = [
        (
            "TransactWriteItems",
            Refusal::Cancelled("TransactionConflict"),
        ),
        ("TransactWriteItems", Refusal::Cancelled("ThrottlingError")),
        (
            "UpdateItem",
            Refusal::Exception("TransactionConflictException"),
        ),
    ];
    let cases =
        cases.map(|(operation, refusal)| comes_through(operation, refusal, 5).boxed_local());
    join_all(cases).await;
}

#[tokio::test]
async fn throttled_calls_are_made_again() {
    let operations = ["TransactWriteItems", "UpdateItem", "Query", "Scan"];
    let refusals = [
        "ThrottlingException",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
    ];
    join_all(operations.into_iter().flat_map(|operation| {
        refusals.map(|kind| comes_through(operation, Refusal::Exception(kind), 2).boxed_local())
    }))
    .await;
}
