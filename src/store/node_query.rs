//! Reading what was last written to each device: every run reads all of it.
//!
//! Of each item, the SDK makes a map of names and values. Making and taking apart five thousand of them was a quarter of
//! the CPU time of a sync with nothing to do; so a page of items is decoded here. All else, such as signing, trying again
//! and errors, is the SDK's.

use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_dynamodb::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_dynamodb::error::BoxError;
use aws_sdk_dynamodb::operation::query::QueryOutput;
use aws_sdk_dynamodb::types::AttributeValue;
use aws_smithy_runtime_api::client::interceptors::context::{
    BeforeDeserializationInterceptorContextMut, Error, Output,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpResponse, OrchestratorError};
use aws_smithy_runtime_api::client::ser_de::{DeserializeResponse, SharedResponseDeserializer};
use jiff::Timestamp;
use serde::Deserialize;
use smol_str::SmolStr;

use super::{Store, StoreError, decode, refused, unread};
use crate::domain::inventory::device::NodeId;
use crate::domain::inventory::host::{Aid, Score};
use crate::domain::plan::{NodeRecord, NodeRecords};
use crate::json;
use crate::json::lenient::{FromText, LenientText};
use crate::settings::{AttributeKey, IntegrationId};

/// A page of items, as it is on the wire.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct QueryPage {
    /// Always there, so that an answer that lacks it is not taken for a table without items.
    items: Vec<Item>,
    /// Where the next page begins, if there is one.
    last_evaluated_key: Option<Key>,
}

/// Of a key, the part that is not the same for all pages.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Key {
    node_id: S<SmolStr>,
}

/// What of an item is read.
const READ: &str = "nodeId, score, attributeKey, serial, #name, aid, writtenAt, runId";

/// An item of the nodes table, as it is on the wire. Anything of another kind than this program writes counts as absent.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Item {
    node_id: S<SmolStr>,
    score: N<Score>,
    attribute_key: S<AttributeKey>,
    serial: S<SmolStr>,
    name: S<SmolStr>,
    aid: S<Sensor>,
    written_at: S<Timestamp>,
    run_id: S<SmolStr>,
}

/// A text.
#[derive(Debug, Deserialize)]
#[serde(bound(deserialize = "T: FromText"))]
struct S<T: FromText> {
    #[serde(rename = "S", default)]
    text: LenientText<T>,
}

/// A number, which is a text in the protocol.
#[derive(Debug, Deserialize)]
#[serde(bound(deserialize = "T: FromText"))]
struct N<T: FromText> {
    #[serde(rename = "N", default)]
    text: LenientText<T>,
}

impl<T: FromText> Default for S<T> {
    fn default() -> Self {
        Self {
            text: LenientText::default(),
        }
    }
}

impl<T: FromText> Default for N<T> {
    fn default() -> Self {
        Self {
            text: LenientText::default(),
        }
    }
}

/// A sensor's id, as it is stored.
#[derive(Debug)]
struct Sensor(Aid);

impl FromText for Sensor {
    fn of_text(text: &str) -> Option<Self> {
        Some(Self(text.into()))
    }
}

impl FromText for Score {
    fn of_text(text: &str) -> Option<Self> {
        text.parse().ok().and_then(Self::new)
    }
}

impl FromText for AttributeKey {
    fn of_text(text: &str) -> Option<Self> {
        text.to_owned().try_into().ok()
    }
}

/// An item that somebody has edited.
#[derive(Debug, thiserror::Error)]
#[error("the record of {node:?} has no usable `{attribute}`")]
struct NoRecord {
    node: SmolStr,
    attribute: &'static str,
}

impl Item {
    fn record(self) -> Result<(NodeId, NodeRecord), NoRecord> {
        let node = self.node_id.text.0.unwrap_or_default();
        let no = |attribute| NoRecord {
            node: node.clone(),
            attribute,
        };
        let written = NodeRecord {
            key: self
                .attribute_key
                .text
                .0
                .ok_or_else(|| no("attributeKey"))?,
            score: self.score.text.0.ok_or_else(|| no("score"))?,
            aid: self.aid.text.0.ok_or_else(|| no("aid"))?.0,
            serial: self.serial.text.0.ok_or_else(|| no("serial"))?,
            name: self.name.text.0.unwrap_or_default(),
            written_at: self.written_at.text.0,
            run_id: self.run_id.text.0.ok_or_else(|| no("runId"))?,
        };
        Ok((NodeId(node), written))
    }
}

