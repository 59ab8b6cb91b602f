//! The calls of a run, recognized from their requests.

use std::collections::BTreeSet;
use std::fmt;

use axum::http::Method;

use crate::process::relay::Asked;

/// The two APIs, and AWS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Server {
    Falcon,
    Tailscale,
    DynamoDb,
    /// Secrets Manager and EventBridge.
    Services,
}

/// A call of a run. Pages and batches are counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum CallSite {
    FalconSecret,
    TailscaleSecret,
    /// The lookup of the version of a cached secret.
    SecretVersion,
    FalconToken,
    TailscaleToken,
    Hosts(usize),
    Scores(usize),
    Devices,
    HostLookUp,
    ScoreLookUp,
    DeviceLookUp,
    /// The attributes of a device, read to recover the writes of an earlier run.
    Attributes,
    Patch(usize),
    /// A batch that contains one certain device: the others are written.
    PatchOfOne,
    /// The look-up of one certain device.
    LookUpOfOne,
    Integrations,
    Lease,
    Records,
    /// The journal entry before a write.
    Pending,
    /// The settlement of journal entries of an earlier run, with what is recorded of them.
    StrikeOut,
    /// The removals of the last 24 hours, from the audit trail.
    Removals,
    /// The absence of a device, in its record.
    Absences,
    Record(usize),
    Forget,
    /// The status, which also releases the lease.
    Finish,
    /// The requests of runs for several integrations.
    Requests,
    /// The event of a new integration.
    Announcement,
}

impl CallSite {
    pub(crate) fn server(self) -> Server {
        match self {
            Self::FalconToken
            | Self::Hosts(_)
            | Self::Scores(_)
            | Self::HostLookUp
            | Self::ScoreLookUp => Server::Falcon,
            Self::TailscaleToken
            | Self::Devices
            | Self::DeviceLookUp
            | Self::Attributes
            | Self::Patch(_)
            | Self::PatchOfOne
            | Self::LookUpOfOne => Server::Tailscale,
            Self::Integrations
            | Self::Lease
            | Self::Records
            | Self::Pending
            | Self::StrikeOut
            | Self::Removals
            | Self::Absences
            | Self::Record(_)
            | Self::Forget
            | Self::Finish => Server::DynamoDb,
            Self::FalconSecret
            | Self::TailscaleSecret
            | Self::SecretVersion
            | Self::Requests
            | Self::Announcement => Server::Services,
        }
    }
}

impl fmt::Display for CallSite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FalconSecret => f.write_str("GetSecretValue, Falcon's"),
            Self::TailscaleSecret => f.write_str("GetSecretValue, Tailscale's"),
            Self::SecretVersion => f.write_str("DescribeSecret"),
            Self::FalconToken => f.write_str("Falcon's token"),
            Self::TailscaleToken => f.write_str("Tailscale's token"),
            Self::Hosts(page) => write!(f, "hosts, page {page}"),
            Self::Scores(page) => write!(f, "scores, page {page}"),
            Self::Devices => f.write_str("devices"),
            Self::HostLookUp => f.write_str("look-up of hosts"),
            Self::ScoreLookUp => f.write_str("look-up of scores"),
            Self::DeviceLookUp => f.write_str("look-up of a device"),
            Self::Attributes => f.write_str("attributes of a device"),
            Self::PatchOfOne => f.write_str("PATCH with one device"),
            Self::LookUpOfOne => f.write_str("look-up of one device"),
            Self::Patch(batch) => write!(f, "PATCH, batch {batch}"),
            Self::Integrations => f.write_str("Scan of the integrations"),
            Self::Lease => f.write_str("UpdateItem, lease"),
            Self::Records => f.write_str("Query of the records"),
            Self::Pending => f.write_str("UpdateItem, pending"),
            Self::Removals => f.write_str("Query of the removals"),
            Self::Absences => f.write_str("UpdateItem, absence"),
            Self::StrikeOut => f.write_str("TransactWriteItems, pending no more"),
            Self::Record(batch) => write!(f, "TransactWriteItems, batch {batch}"),
            Self::Forget => f.write_str("TransactWriteItems, departed"),
            Self::Finish => f.write_str("UpdateItem, status"),
            Self::Requests => f.write_str("PutEvents, fan-out"),
            Self::Announcement => f.write_str("PutEvents, connect"),
        }
    }
}

