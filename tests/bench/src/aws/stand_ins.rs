//! Secrets Manager and EventBridge, as far as the function asks them for something.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Held, json_response, operation, target};

/// Both on one port.
pub(super) fn stand_ins(held: Arc<Held>) -> Router {
    Router::new().fallback(move |headers: HeaderMap, body: Bytes| {
        let held = Arc::clone(&held);
        async move {
            let arrived = Instant::now();
            let operation = operation(target(&headers));
            let (status, answer) = held.stand_in(operation, &body);
            let answer = Bytes::from(answer.to_string());
            let service = if operation == "PutEvents" {
                "events"
            } else {
                "secrets"
            };
            held.counts()
                .count(format!("{service} {operation}"), answer.len());
            tokio::time::sleep_until(arrived + held.answer_time).await;
            json_response(status, "application/x-amz-json-1.1", answer)
        }
    })
}

impl Held {
    fn stand_in(&self, operation: &str, body: &Bytes) -> (StatusCode, Value) {
        const VERSION: &str = "0f0c1c62-0a3b-4c3e-9c5b-3f0b8f9c7d11";
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let secret = || {
            let name = body["SecretId"].as_str().unwrap_or_default();
            self.secrets.get(name).map(|secret| (name, secret))
        };
        let answer = match operation {
            "GetSecretValue" => secret().map(
                |(name, secret)| json!({"Name": name, "VersionId": VERSION, "SecretString": secret}),
            ),
            "DescribeSecret" => secret().map(
                |(name, _)| json!({"Name": name, "VersionIdsToStages": {VERSION: ["AWSCURRENT"]}}),
            ),
            "PutEvents" => {
                let entries = body["Entries"].as_array().map_or(0, Vec::len);
                self.counts().events += u64::try_from(entries).unwrap_or(u64::MAX);
                Some(
                    json!({"FailedEntryCount": 0, "Entries": vec![json!({"EventId": "1"}); entries]}),
                )
            }
            _ => None,
        };
        match answer {
            Some(answer) => (StatusCode::OK, answer),
            None => (
                StatusCode::BAD_REQUEST,
                json!({"__type": "ResourceNotFoundException", "message": "no such thing in the bench"}),
            ),
        }
    }
}
