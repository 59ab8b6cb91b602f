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

use super::{Store, StoreError, decode, refused, unread};
use crate::domain::device::NodeId;
use crate::domain::host::{Aid, Score};
use crate::domain::plan::{Records, Written};
use crate::integration::{AttributeKey, IntegrationId};
use crate::json;
use crate::lenient::{OfText, Text};

/// A page of items, as it is on the wire.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Page {
    /// Always there, so that an answer that lacks it is not taken for a table without items.
    items: Vec<Item>,
    /// Where the next page begins, if there is one.
    last_evaluated_key: Option<Key>,
}

/// Of a key, the part that is not the same for all pages.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Key {
    node_id: S<String>,
}

/// What of an item is read.
const READ: &str = "nodeId, score, attributeKey, serial, #name, aid, writtenAt, runId";

/// An item of the nodes table, as it is on the wire. Anything of another kind than this program writes counts as absent.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Item {
    node_id: S<String>,
    score: N<Score>,
    attribute_key: S<AttributeKey>,
    serial: S<String>,
    name: S<String>,
    aid: S<Sensor>,
    written_at: S<Timestamp>,
    run_id: S<String>,
}

/// A text.
#[derive(Debug, Deserialize)]
#[serde(bound(deserialize = "T: OfText"))]
struct S<T: OfText> {
    #[serde(rename = "S", default)]
    text: Text<T>,
}

/// A number, which is a text in the protocol.
#[derive(Debug, Deserialize)]
#[serde(bound(deserialize = "T: OfText"))]
struct N<T: OfText> {
    #[serde(rename = "N", default)]
    text: Text<T>,
}

impl<T: OfText> Default for S<T> {
    fn default() -> Self {
        Self {
            text: Text::default(),
        }
    }
}

impl<T: OfText> Default for N<T> {
    fn default() -> Self {
        Self {
            text: Text::default(),
        }
    }
}

/// A sensor's id, as it is stored.
#[derive(Debug)]
struct Sensor(Aid);

impl OfText for Sensor {
    fn of_text(text: &str) -> Option<Self> {
        Some(Self(text.into()))
    }
}

impl OfText for Score {
    fn of_text(text: &str) -> Option<Self> {
        text.parse().ok().and_then(Self::new)
    }
}

impl OfText for AttributeKey {
    fn of_text(text: &str) -> Option<Self> {
        text.to_owned().try_into().ok()
    }
}

/// An item that somebody has edited.
#[derive(Debug, thiserror::Error)]
#[error("the record of {node:?} has no usable `{attribute}`")]
struct NoRecord {
    node: String,
    attribute: &'static str,
}

impl Item {
    fn record(self) -> Result<(NodeId, Written), NoRecord> {
        let node = self.node_id.text.0.unwrap_or_default();
        let no = |attribute| NoRecord {
            node: node.clone(),
            attribute,
        };
        let written = Written {
            key: self.attribute_key.text.0.ok_or_else(|| no("attributeKey"))?,
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
    pub async fn records(&self, integration: &IntegrationId) -> Result<Records, StoreError> {
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
            let Page {
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
                .exclusive_start_key("nodeId", AttributeValue::S(node));
        }
        // They come in order, in which a map is made of them with hardly a comparison.
        Ok(records.into_iter().collect())
    }
}

/// Has a page of a query decoded here.
#[derive(Clone, Debug, Default)]
struct Reading(Arc<Mutex<Option<Page>>>);

impl Reading {
    /// The page, once it is here.
    fn page(&self) -> Option<Page> {
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
