//! The devices without a host, which a run remembers for the next one: a device that is unmatched for the first time leads to a
//! listing of all hosts.

use std::collections::{BTreeSet, HashSet};
use std::num::ParseIntError;

use serde::{Deserialize, Serialize};

use crate::domain::inventory::device::{Device, NodeId};
use crate::domain::inventory::host::Hosts;
use crate::domain::inventory::serial::Serial;
use crate::settings::IgnoredSerials;

/// Maximum remembered devices without a host. If there are more, only the daily listing looks for their hosts.
pub(crate) const MAX_UNMATCHED: usize = 200;

/// Devices, each as a hash of its node id: 200 take 1.8 kB of the integration's item, ids up to 26 kB. A new device that has the
/// hash of an old one waits for the daily listing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) struct UnmatchedDevices(BTreeSet<u32>);

impl UnmatchedDevices {
    /// Returns `None` if there are more than [`MAX_UNMATCHED`].
    pub(super) fn new(nodes: &[&NodeId]) -> Option<Self> {
        let hashes = || nodes.iter().map(|node| hash(node)).collect();
        (nodes.len() <= MAX_UNMATCHED).then(|| Self(hashes()))
    }

    pub(crate) fn contains(&self, node: &NodeId) -> bool {
        self.0.contains(&hash(node))
    }
}

impl From<UnmatchedDevices> for String {
    fn from(devices: UnmatchedDevices) -> Self {
        let hashes = devices.0.iter().map(|hash| format!("{hash:08x}"));
        hashes.collect::<Vec<_>>().join(" ")
    }
}

impl TryFrom<String> for UnmatchedDevices {
    type Error = ParseIntError;

    fn try_from(text: String) -> Result<Self, ParseIntError> {
        let hashes = text.split_whitespace();
        let hashes = hashes.map(|hash| u32::from_str_radix(hash, 16));
        hashes.collect::<Result<_, _>>().map(Self)
    }
}

/// Hashes a node id by FNV-1a. The hash is stored, so it must be the same in each version.
fn hash(node: &NodeId) -> u32 {
    let bytes = node.0.bytes();
    bytes.fold(0x811c_9dc5, |hash: u32, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

/// Returns the tailnet's own devices with a valid serial that no host has.
pub(crate) fn devices_without_host<'a>(
    hosts: &Hosts,
    devices: impl IntoIterator<Item = (&'a NodeId, &'a Device)>,
    ignored: &IgnoredSerials,
) -> Vec<&'a NodeId> {
    let known: HashSet<&Serial> = hosts
        .values()
        .filter_map(|host| host.serial.as_ref())
        .collect();
    let lacks_host = |device: &Device| {
        let mut serials = device.serials(ignored).peekable();
        serials.peek().is_some() && serials.all(|serial| !known.contains(&serial))
    };
    devices
        .into_iter()
        .filter(|(_, device)| !device.is_external && lacks_host(device))
        .map(|(node, _)| node)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::fetch::FetchState;

    #[test]
    fn a_device_is_unmatched_for_the_first_time_once() {
        let nodes: Vec<NodeId> = (0..=MAX_UNMATCHED)
            .map(|n| NodeId(format!("n{n}CNTRL").into()))
            .collect();
        let nodes: Vec<&NodeId> = nodes.iter().collect();
        let after = |nodes: &[&NodeId]| FetchState {
            unmatched: UnmatchedDevices::new(nodes),
            ..FetchState::default()
        };
        assert_eq!(FetchState::newly_unmatched(None, &nodes[..3]), 3);
        let few = after(&nodes[..10]);
        let json = serde_json::to_string(&few).unwrap();
        assert_eq!(serde_json::from_str::<FetchState>(&json).unwrap(), few);
        assert_eq!(FetchState::newly_unmatched(Some(&few), &nodes[5..10]), 0);
        assert_eq!(FetchState::newly_unmatched(Some(&few), &nodes[5..12]), 2);
        let none = after(&[]);
        assert_eq!(FetchState::newly_unmatched(Some(&none), &nodes), 201);
        // The daily listing finds their hosts, as before.
        let many = after(&nodes);
        assert_eq!(FetchState::newly_unmatched(Some(&many), &nodes), 0);
    }
}
