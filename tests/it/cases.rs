//! Inputs from real fleets: listings and lookups that are wrong, and records that somebody edited.

mod rejections;

use std::collections::{BTreeMap, BTreeSet};

use posture_simulators::{Fault, FaultKind, GeneratorSpec, Host, Matcher, PostureIdentity, Side};
use serde_json::{Value, json};

use crate::environment::{TAILNET, TestEnvironment};
use crate::runs::finding;

fn tailscale(path: &str) -> Matcher {
    Matcher::side(Side::Tailscale).path(path)
}

/// A response with this status and body.
fn answers(requests: Matcher, code: u16, body: &str) -> Fault {
    let kind = FaultKind::Status {
        code,
        headers: BTreeMap::new(),
        body: Some(body.to_owned()),
    };
    Fault::new(requests, kind).always()
}

fn change_device(
    env: &TestEnvironment,
    node: &str,
    change: impl FnOnce(&mut posture_simulators::Device),
) {
    let devices = env.sims.tailscale().devices(TAILNET).unwrap();
    let mut device = devices.into_iter().find(|one| one.node_id == node).unwrap();
    change(&mut device);
    env.sims.tailscale().put_device(TAILNET, device).unwrap();
}

async fn recorded(env: &TestEnvironment) -> Vec<Value> {
    env.items("nodes").await
}

fn text(item: &Value, name: &str) -> String {
    item[name].as_str().unwrap().to_owned()
}

