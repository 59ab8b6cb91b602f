//! Why one device has the score it has, or none: the whole chain from what it reports to what is written.

use jiff::Timestamp;
use serde::Serialize;

use crate::domain::audit::Record;
use crate::domain::device::NodeId;
use crate::domain::host::{Aid, Score};
use crate::domain::plan::Written;

/// The explanation of one device.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The device.
    pub node_id: NodeId,
    /// Its full name in the tailnet.
    pub name: String,
    /// The name the machine gives itself.
    pub hostname: String,
    /// Its owner's login name.
    pub user: String,
    /// Its operating system.
    pub os: String,
    /// What came of it.
    pub verdict: Verdict,
    /// The rule that decided, as a sentence.
    pub because: String,
    /// The score that it deserves.
    pub score: Option<Score>,
    /// What it reports as serial numbers, in its order.
    pub serials: Vec<ReportedSerial>,
    /// The Falcon hosts with one of its serials, the decisive one first.
    pub hosts: Vec<Candidate>,
    /// What is written now, by the records.
    pub written: Option<Written>,
    /// What the next sync will do about it, as a sentence.
    pub next: String,
    /// What was changed, newest first.
    pub history: Vec<Record>,
}

/// What came of a device; stable names, those of the findings where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// It has a score.
    Scored,
    /// Its Falcon hosts have no assessment.
    Unassessed,
    /// Its Falcon hosts were not seen for too long.
    Stale,
    /// No Falcon host has its serial.
    Unmatched,
    /// It reports no usable serial.
    NoSerial,
    /// It reports no posture identity.
    NoIdentity,
    /// It is shared in from another tailnet.
    External,
}

/// A text that a device reports as its serial number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReportedSerial {
    /// As it came, made fit to be shown.
    pub reported: String,
    /// Its normal form, by which hosts are found; none where it is no serial.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Why it is no serial.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// A Falcon host with one of the device's serials.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Candidate {
    /// The sensor.
    pub aid: Aid,
    /// The host's own name.
    pub hostname: Option<String>,
    /// The serial that it shares with the device, in normal form.
    pub serial: String,
    /// When its sensor last spoke to Falcon.
    pub last_seen: Option<Timestamp>,
    /// Its score, if it is assessed.
    pub score: Option<Score>,
    /// Whether its score is the one that counts.
    pub decides: bool,
    /// Why it counts or does not, as a sentence.
    pub because: String,
}
