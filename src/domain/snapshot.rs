//! Read-only snapshot of what the next run would observe and plan, for `explain` and `preview`.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::domain::inventory::device::{Devices, NodeId};
use crate::domain::inventory::host::FalconInventory;
use crate::domain::matching::Matches;
use crate::domain::plan::absence::WaitingRemoval;
use crate::domain::plan::guard::Held;
use crate::domain::plan::journal::Journal;
use crate::domain::plan::{NodeRecords, Plan};
use crate::domain::posture::Posture;
use crate::settings::Settings;

/// A complete observation and the plan that the next run would make of it. It holds no client.
#[derive(Debug)]
pub struct Snapshot {
    pub(crate) settings: Settings,
    pub(crate) falcon: FalconInventory,
    pub(crate) devices: Devices,
    pub(crate) records: NodeRecords,
    /// The age limit: hosts last seen before it do not count.
    pub(crate) min_last_seen: Option<Timestamp>,
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
