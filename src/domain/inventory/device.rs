//! What is kept of the tailnet side: its devices and the identity they report.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use smallvec::SmallVec;
use smol_str::SmolStr;

/// A device's stable id in the tailnet (`nodeId`, such as `nPM2KNuedB21DEVEL`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct NodeId(pub SmolStr);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A device of the tailnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// The key of its posture attributes.
    pub node_id: NodeId,
    /// The machine's full name in the tailnet (`laptop.tail1234.ts.net`).
    pub name: SmolStr,
    /// The name the machine gives itself.
    pub hostname: SmolStr,
    /// Its owner's login name, such as `amelie@example.com`; empty where the listing has none.
    pub user: SmolStr,
    /// Its operating system in the tailnet's spelling, such as `macOS`, `windows`, `linux`.
    pub os: SmolStr,
    /// Shared into this tailnet by another one: not ours to write to.
    pub is_external: bool,
    /// What it reports about its hardware.
    pub identity: Identity,
}

/// A device's posture identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Nothing: Device Identity Collection is off in the tailnet, or the device has not reported yet.
    Missing,
    /// Switched off on the device.
    Disabled,
    /// The reported texts, as they came: up to three on Windows and Linux (product, baseboard and chassis).
    Serials(ReportedSerials),
}

/// What a device reports as its serials.
pub type ReportedSerials = SmallVec<[SmolStr; 2]>;

/// The devices of a tailnet by node.
pub type Devices = BTreeMap<NodeId, Device>;
