//! Tailscale's JSON: the fields of a device.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer};
use smol_str::SmolStr;
use tracing::warn;

use crate::domain::inventory::device::{
    Device, Devices, Identity, NodeId, Presence, ReportedSerials,
};
use crate::json::lenient::{FromText, LenientText, ListOrOther, LooseValue};
use crate::json::{ListEnvelope, RecordIndex};

const MAX_SERIAL_CHARS: usize = 255;
/// Maximum serials of a device. Real devices report up to three.
const MAX_SERIALS: usize = 32;
/// Maximum devices of a listing, by its maximum size.
const MAX_DEVICES: usize = 150_000;

fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(LooseValue::deserialize(deserializer)? == LooseValue::Flag(true))
}

/// Reads the strings among the first values of a list, and skips the others.
fn serials<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ReportedSerials, D::Error> {
    let texts = ListOrOther::<LenientText<ReportedSerial>, MAX_SERIALS>::deserialize(deserializer)?;
    let reported = texts.into_list().into_iter().filter_map(|text| text.0);
    Ok(reported.map(|ReportedSerial(text)| text).collect())
}

/// A reported serial, truncated. Control characters stay, because they make a serial invalid.
#[derive(Debug)]
struct ReportedSerial(SmolStr);

impl FromText for ReportedSerial {
    fn from_text(text: &str) -> Option<Self> {
        if text.len() <= MAX_SERIAL_CHARS {
            return Some(Self(text.into()));
        }
        Some(Self(text.chars().take(MAX_SERIAL_CHARS).collect()))
    }
}

impl FromText for NodeId {
    fn from_text(text: &str) -> Option<Self> {
        is_node_id(text).then(|| Self(text.into()))
    }
}

