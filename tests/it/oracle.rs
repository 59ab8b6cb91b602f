//! Computes the score of each device and its reason, slowly and simply, from the simulators' data. Shares no code with the
//! function: neither the normalization of serials, nor the list of placeholders, nor the order of the steps.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use posture_simulators::{Device, Host, PLACEHOLDER_SERIALS, PostureIdentity};
use serde_json::Value;

/// The reason why a device has its score or none, with the names of `explain`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reason {
    /// The verdict.
    pub(crate) verdict: &'static str,
    pub(crate) score: Option<i64>,
    /// The host that determines the score.
    pub(crate) decides: Option<String>,
    /// The status of each host that has one of its serials.
    pub(crate) hosts: BTreeMap<String, &'static str>,
    /// The validity of each text that it reports as a serial.
    pub(crate) serials: Vec<bool>,
}

/// A host, with its serial and its time normalized.
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
    reasons(hosts, scores, devices, None)
        .into_iter()
        .filter_map(|(node, reason)| Some((node, reason.score?)))
        .collect()
}

/// The reason of every device. Hosts that were last seen before `limit` do not count.
pub(crate) fn reasons(
    hosts: &[Host],
    scores: &BTreeMap<String, Value>,
    devices: &[Device],
    limit: Option<Timestamp>,
) -> BTreeMap<String, Reason> {
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
    devices
        .iter()
        .map(|device| {
            let reason = reason(device, &claimants, scores, limit);
            (device.node_id.clone(), reason)
        })
        .collect()
}

fn reason(
    device: &Device,
    claimants: &[Claimant<'_>],
    scores: &BTreeMap<String, Value>,
    limit: Option<Timestamp>,
) -> Reason {
    let serials: BTreeSet<String> = device
        .serials()
        .iter()
        .filter_map(|text| serial(text))
        .collect();
    let mut hosts = BTreeMap::new();
    let mut lowest: Option<(i64, String)> = None;
    for serial in &serials {
        let group: Vec<&Claimant<'_>> = claimants
            .iter()
            .filter(|host| host.serial == *serial)
            .collect();
        for host in &group {
            let place = place(host, &group, scores, limit);
            hosts.insert(host.aid.to_owned(), place);
            if place == "lowest" {
                let score = score(host, scores).unwrap();
                let this = (score, host.aid.to_owned());
                lowest = Some(lowest.map_or(this.clone(), |other| other.min(this)));
            }
        }
    }
    let any = |wanted: &str| hosts.values().any(|place| *place == wanted);
    let verdict = if device.is_external {
        "external"
    } else if matches!(
        device.posture_identity,
        None | Some(PostureIdentity::Disabled { .. })
    ) || device.serials().is_empty()
    {
        "noIdentity"
    } else if serials.is_empty() {
        "noSerial"
    } else if hosts.is_empty() {
        "unmatched"
    } else if lowest.is_some() {
        "scored"
    } else if any("unassessed") || any("invalid") {
        "unassessed"
    } else {
        "stale"
    };
    let lowest = lowest.filter(|_| verdict == "scored");
    Reason {
        verdict,
        score: lowest.as_ref().map(|(score, _)| *score),
        decides: lowest.map(|(_, aid)| aid),
        hosts,
        serials: device
            .serials()
            .iter()
            .map(|text| serial(text).is_some())
            .collect(),
    }
}

fn serial(text: &str) -> Option<String> {
    let text = text.trim().to_lowercase();
    (!PLACEHOLDER_SERIALS.contains(&text.as_str())).then_some(text)
}

fn score(host: &Claimant<'_>, scores: &BTreeMap<String, Value>) -> Option<i64> {
    // `71`, `71.0` and `7.1e1` are one number.
    let score = scores.get(host.aid)?.as_f64();
    (0..=100)
        .find(|whole| Some(f64::from(*whole)) == score)
        .map(i64::from)
}

/// The status of a host among those with its serial.
fn place(
    host: &Claimant<'_>,
    group: &[&Claimant<'_>],
    scores: &BTreeMap<String, Value>,
    limit: Option<Timestamp>,
) -> &'static str {
    match standing(host, group, scores, limit) {
        "scored" => {
            let score_of = |host: &Claimant<'_>| (score(host, scores), host.aid.to_owned());
            let is_lower = |other: &&Claimant<'_>| {
                standing(other, group, scores, limit) == "scored"
                    && score_of(other) < score_of(host)
            };
            if group.iter().any(is_lower) {
                "behind"
            } else {
                "lowest"
            }
        }
        other => other,
    }
}

/// The status of a host before the scores are compared.
fn standing(
    host: &Claimant<'_>,
    group: &[&Claimant<'_>],
    scores: &BTreeMap<String, Value>,
    limit: Option<Timestamp>,
) -> &'static str {
    let day = SignedDuration::from_hours(24);
    let is_later = |other: &&Claimant<'_>| match (host.seen, other.seen) {
        (Some(seen), Some(other)) => other.duration_since(seen) > day,
        _ => false,
    };
    if group.iter().any(is_later) {
        "superseded"
    } else if limit.is_some_and(|limit| host.seen.is_none_or(|seen| seen < limit)) {
        "stale"
    } else if score(host, scores).is_some() {
        "scored"
    } else if scores.contains_key(host.aid) {
        "invalid"
    } else {
        "unassessed"
    }
}
