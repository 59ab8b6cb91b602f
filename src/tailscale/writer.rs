//! Writing posture attributes: in batches, with the refused device singled out.
//!
//! Setting an attribute is idempotent, so writes are tried again like reads. The batch is the way meant for many
//! devices: single writes are the only calls that Tailscale declares a rate limit for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures::future::join_all;
use reqwest::{Method, StatusCode};
use tracing::{info, warn};

use crate::domain::inventory::device::NodeId;
use crate::settings::AttributeKey;
use crate::tailscale::wire::{Attribute, Batch, Patch, Single};
use crate::tailscale::{Session, errors, operation};
use crate::text::sanitize;
use crate::upstream::client::Response;
use crate::upstream::error::UpstreamError;
use crate::upstream::operation::Operation;

const UPDATE: Operation = operation("the attribute update", "devices:posture_attributes");

/// Devices in one call at most. Tailscale documents no limit; five hundred are some 30 kB.
const BATCH: usize = 500;
/// Single writes under way at once.
const SINGLES: usize = 4;
/// After so many refused devices it is not the devices: batches are not taken apart any more, but for large ones.
const SINGLED_OUT: usize = 50;
/// A batch of more is taken apart in any case, so that one bad device takes at most so many others along.
const COARSE: usize = 50;
/// The API takes 200 characters; with the ellipsis these are as many.
const COMMENT_CHARS: usize = 199;

/// Limits of the writes to Tailscale, which documents none: these are modest.
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
            batch_size: BATCH,
            concurrency: 5,
        }
    }
}

/// A write to one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttributeWrite {
    /// The device.
    pub node_id: NodeId,
    /// The attribute to set.
    pub set: Option<(AttributeKey, u8)>,
    /// The attribute to delete; it need not exist.
    pub delete: Option<AttributeKey>,
}

/// What became of a list of writes. A write that is in neither list was not decided: it may or may not have arrived.
#[derive(Debug, Default)]
pub struct WriteResult {
    /// The devices whose write Tailscale accepted.
    pub accepted: Vec<NodeId>,
    /// The devices whose write Tailscale refused as such, with its words. A refusal is believed: nothing is open.
    pub refused: Vec<(NodeId, String)>,
    /// What ended the writing before all was tried.
    pub error: Option<UpstreamError>,
}

/// The part of a session that writes. What it learns about the API, it remembers: use one for a whole run.
#[derive(Debug)]
pub struct TailscaleWriter {
    session: Arc<Session>,
    /// The batch call is missing (an older or another control plane).
    no_batch: AtomicBool,
    singled_out: AtomicUsize,
    /// The largest batch that is not refused for its size, as far as is known.
    largest: AtomicUsize,
}

/// What a batch call came to.
enum Batched {
    Accepted,
    Refused(String),
    NoSuchCall,
}

impl TailscaleWriter {
    pub(super) fn new(session: Arc<Session>) -> Self {
        Self {
            session,
            no_batch: AtomicBool::new(false),
            singled_out: AtomicUsize::new(0),
            largest: AtomicUsize::new(BATCH),
        }
    }

    /// Writes a list of changes, in calls of up to five hundred devices. A device is refused alone: a refused call is
    /// halved until the device is found, and the others are written. The comment goes to Tailscale's audit log.
    ///
    /// What was accepted is accepted even when an error ended the rest, so record it either way.
    pub async fn write(&self, changes: &[AttributeWrite], comment: &str) -> WriteResult {
        let mut written = WriteResult::default();
        let comment = sanitize(comment, COMMENT_CHARS);
        // The first to do is the last of the list.
        let size = self.largest.load(Ordering::Relaxed);
        let mut parts: Vec<&[AttributeWrite]> = changes.chunks(size).rev().collect();
        let (mut halved, mut accepted) = (false, 0);
        while let Some(part) = parts.pop() {
            if self.no_batch.load(Ordering::Relaxed) {
                self.write_singly(part, &comment, &mut written).await;
            } else {
                match self.write_batch(part, &comment).await {
                    Ok(Batched::Accepted) => {
                        accepted = accepted.max(part.len());
                        written.accepted.extend(nodes(part));
                    }
                    Ok(Batched::Refused(_)) if self.may_halve(part) => {
                        halved = true;
                        let (first, second) = part.split_at(part.len() / 2);
                        parts.extend([second, first]);
                    }
                    Ok(Batched::Refused(message)) => self.refuse(part, &message, &mut written),
                    Ok(Batched::NoSuchCall) => {
                        info!(
                            "this control plane has no batch call: attributes are written singly"
                        );
                        self.no_batch.store(true, Ordering::Relaxed);
                        parts.push(part);
                    }
                    Err(error) => written.error = Some(error),
                }
            }
            if written.error.is_some() {
                break;
            }
        }
        // Refused, and then accepted device by device: it was the size.
        if halved && accepted > 0 && written.refused.is_empty() && written.error.is_none() {
            self.largest.fetch_min(accepted, Ordering::Relaxed);
        }
        written
    }

