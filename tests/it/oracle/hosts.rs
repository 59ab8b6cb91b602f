//! Hosts and devices, with their fields as compared.

use std::collections::BTreeSet;

use jiff::Timestamp;
use posture_simulators::{Device, Host};
use serde_json::Value;

use super::{Settings, World, serials};

const CONTAINED: [&str; 3] = [
    "contained",
    "containment_pending",
    "lift_containment_pending",
];

/// A host with a serial, and its fields as compared.
#[derive(Clone, Debug)]
pub(super) struct Claimant {
    pub(super) aid: String,
    pub(super) serial: String,
    pub(super) name: String,
    pub(super) first_seen: Option<Timestamp>,
    pub(super) last_seen: Option<Timestamp>,
    pub(super) platform: Option<&'static str>,
    pub(super) is_contained: bool,
    /// A valid score.
    pub(super) score: Option<i64>,
    pub(super) has_assessment: bool,
}

/// Rule 1: another host of the serial was first seen after this one was last seen.
pub(super) fn is_superseded(host: &Claimant, group: &[Claimant]) -> bool {
    let came_later = |other: &Claimant| match (other.first_seen, host.last_seen) {
        (Some(first), Some(last)) => first > last,
        _ => false,
    };
    group.iter().any(came_later)
}

/// Each was seen after the other was first seen. Hosts without a time might have been.
pub(super) fn overlap(one: &Claimant, other: &Claimant) -> bool {
    let precedes = |first: Option<Timestamp>, last: Option<Timestamp>| {
        first.zip(last).is_none_or(|(first, last)| first < last)
    };
    precedes(one.first_seen, other.last_seen) && precedes(other.first_seen, one.last_seen)
}

pub(super) fn claimant(settings: &Settings, world: &World, host: &Host) -> Option<Claimant> {
    let serial = serials::serial(settings, host.serial_number.as_deref()?)?;
    let status = host
        .status
        .as_deref()
        .unwrap_or("normal")
        .trim()
        .to_lowercase();
    let platform = host.platform_name.as_deref().unwrap_or_default();
    let score = world.scores.get(&host.device_id);
    let first_seen = host.first_seen.as_deref().or(Some("2023-05-22T17:00:01Z"));
    Some(Claimant {
        aid: host.device_id.clone(),
        serial,
        name: short(host.hostname.as_deref().unwrap_or_default()),
        first_seen: time(world.now, first_seen),
        last_seen: time(world.now, host.last_seen.as_deref()),
        platform: match platform.trim().to_lowercase().as_str() {
            "windows" => Some("windows"),
            "mac" => Some("macos"),
            "linux" => Some("linux"),
            _ => None,
        },
        is_contained: CONTAINED.contains(&status.as_str()),
        score: score.and_then(whole),
        has_assessment: score.is_some(),
    })
}

/// Rule 6: `71`, `71.0` and `7.1e1` are one number.
fn whole(score: &Value) -> Option<i64> {
    let score = score.as_f64();
    (0..=100)
        .find(|whole| Some(f64::from(*whole)) == score)
        .map(i64::from)
}

/// Returns a time; one in the future is now.
pub(super) fn time(now: Timestamp, text: Option<&str>) -> Option<Timestamp> {
    let time: Option<Timestamp> = text.and_then(|text| text.parse().ok());
    time.map(|time| time.min(now))
}

pub(super) fn device_platform(device: &Device) -> Option<&'static str> {
    let os = device.os.trim().to_lowercase();
    ["windows", "macos", "linux"]
        .into_iter()
        .find(|platform| *platform == os)
}

pub(super) fn short(name: &str) -> String {
    let name = name.trim().to_lowercase();
    name.split('.').next().unwrap_or_default().to_owned()
}

pub(super) fn serials_of(settings: &Settings, device: &Device) -> BTreeSet<String> {
    let texts = device.serials().iter();
    texts
        .filter_map(|text| serials::serial(settings, text))
        .collect()
}
