//! What each device should get, worked out the slow and obvious way from the simulators' data. It shares nothing with
//! the function: not the normalisation, not the list of placeholders, not the order of the work.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use posture_simulators::{Device, Host, PLACEHOLDER_SERIALS};
use serde_json::Value;

/// A host, with its serial and its time made comparable.
struct Claimant<'a> {
    aid: &'a str,
    serial: String,
    seen: Option<Timestamp>,
}

/// The score of every device that should have one.
pub(crate) fn oracle(
    hosts: &[Host],
    scores: &BTreeMap<String, Value>,
    devices: &[Device],
) -> BTreeMap<String, i64> {
    let claimants: Vec<Claimant<'_>> = hosts
        .iter()
        .filter_map(|host| {
            Some(Claimant {
                aid: &host.device_id,
                serial: serial(host.serial_number.as_deref()?)?,
                seen: host.last_seen.as_deref().and_then(|time| time.parse().ok()),
            })
        })
        .collect();
    let mut expected = BTreeMap::new();
    for device in devices.iter().filter(|device| !device.is_external) {
        let lowest = device
            .serials()
            .iter()
            .filter_map(|text| serial(text))
            .filter_map(|serial| lowest_score(&serial, &claimants, scores))
            .min();
        if let Some(score) = lowest {
            expected.insert(device.node_id.clone(), score);
        }
    }
    expected
}

fn serial(text: &str) -> Option<String> {
    let text = text.trim().to_lowercase();
    (!PLACEHOLDER_SERIALS.contains(&text.as_str())).then_some(text)
}

fn lowest_score(
    serial: &str,
    claimants: &[Claimant<'_>],
    scores: &BTreeMap<String, Value>,
) -> Option<i64> {
    let claimants: Vec<&Claimant<'_>> = claimants
        .iter()
        .filter(|host| host.serial == serial)
        .collect();
    let newest = claimants.iter().filter_map(|host| host.seen).max();
    let day = SignedDuration::from_hours(24);
    claimants
        .into_iter()
        .filter(|host| {
            host.seen
                .is_none_or(|seen| newest.unwrap().duration_since(seen) <= day)
        })
        .filter_map(|host| scores.get(host.aid)?.as_i64())
        .filter(|score| (0..=100).contains(score))
        .min()
}
