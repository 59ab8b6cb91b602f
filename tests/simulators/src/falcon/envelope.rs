//! Falcon's envelope `{"meta", "errors", "resources"}` and the headers of every response.

use axum::body::Bytes;
use serde::Serialize;
use serde_json::{Value, json};

use super::model::RetryAfterUnit;
use super::state::Allowance;
use crate::reply::Reply;

pub(crate) const GATEWAY: &str = "crowdstrike-api-gateway";
/// `powered_by` in errors of the token endpoint.
pub(crate) const TOKENS: &str = "csam";

/// The facts of a request that its response contains.
#[derive(Clone, Debug)]
pub(crate) struct RequestFacts {
    pub(crate) region: String,
    pub(crate) trace_id: String,
    pub(crate) allowance: Allowance,
    pub(crate) retry_after: RetryAfterUnit,
}

impl RequestFacts {
    /// Returns an error in the form of `msa.ReplyMetaOnly`, with `resources: null` if data was
    /// requested.
    pub(crate) fn error(&self, status: u16, powered_by: &str, message: &str) -> Reply {
        let body = json!({
            "meta": {"query_time": 1.27e-7, "powered_by": powered_by, "trace_id": self.trace_id},
            "errors": [{"code": status, "message": message}],
        });
        // recorded errors are printed with an indent of one space
        let mut pretty = Vec::new();
        let format = serde_json::ser::PrettyFormatter::with_indent(b" ");
        let printed = body.serialize(&mut serde_json::Serializer::with_formatter(
            &mut pretty,
            format,
        ));
        let body = if printed.is_ok() {
            Bytes::from(pretty)
        } else {
            body.to_string().into()
        };
        self.finish(Reply::typed(status, "application/json", body))
    }

    pub(crate) fn ok(&self, meta: &Value, resources: &Value, errors: &Value) -> Reply {
        self.answer(200, meta, resources, errors)
    }

    /// Returns a response. Its `meta` gets the time taken and the trace.
    pub(crate) fn answer(
        &self,
        status: u16,
        meta: &Value,
        resources: &Value,
        errors: &Value,
    ) -> Reply {
        let mut meta = meta.clone();
        if let Some(meta) = meta.as_object_mut() {
            meta.insert("query_time".to_owned(), json!(0.013_989_222));
            meta.insert("trace_id".to_owned(), json!(self.trace_id));
        }
        // written as text, to avoid copying large `resources` into another value
        let body = format!(r#"{{"meta":{meta},"resources":{resources},"errors":{errors}}}"#);
        self.finish(Reply::typed(status, "application/json", body))
    }

    /// Returns the 308 to another cloud: an empty body, and the cloud's name in `X-Cs-Region`.
    pub(crate) fn redirect(&self, region: &str, location: &str) -> Reply {
        let there = Self {
            region: region.to_owned(),
            ..self.clone()
        };
        there.finish(Reply::empty(308).with("location", &location))
    }

    pub(crate) fn finish(&self, reply: Reply) -> Reply {
        let reply = reply
            .with("x-cs-region", &self.region)
            .with("x-cs-traceid", &self.trace_id)
            .with("x-ratelimit-limit", &self.allowance.limit)
            .with("x-ratelimit-remaining", &self.allowance.remaining);
        match (self.allowance.retry_ms, self.retry_after) {
            (None, _) | (_, RetryAfterUnit::Missing) => reply,
            (Some(at), RetryAfterUnit::Milliseconds) => reply.with("x-ratelimit-retryafter", &at),
            // rounded up: the budget has room at the announced second
            (Some(at), RetryAfterUnit::Seconds) => {
                reply.with("x-ratelimit-retryafter", &((at + 999) / 1000))
            }
        }
    }
}
