//! Writes posture attributes in batches, and bisects a rejected batch until the rejected device is found.
//!
//! Setting an attribute is idempotent, so writes are retried like reads. Batches are preferred, because Tailscale declares
//! a rate limit for single writes only.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures::future::join_all;
use jiff::Timestamp;
use reqwest::{Method, StatusCode};
use serde::Serialize;
use serde_json::{Map, Value, json};
use tracing::{info, warn};

use crate::domain::inventory::device::NodeId;
use crate::settings::AttributeKey;
use crate::tailscale::{Tailscale, errors, operation};
use crate::text::{error_chain, sanitize};
use crate::upstream::client::{ApiClient, Response};
use crate::upstream::error::{Operation, UpstreamError, UpstreamErrorKind};

const UPDATE: Operation = operation("attribute write", "devices:posture_attributes");

/// Maximum devices per call. Tailscale documents no limit; five hundred make some 30 kB.
const MAX_BATCH_DEVICES: usize = 500;
/// Maximum single writes in flight.
const SINGLE_WRITE_CONCURRENCY: usize = 4;
/// After this many rejected devices the cause is not a single device: stop bisecting, except large batches.
const MAX_BISECTED_DEVICES: usize = 50;
/// A larger batch is always bisected, so that one bad device affects at most this many others.
const ALWAYS_BISECT_ABOVE: usize = 50;
/// Devices of a failed batch that are tried alone.
const TRIES: usize = 3;
/// Maximum characters of a comment before the ellipsis. The API takes 200.
const MAX_COMMENT_CHARS: usize = 199;

/// Limits of the writes to Tailscale, which documents none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteLimits {
    /// Maximum devices per call.
    pub batch_size: usize,
    /// Maximum calls in flight.
    pub concurrency: usize,
}

impl Default for WriteLimits {
    fn default() -> Self {
        Self {
            batch_size: MAX_BATCH_DEVICES,
            concurrency: 5,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AttributeWrite {
    pub(crate) node_id: NodeId,
    pub(crate) set: Option<SetAttribute>,
    /// The attribute to delete; it need not exist.
    pub(crate) delete: Option<AttributeKey>,
}

/// An attribute to set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SetAttribute {
    pub(crate) key: AttributeKey,
    pub(crate) score: u8,
    /// When Tailscale removes it. Each write says so: an omitted end may leave an earlier one as it is.
    pub(crate) expiry: Option<Timestamp>,
}

/// The result of a list of writes. A write that is in no list may or may not have arrived.
#[derive(Debug, Default)]
pub(crate) struct WriteResult {
    pub(crate) accepted: Vec<NodeId>,
    /// The devices whose write Tailscale rejected, with its message. These writes did not take effect.
    pub(crate) rejected: Vec<(NodeId, String)>,
    /// The devices whose write failed although others were accepted, with the message. It may have arrived.
    pub(crate) unknown: Vec<(NodeId, String)>,
    /// True if a request had no answer: it may take effect later, also after an accepted one. Otherwise all that is not accepted
    /// is not made.
    pub(crate) is_uncertain: bool,
    /// The error that ended the writing early.
    pub(crate) error: Option<UpstreamError>,
}

/// The part of a session that writes. It remembers the limits of the API that it finds: use one writer for a whole run.
#[derive(Debug)]
pub(crate) struct TailscaleWriter<'a> {
    session: &'a Tailscale,
    /// The control plane has no batch call (an older or another one).
    batch_unsupported: AtomicBool,
    rejected_devices: AtomicUsize,
    /// The largest batch that is not rejected for its size, as far as is known.
    max_batch: AtomicUsize,
}

impl Tailscale {
    pub(crate) fn writer(&self) -> TailscaleWriter<'_> {
        TailscaleWriter {
            session: self,
            batch_unsupported: AtomicBool::new(false),
            rejected_devices: AtomicUsize::new(0),
            max_batch: AtomicUsize::new(MAX_BATCH_DEVICES),
        }
    }
}

