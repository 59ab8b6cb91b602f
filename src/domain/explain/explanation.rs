//! The explanation of one device: everything from the serials it reports to the attribute that is written.

use jiff::Timestamp;
use serde::Serialize;

use crate::domain::audit::AuditRecord;
use crate::domain::inventory::device::NodeId;
use crate::domain::inventory::host::{Aid, Score};
use crate::domain::inventory::record::NodeRecord;
use crate::domain::is_default;
use crate::domain::matching::candidates::CandidateStatus;
use crate::domain::matching::reasons::Verdict;

/// The explanation of one device.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    pub(crate) node_id: NodeId,
    pub(crate) name: String,
    pub(crate) hostname: String,
    pub(crate) user: String,
    pub(crate) os: String,
    pub(crate) verdict: Verdict,
    /// The rule that decided, as half a sentence: `no Falcon host has its serial number C02D91CNPV4M`.
    #[serde(rename = "because")]
    pub(crate) reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) remedy: Option<String>,
    /// The score that the device deserves.
    pub(crate) score: Option<Score>,
    /// The first serials that the device reports, in its order.
    pub(crate) serials: Vec<ReportedSerial>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) serials_omitted: usize,
    /// The first Falcon hosts with one of the serials, the deciding one first.
    pub(crate) hosts: Vec<ExplainedHost>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) hosts_omitted: usize,
    /// The written attribute, according to the records.
    pub(crate) written: Option<NodeRecord>,
    /// The next sync's action, as half a sentence with the sync as its subject: `sets custom:ztaScore to 71`.
    pub(crate) next: String,
    pub(crate) next_action: NextAction,
    /// The latest changes, newest first.
    pub(crate) history: Vec<AuditRecord>,
}

/// The next sync's action on a device. The names are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum NextAction {
    Nothing,
    /// Sets the attribute, which the device does not have.
    Set,
    Change,
    /// Sets the attribute under another key, and deletes the old one.
    Move,
    Remove,
    /// Would remove the attribute, but the guard holds removals until a person allows them.
    Held,
    /// Would change something that rests on a failed lookup, or would remove the attribute and waits for the second look.
    Waits,
    /// Leaves the device alone: it belongs to another tailnet.
    NotOurs,
}

/// A text that a device reports as its serial number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ReportedSerial {
    /// The text as the device reports it, sanitized.
    pub(crate) reported: String,
    /// The normal form, by which hosts are found; absent for an invalid serial.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) serial: Option<String>,
    /// The reason why the serial is invalid.
    #[serde(rename = "refused", skip_serializing_if = "Option::is_none")]
    pub(crate) problem: Option<String>,
}

/// A Falcon host with one of the device's serials.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ExplainedHost {
    pub(crate) aid: Aid,
    pub(crate) hostname: Option<String>,
    /// The serial that the host shares with the device, in normal form.
    pub(crate) serial: String,
    /// When the sensor last reported to Falcon.
    pub(crate) last_seen: Option<Timestamp>,
    pub(crate) score: Option<Score>,
    /// True for the host whose score the device gets.
    #[serde(rename = "decides")]
    pub(crate) is_deciding: bool,
    /// The status among the hosts of its serial.
    #[serde(rename = "standing")]
    pub(crate) status: CandidateStatus,
    /// Why the host counts or does not, as half a sentence about it.
    #[serde(rename = "because")]
    pub(crate) reason: String,
}