impl Store {
    /// What an integration has written, by node.
    ///
    /// # Errors
    /// DynamoDB's.
    pub async fn records(&self, integration: &IntegrationId) -> Result<NodeRecords, StoreError> {
        const OPERATION: &str = "read the node records";
        let id = || AttributeValue::S(integration.to_string());
        let mut query = self
            .client
            .query()
            .table_name(&self.nodes)
            .key_condition_expression("integrationId = :id")
            .expression_attribute_values(":id", id())
            .projection_expression(READ)
            .expression_attribute_names("#name", "name")
            .consistent_read(true);
        let mut records = Vec::new();
        loop {
            let reading = Reading::default();
            let call = query.clone().customize().interceptor(reading.clone());
            call.send().await.map_err(refused(OPERATION))?;
            let QueryPage {
                items,
                last_evaluated_key: last,
            } = reading.page().ok_or_else(|| unread(OPERATION))?;
            for item in items {
                records.push(item.record().map_err(decode(OPERATION))?);
            }
            let Some(Key { node_id }) = last else { break };
            let node = node_id.text.0.unwrap_or_default();
            query = query
                .exclusive_start_key("integrationId", id())
                .exclusive_start_key("nodeId", AttributeValue::S(node.into()));
        }
        // They come in order, in which a map is made of them with hardly a comparison.
        Ok(records.into_iter().collect())
    }
}

/// Has a page of a query decoded here.
#[derive(Clone, Debug, Default)]
struct Reading(Arc<Mutex<Option<QueryPage>>>);

impl Reading {
    /// The page, once it is here.
    fn page(&self) -> Option<QueryPage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Intercept for Reading {
    fn name(&self) -> &'static str {
        "node records"
    }

    /// Takes the place of the SDK's decoder, which is left to say what an error is.
    fn modify_before_deserialization(
        &self,
        answer: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if answer.response().status().is_success() {
            let decoder = SharedResponseDeserializer::new(self.clone());
            config.interceptor_state().store_put(decoder);
        }
        Ok(())
    }
}

impl DeserializeResponse for Reading {
    /// What is wrong with an answer is a reason to ask again. An error that follows upon a broken success comes here, too.
    fn deserialize_nonstreaming_with_config(
        &self,
        response: &HttpResponse,
        _: &ConfigBag,
    ) -> Result<Output, OrchestratorError<Error>> {
        let status = response.status();
        let body = response.body().bytes().filter(|_| status.is_success());
        let page = body
            .ok_or_else(|| format!("DynamoDB answered with status {status}").into())
            .and_then(|body| json::parse(body).map_err(BoxError::from))
            .map_err(OrchestratorError::response)?;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(page);
        Ok(Output::erase(QueryOutput::builder().build()))
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::Client;
    use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::server::{Server, answer};
    use crate::text::error_chain;

    /// A record of a device, as DynamoDB sends it.
    fn item(node: &str) -> Value {
        json!({
            "nodeId": {"S": node}, "score": {"N": "71"}, "attributeKey": {"S": "custom:ztaScore"},
            "serial": {"S": "C02D91CNPV4M"}, "name": {"S": "laptop.tail1.ts.net"},
            "aid": {"S": "4a027b0c95404062be4148c989dcf4c1"}, "writtenAt": {"S": "2026-01-02T03:04:05Z"},
            "runId": {"S": "run"},
        })
    }

    fn page(items: &[Value], last: Option<&str>) -> Vec<u8> {
        let mut page = json!({"Count": items.len(), "ScannedCount": items.len(), "Items": items});
        if let Some(node) = last {
            page["LastEvaluatedKey"] =
                json!({"integrationId": {"S": "corp"}, "nodeId": {"S": node}});
        }
        answer(200, &[], page.to_string())
    }

    async fn read(server: &Server) -> Result<NodeRecords, StoreError> {
        let config = aws_sdk_dynamodb::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new("id", "secret", None, None, "test"))
            .endpoint_url(server.url.as_str())
            .build();
        let table = || "table".to_owned();
        let store = Store {
            client: Client::from_conf(config),
            integrations: table(),
            nodes: table(),
            audit: table(),
        };
        store.records(&"corp".to_owned().try_into().unwrap()).await
    }