    /// Writes to one device, with a call for each attribute.
    ///
    /// # Errors
    /// When a call failed or was refused.
    pub async fn write_one(
        &self,
        change: &AttributeWrite,
        comment: &str,
    ) -> Result<(), UpstreamError> {
        let comment = sanitize(comment, COMMENT_CHARS);
        if let Some((key, score)) = &change.set {
            let body = Single {
                value: *score,
                comment: &comment,
            };
            self.single(Method::POST, &change.node_id, key, Some(&body), |_| false)
                .await?;
        }
        if let Some(key) = &change.delete {
            // What is not there need not be deleted; nor at a device that is not there.
            self.single(Method::DELETE, &change.node_id, key, None, |reply| {
                errors::is_not_found(reply)
            })
            .await?;
        }
        Ok(())
    }

    async fn single(
        &self,
        method: Method,
        node: &NodeId,
        key: &AttributeKey,
        body: Option<&Single<'_>>,
        expects: fn(&Response) -> bool,
    ) -> Result<(), UpstreamError> {
        let url = self
            .session
            .url(["device", &node.0, "attributes", key.as_str()]);
        let request = || {
            let request = self.session.http.request(method.clone(), url.clone());
            match body {
                Some(body) => request.json(body),
                None => request,
            }
        };
        // The answer's body is not read: it is `null` where the schema has an object (tailscale#18253).
        self.session.call(UPDATE, request, expects).await?;
        Ok(())
    }

    async fn write_batch(
        &self,
        part: &[AttributeWrite],
        comment: &str,
    ) -> Result<Batched, UpstreamError> {
        let batch = Batch {
            nodes: patches(part),
            comment,
        };
        let session = &*self.session;
        let url = session.url(["tailnet", session.tailnet.as_str(), "device-attributes"]);
        let request = || {
            let request = session.http.request(Method::PATCH, url.clone());
            request.json(&batch)
        };
        let result = session.call(UPDATE, request, is_no_such_call).await;
        match result {
            Ok(reply) if is_no_such_call(&reply) => Ok(Batched::NoSuchCall),
            Ok(_) => Ok(Batched::Accepted),
            Err(error) => refused(error).map(Batched::Refused),
        }
    }

    async fn write_singly(
        &self,
        part: &[AttributeWrite],
        comment: &str,
        written: &mut WriteResult,
    ) {
        for group in part.chunks(SINGLES) {
            // All of a group come to an end, so that none is accepted without being told.
            let results =
                join_all(group.iter().map(|change| self.write_one(change, comment))).await;
            for (change, result) in group.iter().zip(results) {
                match result.map_err(refused) {
                    Ok(()) => written.accepted.push(change.node_id.clone()),
                    Err(Ok(message)) => {
                        self.refuse(std::slice::from_ref(change), &message, written);
                    }
                    Err(Err(error)) => written.error = Some(error),
                }
            }
            if written.error.is_some() {
                break;
            }
        }
    }

    fn may_halve(&self, part: &[AttributeWrite]) -> bool {
        let singled_out = self.singled_out.load(Ordering::Relaxed);
        part.len() > COARSE || (part.len() > 1 && singled_out < SINGLED_OUT)
    }

    fn refuse(&self, part: &[AttributeWrite], message: &str, written: &mut WriteResult) {
        self.singled_out.fetch_add(part.len(), Ordering::Relaxed);
        warn!(
            devices = part.len(),
            message, "Tailscale refused to write attributes"
        );
        let refused = nodes(part).map(|node| (node, message.to_owned()));
        written.refused.extend(refused);
    }
}

fn nodes(part: &[AttributeWrite]) -> impl Iterator<Item = NodeId> {
    part.iter().map(|change| change.node_id.clone())
}

fn patches(part: &[AttributeWrite]) -> BTreeMap<&str, Patch<'_>> {
    let mut nodes: BTreeMap<&str, Patch<'_>> = BTreeMap::new();
    for change in part {
        let patch = nodes.entry(&change.node_id.0).or_default();
        patch.extend(change.delete.iter().map(|key| (key.as_str(), None)));
        patch.extend(change.set.iter().map(|(key, score)| {
            let attribute = Attribute { value: *score };
            (key.as_str(), Some(attribute))
        }));
    }
    nodes
}

/// The message of a write that was refused for what is in it. Any other failure concerns all writes.
fn refused(error: UpstreamError) -> Result<String, UpstreamError> {
    match error {
        UpstreamError::Rejected {
            status: 400 | 404 | 409 | 413 | 422,
            message,
            ..
        } => Ok(message),
        other => Err(other),
    }
}

/// Whether it is the batch call itself that the server does not know, and not a device or the tailnet.
fn is_no_such_call(reply: &Response) -> bool {
    match reply.status {
        StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => true,
        StatusCode::NOT_FOUND => !errors::is_not_found(reply),
        _ => false,
    }
}
