//! A busy DynamoDB: throttled calls and transaction conflicts.

use std::sync::{Arc, Mutex};

use axum::http::StatusCode;
use falcon_posture_sync::store::Store;
use futures::FutureExt as _;
use futures::future::join_all;
use posture_simulators::GeneratorSpec;
use serde_json::{Value, json};

use crate::aws;
use crate::environment::{TestEnvironment, chain};
use crate::process::relay::{Answered, Asked, Relay, Watch};

/// An error of DynamoDB.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Refusal {
    /// An exception of this name.
    Exception(&'static str),
    /// A cancelled transaction, with this reason for one of its items.
    Cancelled(&'static str),
    /// A web page with this status, from something in between.
    Page(StatusCode),
}

impl Refusal {
    pub(crate) fn answer(self, asked: &Asked) -> Answered {
        let name = |name: &str| format!("com.amazonaws.dynamodb.v20120810#{name}");
        let body = match self {
            Self::Page(status) => {
                return Answered {
                    status,
                    body: "<!doctype html><title>Error</title>".into(),
                    ..Answered::nothing()
                };
            }
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
    env.app.store = Store::new(&aws::sdk(&relay.url()), &env.app.config);
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

/// Writes wait longer than the SDK does, whatever the kind of write and of refusal.
#[tokio::test]
async fn throttled_writes_are_made_again_alike() {
    let operations = ["TransactWriteItems", "UpdateItem"];
    let refusals = [
        "ThrottlingException",
        "ProvisionedThroughputExceededException",
    ];
    join_all(operations.into_iter().flat_map(|operation| {
        refusals.map(|kind| comes_through(operation, Refusal::Exception(kind), 5).boxed_local())
    }))
    .await;
}

/// Lambda may freeze the function after a request is signed. The next attempt is signed anew.
#[tokio::test]
async fn case_i_a_signature_that_expired_over_a_thaw_is_made_anew() {
    let operations = ["TransactWriteItems", "UpdateItem", "Query", "Scan"];
    let refusals = ["InvalidSignatureException", "RequestExpired"];
    join_all(operations.into_iter().flat_map(|operation| {
        refusals.map(|kind| comes_through(operation, Refusal::Exception(kind), 1).boxed_local())
    }))
    .await;
}

#[tokio::test]
async fn case_i_a_page_in_the_place_of_dynamodbs_answer_is_asked_again() {
    let operations = ["TransactWriteItems", "UpdateItem", "Query", "Scan"];
    let statuses = [
        StatusCode::INTERNAL_SERVER_ERROR,
        StatusCode::SERVICE_UNAVAILABLE,
    ];
    join_all(operations.into_iter().flat_map(|operation| {
        statuses.map(|status| comes_through(operation, Refusal::Page(status), 2).boxed_local())
    }))
    .await;
}

/// If the page stays, the message names the status.
#[tokio::test]
async fn case_i_a_page_that_stays_is_told_with_its_status() {
    let mut env = TestEnvironment::connected(&GeneratorSpec::plain(6, 6)).await;
    let busy = Arc::new(Busy {
        operation: "Query",
        refusal: Refusal::Page(StatusCode::INTERNAL_SERVER_ERROR),
        left: Mutex::new(usize::MAX),
    });
    let relay = Relay::to(env.dynamodb.url(), busy).await;
    env.app.store = Store::new(&aws::sdk(&relay.url()), &env.app.config);
    let error = env.try_ask(json!({"command": "sync"})).await.unwrap_err();
    let error = chain(&error);
    assert_eq!(
        error,
        "DynamoDB: could not read the node records: HTTP 500: the response does not decode"
    );
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
