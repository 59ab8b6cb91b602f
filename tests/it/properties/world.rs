//! Random accounts, tailnets, records and rules with few serials, so that most of them collide.

use std::collections::BTreeMap;

use falcon_posture_sync::domain::inventory::attribute::{HeldAttribute, HeldAttributes};
use falcon_posture_sync::domain::inventory::device::{Device, Devices, Identity, NodeId, Presence};
use falcon_posture_sync::domain::inventory::host::{Aid, Assessment, FalconInventory, Host, Score};
use falcon_posture_sync::domain::inventory::platform::Platform;
use falcon_posture_sync::domain::inventory::record::{ExpiredRecords, NodeRecord, NodeRecords};
use falcon_posture_sync::domain::inventory::serial::Serial;
use falcon_posture_sync::domain::matching::{MatchRules, Matches};
use falcon_posture_sync::domain::plan::lifetime::Lifetime;
use falcon_posture_sync::domain::plan::{Plan, PlanRules, plan};
use falcon_posture_sync::settings::{AttributeKey, OnContained, OnMissing, OnSharedSerial};
use jiff::{SignedDuration, Timestamp};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

pub(super) const NOW: Timestamp = Timestamp::constant(1_768_478_400, 0);

/// Reported serials: in mixed case, padded, or invalid.
pub(super) fn serial_text() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => "[ ]?[abAB][12][ ]?",
        1 => Just("To Be Filled By O.E.M.".to_owned()),
        1 => Just("0000".to_owned()),
        1 => Just(String::new()),
    ]
}

pub(super) fn host() -> impl Strategy<Value = Host> {
    (
        serial_text(),
        option::weighted(0.9, (0..72_i64, option::weighted(0.8, 0..72_i64))),
        option::of("[pq]"),
        platform(),
        prop::bool::weighted(0.1),
    )
        .prop_map(|(serial, times, hostname, platform, is_contained)| {
            let ago = |hours| NOW - SignedDuration::from_hours(hours);
            Host {
                aid: Aid::from(""),
                serial: Serial::parse(&serial).ok(),
                hostname: hostname.map(Into::into),
                first_seen: times.and_then(|(seen, hours)| hours.map(|hours| ago(seen + hours))),
                last_seen: times.map(|(hours, _)| ago(hours)),
                platform,
                is_contained,
            }
        })
}

pub(super) fn platform() -> impl Strategy<Value = Platform> {
    prop_oneof![
        4 => Just(Platform::Other),
        2 => Just(Platform::Linux),
        1 => Just(Platform::MacOs),
    ]
}

pub(super) fn rules() -> impl Strategy<Value = MatchRules> {
    (
        option::of(1..4_u16),
        option::of(25..72_u16),
        prop_oneof![3 => Just(OnSharedSerial::Withhold), 1 => Just(OnSharedSerial::Lowest)],
        prop_oneof![3 => Just(OnContained::Withhold), 1 => Just(OnContained::Ignore)],
    )
        .prop_map(
            |(max_age_days, max_silence_hours, on_shared_serial, on_contained)| MatchRules {
                max_age_days,
                max_silence_hours,
                on_shared_serial,
                on_contained,
                ..MatchRules::with_defaults(NOW)
            },
        )
}

pub(super) fn assessment() -> impl Strategy<Value = Assessment> {
    prop_oneof![
        9 => (0..=100_i64).prop_map(|score| Assessment::Score(Score::new(score).unwrap())),
        1 => Just(Assessment::Invalid("101".to_owned())),
    ]
}

pub(super) fn account() -> impl Strategy<Value = FalconInventory> {
    (
        btree_map("[a-h]", host(), 0..8),
        btree_map("[a-h]", assessment(), 0..8),
    )
        .prop_map(|(hosts, scores)| {
            let hosts = hosts.into_iter().map(|(aid, host)| Host {
                aid: Aid::from(aid.as_str()),
                ..host
            });
            let mut account = FalconInventory::default();
            account.extend(
                hosts.map(|host| (host.aid.clone(), host)).collect(),
                scores
                    .into_iter()
                    .map(|(aid, score)| (Aid::from(aid.as_str()), score))
                    .collect(),
            );
            account
        })
}

