//! AWS for the bench: the simulators, with a layer in front of DynamoDB that counts.
//!
//! The request units are DynamoDB's own account of them: the layer adds `ReturnConsumedCapacity` to each request and
//! sums up what the answers report. The embedded server follows AWS's rules (a write costs 1 a KB, twice that in a
//! transaction; a strongly consistent read 1 for each 4 KB; an index what its items cost).
//!
//! DynamoDB takes transactions side by side. The embedded one takes one after the other, each of them some 25 ms of a
//! core that the function needs. So those that record changes are answered when their time has come, and carried out
//! when they are next read or the sync is over. One that does not succeed then ends the bench.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_simulators::{DynamoDb, Services, endpoints};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Response, StatusCode, header};
use posture_simulators::Traffic;
use posture_simulators::net::{Bound, Server};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{Trouble, count};

/// The requests to AWS since the counts were last taken.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    /// By service, operation and table: `dynamodb Query nodes`.
    pub(crate) calls: BTreeMap<String, Traffic>,
    /// Read request units.
    pub(crate) reads: f64,
    /// Write request units.
    pub(crate) writes: f64,
    /// Those of them that each table's own items took, without its indexes. All items of an integration have one
    /// partition key, so they are the load of one partition.
    pub(crate) partition_writes: BTreeMap<String, f64>,
    /// Events put on the bus.
    pub(crate) events: u64,
    /// How long the embedded DynamoDB worked on its answers, all of them added up.
    pub(crate) busy: Duration,
}

impl Counts {
    /// Calls of operations that start like this.
    pub(crate) fn calls_of(&self, start: &str) -> u64 {
        let of = self
            .calls
            .iter()
            .filter(|(name, _)| name.starts_with(start));
        of.map(|(_, traffic)| traffic.requests).sum()
    }

    /// Write request units of the partition that takes most.
    pub(crate) fn fullest_partition(&self) -> f64 {
        self.partition_writes.values().copied().fold(0.0, f64::max)
    }

    /// Bytes of their answers.
    pub(crate) fn bytes_of(&self, start: &str) -> u64 {
        let of = self
            .calls
            .iter()
            .filter(|(name, _)| name.starts_with(start));
        of.map(|(_, traffic)| traffic.bytes_out).sum()
    }

    fn count(&mut self, call: String, bytes: usize) {
        let traffic = self.calls.entry(call).or_default();
        traffic.requests += 1;
        traffic.bytes_out += count(bytes);
    }
}

/// The state of the layer.
#[derive(Debug)]
struct Held {
    counts: Mutex<Counts>,
    answer_time: Duration,
    /// Transactions that were answered and are not carried out yet, in their order.
    late: tokio::sync::Mutex<Vec<Bytes>>,
}

impl Held {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The three services, until this is dropped.
#[derive(Debug)]
pub(crate) struct Aws {
    layer: Layer,
    dynamodb: Server,
    services: Services,
    _database: DynamoDb,
}

impl Aws {
    /// Starts the services with empty tables and these secrets. Each answer leaves this long after its request, if the
    /// work for it takes no longer.
    pub(crate) async fn start(
        secrets: BTreeMap<String, Value>,
        answer_time: Duration,
    ) -> Result<Self, Trouble> {
        let services = Services::start().await?;
        services.state().answer_time = answer_time;
        for (name, secret) in secrets {
            services.put_secret(&name, secret);
        }
        let database = DynamoDb::start().await?;
        let layer = Layer {
            base: database.url().to_owned(),
            client: client()?,
            held: Arc::new(Held {
                counts: Mutex::default(),
                answer_time,
                late: tokio::sync::Mutex::default(),
            }),
        };
        Ok(Self {
            dynamodb: Server::start(Bound::to(0).await?, layer.clone().into_router()),
            layer,
            services,
            _database: database,
        })
    }