    #[tokio::test]
    async fn all_pages_are_read_in_order() {
        let server = Server::new(|number, _| match number {
            0 => page(&[item("nA"), item("nB")], Some("nB")),
            // A page of nothing is no end.
            1 => page(&[], Some("nC")),
            _ => page(&[item("nD")], None),
        });
        let records = read(&server).await.unwrap();
        let nodes: Vec<_> = records.keys().map(ToString::to_string).collect();
        assert_eq!(nodes, ["nA", "nB", "nD"]);
        let expect = json!({
            "attributeKey": "custom:ztaScore", "score": 71, "aid": "4a027b0c95404062be4148c989dcf4c1",
            "serial": "C02D91CNPV4M", "name": "laptop.tail1.ts.net", "writtenAt": "2026-01-02T03:04:05Z",
            "runId": "run",
        });
        assert_eq!(
            serde_json::to_value(records.values().next()).unwrap(),
            expect
        );
        let starts: Vec<Value> = server
            .asked()
            .iter()
            .map(|asked| serde_json::from_str::<Value>(&asked.body).unwrap()["ExclusiveStartKey"]["nodeId"]["S"].take())
            .collect();
        assert_eq!(starts, [Value::Null, "nB".into(), "nC".into()]);
    }

    #[tokio::test]
    async fn a_record_that_somebody_has_edited_is_named_with_what_it_lacks() {
        for (attribute, value) in [
            ("score", json!({"S": "71"})),
            ("score", json!({"N": "71.5"})),
            ("score", json!({"N": "101"})),
            ("attributeKey", json!({"S": "intune:x"})),
            ("aid", json!({"NULL": true})),
            ("serial", json!({"L": [{"S": "a"}]})),
            ("runId", json!({"M": {"S": {"S": "a"}}})),
        ] {
            let mut edited = item("nB");
            edited[attribute] = value;
            let server = Server::new(move |_, _| page(&[item("nA"), edited.clone()], None));
            let text = error_chain(&read(&server).await.unwrap_err());
            assert!(
                text.contains(&format!("the record of \"nB\" has no usable `{attribute}`")),
                "{text}"
            );
        }
        let mut lacking = item("nA");
        lacking["name"] = json!({"N": "1"});
        lacking["writtenAt"] = json!({"S": "yesterday"});
        let server = Server::new(move |_, _| page(&[lacking.clone()], None));
        let records = read(&server).await.unwrap();
        let record = records.values().next().unwrap();
        assert_eq!((record.name.as_str(), record.written_at), ("", None));
    }

    /// An error is the SDK's to understand; an answer that is broken, or lacks its list, is asked for again, and is never
    /// taken for a table without records.
    #[tokio::test]
    async fn what_is_no_page_is_asked_for_again_or_is_an_error() {
        let throttled = || {
            answer(
                400,
                &[],
                r#"{"__type":"com.amazonaws.dynamodb.v20120810#ThrottlingException","message":"slow"}"#,
            )
        };
        let server = Server::new(move |number, _| match number {
            0 => throttled(),
            1 => answer(200, &[], r#"{"Items":[{"nodeId":{"S":"s3cret"#),
            _ => page(&[item("nA")], None),
        });
        assert_eq!(read(&server).await.unwrap().len(), 1);
        assert_eq!(server.asked().len(), 3);

        let server = Server::new(|number, _| match number {
            0 => answer(200, &[], "{}"),
            _ => answer(500, &[], ""),
        });
        let text = error_chain(&read(&server).await.unwrap_err());
        assert!(
            text.contains("DynamoDB did not read the node records"),
            "{text}"
        );
        assert_eq!(server.asked().len(), 3);

        let server = Server::new(|_, _| answer(200, &[], r#"{"Items":[{"nodeId":{"S":s3cret}}]}"#));
        let text = error_chain(&read(&server).await.unwrap_err());
        assert!(text.contains("the answer does not decode"), "{text}");
        assert!(!text.contains("s3cret"), "{text}");
        assert_eq!(server.asked().len(), 3);

        let denied = r#"{"__type":"com.amazon.coral.service#AccessDeniedException","Message":"no dynamodb:Query"}"#;
        let server = Server::new(move |_, _| answer(400, &[], denied));
        let text = error_chain(&read(&server).await.unwrap_err());
        assert!(text.contains("AccessDenied"), "{text}");
        assert_eq!(server.asked().len(), 1);
    }
}