pub(super) fn devices() -> impl Strategy<Value = Devices> {
    let identity = prop_oneof![
        8 => vec(serial_text(), 0..4).prop_map(|texts| {
            Identity::Serials(texts.into_iter().map(Into::into).collect())
        }),
        1 => Just(Identity::Missing),
        1 => Just(Identity::Disabled),
    ];
    let presence = (
        prop_oneof![Just("linux"), Just("macOS"), Just("")],
        option::weighted(0.3, 0..100_i64),
        prop::bool::weighted(0.1),
    );
    let device = (identity, prop::bool::weighted(0.1), "[pqr]", presence);
    btree_map("n[1-8]", device, 0..8).prop_map(|devices| {
        let device =
            |(id, (identity, is_external, hostname, presence)): (String, (_, _, String, _))| {
                let (os, away, has_multiple_connections): (&str, Option<i64>, bool) = presence;
                let node_id = NodeId(id.into());
                let device = Device {
                    name: format!("{node_id}.ts.net").into(),
                    hostname: hostname.into(),
                    user: "".into(),
                    os: os.into(),
                    node_id: node_id.clone(),
                    is_external,
                    is_ephemeral: false,
                    presence: away.map_or(Presence::Connected, |hours| Presence::Away {
                        last_seen: Some(NOW - SignedDuration::from_hours(hours)),
                    }),
                    has_multiple_connections,
                    identity,
                };
                (node_id, device)
            };
        devices.into_iter().map(device).collect()
    })
}

pub(super) fn key(text: &str) -> AttributeKey {
    text.to_owned().try_into().unwrap()
}

pub(super) fn records() -> impl Strategy<Value = NodeRecords> {
    btree_map(
        "n[1-9]",
        (0..=100_i64, prop_oneof![Just("custom:a"), Just("custom:b")]),
        0..8,
    )
    .prop_map(|records| {
        let record = |(node, (score, attribute)): (String, (i64, &str))| {
            let written = NodeRecord {
                key: key(attribute),
                score: Score::new(score).unwrap(),
                aid: Aid::from("a"),
                serial: "A1".into(),
                name: node.as_str().into(),
                written_at: None,
                expiry: None,
                run_id: "before".into(),
                is_ephemeral: false,
                absence: None,
            };
            (NodeId(node.into()), written)
        };
        records.into_iter().map(record).collect()
    })
}

pub(super) fn on_missing() -> impl Strategy<Value = OnMissing> {
    prop_oneof![Just(OnMissing::Delete), Just(OnMissing::Keep)]
}

pub(super) fn planned(
    joined: &Matches,
    devices: &Devices,
    records: &NodeRecords,
    on_missing: OnMissing,
) -> Plan {
    let rules = PlanRules {
        key: &key("custom:a"),
        on_missing,
        lifetime: Lifetime::from_hours(168, NOW),
    };
    plan(joined, devices, records, &ExpiredRecords::new(), &rules)
}

/// The records after a plan is applied.
pub(super) fn applied(plan: &Plan, records: &NodeRecords) -> NodeRecords {
    let mut records = records.clone();
    for change in plan.changes.iter().chain(&plan.renewals) {
        match &change.new {
            Some(new) => {
                let written = NodeRecord {
                    key: new.key.clone(),
                    score: new.score,
                    aid: new.aid.clone(),
                    serial: new.serial.clone(),
                    name: change.name.clone(),
                    written_at: Some(NOW),
                    expiry: new.expiry,
                    run_id: "now".into(),
                    is_ephemeral: false,
                    absence: None,
                };
                records.insert(change.node_id.clone(), written);
            }
            None => {
                records.remove(&change.node_id);
            }
        }
    }
    for node in &plan.departed {
        records.remove(node);
    }
    records
}

pub(super) fn values(records: &NodeRecords) -> BTreeMap<&NodeId, (&AttributeKey, Score)> {
    records
        .iter()
        .map(|(node, written)| (node, (&written.key, written.score)))
        .collect()
}

/// Answers a lookup of a device's attributes.
pub(super) fn attributes(records: &NodeRecords, node: &NodeId) -> HeldAttributes {
    let held = |value, expiry| HeldAttribute { value, expiry };
    let written = records.get(node).map(|written| {
        let score = written.score.get().into();
        (written.key.as_str().to_owned(), held(score, written.expiry))
    });
    let os = ("node:os".to_owned(), held("linux".into(), None));
    HeldAttributes(written.into_iter().chain([os]).collect())
}
