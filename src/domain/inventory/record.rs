//! Node records: the attribute that was last written to each device.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use smol_str::SmolStr;

use crate::domain::inventory::device::NodeId;
use crate::domain::inventory::host::{Aid, Score};
use crate::domain::is_default;
use crate::settings::AttributeKey;

/// The last written attribute of a device, as recorded: the decisive part of its item in the nodes table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeRecord {
    /// The key of the attribute.
    #[serde(rename = "attributeKey")]
    pub key: AttributeKey,
    /// The value of the attribute.
    pub score: Score,
    /// The host that decided the score.
    pub aid: Aid,
    /// The serial of the match, in normal form.
    pub serial: SmolStr,
    /// The name of the device at that time.
    pub name: SmolStr,
    /// The time of the write.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub written_at: Option<Timestamp>,
    /// When Tailscale removes the attribute, unless a run renews it before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiry: Option<Timestamp>,
    /// The run that wrote it. A run replaces a record only while the record still names the run that it was read with.
    pub run_id: SmolStr,
    /// True if the tailnet forgets the device as soon as it disconnects.
    #[serde(rename = "ephemeral", skip_serializing_if = "is_default")]
    pub is_ephemeral: bool,
    /// The absence of the device, if the latest complete run found it absent.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub absence: Option<Absence>,
}

/// Node records of an integration.
pub type NodeRecords = BTreeMap<NodeId, NodeRecord>;

/// The devices whose attribute has expired, each with the run that wrote it.
pub type ExpiredRecords = BTreeMap<NodeId, SmolStr>;

impl NodeRecord {
    /// Returns true if the attribute has expired at this time: Tailscale has removed it.
    pub fn has_expired(&self, at: Timestamp) -> bool {
        self.expiry.is_some_and(|expiry| expiry <= at)
    }
}

/// Takes out the records of attributes that have expired at this time: their devices have no score.
pub fn take_expired(records: &mut NodeRecords, at: Timestamp) -> ExpiredRecords {
    let expired = records.iter().filter(|(_, record)| record.has_expired(at));
    let expired: ExpiredRecords = expired
        .map(|(node, record)| (node.clone(), record.run_id.clone()))
        .collect();
    for node in expired.keys() {
        records.remove(node);
    }
    expired
}

/// The absence of a recorded device: it has no score any more, and its attribute is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Absence {
    /// When a run first found the device absent.
    #[serde(rename = "absentSince")]
    pub since: Timestamp,
    /// When the guard first held the removal. It stays held until the device is present again, has left the tailnet, or a
    /// person lets the removal pass.
    #[serde(rename = "heldSince", skip_serializing_if = "Option::is_none")]
    pub held_since: Option<Timestamp>,
}