/// Recognizes calls, and tells pages and batches apart.
#[derive(Debug, Default)]
pub(super) struct Classifier {
    /// The cursors of host listing, in the order of their first use.
    hosts: Vec<String>,
    scores: Vec<String>,
    /// The devices of the first batch of changes. If empty, all batches count as the first.
    first_batch: BTreeSet<String>,
    /// The device whose calls have call sites of their own, if there is one.
    odd: Option<String>,
}

impl Classifier {
    pub(super) fn expect_first_batch(&mut self, nodes: impl IntoIterator<Item = String>) {
        self.first_batch = nodes.into_iter().collect();
    }

    pub(super) fn expect_odd(&mut self, node: Option<String>) {
        self.odd = node;
    }

    /// Returns the call of a request, or `None` for a request that no run makes.
    pub(super) fn read(&mut self, asked: &Asked) -> Option<CallSite> {
        match asked.aws_operation() {
            Some(operation) => self.aws(operation, asked),
            None => self.api(asked),
        }
    }

    fn api(&mut self, asked: &Asked) -> Option<CallSite> {
        let path = asked.path.as_str();
        let is_read = asked.method == Method::GET;
        let body = String::from_utf8_lossy(&asked.body);
        let is_about = |text: &str| self.odd.as_ref().is_some_and(|odd| text.contains(odd));
        Some(match path {
            "/oauth2/token" => CallSite::FalconToken,
            "/api/v2/oauth/token" => CallSite::TailscaleToken,
            "/devices/combined/devices/v1" if asked.target.contains("filter=") => {
                CallSite::HostLookUp
            }
            "/devices/combined/devices/v1" => {
                CallSite::Hosts(page(&mut self.hosts, &asked.target, "offset="))
            }
            "/zero-trust-assessment/queries/assessments/v1" => {
                CallSite::Scores(page(&mut self.scores, &asked.target, "after="))
            }
            "/zero-trust-assessment/entities/assessments/v1" => CallSite::ScoreLookUp,
            "/api/v2/tailnet/-/devices" => CallSite::Devices,
            "/api/v2/tailnet/-/device-attributes" if is_about(&body) => CallSite::PatchOfOne,
            "/api/v2/tailnet/-/device-attributes" => CallSite::Patch(self.batch(asked)),
            _ if is_read
                && path.starts_with("/api/v2/device/")
                && path.ends_with("/attributes") =>
            {
                CallSite::Attributes
            }
            _ if is_read && path.starts_with("/api/v2/device/") && is_about(path) => {
                CallSite::LookUpOfOne
            }
            _ if is_read && path.starts_with("/api/v2/device/") => CallSite::DeviceLookUp,
            _ => return None,
        })
    }

    fn aws(&self, operation: &str, asked: &Asked) -> Option<CallSite> {
        let body = String::from_utf8_lossy(&asked.body);
        let says = |text: &str| body.contains(text);
        Some(match operation {
            "GetSecretValue" if says("corp/falcon") => CallSite::FalconSecret,
            "GetSecretValue" => CallSite::TailscaleSecret,
            "DescribeSecret" => CallSite::SecretVersion,
            "PutEvents" if says("Posture Sync Requested") => CallSite::Requests,
            "PutEvents" => CallSite::Announcement,
            "Scan" => CallSite::Integrations,
            "Query" if says("\"audit\"") => CallSite::Removals,
            "Query" => CallSite::Records,
            "UpdateItem" if says("SET #lease = :lease") => CallSite::Lease,
            "UpdateItem" if says("#status") => CallSite::Finish,
            "UpdateItem" if says("SET pending.") => CallSite::Pending,
            "UpdateItem" if says("absentSince") => CallSite::Absences,
            "TransactWriteItems" if says("REMOVE pending.") => CallSite::StrikeOut,
            "TransactWriteItems" if says("\"audit\"") && says("nodeId") => {
                CallSite::Record(self.batch(asked))
            }
            "TransactWriteItems" if says("\"nodes\"") => CallSite::Forget,
            _ => return None,
        })
    }

    fn batch(&self, asked: &Asked) -> usize {
        let body = String::from_utf8_lossy(&asked.body);
        let is_first =
            self.first_batch.is_empty() || self.first_batch.iter().any(|node| body.contains(node));
        if is_first { 1 } else { 2 }
    }
}

/// The page of a cursor. A listing that is read again from its start has new cursors.
fn page(cursors: &mut Vec<String>, target: &str, name: &str) -> usize {
    let Some((_, cursor)) = target.split_once(name) else {
        cursors.clear();
        return 1;
    };
    let known = cursors.iter().position(|known| known == cursor);
    2 + known.unwrap_or_else(|| {
        cursors.push(cursor.to_owned());
        cursors.len() - 1
    })
}
