//! Which devices a person means.

use crate::domain::inventory::device::{Device, Devices, Identity, NodeId};
use crate::domain::inventory::serial::Serial;
use crate::domain::plan::NodeRecords;
use crate::text::sanitize;

use super::TEXT_CHARS;

/// The devices that a text means, the best match first: the one with this node id; else those with this name, which is
/// the full one, or without the tailnet's domain, or what the machine calls itself, in any case; else those that report
/// this serial.
pub fn find<'a>(devices: &'a Devices, text: &str) -> Vec<&'a NodeId> {
    let wanted = DeviceQuery::of(text);
    if let Some((node_id, _)) = devices.get_key_value(&wanted.node_id) {
        return vec![node_id];
    }
    let rank = |device: &'a Device| {
        let rank = wanted.rank(&device.name, &device.hostname)?;
        Some((rank, &device.node_id))
    };
    let mut named: Vec<(usize, &NodeId)> = devices.values().filter_map(rank).collect();
    if !named.is_empty() {
        named.sort();
        return named.into_iter().map(|(_, node_id)| node_id).collect();
    }
    let Some(serial) = &wanted.serial else {
        return Vec::new();
    };
    let reports = |device: &&Device| match &device.identity {
        Identity::Serials(texts) => texts
            .iter()
            .any(|text| Serial::parse(text).as_ref() == Ok(serial)),
        Identity::Missing | Identity::Disabled => false,
    };
    let reporting = devices.values().filter(reports);
    reporting.map(|device| &device.node_id).collect()
}

/// Likewise among the records, by what was written: the device may be gone, or called otherwise, or report no serial any
/// more.
pub fn recorded<'a>(records: &'a NodeRecords, text: &str) -> Vec<&'a NodeId> {
    let wanted = DeviceQuery::of(text);
    if let Some((node_id, _)) = records.get_key_value(&wanted.node_id) {
        return vec![node_id];
    }
    let is_it = |serial: &Serial, written: &str| serial.as_str() == written;
    records
        .iter()
        .filter(|(_, written)| {
            wanted.rank(&written.name, "").is_some()
                || wanted
                    .serial
                    .as_ref()
                    .is_some_and(|serial| is_it(serial, &written.serial))
        })
        .map(|(node_id, _)| node_id)
        .collect()
}

/// A text in each of the ways in which it may mean a device.
struct DeviceQuery {
    node_id: NodeId,
    name: String,
    serial: Option<Serial>,
}

impl DeviceQuery {
    fn of(text: &str) -> Self {
        let text = text.trim();
        Self {
            node_id: NodeId(text.into()),
            // Made fit like the names that it is compared with.
            name: sanitize(text.trim_end_matches('.'), TEXT_CHARS)
                .trim()
                .to_lowercase(),
            serial: Serial::parse(text).ok(),
        }
    }

    /// How well it fits a device's names, 0 is best.
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

    fn device(node_id: &str, name: &str, hostname: &str, serials: &[&str]) -> (NodeId, Device) {
        let node_id = NodeId(node_id.into());
        let device = Device {
            node_id: node_id.clone(),
            name: name.into(),
            hostname: hostname.into(),
            user: "".into(),
            os: "".into(),
            is_external: false,
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
            let found: Vec<&str> = find(&devices, text)
                .iter()
                .map(|id| id.0.as_str())
                .collect();
            assert_eq!(found, expect, "{text:?}");
        }
        let mut devices = devices;
        devices.remove(&NodeId("n3".into()));
        assert_eq!(find(&devices, "c02Abc\t").len(), 2);
    }
}