    /// The addresses, as the SDK's variables.
    pub(crate) fn variables(&self) -> [(&'static str, String); 3] {
        endpoints(&self.dynamodb.url(), &self.services.url())
    }

    /// Carries out the transactions that were only answered so far.
    pub(crate) async fn settle(&self) -> Result<(), Trouble> {
        self.layer.carry_out().await
    }

    /// Takes the counts since they were last taken.
    pub(crate) fn take(&self) -> Counts {
        let mut counts = std::mem::take(&mut *self.layer.held.counts());
        let mut services = self.services.state();
        for (operation, traffic) in std::mem::take(&mut services.traffic) {
            let service = if operation == "PutEvents" {
                "events"
            } else {
                "secrets"
            };
            counts
                .calls
                .insert(format!("{service} {operation}"), traffic);
        }
        counts.events = count(std::mem::take(&mut services.events).len());
        counts
    }
}

fn amz(operation: &str) -> String {
    format!("DynamoDB_20120810.{operation}")
}

#[expect(
    clippy::disallowed_methods,
    reason = "it stands for no call of the function's own"
)]
fn client() -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder().no_proxy().build()
}

/// Between the function and the embedded DynamoDB.
#[derive(Clone, Debug)]
struct Layer {
    base: String,
    client: reqwest::Client,
    held: Arc<Held>,
}

impl Layer {
    fn into_router(self) -> Router {
        Router::new().fallback(move |headers: HeaderMap, body: Bytes| {
            let layer = self.clone();
            async move { layer.answer(&headers, &body).await }
        })
    }

    async fn answer(&self, headers: &HeaderMap, body: &Bytes) -> Response<Body> {
        let arrived = Instant::now();
        let target = target(headers);
        let reply = if operation(target) == "TransactWriteItems" && records_changes(body) {
            self.held.late.lock().await.push(body.clone());
            Ok((StatusCode::OK, Bytes::from_static(b"{}")))
        } else {
            self.carry_out_and_ask(target, &counted(body)).await
        };
        let (status, body) =
            reply.unwrap_or_else(|error| (StatusCode::BAD_GATEWAY, error.to_string().into()));
        tokio::time::sleep_until(arrived + self.held.answer_time).await;
        json_response(status, "application/x-amz-json-1.0", body)
    }

    async fn carry_out_and_ask(
        &self,
        target: &str,
        request: &Value,
    ) -> Result<(StatusCode, Bytes), Trouble> {
        if request["TableName"] != "integrations" {
            self.carry_out().await?;
        }
        self.ask(target, request).await
    }

    async fn carry_out(&self) -> Result<(), Trouble> {
        for request in self.held.late.lock().await.drain(..) {
            let request = counted(&request);
            let (status, body) = self.ask(&amz("TransactWriteItems"), &request).await?;
            if status != StatusCode::OK {
                let body = String::from_utf8_lossy(&body);
                return Err(format!("a transaction did not succeed: {body}").into());
            }
        }
        Ok(())
    }

    async fn ask(&self, target: &str, request: &Value) -> Result<(StatusCode, Bytes), Trouble> {
        let begun = Instant::now();
        let (status, body) = self.forward(target, request.to_string()).await?;
        self.count(target, request, &body, begun.elapsed());
        Ok((status, body))
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "it stands for no call of the function's own"
    )]
    async fn forward(&self, target: &str, body: String) -> reqwest::Result<(StatusCode, Bytes)> {
        let response = self
            .client
            .post(&self.base)
            .header("x-amz-target", target)
            .header("content-type", "application/x-amz-json-1.0")
            // The server looks for a signature and does not check it.
            .header(
                "authorization",
                "AWS4-HMAC-SHA256 Credential=bench/20260101/us-east-1/dynamodb/aws4_request, SignedHeaders=host, \
                 Signature=0",
            )
            .header("x-amz-date", "20260101T000000Z")
            .body(body)
            .send()
            .await?;
        Ok((response.status(), response.bytes().await?))
    }

    fn count(&self, target: &str, request: &Value, body: &Bytes, took: Duration) {
        let operation = operation(target);
        let answer: Value = serde_json::from_slice(body).unwrap_or_default();
        let tables = match &answer["ConsumedCapacity"] {
            Value::Array(tables) => tables.as_slice(),
            table => std::slice::from_ref(table),
        };
        let units = tables.iter().map(units).sum::<f64>();
        let mut counts = self.held.counts();
        match operation {
            "Query" | "Scan" | "GetItem" | "BatchGetItem" | "TransactGetItems" => {
                counts.reads += units;
            }
            _ => {
                counts.writes += units;
                for table in tables {
                    let name = table["TableName"].as_str().unwrap_or_default();
                    let of_partition = counts.partition_writes.entry(name.to_owned());
                    *of_partition.or_default() += self::units(&table["Table"]);
                }
            }
        }
        counts.busy += took;
        let table = request["TableName"].as_str().unwrap_or("(several)");
        counts.count(format!("dynamodb {operation} {table}"), body.len());
    }
}