/// The used fields of a device. A complete device has some 1.8 kB.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[expect(clippy::struct_excessive_bools, reason = "the API has them")]
pub(super) struct WireDevice {
    node_id: LenientText<NodeId>,
    /// The legacy id, which the API still accepts in place of the node id.
    id: LenientText<NodeId>,
    name: LenientText<SmolStr>,
    hostname: LenientText<SmolStr>,
    user: LenientText<SmolStr>,
    os: LenientText<SmolStr>,
    #[serde(deserialize_with = "flag")]
    is_external: bool,
    #[serde(deserialize_with = "flag")]
    is_ephemeral: bool,
    #[serde(deserialize_with = "flag")]
    connected_to_control: bool,
    /// Absent while the device is connected.
    last_seen: LenientText<Timestamp>,
    #[serde(deserialize_with = "flag")]
    multiple_connections: bool,
    posture_identity: Option<PostureIdentity>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PostureIdentity {
    #[serde(deserialize_with = "flag")]
    disabled: bool,
    #[serde(deserialize_with = "serials")]
    serial_numbers: ReportedSerials,
}

impl WireDevice {
    /// Returns the device; `None` without a usable id.
    pub(super) fn into_device(self) -> Option<Device> {
        Some(Device {
            node_id: self.node_id.0.or(self.id.0)?,
            name: self.name.0.unwrap_or_default(),
            hostname: self.hostname.0.unwrap_or_default(),
            user: self.user.0.unwrap_or_default(),
            os: self.os.0.unwrap_or_default(),
            is_external: self.is_external,
            is_ephemeral: self.is_ephemeral,
            presence: if self.connected_to_control {
                Presence::Connected
            } else {
                let last_seen = self.last_seen.0;
                Presence::Away { last_seen }
            },
            has_multiple_connections: self.multiple_connections,
            identity: match self.posture_identity {
                None => Identity::Missing,
                Some(PostureIdentity { disabled: true, .. }) => Identity::Disabled,
                Some(PostureIdentity { serial_numbers, .. }) => Identity::Serials(serial_numbers),
            },
        })
    }
}

/// Returns whether a text can be a device's id. It becomes a segment of a path, where `..` has a meaning.
pub(super) fn is_node_id(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// The JSON around the devices of the listing. The listing has no pages: a large tailnet has tens of megabytes.
#[derive(Deserialize)]
pub(super) struct Listing {
    devices: Vec<RecordIndex>,
}

impl ListEnvelope for Listing {
    type Item = WireDevice;

    const LIST_NAME: &str = "devices";
    const MAX_ITEMS: usize = MAX_DEVICES;

    fn list(self) -> Vec<RecordIndex> {
        self.devices
    }
}

pub(super) fn devices(listed: Vec<WireDevice>) -> Devices {
    let total = listed.len();
    let devices = listed.into_iter().filter_map(WireDevice::into_device);
    let devices: Vec<Device> = devices.collect();
    let skipped = total - devices.len();
    if skipped > 0 {
        warn!(skipped, "devices without a usable id were skipped");
    }
    let entry = |device: Device| (device.node_id.clone(), device);
    devices.into_iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn device(json: Value) -> Option<Device> {
        serde_json::from_value::<WireDevice>(json)
            .unwrap()
            .into_device()
    }

    fn identity(json: &Value) -> Identity {
        device(json!({"nodeId": "nA", "postureIdentity": json}))
            .unwrap()
            .identity
    }

    #[test]
    fn a_device_is_kept_by_its_node_id_and_the_rest_is_ignored() {
        let laptop = device(json!({
            "id": "92960230385", "nodeId": "n292kg92CNTRL", "name": "laptop.tail1.ts.net", "hostname": "lap\ntop",
            "isExternal": false, "created": "", "tags": null, "clientConnectivity": {"latency": {}},
            "postureIdentity": {"serialNumbers": [" C02D91CNPV4M ", "x".repeat(300), 7, "A\u{0}B"]}
        }))
        .unwrap();
        assert_eq!(laptop.node_id.0, "n292kg92CNTRL");
        assert_eq!(laptop.hostname, "lap top");
        let kept = [" C02D91CNPV4M ", &"x".repeat(255), "A\u{0}B"];
        let kept = kept.into_iter().map(Into::into).collect();
        assert_eq!(laptop.identity, Identity::Serials(kept));
    }

    #[test]
    fn a_device_is_connected_or_was_last_seen() {
        let connected = device(
            json!({"nodeId": "nA", "connectedToControl": true, "multipleConnections": true}),
        )
        .unwrap();
        assert!(connected.is_connected() && connected.has_multiple_connections);
        let away = json!({"nodeId": "nA", "connectedToControl": false, "lastSeen": "2026-01-15T12:00:00Z"});
        let away = device(away).unwrap();
        let last_seen = Timestamp::from_second(1_768_478_400).ok();
        assert_eq!(away.presence, Presence::Away { last_seen });
        assert!(!away.has_multiple_connections);
        let odd = device(json!({"nodeId": "nA", "connectedToControl": "yes", "lastSeen": 7}));
        let last_seen = None;
        assert_eq!(odd.unwrap().presence, Presence::Away { last_seen });
    }

    #[test]
    fn a_device_has_a_node_id_or_a_legacy_id() {
        assert_eq!(
            device(json!({"id": "42", "nodeId": ""})).unwrap().node_id.0,
            "42"
        );
        assert_eq!(device(json!({"nodeId": "../keys"})), None);
        assert_eq!(device(json!({"name": "x"})), None);
    }

    #[test]
    fn an_identity_is_missing_disabled_or_a_list() {
        assert_eq!(identity(&Value::Null), Identity::Missing);
        assert_eq!(
            identity(&json!({"disabled": true, "serialNumbers": ["A"]})),
            Identity::Disabled
        );
        assert_eq!(
            identity(&json!({"disabled": false})),
            Identity::Serials(ReportedSerials::new())
        );
        assert_eq!(
            identity(&json!({"serialNumbers": null})),
            Identity::Serials(ReportedSerials::new())
        );
        assert_eq!(
            device(json!({"nodeId": "nA"})).unwrap().identity,
            Identity::Missing
        );
    }
}
