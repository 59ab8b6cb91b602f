//! Devices that had a score and no longer report a serial number: their users have just lost access.
//!
//! Their score is removed, unless `onMissing` is `keep`, and the record of it too. So the status stores these devices until
//! they report again or leave the tailnet (tailscale#18341: access that is lost "randomly", without a trace).

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::domain::inventory::device::Devices;
use crate::domain::inventory::record::NodeRecords;
use crate::domain::matching::{MatchOutcome, Matches};
use crate::domain::status::finding::{Finding, FindingKind};
use crate::text::truncate_bytes;

/// Maximum devices that the status stores: an item holds 400 kB. While the guard holds more removals, the node records
/// still have the other devices.
pub(crate) const MAX_STORED: usize = 120;
/// Maximum bytes of a stored name, for the same reason.
pub(crate) const MAX_NAME_BYTES: usize = 100;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LostIdentity {
    pub(crate) node_id: String,
    pub(crate) name: String,
    /// When a run first found the device without a serial number.
    pub(crate) since: Timestamp,
}

/// Finds the devices that report no valid serial and had a score, according to a record or to the run before.
pub(crate) fn find_lost(
    before: &[LostIdentity],
    records: &NodeRecords,
    matches: &Matches,
    devices: &Devices,
    now: Timestamp,
) -> Vec<LostIdentity> {
    let before = before.iter().map(|one| (one.node_id.as_str(), one.since));
    let before: BTreeMap<&str, Timestamp> = before.collect();
    let lost = matches.outcomes.iter().filter_map(|(node, outcome)| {
        let (MatchOutcome::NoIdentity { .. } | MatchOutcome::NoSerial { .. }) = outcome else {
            return None;
        };
        let since = before.get(node.0.as_str()).copied();
        let since = since.or_else(|| records.contains_key(node).then_some(now))?;
        Some(LostIdentity {
            node_id: node.to_string(),
            name: truncate_bytes(&devices.get(node)?.name, MAX_NAME_BYTES),
            since,
        })
    });
    lost.collect()
}

/// Returns the devices that the status stores.
pub(crate) fn truncate_for_storage(lost: &[LostIdentity]) -> Vec<LostIdentity> {
    lost.iter().take(MAX_STORED).cloned().collect()
}

pub(crate) fn finding(lost: &[LostIdentity]) -> Option<Finding> {
    Finding::new(
        FindingKind::LostIdentity,
        lost.iter()
            .map(|lost| format!("{} ({}) since {:.0}", lost.name, lost.node_id, lost.since)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::inventory::device::{Device, Identity, NodeId, Presence};
    use crate::domain::inventory::host::{Aid, FalconInventory, Score};
    use crate::domain::inventory::record::NodeRecord;
    use crate::domain::matching::{MatchRules, join};

    #[test]
    fn all_are_counted_and_some_are_stored() {
        let nodes = || (0..1_000).map(|n| NodeId(format!("n{n:04}").into()));
        let device = |node_id: NodeId| Device {
            name: node_id.to_string().into(),
            hostname: "".into(),
            user: "".into(),
            os: "".into(),
            is_external: false,
            is_ephemeral: false,
            presence: Presence::Connected,
            has_multiple_connections: false,
            identity: Identity::Missing,
            node_id,
        };
        let written = NodeRecord {
            key: "custom:ztaScore".to_owned().try_into().unwrap(),
            score: Score::new(70).unwrap(),
            aid: Aid::from("a"),
            serial: "S1".into(),
            name: "".into(),
            written_at: None,
            expiry: None,
            run_id: "before".into(),
            is_ephemeral: false,
            absence: None,
        };
        let devices: Devices = nodes().map(|node| (node.clone(), device(node))).collect();
        let records: NodeRecords = nodes().map(|node| (node, written.clone())).collect();
        let matches = join(
            &FalconInventory::default(),
            &devices,
            &records,
            &MatchRules::with_defaults(Timestamp::UNIX_EPOCH),
        );
        let lost = find_lost(&[], &records, &matches, &devices, Timestamp::UNIX_EPOCH);
        assert_eq!(finding(&lost).unwrap().count, 1_000);
        assert_eq!(truncate_for_storage(&lost).len(), MAX_STORED);
    }
}
