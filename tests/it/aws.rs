//! AWS as the function sees it: a DynamoDB of the real protocol, and stand-ins for Secrets Manager and EventBridge.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{Credentials, SharedCredentialsProvider};
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection,
    ProjectionType, ScalarAttributeType,
};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use dynoxide::Database;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// The SDK's settings for a server on this machine.
pub(crate) fn sdk(endpoint: &str) -> SdkConfig {
    let credentials = Credentials::new("test", "test", None, None, "tests");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .endpoint_url(endpoint)
        .build()
}

/// Likewise for a function that is about to meet servers which do not answer: two tries, each of so long.
pub(crate) fn impatient_sdk(endpoint: &str, patience: Duration) -> SdkConfig {
    let tries = RetryConfig::standard()
        .with_max_attempts(2)
        .with_initial_backoff(Duration::from_millis(1))
        .with_max_backoff(Duration::from_millis(2));
    let time = TimeoutConfig::builder()
        .operation_attempt_timeout(patience)
        .build();
    sdk(endpoint)
        .into_builder()
        .retry_config(tries)
        .timeout_config(time)
        .build()
}

/// A server that ends with its test.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) url: String,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, url)
}

/// A server of these routes.
pub(crate) async fn serve(routes: Router) -> Server {
    let (listener, url) = listener().await;
    let task = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    Server { url, task }
}

/// A DynamoDB with the three tables, empty.
pub(crate) async fn dynamodb() -> Server {
    let (listener, url) = listener().await;
    let database = Database::memory().unwrap();
    let server = Server {
        task: tokio::spawn(dynoxide::server::serve_on(listener, database)),
        url,
    };
    create_tables(&Client::new(&sdk(&server.url))).await;
    server
}

/// The three tables, empty.
pub(crate) async fn create_tables(client: &Client) {
    table(client, "integrations", &["id"], None).await;
    table(client, "nodes", &["integrationId", "nodeId"], None).await;
    table(
        client,
        "audit",
        &["integrationId", "eventId"],
        Some(["targetId", "eventId"]),
    )
    .await;
}

async fn table(client: &Client, name: &str, keys: &[&str], index: Option<[&str; 2]>) {
    let schema = |keys: &[&str]| -> Vec<KeySchemaElement> {
        [KeyType::Hash, KeyType::Range]
            .into_iter()
            .zip(keys)
            .map(|(kind, key)| {
                KeySchemaElement::builder()
                    .key_type(kind)
                    .attribute_name(*key)
                    .build()
                    .unwrap()
            })
            .collect()
    };
    let mut names: Vec<&str> = keys.to_vec();
    names.extend(index.iter().flatten().filter(|key| !keys.contains(key)));
    let index = index.map(|keys| {
        GlobalSecondaryIndex::builder()
            .index_name("target")
            .set_key_schema(Some(schema(&keys)))
            .projection(
                Projection::builder()
                    .projection_type(ProjectionType::All)
                    .build(),
            )
            .build()
            .unwrap()
    });
    client
        .create_table()
        .table_name(name)
        .billing_mode(BillingMode::PayPerRequest)
        .set_key_schema(Some(schema(keys)))
        .set_attribute_definitions(Some(
            names
                .iter()
                .map(|name| {
                    AttributeDefinition::builder()
                        .attribute_name(*name)
                        .attribute_type(ScalarAttributeType::S)
                        .build()
                        .unwrap()
                })
                .collect(),
        ))
        .set_global_secondary_indexes(index.map(|index| vec![index]))
        .send()
        .await
        .unwrap();
}

/// What Secrets Manager and EventBridge hold.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// Secrets by name: the versions, the last one current.
    secrets: BTreeMap<String, Vec<Value>>,
    /// Events that were put, in order.
    pub(crate) events: Vec<Value>,
    /// Calls by operation.
    pub(crate) calls: BTreeMap<String, usize>,
    /// Whether the bus takes nothing.
    pub(crate) bus_is_down: bool,
}

/// Secrets Manager and EventBridge on one port.
#[derive(Clone, Debug)]
pub(crate) struct Services {
    held: Arc<Mutex<Held>>,
    server: Arc<Server>,
}

impl Services {
    pub(crate) async fn start() -> Self {
        let held = Arc::new(Mutex::new(Held::default()));
        let routes = Router::new().fallback(answer).with_state(Arc::clone(&held));
        let server = Arc::new(serve(routes).await);
        Self { held, server }
    }

    pub(crate) fn url(&self) -> &str {
        &self.server.url
    }

    pub(crate) fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap()
    }

    /// A new current version of a secret: JSON, or any text.
    pub(crate) fn put_secret(&self, name: &str, value: Value) {
        self.held()
            .secrets
            .entry(name.to_owned())
            .or_default()
            .push(value);
    }

    /// How often an operation was called.
    pub(crate) fn calls(&self, operation: &str) -> usize {
        self.held().calls.get(operation).copied().unwrap_or(0)
    }
}

async fn answer(
    State(held): State<Arc<Mutex<Held>>>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, [(&'static str, &'static str); 1], String) {
    let operation = headers["x-amz-target"]
        .to_str()
        .unwrap()
        .rsplit('.')
        .next()
        .unwrap()
        .to_owned();
    let body: Value = serde_json::from_slice(&body).unwrap();
    let mut held = held.lock().unwrap();
    *held.calls.entry(operation.clone()).or_default() += 1;
    let answer = match operation.as_str() {
        "GetSecretValue" => held.secret(&body).map(|(version, value)| {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            json!({"Name": body["SecretId"], "VersionId": version, "SecretString": text})
        }),
        "DescribeSecret" => held.secret(&body).map(|(version, _)| {
            json!({"Name": body["SecretId"], "VersionIdsToStages": {version: ["AWSCURRENT"]}})
        }),
        "PutEvents" => {
            let entries = body["Entries"].as_array().unwrap().clone();
            let down = held.bus_is_down;
            let results: Vec<Value> = entries
                .iter()
                .map(|_| if down { json!({"ErrorCode": "InternalFailure"}) } else { json!({"EventId": "1"}) })
                .collect();
            if !down {
                held.events.extend(entries.into_iter().map(|entry| {
                    let detail: Value = serde_json::from_str(entry["Detail"].as_str().unwrap()).unwrap();
                    json!({"source": entry["Source"], "detail-type": entry["DetailType"], "detail": detail})
                }));
            }
            Some(json!({"FailedEntryCount": if down { results.len() } else { 0 }, "Entries": results}))
        }
        other => panic!("no stand-in for {other}"),
    };
    let kind = [("content-type", "application/x-amz-json-1.1")];
    match answer {
        Some(answer) => (StatusCode::OK, kind, answer.to_string()),
        None => (
            StatusCode::BAD_REQUEST,
            kind,
            json!({"__type": "ResourceNotFoundException", "message": "no such secret"}).to_string(),
        ),
    }
}

impl Held {
    fn secret(&self, body: &Value) -> Option<(String, Value)> {
        let versions = self.secrets.get(body["SecretId"].as_str()?)?;
        Some((
            format!("version-{}", versions.len()),
            versions.last()?.clone(),
        ))
    }
}
