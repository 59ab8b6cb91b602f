//! The end of an integration: what is taken away with it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::domain::inventory::device::Devices;
use crate::domain::plan::{Change, NodeRecords, Plan};

/// What becomes of the attributes that an integration wrote when it is removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Attributes {
    /// They are deleted.
    #[default]
    Delete,
    /// They stay, and nothing refreshes or removes them any more.
    Keep,
}

/// The wish to remove an integration, as it is stored with it until the job is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Removal {
    /// What becomes of the attributes.
    pub attributes: Attributes,
    /// When it was asked for.
    pub since: Timestamp,
    /// Who asked.
    pub actor: String,
}

/// The deletion of all that was written. Records of devices that are in the tailnet no more are departed: their
/// attributes went with them.
pub fn take_away(records: &NodeRecords, devices: &Devices) -> Plan {
    let mut plan = Plan::default();
    for (node_id, written) in records {
        match devices.get(node_id) {
            Some(device) => plan.changes.push(Change {
                node_id: node_id.clone(),
                name: device.name.clone(),
                hostname: device.hostname.clone(),
                old: Some(written.clone()),
                new: None,
                reason: "the integration is removed".to_owned(),
            }),
            None => plan.departed.push(node_id.clone()),
        }
    }
    plan
}
