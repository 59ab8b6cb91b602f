//! Checks that the attribute can be written: scope, type, and no other writer.

use std::collections::BTreeSet;

use serde_json::{Number, Value};

use super::{Check, CheckKind};
use crate::app::App;
use crate::domain::inventory::attribute::HeldAttributes;
use crate::domain::inventory::device::{Device, Devices};
use crate::domain::status::error_kind::ErrorKind;
use crate::settings::{AttributeKey, Settings};
use crate::store::{Integration, StoreError};
use crate::tailscale::Tailscale;
use crate::text::sanitize;

/// The inputs of the attribute checks.
pub(super) struct AttributeCheck<'a> {
    pub(super) app: &'a App,
    pub(super) settings: &'a Settings,
    pub(super) others: &'a [Integration],
    pub(super) tailscale: &'a Tailscale,
    pub(super) devices: &'a Devices,
}

/// Maximum devices with a record in the sample, and maximum others: reading attributes takes one call per device.
const MAX_SAMPLE_DEVICES: usize = 5;
/// The scope that writing needs, and the scopes that include it.
const WRITE_SCOPES: [&str; 3] = ["devices:posture_attributes", "devices", "all"];
const ADD_SCOPE: &str = "add the scope devices:posture_attributes to the credential";
const NOBODYS: &str = "a sync writes the score of the devices that have one; delete the attribute from the others in the \
                       admin console, where it lets them pass";
const OTHER_KEY: &str =
    "choose another attributeKey, or delete that attribute from all devices of the tailnet";

/// Checks that the credential may write the attribute as a number. Writes nothing: the token or a read tells the scope, and
/// devices that have the attribute tell its type.
pub(super) async fn check_writable(inputs: &AttributeCheck<'_>) -> Result<Check, StoreError> {
    let kind = CheckKind::Attribute;
    let key = &inputs.settings.attribute_key;
    let scopes = &inputs.tailscale.scopes;
    let may_write =
        |scopes: &BTreeSet<String>| WRITE_SCOPES.iter().any(|scope| scopes.contains(*scope));
    if scopes.as_ref().is_some_and(|scopes| !may_write(scopes)) {
        let finding = "the credential cannot write posture attributes";
        return Ok(Check::failed(kind, finding, ADD_SCOPE));
    }
    let mut in_use = 0;
    let mut unrecorded = Vec::new();
    let sample = sample_devices(inputs).await?;
    for (device, is_recorded) in &sample {
        match inputs.tailscale.attributes(&device.node_id).await {
            Ok(attributes) => match integer_value(key, device, attributes.unwrap_or_default()) {
                Ok(Some(value)) => {
                    in_use += 1;
                    if !is_recorded {
                        unrecorded.push(format!("{} {value}", sanitize(&device.name, 100)));
                    }
                }
                Ok(None) => {}
                Err(finding) => return Ok(Check::failed(kind, finding, OTHER_KEY)),
            },
            // The right to write includes the right to read.
            Err(error) if error.error_kind() == ErrorKind::MissingScope => {
                let finding = "the credential cannot read posture attributes";
                return Ok(Check::failed(kind, finding, ADD_SCOPE));
            }
            Err(error) => return Ok(Check::from_error(kind, &error)),
        }
    }
    let right = if scopes.is_some() {
        "the credential can write it"
    } else {
        "the credential can read it; Tailscale does not tell beforehand whether it can write"
    };
    let finding = format!(
        "{key}: {right}; of {} devices looked at, {in_use} have it, as a number",
        sample.len()
    );
    if unrecorded.is_empty() {
        return Ok(Check::passed(kind, finding));
    }
    let finding = format!(
        "{finding}; {} of them by somebody else, without a record here: {}",
        unrecorded.len(),
        unrecorded.join(", ")
    );
    Ok(Check::warning(kind, finding, NOBODYS))
}

/// Returns a sample of the devices with a record of this integration, and of the others. True stands for a record.
async fn sample_devices<'a>(
    inputs: &AttributeCheck<'a>,
) -> Result<Vec<(&'a Device, bool)>, StoreError> {
    let nodes = inputs.app.store.nodes(&inputs.settings.id).await?;
    let own = inputs.devices.values().filter(|device| !device.is_external);
    let is_recorded = |device: &&Device| {
        let node = &device.node_id;
        nodes.records.contains_key(node) || nodes.unreadable.contains_key(node)
    };
    let (recorded, others): (Vec<&Device>, Vec<&Device>) = own.partition(is_recorded);
    let sample = |devices: Vec<&'a Device>, is_recorded| {
        let devices = devices.into_iter().take(MAX_SAMPLE_DEVICES);
        devices.map(move |device| (device, is_recorded))
    };
    Ok(sample(recorded, true)
        .chain(sample(others, false))
        .collect())
}

/// Returns the value of the attribute if a device has it, an integer. A value of another type, or a key that differs in case, is
/// an error: Tailscale keeps one type per key in a tailnet, and no two keys that differ only in case.
fn integer_value(
    key: &AttributeKey,
    device: &Device,
    held: HeldAttributes,
) -> Result<Option<Number>, String> {
    let mut attributes = held.0.into_iter().map(|(key, held)| (key, held.value));
    let attribute = attributes.find(|(name, _)| name.eq_ignore_ascii_case(key.as_str()));
    let device = sanitize(&device.name, 100);
    match attribute {
        None => Ok(None),
        Some((name, _)) if name != key.as_str() => Err(format!(
            "{device} has an attribute {}, which is the same key as {key} for Tailscale",
            sanitize(&name, 140)
        )),
        Some((_, Value::Number(number))) if number.is_i64() || number.is_u64() => Ok(Some(number)),
        Some(_) => Err(format!(
            "{key} is in use on {device} with a type other than integer"
        )),
    }
}

/// Checks that no other integration writes the same key in the same tailnet. If the settings do not tell the tailnet, the
/// node records do: node ids are unique across tailnets.
pub(super) async fn check_unshared(inputs: &AttributeCheck<'_>) -> Result<Check, StoreError> {
    let settings = inputs.settings;
    let others = inputs.others.iter().flat_map(|other| &other.settings);
    let same_key = others.filter(|other| {
        other.id != settings.id && other.attribute_key.is_same_key(&settings.attribute_key)
    });
    for other in same_key {
        let store = &inputs.app.store;
        let written = store.sample_nodes(&other.id, MAX_SAMPLE_DEVICES).await?;
        let is_same_tailnet = written.iter().any(|node| inputs.devices.contains_key(node));
        if is_same_tailnet || settings.conflicts_with(other) {
            let finding = format!(
                "the integration {} writes {} in this tailnet, too",
                other.id, settings.attribute_key
            );
            let remedy = "give one of them another attributeKey, or remove it";
            return Ok(Check::failed(CheckKind::SameAttribute, finding, remedy));
        }
    }
    let finding = "no other integration writes this attribute in this tailnet";
    Ok(Check::passed(CheckKind::SameAttribute, finding))
}
