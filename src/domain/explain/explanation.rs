//! Why one device has the score it has, or none: the whole chain from what it reports to what is written.

use jiff::Timestamp;
use serde::Serialize;

use crate::domain::audit::AuditRecord;
use crate::domain::inventory::device::NodeId;
use crate::domain::inventory::host::{Aid, Score};
use crate::domain::plan::NodeRecord;

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
    /// The rule that decided, as half a sentence: `no Falcon host has its serial number C02D91CNPV4M`.
    pub because: String,
    /// What to do about it, where there is something to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// The score that it deserves.
    pub score: Option<Score>,
    /// What it reports as serial numbers, in its order.
    pub serials: Vec<ReportedSerial>,
    /// How many more it reports than are told.
    #[serde(skip_serializing_if = "is_zero")]
    pub serials_omitted: usize,
    /// The Falcon hosts with one of its serials, the decisive one first.
    pub hosts: Vec<ExplainedHost>,
    /// How many more there are than are told.
    #[serde(skip_serializing_if = "is_zero")]
    pub hosts_omitted: usize,
    /// What is written now, by the records.
    pub written: Option<NodeRecord>,
    /// What the next sync will do about it, as half a sentence with the sync as its subject: `sets custom:ztaScore to 71`.
    pub next: String,
    /// The same in one word.
    pub next_action: NextAction,
    /// What was changed, newest first.
    pub history: Vec<AuditRecord>,
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
    /// It reports no posture identity, or one without any serial.
    NoIdentity,
    /// It is shared in from another tailnet.
    External,
}

/// What the next sync will do about a device; stable names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum NextAction {
    /// Everything is as it should be.
    Nothing,
    /// It sets the attribute, which the device does not have.
    Set,
    /// It changes the attribute's value.
    Change,
    /// It sets the attribute under another key, and deletes the old one.
    Move,
    /// It takes the attribute away.
    Remove,
    /// It would take the attribute away, but the guard holds removals until a person allows them.
    Held,
    /// It would change something that rests on a look-up, which did not work.
    Waits,
    /// The device is another tailnet's.
    NotOurs,
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
pub struct ExplainedHost {
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
    /// What it is among the hosts of its serial.
    pub standing: HostStatus,
    /// Why it counts or does not, as half a sentence about it.
    pub because: String,
}

/// What a host is among the hosts of its serial; stable names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum HostStatus {
    /// Alive, with the lowest score.
    Lowest,
    /// Alive, with a score that is not the lowest, or not the first of the same.
    Behind,
    /// Alive, and what Falcon gives as its score is none.
    Invalid,
    /// Alive, without an assessment.
    Unassessed,
    /// Not seen since the age limit.
    Stale,
    /// What re-imaging left behind.
    Superseded,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde's `skip_serializing_if` passes a reference"
)]
pub(crate) fn is_zero(number: &usize) -> bool {
    *number == 0
}