/// Returns true if a transaction is about node and audit records only. It searches the text for the other table's name:
/// parsing a hundred items would take time of a core that the function needs.
fn records_changes(request: &[u8]) -> bool {
    let text = str::from_utf8(request).unwrap_or_default();
    !text.contains(r#""TableName":"integrations""#)
}

/// A request that asks for what it costs.
fn counted(request: &[u8]) -> Value {
    let mut request: Value = serde_json::from_slice(request).unwrap_or_default();
    if let Some(fields) = request.as_object_mut() {
        fields.insert("ReturnConsumedCapacity".to_owned(), json!("INDEXES"));
    }
    request
}

fn units(consumed: &Value) -> f64 {
    consumed["CapacityUnits"].as_f64().unwrap_or(0.0)
}

fn target(headers: &HeaderMap) -> &str {
    let target = headers.get("x-amz-target");
    target
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

fn operation(target: &str) -> &str {
    target.rsplit('.').next().unwrap_or_default()
}

fn json_response(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static(kind);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cost of each request by AWS's published rules, and the count of the layer.
    #[tokio::test]
    async fn units_follow_the_published_rules() {
        let aws = Aws::start(BTreeMap::new(), Duration::ZERO).await.unwrap();
        let layer = Layer {
            base: aws.dynamodb.url(),
            ..aws.layer.clone()
        };
        let node = |id: &str, bytes: usize| json!({"integrationId": {"S": "corp"}, "nodeId": {"S": id}, "text": {"S": "x".repeat(bytes)}});
        let record = json!({
            "integrationId": {"S": "corp"}, "eventId": {"S": "1"}, "targetId": {"S": "n1"}, "text": {"S": "x".repeat(500)},
        });
        let put = |table: &str, item: &Value| json!({"Put": {"TableName": table, "Item": item}});
        let all = json!({
            "TableName": "nodes", "ConsistentRead": true, "KeyConditionExpression": "integrationId = :id",
            "ExpressionAttributeValues": {":id": {"S": "corp"}},
        });
        for (what, operation, request, reads, writes) in [
            (
                "2 KB, begun",
                "PutItem",
                json!({"TableName": "nodes", "Item": node("n1", 1_100)}),
                0.0,
                2.0,
            ),
            (
                "in a transaction twice that, and the index of the audit as ever",
                "TransactWriteItems",
                json!({"TransactItems": [put("nodes", &node("n2", 1_100)), put("audit", &record)]}),
                0.0,
                4.0 + 2.0 + 1.0,
            ),
            ("2.3 KB of items are one unit", "Query", all, 1.0, 0.0),
        ] {
            aws.take();
            let (status, _) = layer
                .forward(&amz(operation), request.to_string())
                .await
                .unwrap();
            assert_eq!(status, StatusCode::OK, "{what}");
            aws.settle().await.unwrap();
            let counts = aws.take();
            let units = (counts.reads, counts.writes);
            let of_index = if operation == "TransactWriteItems" {
                1.0
            } else {
                0.0
            };
            let of_partitions: f64 = counts.partition_writes.values().sum();
            assert!(
                (of_partitions - (writes - of_index)).abs() < 1e-9,
                "{what}: {counts:?}"
            );
            assert!(
                (units.0 - reads).abs() < 1e-9 && (units.1 - writes).abs() < 1e-9,
                "{what}: {units:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_transaction_that_does_not_succeed_is_noticed() {
        let aws = Aws::start(BTreeMap::new(), Duration::ZERO).await.unwrap();
        let layer = Layer {
            base: aws.dynamodb.url(),
            ..aws.layer.clone()
        };
        let put = json!({"Put": {
            "TableName": "nodes",
            "Item": {"integrationId": {"S": "corp"}, "nodeId": {"S": "n1"}},
            "ConditionExpression": "attribute_not_exists(nodeId)",
        }});
        let request = json!({"TransactItems": [put]}).to_string();
        for succeeds in [true, false] {
            let target = amz("TransactWriteItems");
            layer.forward(&target, request.clone()).await.unwrap();
            assert_eq!(aws.settle().await.is_ok(), succeeds);
        }
    }
}
