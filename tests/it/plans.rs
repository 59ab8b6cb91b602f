//! Snapshots of plans and audit records as text.

use falcon_posture_sync::domain::audit;
use falcon_posture_sync::domain::inventory::device::{Device, Devices, Identity, NodeId, Presence};
use falcon_posture_sync::domain::inventory::host::{Aid, Assessment, FalconInventory, Host, Score};
use falcon_posture_sync::domain::inventory::platform::Platform;
use falcon_posture_sync::domain::inventory::record::{ExpiredRecords, NodeRecord, NodeRecords};
use falcon_posture_sync::domain::inventory::serial::Serial;
use falcon_posture_sync::domain::matching::{MatchRules, join};
use falcon_posture_sync::domain::plan::lifetime::Lifetime;
use falcon_posture_sync::domain::plan::{Plan, PlanRules, plan};
use falcon_posture_sync::settings::OnMissing;
use jiff::Timestamp;

const NOW: Timestamp = Timestamp::constant(1_768_478_400, 0);

/// A device, what it reports, what is written to it, and the hosts of its serial with their scores.
struct Case {
    node: &'static str,
    identity: Identity,
    written: Option<(&'static str, i64)>,
    hosts: &'static [(&'static str, &'static str, Option<i64>)],
}

fn serials(texts: &[&str]) -> Identity {
    Identity::Serials(texts.iter().map(|text| (*text).into()).collect())
}

fn cases() -> Vec<Case> {
    vec![
        Case {
            node: "n01-new",
            identity: serials(&["c02aaa"]),
            written: None,
            hosts: &[("01", "C02AAA", Some(81))],
        },
        Case {
            node: "n02-same",
            identity: serials(&["C02BBB"]),
            written: Some(("custom:ztaScore", 55)),
            hosts: &[("02", "C02BBB", Some(55))],
        },
        Case {
            node: "n03-fell",
            identity: serials(&["C02CCC"]),
            written: Some(("custom:ztaScore", 90)),
            hosts: &[("03", "C02CCC", Some(12))],
        },
        Case {
            node: "n04-moved",
            identity: serials(&["C02DDD"]),
            written: Some(("custom:old", 70)),
            hosts: &[("04", "C02DDD", Some(70))],
        },
        Case {
            node: "n05-unmatched",
            identity: serials(&["C02EEE"]),
            written: Some(("custom:ztaScore", 66)),
            hosts: &[],
        },
        Case {
            node: "n06-unassessed",
            identity: serials(&["C02FFF"]),
            written: Some(("custom:ztaScore", 67)),
            hosts: &[("06", "C02FFF", None)],
        },
        Case {
            node: "n07-lost-identity",
            identity: Identity::Missing,
            written: Some(("custom:old", 68)),
            hosts: &[],
        },
        Case {
            node: "n08-never-had",
            identity: Identity::Disabled,
            written: None,
            hosts: &[],
        },
        Case {
            node: "n09-clones",
            identity: serials(&["C02GGG"]),
            written: None,
            hosts: &[("09a", "C02GGG", Some(80)), ("09b", "C02GGG", Some(30))],
        },
        Case {
            node: "n10-two-serials",
            identity: serials(&["C02HHH", "Default string", "C02III"]),
            written: None,
            hosts: &[("10a", "C02HHH", Some(75)), ("10b", "C02III", Some(74))],
        },
    ]
}

fn the_plan(on_missing: OnMissing) -> Plan {
    let (mut account, mut devices, mut records) = (
        FalconInventory::default(),
        Devices::new(),
        NodeRecords::new(),
    );
    for case in cases() {
        let node_id = NodeId(case.node.into());
        for (aid, serial, score) in case.hosts {
            let aid = Aid::from(*aid);
            let host = Host {
                aid: aid.clone(),
                serial: Serial::parse(serial).ok(),
                hostname: Some(format!("host-{}", &aid.to_string()[..2]).into()),
                first_seen: None,
                last_seen: Some(NOW),
                platform: Platform::Other,
                is_contained: false,
            };
            let scores = score.map(|score| (aid, Assessment::Score(Score::new(score).unwrap())));
            account.extend(
                [(host.aid.clone(), host)].into(),
                scores.into_iter().collect(),
            );
        }
        if let Some((key, score)) = case.written {
            let written = NodeRecord {
                key: key.to_owned().try_into().unwrap(),
                score: Score::new(score).unwrap(),
                aid: Aid::from("0f"),
                serial: "C02ZZZ".into(),
                name: case.node.into(),
                written_at: None,
                expiry: None,
                run_id: "before".into(),
                is_ephemeral: false,
                absence: None,
            };
            records.insert(node_id.clone(), written);
        }
        let device = Device {
            name: format!("{}.ts.net", case.node).into(),
            hostname: case.node.into(),
            user: "".into(),
            os: "".into(),
            node_id: node_id.clone(),
            is_external: false,
            is_ephemeral: false,
            presence: Presence::Connected,
            has_multiple_connections: false,
            identity: case.identity,
        };
        devices.insert(node_id, device);
    }
    let departed = records.values().next().cloned().unwrap();
    records.insert(NodeId("n99-departed".into()), departed);
    let rules = PlanRules {
        key: &"custom:ztaScore".to_owned().try_into().unwrap(),
        on_missing,
        lifetime: Lifetime::from_hours(168, NOW),
    };
    plan(
        &join(
            &account,
            &devices,
            &records,
            &MatchRules::with_defaults(NOW),
        ),
        &devices,
        &records,
        &ExpiredRecords::new(),
        &rules,
    )
}

#[test]
fn a_plan_reads_like_a_diff() {
    insta::assert_snapshot!(the_plan(OnMissing::Delete));
}

#[test]
fn a_plan_that_keeps_leaves_each_score_under_its_key() {
    insta::assert_snapshot!(the_plan(OnMissing::Keep));
}

#[test]
fn audit_records_tell_who_what_when_and_why() {
    let context = audit::AuditContext {
        integration: "corp".to_owned().try_into().unwrap(),
        run_id: "run-1".to_owned(),
        actor: "falcon-posture-sync".to_owned(),
        retention_days: 365,
    };
    let records: Vec<audit::AuditRecord> = the_plan(OnMissing::Delete)
        .changes
        .iter()
        .map(|change| context.attribute_changed(change, NOW))
        .collect();
    insta::assert_json_snapshot!(records);
}