impl TailscaleWriter<'_> {
    /// Writes a list of changes in batches, and sends nothing after `end`. A rejected batch is bisected until the rejected
    /// device is found, and the others are written. The comment goes to Tailscale's audit log.
    ///
    /// Accepted writes count even if an error ended the others, so record them in any case.
    pub(crate) async fn write(
        &self,
        changes: &[AttributeWrite],
        comment: &str,
        end: Timestamp,
    ) -> WriteResult {
        let client = &self.session.client.within(end);
        let mut result = WriteResult::default();
        let comment = sanitize(comment, MAX_COMMENT_CHARS);
        // A stack: the next batch is the last of the list.
        let size = self.max_batch.load(Ordering::Relaxed);
        let mut batches: Vec<&[AttributeWrite]> = changes.chunks(size).rev().collect();
        let (mut bisected, mut accepted) = (false, 0);
        let mut is_one_devices = false;
        let mut last_failure = None;
        while let Some(batch) = batches.pop() {
            if self.batch_unsupported.load(Ordering::Relaxed) {
                self.write_singly(client, batch, &comment, &mut result)
                    .await;
            } else {
                match self.write_batch(client, batch, &comment).await {
                    Ok(response) if is_unsupported(&response) => {
                        info!(
                            "this control plane has no batch call; attributes are written one by one"
                        );
                        self.batch_unsupported.store(true, Ordering::Relaxed);
                        batches.push(batch);
                    }
                    Ok(_) => {
                        accepted = accepted.max(batch.len());
                        result.accepted.extend(node_ids(batch));
                    }
                    Err(error) if is_forbidden(&error) || is_failure(&error) => {
                        result.is_uncertain |= is_failure(&error);
                        if !self.should_bisect(batch) && is_forbidden(&error) {
                            // A single device that is forbidden says nothing about the others.
                            let message = error_chain(&error);
                            self.mark_rejected(client, batch, &message, &mut result);
                        } else if !self.should_bisect(batch) {
                            self.mark_unknown(batch, &error_chain(&error), &mut result);
                            last_failure = Some(error);
                        } else if !is_one_devices
                            && self.fails_for_all(client, batch, &comment).await
                        {
                            result.error = Some(error);
                        } else {
                            is_one_devices = true;
                            let (first, second) = batch.split_at(batch.len() / 2);
                            batches.extend([second, first]);
                        }
                    }
                    Err(error) => match rejection(error) {
                        Ok(_) if self.should_bisect(batch) => {
                            bisected = true;
                            let (first, second) = batch.split_at(batch.len() / 2);
                            batches.extend([second, first]);
                        }
                        Ok(message) => self.mark_rejected(client, batch, &message, &mut result),
                        Err(error) => result.error = Some(error),
                    },
                }
            }
            if result.error.is_some() {
                break;
            }
        }
        // Nothing was accepted, so the failures are not the devices'.
        if result.accepted.is_empty() && result.rejected.is_empty() && last_failure.is_some() {
            result.unknown.clear();
            result.error = result.error.or(last_failure);
        }
        // A batch was rejected, but each of its devices was accepted: the size was the cause.
        let are_all_accepted = result.rejected.is_empty() && result.unknown.is_empty();
        if bisected && accepted > 0 && are_all_accepted && result.error.is_none() {
            self.max_batch.fetch_min(accepted, Ordering::Relaxed);
        }
        let error = result.error.as_ref();
        result.is_uncertain |=
            client.budget.unanswered() > 0 || error.is_some_and(UpstreamError::is_unanswered);
        result
    }

    /// Tries three devices of a failed batch alone, and returns whether all fail: then it is the credential or the service. A
    /// smaller batch is tried device by device. A device that is accepted is written again with its batch.
    async fn fails_for_all(
        &self,
        client: &ApiClient,
        batch: &[AttributeWrite],
        comment: &str,
    ) -> bool {
        if batch.len() <= TRIES {
            return false;
        }
        let tries = [0, batch.len() / 2, batch.len() - 1];
        for position in tries {
            let alone = &batch[position..=position];
            match self.write_batch(client, alone, comment).await {
                Err(error) if is_forbidden(&error) || is_failure(&error) => {}
                _ => return false,
            }
        }
        true
    }

    /// Writes to one device, with one call per attribute.
    pub(super) async fn write_one(
        &self,
        client: &ApiClient,
        change: &AttributeWrite,
        comment: &str,
    ) -> Result<(), UpstreamError> {
        let session = self.session;
        let node = &change.node_id.0;
        let url = |key: &AttributeKey| session.url(["device", node, "attributes", key.as_str()]);
        // The JSON of the responses is ignored: it is `null` instead of the schema's object (tailscale#18253).
        if let Some(SetAttribute { key, score, expiry }) = &change.set {
            let body = SingleWrite {
                value: *score,
                expiry: *expiry,
                comment: &sanitize(comment, MAX_COMMENT_CHARS),
            };
            let request = || client.request(Method::POST, url(key)).json(&body);
            accepted(session.call(client, UPDATE, request, |_| false).await?)?;
        }
        if let Some(key) = &change.delete {
            let request = || client.request(Method::DELETE, url(key));
            // A missing attribute or a missing device counts as deleted.
            accepted(
                session
                    .call(client, UPDATE, request, errors::is_not_found)
                    .await?,
            )?;
        }
        Ok(())
    }

    async fn write_batch(
        &self,
        client: &ApiClient,
        batch: &[AttributeWrite],
        comment: &str,
    ) -> Result<Response, UpstreamError> {
        let body = batch_body(batch, comment);
        let session = self.session;
        let url = session.tailnet_url(["device-attributes"]);
        let request = || {
            let request = client.request(Method::PATCH, url.clone());
            request.json(&body)
        };
        accepted(
            session
                .call(client, UPDATE, request, is_unsupported)
                .await?,
        )
    }

    async fn write_singly(
        &self,
        client: &ApiClient,
        changes: &[AttributeWrite],
        comment: &str,
        result: &mut WriteResult,
    ) {
        for group in changes.chunks(SINGLE_WRITE_CONCURRENCY) {
            // All writes of a group are awaited, so that each accepted one is reported.
            let outcomes = join_all(
                group
                    .iter()
                    .map(|change| self.write_one(client, change, comment)),
            )
            .await;
            let mut errors = outcomes.iter().map(|outcome| outcome.as_ref().err());
            let is_forbidden_for_all =
                group.len() > TRIES && errors.all(|error| error.is_some_and(is_forbidden));
            for (change, outcome) in group.iter().zip(outcomes) {
                let alone = std::slice::from_ref(change);
                match outcome {
                    Ok(()) => result.accepted.push(change.node_id.clone()),
                    Err(error) if is_forbidden(&error) && !is_forbidden_for_all => {
                        self.mark_rejected(client, alone, &error_chain(&error), result);
                    }
                    Err(error) => match rejection(error) {
                        Ok(message) => self.mark_rejected(client, alone, &message, result),
                        Err(error) => result.error = Some(error),
                    },
                }
            }
            if result.error.is_some() {
                break;
            }
        }
    }

    fn should_bisect(&self, batch: &[AttributeWrite]) -> bool {
        let rejected_devices = self.rejected_devices.load(Ordering::Relaxed);
        batch.len() > ALWAYS_BISECT_ABOVE
            || (batch.len() > 1 && rejected_devices < MAX_BISECTED_DEVICES)
    }

    /// Marks devices whose write failed while others are accepted. It may have arrived.
    fn mark_unknown(&self, changes: &[AttributeWrite], message: &str, result: &mut WriteResult) {
        self.rejected_devices
            .fetch_add(changes.len(), Ordering::Relaxed);
        warn!(devices = changes.len(), message, "attribute writes failed");
        let unknown = node_ids(changes).map(|node| (node, message.to_owned()));
        result.unknown.extend(unknown);
    }

    /// Marks devices whose write Tailscale rejected. If an attempt had no answer, that one may have arrived.
    fn mark_rejected(
        &self,
        client: &ApiClient,
        changes: &[AttributeWrite],
        message: &str,
        result: &mut WriteResult,
    ) {
        if client.budget.unanswered() > 0 {
            return self.mark_unknown(changes, message, result);
        }
        self.rejected_devices
            .fetch_add(changes.len(), Ordering::Relaxed);
        warn!(
            devices = changes.len(),
            message, "Tailscale rejected attribute writes"
        );
        let rejected = node_ids(changes).map(|node| (node, message.to_owned()));
        result.rejected.extend(rejected);
    }
}