/// D: the listing is empty, and each device is there. Nothing is forgotten, and the scores of the devices that were looked up
/// are written. The lookups go on where the last run stopped.
#[tokio::test]
async fn case_d_a_listing_that_is_far_too_short_is_held() {
    let env = TestEnvironment::connected(&GeneratorSpec::plain(320, 300)).await;
    assert_eq!(env.sync().await["written"], 300);
    let items = recorded(&env).await;
    let moved: Vec<&Value> = items.iter().step_by(10).collect();
    for item in &moved {
        let score = (item["score"].as_i64().unwrap() + 1) % 100;
        env.sims
            .falcon()
            .set_score("corp", &text(item, "aid"), score)
            .unwrap();
    }
    let listing = tailscale("/api/v2/tailnet/-/devices");
    env.sims
        .faults()
        .add(answers(listing, 200, r#"{"devices":[]}"#));
    for run in 1..=3 {
        env.requests();
        let answer = env.sync().await;
        assert_eq!(answer["outcome"], "held", "{answer:#}");
        let why = "the tailnet lists 0 of the 300 devices that have a score";
        let suspicious = finding(&answer, "suspiciousObservation");
        assert_eq!(suspicious["examples"], json!([why]));
        assert_eq!(answer["written"], 10, "{answer:#}");
        let looked_up = env
            .requests()
            .into_keys()
            .filter(|call| call.starts_with("GET /api/v2/device/"));
        let expected = items[100 * (run - 1)..100 * run].iter();
        let expected: BTreeSet<String> = expected
            .map(|item| format!("GET /api/v2/device/{}", text(item, "nodeId")))
            .collect();
        assert_eq!(looked_up.collect::<BTreeSet<_>>(), expected, "run {run}");
        assert_eq!(recorded(&env).await.len(), 300, "nothing is forgotten");
    }
    assert_eq!(env.scores(), env.expected());
    env.sims.faults().clear();
    assert_eq!(env.sync().await["outcome"], "unchanged");
    env.assert_sound().await;
}

/// D: less than half of the devices are missing, so nothing is held. As long as some are not looked up, a run says so.
#[tokio::test]
async fn case_d_open_lookups_are_told() {
    let env = TestEnvironment::connected(&GeneratorSpec::plain(320, 300)).await;
    env.sync().await;
    let items = recorded(&env).await;
    for item in items.iter().take(120) {
        change_device(&env, &text(item, "nodeId"), |device| {
            device.is_unlisted = true;
        });
    }
    let answer = env.sync().await;
    assert_eq!(
        (&answer["outcome"], &answer["removed"]),
        (&json!("synced"), &json!(0)),
        "{answer:#}"
    );
    assert_eq!(finding(&answer, "unconfirmedDevices")["count"], 20);
    assert_eq!(env.scores(), env.expected());
    assert_eq!(recorded(&env).await.len(), 300);
}

/// An identity is looked up before it is believed to be lost: a listing that lacks it takes nothing away.
#[tokio::test]
async fn an_identity_that_one_listing_lacks_takes_nothing_away() {
    let env = TestEnvironment::synced().await;
    let devices = env.sims.tailscale().devices(TAILNET).unwrap();
    let mut listed: Vec<Value> = devices.iter().map(|device| json!({
        "nodeId": device.node_id, "id": device.id, "name": device.name, "hostname": device.hostname,
        "postureIdentity": {"serialNumbers": device.serials()},
    })).collect();
    for device in listed.iter_mut().take(8) {
        device.as_object_mut().unwrap().remove("postureIdentity");
    }
    let body = json!({"devices": listed}).to_string();
    env.sims
        .faults()
        .add(answers(tailscale("/api/v2/tailnet/-/devices"), 200, &body));
    let answer = env.sync().await;
    assert_eq!(answer["outcome"], "unchanged", "{answer:#}");
    assert_eq!(env.scores().len(), 40);
    env.sims.faults().clear();

    // A device that says so itself has lost it.
    let node = text(&recorded(&env).await[0], "nodeId");
    change_device(&env, &node, |device| {
        device.posture_identity = Some(PostureIdentity::disabled());
    });
    assert_eq!(env.sync().await["removed"], 1);
    env.assert_sound().await;
}

/// A total that is off by a few, twice the same, is a finding. Scores are written.
#[tokio::test]
async fn a_total_that_is_off_by_one_is_a_finding() {
    let env = TestEnvironment::synced().await;
    env.lower_a_score().await;
    let hosts = env.sims.falcon().hosts("corp").unwrap();
    let listed: Vec<Value> = hosts.iter().map(|host| json!({
        "device_id": host.device_id, "serial_number": host.serial_number, "hostname": host.hostname,
        "last_seen": host.last_seen,
    })).collect();
    let total = listed.len() + 1;
    let page = json!({
        "meta": {"pagination": {"limit": 10_000, "total": total, "next": ""}}, "resources": listed, "errors": [],
    });
    let listing = Matcher::side(Side::Falcon).path("/devices/combined");
    env.sims
        .faults()
        .add(answers(listing, 200, &page.to_string()));
    let answer = env.sync().await;
    assert_eq!(
        (&answer["outcome"], &answer["written"]),
        (&json!("synced"), &json!(1)),
        "{answer:#}"
    );
    let short = finding(&answer, "shortListing");
    assert_eq!(
        short["examples"],
        json!([format!("host listing: {} of {total} records", total - 1)])
    );
    assert_eq!(env.scores(), env.expected());
}

/// A listing that has one host twice lacks another one. A score that rises by it is looked up first.
#[tokio::test]
async fn a_score_does_not_rise_by_a_host_that_a_listing_lacks() {
    let env = TestEnvironment::synced().await;
    let record = recorded(&env).await.swap_remove(0);
    let (falcon, aid) = (env.sims.falcon(), text(&record, "aid"));
    let hosts = falcon.hosts("corp").unwrap();
    let host = hosts.iter().find(|host| host.device_id == aid).unwrap();
    let twin = Host {
        device_id: "7".repeat(32),
        ..host.clone()
    };
    falcon.put_host("corp", twin.clone()).unwrap();
    falcon.set_score("corp", &twin.device_id, 40).unwrap();
    falcon.set_score("corp", &aid, 20).unwrap();
    env.sync().await;
    falcon.set_score("corp", &aid, 90).unwrap();
    let listed: Vec<Value> = hosts.iter().chain([host]).map(|host| json!({
        "device_id": host.device_id, "serial_number": host.serial_number, "hostname": host.hostname,
        "first_seen": host.first_seen, "last_seen": host.last_seen,
    })).collect();
    let page = json!({
        "meta": {"pagination": {"limit": 10_000, "total": listed.len(), "next": ""}}, "resources": listed, "errors": [],
    });
    let listing = Matcher::side(Side::Falcon).path("/devices/combined");
    let page = answers(listing, 200, &page.to_string());
    env.sims.faults().add(page.times(1));
    assert_eq!(env.sync().await["written"], 1);
    assert_eq!(env.scores()[&text(&record, "nodeId")], 40);
    assert_eq!(env.scores(), env.expected_after_records().await);
}

/// After a short listing, scores rise as far as the lookups get. The next run begins with the devices that still wait.
#[tokio::test]
async fn scores_rise_after_a_short_listing_as_far_as_lookups_get() {
    let env = TestEnvironment::connected(&GeneratorSpec::plain(4_900, 4_900)).await;
    let mut listed = Vec::new();
    for host in env.sims.falcon().hosts("corp").unwrap() {
        env.sims
            .falcon()
            .set_score("corp", &host.device_id, 70)
            .unwrap();
        listed.push(json!({
            "device_id": host.device_id, "serial_number": host.serial_number, "hostname": host.hostname,
            "first_seen": host.first_seen, "last_seen": host.last_seen,
        }));
    }
    let page = json!({
        "meta": {"pagination": {"limit": 10_000, "total": 4_901, "next": ""}}, "resources": listed, "errors": [],
    });
    let listing = Matcher::side(Side::Falcon).path("/devices/combined");
    // The listing is read twice before it is believed to be short.
    let short = answers(listing.clone(), 200, &page.to_string()).times(2);
    env.sims.faults().add(short.clone());
    env.requests();
    let dry = json!({"command": "sync", "integration": "corp", "dryRun": true});
    assert_eq!(env.ask(dry).await["written"], 4_900);
    let counts = env.requests();
    let lookups = counts["GET /devices/combined/devices/v1"] - 2;
    let mut waiting = 4_900;
    for round in [2_000, 2_000] {
        env.sims.faults().clear();
        env.sims.faults().add(short.clone());
        let refused = answers(listing.clone(), 400, "{}");
        env.sims.faults().add(refused.after(2 + lookups / 2));
        env.sync().await;
        waiting -= round;
        assert_eq!(env.scores().len(), 4_900 - waiting);
    }
    env.sims.faults().clear();
    env.sims.faults().add(short);
    assert_eq!(env.sync().await["written"], 900);
    assert_eq!(env.scores(), env.expected());
}

/// Scores that fall for more than a fifth of the devices are written and told.
#[tokio::test]
async fn a_mass_fall_is_written_and_told() {
    for (falling, is_told) in [(8, false), (9, true), (40, true)] {
        let env = TestEnvironment::connected(&GeneratorSpec::plain(60, 40)).await;
        for aid in env.sims.falcon().scores("corp").unwrap().into_keys() {
            env.sims.falcon().set_score("corp", &aid, 80).unwrap();
        }
        env.sync().await;
        for (n, item) in recorded(&env).await.iter().enumerate() {
            let score = if n < falling { 59 } else { 60 };
            env.sims
                .falcon()
                .set_score("corp", &text(item, "aid"), score)
                .unwrap();
        }
        let answer = env.sync().await;
        assert_eq!(
            (&answer["outcome"], &answer["written"]),
            (&json!("synced"), &json!(40)),
            "{answer:#}"
        );
        let findings = answer["findings"].as_array().unwrap();
        let told = findings.iter().find(|one| one["kind"] == "scoresFell");
        assert_eq!(
            told.map(|told| told["count"].as_u64().unwrap()),
            is_told.then_some(falling as u64)
        );
        assert_eq!(env.scores(), env.expected());
    }
}

/// A record that somebody edited is left out and named; the others are synced.
#[tokio::test]
async fn an_edited_record_is_left_out_and_named() {
    use aws_sdk_dynamodb::types::AttributeValue;
    let env = TestEnvironment::synced().await;
    let node = text(&recorded(&env).await[7], "nodeId");
    let edit = env
        .tables
        .update_item()
        .table_name("nodes")
        .key("integrationId", AttributeValue::S("corp".to_owned()))
        .key("nodeId", AttributeValue::S(node.clone()))
        .update_expression("SET score = :score")
        .expression_attribute_values(":score", AttributeValue::S("high".to_owned()));
    edit.send().await.unwrap();
    env.lower_a_score().await;
    let answer = env.sync().await;
    assert_eq!(
        (&answer["outcome"], &answer["written"]),
        (&json!("synced"), &json!(1)),
        "{answer:#}"
    );
    let named = &finding(&answer, "unreadableDevices")["examples"][0];
    assert_eq!(
        *named,
        json!(format!("the record of {node:?} has no usable `score`"))
    );
}

/// A lookup that contradicts the listing settles nothing: the record is not forgotten while the attribute may be there.
#[tokio::test]
async fn a_lookup_that_contradicts_the_listing_settles_nothing() {
    let env = TestEnvironment::synced().await;
    let node = text(&recorded(&env).await[0], "nodeId");
    change_device(&env, &node, |device| device.posture_identity = None);
    let look_up = tailscale(&format!("/api/v2/device/{node}"));
    let body = r#"{"message":"device not found"}"#;
    env.sims.faults().add(answers(look_up, 404, body));
    let answer = env.sync().await;
    assert_eq!(answer["outcome"], "synced", "{answer:#}");
    assert_eq!(finding(&answer, "unreadableDevices")["count"], 1);
    assert_eq!((recorded(&env).await.len(), env.scores().len()), (40, 40));
    env.sims.faults().clear();
    assert_eq!(env.sync().await["removed"], 1);
    env.assert_sound().await;
}

/// A write whose first attempt arrived and was not answered, and whose second one is rejected, is not taken for one that was
/// not made.
#[tokio::test]
async fn a_rejection_after_a_lost_answer_is_not_believed() {
    let kinds = [403, 404].map(|status| [3, 12].map(|devices| (status, devices)));
    for (status, devices) in kinds.concat() {
        let env = TestEnvironment::connected(&GeneratorSpec::plain(devices + 5, devices)).await;
        let write = || tailscale("/api/v2/tailnet/-/device-attributes").method("PATCH");
        let faults = env.sims.faults();
        faults.add(Fault::new(write(), FaultKind::Reset).processed());
        faults.add(answers(write(), status, r#"{"message":"it is not there"}"#));
        let answer = env.sync().await;
        assert_eq!(
            env.scores().len(),
            devices,
            "the first attempt arrived: {answer:#}"
        );
        env.sims.faults().clear();
        // The host is gone before the next run: it must know of the attribute to remove it.
        for host in env.sims.falcon().hosts("corp").unwrap() {
            let aid = &host.device_id;
            env.sims.falcon().remove_host("corp", aid).unwrap();
            if env.expected().len() < devices {
                break;
            }
        }
        env.outlive_writes().await;
        let answer = env.sync().await;
        assert_eq!(
            answer["outcome"], "synced",
            "{status}, {devices}: {answer:#}"
        );
        assert_eq!(
            env.scores(),
            env.expected(),
            "{status}, {devices}: {answer:#}"
        );
        assert_eq!(env.sync().await["outcome"], "unchanged");
        env.assert_sound().await;
    }
}

/// Lookups go on in rounds: a device that the listing lacks is found, its host has another agent by now, and its serial was in
/// no filter. Nothing is removed.
#[tokio::test]
async fn what_a_lookup_finds_is_looked_up_in_turn() {
    let env = TestEnvironment::connected(&GeneratorSpec::plain(20_000, 40)).await;
    for _ in 0..3 {
        env.sync().await;
    }
    assert_eq!(env.corp().await["status"]["crawl"]["way"], "filtered");
    let record = recorded(&env).await.swap_remove(3);
    let (node, aid) = (text(&record, "nodeId"), text(&record, "aid"));
    change_device(&env, &node, |device| device.is_unlisted = true);
    let falcon = env.sims.falcon();
    let host = falcon.remove_host("corp", &aid).unwrap().unwrap();
    let again = "ab".repeat(16);
    falcon
        .put_host(
            "corp",
            posture_simulators::Host {
                device_id: again.clone(),
                ..host
            },
        )
        .unwrap();
    falcon.set_score("corp", &again, 77).unwrap();
    let answer = env.sync().await;
    assert_eq!(
        (&answer["removed"], &answer["written"]),
        (&json!(0), &json!(1)),
        "{answer:#}"
    );
    assert_eq!(env.scores()[&node], 77);
    assert_eq!(env.corp().await["status"]["crawl"]["way"], "filtered");
}
