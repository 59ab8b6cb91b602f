//! Checks that the attribute can be written: scope, type, and no other writer.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Check, CheckKind};
use crate::app::App;
use crate::domain::inventory::device::{Device, Devices, NodeId};
use crate::settings::{AttributeKey, Settings};
use crate::store::{Integration, StoreError};
use crate::tailscale::Tailscale;
use crate::text::sanitize;
use crate::upstream::error::UpstreamError;

/// A tailnet as it is being checked.
pub(super) struct AttributeCheck<'a> {
    pub(super) world: &'a App,
    pub(super) settings: &'a Settings,
    pub(super) others: &'a [Integration],
    pub(super) tailscale: &'a Tailscale,
    pub(super) devices: &'a Devices,
}

/// Maximum devices in the sample: reading attributes takes one call a device.
const SAMPLE: usize = 5;

/// The scope that writing needs, and those that include it.
const WRITING: [&str; 3] = ["devices:posture_attributes", "devices", "all"];

const ADD_SCOPE: &str = "add the scope devices:posture_attributes to the credential";
const OTHER_KEY: &str =
    "choose another attributeKey, or delete that attribute from all devices of the tailnet";

/// Whether the credential may write the attribute, and a number fits. Writes nothing: the scope is known from the token
/// or from reading, and the type from devices that have the attribute.
pub(super) async fn writable(tailnet: &AttributeCheck<'_>) -> Result<Check, StoreError> {
    let subject = CheckKind::Attribute;
    let key = &tailnet.settings.attribute_key;
    let scopes = tailnet.tailscale.scopes();
    let may = |scopes: &BTreeSet<String>| WRITING.iter().any(|scope| scopes.contains(*scope));
    if scopes.as_ref().is_some_and(|scopes| !may(scopes)) {
        let found = "the credential may not write posture attributes";
        return Ok(Check::failed(subject, found).remedy(ADD_SCOPE));
    }
    let mut in_use = 0;
    let sample = sample(tailnet).await?;
    for device in &sample {
        match tailnet.tailscale.attributes(&device.node_id).await {
            Ok(attributes) => match fits(key, device, attributes.unwrap_or_default()) {
                Ok(true) => in_use += 1,
                Ok(false) => {}
                Err(found) => {
                    let check = Check::failed(subject, found);
                    return Ok(check.remedy(OTHER_KEY));
                }
            },
            // Who may write may read.
            Err(UpstreamError::MissingScope { .. }) => {
                let found = "the credential may not even read posture attributes";
                return Ok(Check::failed(subject, found).remedy(ADD_SCOPE));
            }
            Err(error) => return Ok(Check::from_error(subject, &error)),
        }
    }
    let right = if scopes.is_some() {
        "the credential may write it"
    } else {
        "the credential may read it, and Tailscale does not tell beforehand whether it may write"
    };
    let found = format!(
        "{key}: {right}; of {} devices looked at, {in_use} have it, as a number",
        sample.len()
    );
    Ok(Check::passed(subject, found))
}

/// Devices that this integration has written before the others, then those that report an identity.
async fn sample<'a>(tailnet: &AttributeCheck<'a>) -> Result<Vec<&'a Device>, StoreError> {
    let store = &tailnet.world.store;
    let written = store.some_nodes(&tailnet.settings.id, SAMPLE).await?;
    let devices = tailnet.devices;
    let known = written.iter().filter_map(|node| devices.get(node));
    let others = devices.values().filter(|device| !device.is_external);
    let mut chosen: Vec<&Device> = Vec::new();
    for device in known.chain(others) {
        if chosen.len() < SAMPLE && !chosen.iter().any(|c| c.node_id == device.node_id) {
            chosen.push(device);
        }
    }
    Ok(chosen)
}

/// Whether a device has the attribute as we would write it; an error if it has it otherwise. Tailscale keeps one type
/// for a key in a tailnet, and no two keys that differ only in case.
fn fits(
    key: &AttributeKey,
    device: &Device,
    attributes: impl IntoIterator<Item = (String, Value)>,
) -> Result<bool, String> {
    let same = attributes
        .into_iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(key.as_str()));
    let device = sanitize(&device.name, 100);
    match same {
        None => Ok(false),
        Some((name, _)) if name != key.as_str() => Err(format!(
            "{device} has an attribute {}, which Tailscale takes for the same key as {key}",
            sanitize(&name, 140)
        )),
        Some((_, Value::Number(number))) if number.is_i64() || number.is_u64() => Ok(true),
        Some(_) => Err(format!(
            "{key} is in use on {device} with another type than a whole number"
        )),
    }
}

/// Whether another integration writes the same key in the same tailnet. Where the settings do not tell, its node
/// records do: node ids are unique across tailnets.
pub(super) async fn not_shared(tailnet: &AttributeCheck<'_>) -> Result<Check, StoreError> {
    let settings = tailnet.settings;
    for other in tailnet.others {
        let Ok(of_other) = &other.settings else {
            continue;
        };
        if other.id == settings.id || !of_other.attribute_key.is_same_key(&settings.attribute_key) {
            continue;
        }
        let written: Vec<NodeId> = tailnet.world.store.some_nodes(&other.id, SAMPLE).await?;
        let here = written
            .iter()
            .any(|node| tailnet.devices.contains_key(node));
        if here || settings.collides_with(of_other) {
            let found = format!(
                "the integration {} writes {} in this tailnet, too",
                other.id, settings.attribute_key
            );
            return Ok(Check::failed(CheckKind::SameAttribute, found)
                .remedy("give one of them another attributeKey, or remove it"));
        }
    }
    Ok(Check::passed(
        CheckKind::SameAttribute,
        "no other integration writes this attribute in this tailnet",
    ))
}
