//! Secrets Manager and EventBridge, as far as the function calls them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use posture_simulators::Traffic;
use posture_simulators::net::{Bound, Server};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{Error, lock};

/// The state of both services.
#[derive(Debug, Default)]
pub struct ServiceState {
    /// Secrets by name: the versions, the last one current.
    secrets: BTreeMap<String, Vec<Value>>,
    /// Events that were accepted, in order.
    pub events: Vec<Value>,
    /// Calls and bytes by operation.
    pub traffic: BTreeMap<String, Traffic>,
    /// If true, EventBridge rejects every event.
    pub bus_is_down: bool,
    /// Each answer leaves this long after its request.
    pub answer_time: Duration,
}

/// Secrets Manager and EventBridge on one port, until all clones are dropped.
#[derive(Clone, Debug)]
pub struct Services {
    state: Arc<Mutex<ServiceState>>,
    server: Arc<Server>,
}

impl Services {
    /// Starts both services without secrets.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start() -> Result<Self, Error> {
        let state = Arc::new(Mutex::new(ServiceState::default()));
        let routes = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&state));
        let server = Arc::new(Server::start(Bound::to(0).await?, routes));
        Ok(Self { state, server })
    }

    /// Where they listen: `http://127.0.0.1:1234`.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Locks the state, for reading and for changes.
    pub fn state(&self) -> MutexGuard<'_, ServiceState> {
        lock(&self.state)
    }

    /// Adds a new current version of a secret: JSON, or any text.
    pub fn put_secret(&self, name: &str, value: Value) {
        let mut state = self.state();
        state
            .secrets
            .entry(name.to_owned())
            .or_default()
            .push(value);
    }

    /// Counts the calls of an operation.
    pub fn calls(&self, operation: &str) -> u64 {
        let state = self.state();
        state
            .traffic
            .get(operation)
            .map_or(0, |traffic| traffic.requests)
    }
}

async fn answer(
    State(state): State<Arc<Mutex<ServiceState>>>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, [(&'static str, &'static str); 1], String) {
    let arrived = Instant::now();
    let target = headers
        .get("x-amz-target")
        .and_then(|target| target.to_str().ok());
    let operation = target
        .unwrap_or_default()
        .rsplit('.')
        .next()
        .unwrap_or_default();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let (status, answer, answer_time) = {
        let mut state = lock(&state);
        let (status, answer) = state.answer(operation, &body);
        let answer = answer.to_string();
        let traffic = state.traffic.entry(operation.to_owned()).or_default();
        traffic.requests += 1;
        traffic.bytes_out += u64::try_from(answer.len()).unwrap_or(u64::MAX);
        (status, answer, state.answer_time)
    };
    if !answer_time.is_zero() {
        tokio::time::sleep_until(arrived + answer_time).await;
    }
    (
        status,
        [("content-type", "application/x-amz-json-1.1")],
        answer,
    )
}

impl ServiceState {
    fn answer(&mut self, operation: &str, body: &Value) -> (StatusCode, Value) {
        let answer = match operation {
            "GetSecretValue" => self.secret(body).map(|(version, value)| {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                json!({"Name": body["SecretId"], "VersionId": version, "SecretString": text})
            }),
            "DescribeSecret" => self.secret(body).map(|(version, _)| {
                json!({"Name": body["SecretId"], "VersionIdsToStages": {version: ["AWSCURRENT"]}})
            }),
            "PutEvents" => Some(self.put_events(body)),
            other => panic!("Secrets Manager and EventBridge are not asked for {other:?}"),
        };
        answer.map_or_else(
            || {
                let error =
                    json!({"__type": "ResourceNotFoundException", "message": "no such secret"});
                (StatusCode::BAD_REQUEST, error)
            },
            |answer| (StatusCode::OK, answer),
        )
    }

    fn secret(&self, body: &Value) -> Option<(String, &Value)> {
        let versions = self.secrets.get(body["SecretId"].as_str()?)?;
        Some((format!("version-{}", versions.len()), versions.last()?))
    }

    /// Accepts all events, or none.
    fn put_events(&mut self, body: &Value) -> Value {
        let entries = body["Entries"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        if self.bus_is_down {
            let results = vec![json!({"ErrorCode": "InternalFailure"}); entries.len()];
            return json!({"FailedEntryCount": entries.len(), "Entries": results});
        }
        self.events.extend(entries.iter().map(event));
        json!({"FailedEntryCount": 0, "Entries": vec![json!({"EventId": "1"}); entries.len()]})
    }
}

/// An entry as the rules of the bus see it.
fn event(entry: &Value) -> Value {
    let detail = entry["Detail"].as_str().unwrap_or_default();
    let Ok(detail) = serde_json::from_str::<Value>(detail) else {
        panic!("the detail of an event must be JSON: {entry}");
    };
    json!({"source": entry["Source"], "detail-type": entry["DetailType"], "detail": detail})
}
