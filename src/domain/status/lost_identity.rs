//! Devices that had a score and do not say any more which machine they are: their users have just lost access.
//!
//! The score goes (unless `onMissing` says `keep`), and with it the record that there was one. So the status remembers
//! them, until they report again or leave the tailnet (tailscale#18341: access that is lost "randomly", without a trace).

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::domain::inventory::device::{Devices, NodeId};
use crate::domain::matching::{MatchOutcome, Matches};
use crate::domain::plan::NodeRecords;
use crate::domain::status::finding::{Finding, FindingKind};
use crate::text::sanitize;

/// So many are remembered: an item holds 400 kB. As long as the guard holds a greater loss, the records tell the rest.
const REMEMBERED: usize = 200;

/// How much of a name is kept, for the same reason.
const NAME_CHARS: usize = 100;

/// A device that lost its identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LostIdentity {
    /// The device.
    pub node_id: String,
    /// Its name in the tailnet.
    pub name: String,
    /// When a run first saw it without.
    pub since: Timestamp,
}

/// The devices that are known to have had a score, by a record or from the run before, and report no serial now.
pub fn lost(
    before: &[LostIdentity],
    records: &NodeRecords,
    joined: &Matches,
    devices: &Devices,
    now: Timestamp,
) -> Vec<LostIdentity> {
    let before: BTreeMap<&str, &LostIdentity> = before
        .iter()
        .map(|lost| (lost.node_id.as_str(), lost))
        .collect();
    let gone = joined.outcomes.iter().filter(|(_, outcome)| {
        matches!(
            outcome,
            MatchOutcome::NoIdentity { .. } | MatchOutcome::NoSerial { .. }
        )
    });
    let lost = |(node, _): (&NodeId, &MatchOutcome)| {
        let known = before.get(node.0.as_str());
        if known.is_none() && !records.contains_key(node) {
            return None;
        }
        Some(LostIdentity {
            node_id: node.to_string(),
            name: sanitize(&devices.get(node)?.name, NAME_CHARS),
            since: known.map_or(now, |lost| lost.since),
        })
    };
    gone.filter_map(lost).collect()
}

/// Those of them that the status remembers.
pub fn remembered(lost: &[LostIdentity]) -> Vec<LostIdentity> {
    lost.iter().take(REMEMBERED).cloned().collect()
}

/// The finding that names them.
pub fn finding(lost: &[LostIdentity]) -> Option<Finding> {
    Finding::of(
        FindingKind::LostIdentity,
        lost.iter()
            .map(|lost| format!("{} ({}) since {:.0}", lost.name, lost.node_id, lost.since)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::inventory::device::{Device, Identity};
    use crate::domain::inventory::host::{Aid, FalconInventory, Score};
    use crate::domain::matching::join;
    use crate::domain::plan::NodeRecord;

    #[test]
    fn all_are_counted_and_some_are_remembered() {
        let nodes = || (0..1_000).map(|n| NodeId(format!("n{n:04}").into()));
        let device = |node_id: NodeId| Device {
            name: node_id.to_string().into(),
            hostname: "".into(),
            user: "".into(),
            os: "".into(),
            is_external: false,
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
            run_id: "before".into(),
        };
        let devices: Devices = nodes().map(|node| (node.clone(), device(node))).collect();
        let records: NodeRecords = nodes().map(|node| (node, written.clone())).collect();
        let joined = join(&FalconInventory::default(), &devices, None);
        let lost = lost(&[], &records, &joined, &devices, Timestamp::UNIX_EPOCH);
        assert_eq!(finding(&lost).unwrap().count, 1_000);
        assert_eq!(remembered(&lost).len(), REMEMBERED);
    }
}