fn node_ids(changes: &[AttributeWrite]) -> impl Iterator<Item = NodeId> {
    changes.iter().map(|change| change.node_id.clone())
}

#[derive(Serialize)]
struct SingleWrite<'a> {
    value: u8,
    expiry: Option<Timestamp>,
    comment: &'a str,
}

/// A merge patch of the attributes of each node: a value is an object, never the bare number, and `null` deletes.
#[derive(Serialize)]
pub(super) struct BatchWrite<'a> {
    nodes: Map<String, Value>,
    comment: &'a str,
}

pub(super) fn batch_body<'a>(changes: &[AttributeWrite], comment: &'a str) -> BatchWrite<'a> {
    let mut nodes = Map::new();
    for change in changes {
        let patch = nodes.entry(change.node_id.0.as_str()).or_insert(json!({}));
        if let Some(key) = &change.delete {
            patch[key.as_str()] = Value::Null;
        }
        if let Some(SetAttribute { key, score, expiry }) = &change.set {
            patch[key.as_str()] = json!({"value": score, "expiry": expiry});
        }
    }
    BatchWrite { nodes, comment }
}

/// Returns an error for a page that something in between sent instead of Tailscale.
fn accepted(response: Response) -> Result<Response, UpstreamError> {
    if response.status.is_success() && response.is_web_page() {
        return Err(UPDATE.intercepted(response.status.as_u16()));
    }
    Ok(response)
}

/// Returns whether Tailscale rejected a write with a 403 that can be about its device alone.
fn is_forbidden(error: &UpstreamError) -> bool {
    let is_intercepted = matches!(error.kind, UpstreamErrorKind::Intercepted { .. });
    error.status() == Some(403) && error.can_be_one_devices() && !is_intercepted
}

/// Returns whether a write failed at the service or at something in between, which one device can cause.
fn is_failure(error: &UpstreamError) -> bool {
    error
        .status()
        .is_some_and(|status| status >= 500 || status == 408)
        || matches!(error.kind, UpstreamErrorKind::Intercepted { .. })
}

/// Returns the message of a write that was rejected for its content. Any other error concerns all writes.
fn rejection(error: UpstreamError) -> Result<String, UpstreamError> {
    match error.kind {
        UpstreamErrorKind::Rejected {
            status: 400 | 404 | 409 | 413 | 422,
            message,
        } => Ok(message),
        _ => Err(error),
    }
}

/// Returns whether the server does not know the batch call. A missing device or tailnet does not count.
fn is_unsupported(response: &Response) -> bool {
    match response.status {
        StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => true,
        StatusCode::NOT_FOUND => !errors::is_not_found(response),
        _ => false,
    }
}
