//! The removal of an integration, and of the attributes that it wrote.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::domain::inventory::device::Devices;
use crate::domain::inventory::record::{ExpiredRecords, NodeRecords};
use crate::domain::plan::{Change, Plan};

/// The handling of an integration's attributes when it is removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Attributes {
    /// Removes them.
    #[default]
    Delete,
    /// Leaves them in the tailnet; nothing updates or removes them any more.
    Keep,
}

/// A request to remove an integration. It is stored in the item until the removal is complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Removal {
    /// The handling of the attributes.
    pub attributes: Attributes,
    /// The time of the request.
    pub since: Timestamp,
    /// The actor of the request.
    pub actor: String,
}

/// Plans the removal of all recorded attributes. Records of devices that have left the tailnet are departed: their
/// attributes went with them. The devices in `expired` have no attribute any more.
pub fn plan_deprovisioning(
    records: &NodeRecords,
    expired: &ExpiredRecords,
    devices: &Devices,
) -> Plan {
    let mut plan = Plan {
        expired: expired.keys().cloned().collect(),
        ..Plan::default()
    };
    for (node_id, record) in records {
        match devices.get(node_id) {
            Some(device) => plan.changes.push(Change {
                node_id: node_id.clone(),
                name: device.name.clone(),
                hostname: device.hostname.clone(),
                old: Some(record.clone()),
                expired: None,
                new: None,
                reason: "the integration is removed".to_owned(),
                is_approved: true,
                is_immediate: true,
                is_ephemeral: device.is_ephemeral,
            }),
            None => plan.departed.push(node_id.clone()),
        }
    }
    plan
}
