//! Devices of the tailnet and the identity that they report.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::Serialize;
use smallvec::SmallVec;
use smol_str::SmolStr;

use crate::domain::inventory::platform::Platform;
use crate::domain::inventory::serial::Serial;
use crate::settings::IgnoredSerials;

/// The stable id of a device in the tailnet (`nodeId`, such as `nPM2KNuedB21DEVEL`).
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
    /// The id, by which its posture attributes are written.
    pub node_id: NodeId,
    /// The full name in the tailnet (`laptop.tail1234.ts.net`).
    pub name: SmolStr,
    /// The host name that the machine gives itself.
    pub hostname: SmolStr,
    /// The owner's login name, such as `amelie@example.com`; empty if the listing has none.
    pub user: SmolStr,
    /// The operating system in Tailscale's spelling, such as `macOS`, `windows`, `linux`.
    pub os: SmolStr,
    /// True if another tailnet shares the device into this one: its attributes cannot be written here.
    pub is_external: bool,
    /// True if the tailnet forgets the device as soon as it disconnects.
    pub is_ephemeral: bool,
    /// The connection to the control plane.
    pub presence: Presence,
    /// True if several machines use the device's key at once, as after cloning a disk.
    pub has_multiple_connections: bool,
    /// The posture identity.
    pub identity: Identity,
}

/// The connection of a device to Tailscale's control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It is connected now.
    Connected,
    /// It is not connected.
    Away {
        /// When it was last connected, if that is known.
        last_seen: Option<Timestamp>,
    },
}

impl Device {
    /// Returns whether the device is connected.
    pub fn is_connected(&self) -> bool {
        self.presence == Presence::Connected
    }

    /// Returns the serials among the reported texts.
    pub fn serials<'a>(&'a self, ignored: &'a IgnoredSerials) -> impl Iterator<Item = Serial> + 'a {
        let texts = self.identity.serials().iter();
        texts.filter_map(|text| Serial::identify(text, ignored).ok())
    }

    /// Returns the platform, as far as it is one that Falcon names, too.
    pub fn platform(&self) -> Platform {
        Platform::parse(&self.os)
    }
}

/// The posture identity of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// No report: Device Identity Collection is off in the tailnet, or the device has not reported yet.
    Missing,
    /// Posture reporting is switched off on the device.
    Disabled,
    /// The reported texts, unchanged: up to three on Windows and Linux (product, baseboard and chassis).
    Serials(ReportedSerials),
}

impl Identity {
    /// Returns the reported texts.
    pub(crate) fn serials(&self) -> &[SmolStr] {
        match self {
            Self::Serials(texts) => texts,
            Self::Missing | Self::Disabled => &[],
        }
    }
}

/// The texts that a device reports as its serials.
pub type ReportedSerials = SmallVec<[SmolStr; 2]>;

/// Devices by node.
pub type Devices = BTreeMap<NodeId, Device>;
