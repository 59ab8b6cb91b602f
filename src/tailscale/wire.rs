//! Tailscale's JSON: what is kept of a device, and how attributes are written.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use smol_str::SmolStr;
use tracing::warn;

use crate::domain::inventory::device::{Device, Devices, Identity, NodeId, ReportedSerials};
use crate::json::lenient::{FromText, LenientText, ListOrOther, LooseValue};
use crate::json::{ListEnvelope, RecordIndex};
use crate::text::sanitize_smol;

/// How much of a name or a serial is kept.
const TEXT_CHARS: usize = 255;
/// How many serials of a device are looked at. Real ones report up to three.
const SERIALS: usize = 32;
/// How many devices a listing may have: as many as its size allows real ones.
const DEVICES: usize = 150_000;

fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(LooseValue::deserialize(deserializer)? == LooseValue::Flag(true))
}

/// The texts among the first things of a list; what is none is left out.
fn texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ReportedSerials, D::Error> {
    let first = match ListOrOther::<LenientText<Reported>, SERIALS>::deserialize(deserializer)? {
        ListOrOther::Many { first, .. } => first,
        ListOrOther::Null | ListOrOther::LooseValue | ListOrOther::One(_) => Vec::new(),
    };
    let texts = first.into_iter().filter_map(|text| text.0);
    Ok(texts.map(|Reported(text)| text).collect())
}

/// A serial as it came, but no longer than anything real. Control characters stay: they are a reason to refuse it.
#[derive(Debug)]
struct Reported(SmolStr);

impl FromText for Reported {
    fn of_text(text: &str) -> Option<Self> {
        if text.len() <= TEXT_CHARS {
            return Some(Self(text.into()));
        }
        Some(Self(text.chars().take(TEXT_CHARS).collect()))
    }
}

/// A name, fit to be shown.
#[derive(Debug)]
struct Name(SmolStr);

impl FromText for Name {
    fn of_text(text: &str) -> Option<Self> {
        Some(Self(sanitize_smol(text, TEXT_CHARS)))
    }
}

impl FromText for NodeId {
    fn of_text(text: &str) -> Option<Self> {
        is_node_id(text).then(|| Self(text.into()))
    }
}

/// The fields that are kept of some 1.8 kB a device.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WireDevice {
    #[serde(default)]
    node_id: LenientText<NodeId>,
    /// The legacy id: still accepted wherever an id is.
    #[serde(default)]
    id: LenientText<NodeId>,
    #[serde(default)]
    name: LenientText<Name>,
    #[serde(default)]
    hostname: LenientText<Name>,
    #[serde(default)]
    user: LenientText<Name>,
    #[serde(default)]
    os: LenientText<Name>,
    #[serde(default, deserialize_with = "flag")]
    is_external: bool,
    #[serde(default)]
    posture_identity: Option<PostureIdentity>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PostureIdentity {
    #[serde(default, deserialize_with = "flag")]
    disabled: bool,
    #[serde(default, deserialize_with = "texts")]
    serial_numbers: ReportedSerials,
}

impl WireDevice {
    /// The device; nothing where it has no usable id.
    pub(super) fn device(self) -> Option<Device> {
        let shown =
            |name: LenientText<Name>| name.0.map_or_else(SmolStr::default, |Name(name)| name);
        Some(Device {
            node_id: self.node_id.0.or(self.id.0)?,
            name: shown(self.name),
            hostname: shown(self.hostname),
            user: shown(self.user),
            os: shown(self.os),
            is_external: self.is_external,
            identity: match self.posture_identity {
                None => Identity::Missing,
                Some(PostureIdentity { disabled: true, .. }) => Identity::Disabled,
                Some(PostureIdentity { serial_numbers, .. }) => Identity::Serials(serial_numbers),
            },
        })
    }
}

/// Whether a text can be a device's id. It becomes a segment of a path, where `..` would mean something.
pub(super) fn is_node_id(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// What is around the devices of the listing, which has no pages: a large tailnet's has tens of megabytes.
#[derive(Deserialize)]
pub(super) struct Listing {
    devices: Vec<RecordIndex>,
}

impl ListEnvelope for Listing {
    type Record = Kept;

    const LIST: &str = "devices";
    const RECORDS: usize = DEVICES;

    fn list(self) -> Vec<RecordIndex> {
        self.devices
    }
}

/// What is kept of a listed device; nothing where it has no usable id.
#[derive(Debug, Deserialize)]
#[serde(from = "WireDevice")]
pub(super) struct Kept(Option<Device>);

impl From<WireDevice> for Kept {
    fn from(device: WireDevice) -> Self {
        Self(device.device())
    }
}

/// The devices of a listing.
pub(super) fn devices(listed: Vec<Kept>) -> Devices {
    let all = listed.len();
    let usable = listed.into_iter().filter_map(|Kept(device)| device);
    let usable: Vec<Device> = usable.collect();
    let skipped = all - usable.len();
    if skipped > 0 {
        warn!(skipped, "devices without a usable id were skipped");
    }
    usable
        .into_iter()
        .map(|device| (device.node_id.clone(), device))
        .collect()
}

/// A device's attributes in a merge patch: a value, or `null` to delete.
pub(super) type Patch<'a> = BTreeMap<&'a str, Option<Attribute>>;

/// A value in a merge patch: always an object, never the bare number.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Attribute {
    pub(super) value: u8,
}

/// The body of a batch.
#[derive(Debug, Serialize)]
pub(super) struct Batch<'a> {
    pub(super) nodes: BTreeMap<&'a str, Patch<'a>>,
    pub(super) comment: &'a str,
}

/// The body of a single write.
#[derive(Debug, Serialize)]
pub(super) struct Single<'a> {
    pub(super) value: u8,
    pub(super) comment: &'a str,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn device(json: Value) -> Option<Device> {
        serde_json::from_value::<WireDevice>(json).unwrap().device()
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
    fn the_legacy_id_stands_in_and_without_either_there_is_no_device() {
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

    #[test]
    fn a_batch_is_a_merge_patch_of_objects_and_nulls() {
        let batch = Batch {
            nodes: [(
                "nA",
                [
                    ("custom:a", Some(Attribute { value: 71 })),
                    ("custom:b", None),
                ]
                .into(),
            )]
            .into(),
            comment: "why",
        };
        assert_eq!(
            serde_json::to_value(&batch).unwrap(),
            json!({"nodes": {"nA": {"custom:a": {"value": 71}, "custom:b": null}}, "comment": "why"})
        );
    }
}
