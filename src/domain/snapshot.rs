//! Read-only snapshot of what the next run would observe and plan, for `explain` and `preview`.

use std::collections::BTreeSet;

use crate::domain::inventory::device::{Devices, NodeId};
use crate::domain::inventory::host::FalconInventory;
use crate::domain::inventory::record::NodeRecords;
use crate::domain::matching::{MatchRules, Matches};
use crate::domain::plan::Plan;
use crate::domain::plan::absence::WaitingRemoval;
use crate::domain::plan::guard::Held;
use crate::domain::plan::journal::Journal;
use crate::domain::posture::Posture;
use crate::settings::Settings;

/// An observation, complete or of the explained devices alone, and the plan that the next run would make of it. It holds no
/// client.
#[derive(Debug)]
pub struct Snapshot {
    pub(crate) settings: Settings,
    pub(crate) falcon: FalconInventory,
    pub(crate) devices: Devices,
    pub(crate) records: NodeRecords,
    /// The rules by which hosts count.
    pub(crate) rules: MatchRules,
    pub(crate) matches: Matches,
    pub(crate) plan: Plan,
    /// The removals that wait for the second look.
    pub(crate) waiting: Vec<WaitingRemoval>,
    /// The reason why the guard would hold the plan's removals, if it would.
    pub(crate) held: Option<Held>,
    /// Changes that would wait because a lookup failed.
    pub(crate) unresolved: BTreeSet<NodeId>,
    /// The writes of earlier runs that are not recorded.
    pub(crate) journal: Journal,
    /// The postures of the policy file that are about our attribute, if they were asked for.
    pub(crate) postures: Vec<Posture>,
}
