//! Finds the devices that a person means.

use crate::domain::inventory::device::{Device, Devices, NodeId};
use crate::domain::inventory::record::NodeRecords;
use crate::domain::inventory::serial::Serial;
use crate::domain::matching::reasons::truncate;
use crate::settings::IgnoredSerials;

/// Finds the devices that a text means, the best match first. The order of precedence is the node id, then a name, then a
/// serial. A name is the full one, the full one without the tailnet's domain, or the machine's own, in any case.
pub(crate) fn find_devices(devices: &Devices, text: &str, ignored: &IgnoredSerials) -> Vec<NodeId> {
    let query = DeviceQuery::parse(text);
    if devices.contains_key(&query.node_id) {
        return vec![query.node_id];
    }
    let rank = |device: &Device| {
        let rank = query.rank(&device.name, &device.hostname)?;
        Some((rank, device.node_id.clone()))
    };
    let mut named: Vec<(usize, NodeId)> = devices.values().filter_map(rank).collect();
    if !named.is_empty() {
        named.sort();
        return named.into_iter().map(|(_, node_id)| node_id).collect();
    }
    let Some(serial) = &query.serial else {
        return Vec::new();
    };
    let reports = |device: &&Device| device.serials(ignored).any(|one| one == *serial);
    let reporting = devices.values().filter(reports);
    reporting.map(|device| device.node_id.clone()).collect()
}

/// Finds devices by their node records: a device may have left the tailnet, changed its name or stopped reporting its
/// serial.
pub(crate) fn find_in_records(records: &NodeRecords, text: &str) -> Vec<NodeId> {
    let query = DeviceQuery::parse(text);
    if records.contains_key(&query.node_id) {
        return vec![query.node_id];
    }
    let serial = query.serial.as_ref().map(Serial::as_str);
    records
        .iter()
        .filter(|(_, record)| {
            query.rank(&record.name, "").is_some()
                || serial.is_some_and(|text| *text == *record.serial)
        })
        .map(|(node_id, _)| node_id.clone())
        .collect()
}

/// A text as each of the three things that can identify a device.
struct DeviceQuery {
    node_id: NodeId,
    name: String,
    serial: Option<Serial>,
}

impl DeviceQuery {
    fn parse(text: &str) -> Self {
        let text = text.trim();
        Self {
            node_id: NodeId(text.into()),
            // Sanitized like the names that it is compared with.
            name: truncate(text.trim_end_matches('.')).trim().to_lowercase(),
            serial: Serial::parse(text).ok(),
        }
    }

    /// Returns which of a device's names matches; 0 is the best match.
    fn rank(&self, name: &str, hostname: &str) -> Option<usize> {
        if self.name.is_empty() {
            return None;
        }
        let name = name.trim().to_lowercase();
        let host = name.split('.').next().unwrap_or_default();
        [name.as_str(), host, &hostname.trim().to_lowercase()]
            .iter()
            .position(|known| *known == self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::inventory::device::{Identity, Presence};

    fn device(node_id: &str, name: &str, hostname: &str, serials: &[&str]) -> (NodeId, Device) {
        let node_id = NodeId(node_id.into());
        let device = Device {
            node_id: node_id.clone(),
            name: name.into(),
            hostname: hostname.into(),
            user: "".into(),
            os: "".into(),
            is_external: false,
            is_ephemeral: false,
            presence: Presence::Connected,
            has_multiple_connections: false,
            identity: Identity::Serials(serials.iter().map(|text| (*text).into()).collect()),
        };
        (node_id, device)
    }

    #[test]
    fn a_device_is_meant_by_its_id_else_by_a_name_else_by_a_serial() {
        let devices = Devices::from([
            device("n1", "laptop.tail1.ts.net", "Amelies-Mac", &[" c02abc "]),
            device("n2", "laptop-1.tail1.ts.net", "laptop", &["C02ABC", "none"]),
            device("n3", "n1.tail1.ts.net", "C02ABC", &[]),
            device("n4", "", "", &["Default string"]),
        ]);
        for (text, expect) in [
            ("n1", &["n1"][..]),
            (" n1 ", &["n1"]),
            ("N1", &["n3"]),
            ("LAPTOP.tail1.TS.net", &["n1"]),
            ("laptop.tail1.ts.net.", &["n1"]),
            ("laptop", &["n1", "n2"]),
            ("laptop.tail1", &[]),
            ("amelies-mac", &["n1"]),
            ("lap", &[]),
            ("c02abc", &["n3"]),
            ("C02ABC ", &["n3"]),
            ("none", &[]),
            ("default string", &[]),
            (" ", &[]),
            (".", &[]),
        ] {
            let found = find_devices(&devices, text, &IgnoredSerials::default());
            let found: Vec<&str> = found.iter().map(|id| id.0.as_str()).collect();
            assert_eq!(found, expect, "{text:?}");
        }
        let mut devices = devices;
        devices.remove(&NodeId("n3".into()));
        assert_eq!(
            find_devices(&devices, "c02Abc\t", &IgnoredSerials::default()).len(),
            2
        );
    }
}
