//! Attributes are removed if the score is gone, and kept if that is doubtful.

use std::sync::atomic::{AtomicBool, Ordering};

use aws_sdk_dynamodb::types::AttributeValue;
use posture_simulators::{GeneratorSpec, Host, Matcher, PostureIdentity, Side};
use serde_json::{Value, json};

use crate::environment::{KEY, TAILNET, TestEnvironment};
use crate::runs::finding;

/// A device with a score: its node, and the host that determined the score.
async fn some_node(env: &TestEnvironment) -> (String, String) {
    let node = env.items("nodes").await.swap_remove(11);
    let text = |name: &str| node[name].as_str().unwrap().to_owned();
    (text("nodeId"), text("aid"))
}

/// Omits a host from the listing. It is there again when it is looked up, which is the second request to that route.
fn back_before_the_look_up(env: &TestEnvironment, host: Host) {
    let falcon = env.sims.falcon().clone();
    let listing = Matcher::side(Side::Falcon).path("/devices/combined/devices/v1");
    let first = AtomicBool::new(true);
    env.sims.on_request(listing, move |_| {
        if !first.swap(false, Ordering::SeqCst) {
            falcon.put_host("corp", host.clone()).unwrap();
        }
    });
}

#[tokio::test]
async fn a_host_that_is_gone_takes_the_attribute_with_it_in_the_same_run() {
    let env = TestEnvironment::synced().await;
    let (node, aid) = some_node(&env).await;
    env.sims.falcon().remove_host("corp", &aid).unwrap();
    let answer = env.sync().await;
    assert_eq!(
        (&answer["outcome"], &answer["removed"]),
        (&json!("synced"), &json!(1))
    );
    assert!(!env.scores().contains_key(&node));
    assert_eq!(env.scores(), env.expected());
    let audit = env.node_audit().await;
    let record = audit
        .iter()
        .find(|record| record["runId"] == answer["runId"])
        .unwrap();
    assert!(record["old"][KEY].is_number());
    assert_eq!(record["new"], Value::Null);
    assert_eq!(
        record["details"]["reason"],
        "no Falcon host has its serial number"
    );
    env.assert_sound().await;
    assert_eq!(env.sync().await["outcome"], "unchanged");
}

#[tokio::test]
async fn an_assessment_that_is_gone_takes_the_attribute_with_it_in_the_same_run() {
    let env = TestEnvironment::synced().await;
    let (node, aid) = some_node(&env).await;
    env.sims.falcon().remove_score("corp", &aid).unwrap();
    assert_eq!(env.sync().await["removed"], 1);
    assert!(!env.scores().contains_key(&node));
    env.assert_sound().await;
}

#[tokio::test]
async fn a_score_that_moved_while_pages_were_read_keeps_its_attribute() {
    let env = TestEnvironment::connected(&GeneratorSpec::plain(3_000, 3_000)).await;
    env.sync().await;
    // The highest score becomes the lowest after the first page: the pages that follow miss it.
    let scores = env.sims.falcon().scores("corp").unwrap();
    let highest = scores
        .iter()
        .max_by_key(|(aid, score)| (score.as_i64(), (*aid).clone()))
        .unwrap();
    let aid = highest.0.clone();
    let falcon = env.sims.falcon().clone();
    let pages = Matcher::side(Side::Falcon).path("/zero-trust-assessment/queries");
    let first = AtomicBool::new(true);
    let moved = aid.clone();
    env.sims.on_request(pages, move |_| {
        if !first.swap(false, Ordering::SeqCst) {
            falcon.set_score("corp", &moved, 0).unwrap();
        }
    });
    env.requests();
    let answer = env.sync().await;
    assert_eq!(answer["removed"], 0, "{answer:#}");
    let requests = env.requests();
    assert!(
        requests.contains_key("GET /zero-trust-assessment/entities/assessments/v1"),
        "it was looked up: {requests:?}"
    );
    assert_eq!(env.scores().len(), 3_000);
    assert_eq!(env.scores(), env.expected());
}

#[tokio::test]
async fn a_host_that_the_listing_missed_keeps_its_attribute() {
    let env = TestEnvironment::synced().await;
    let (_, aid) = some_node(&env).await;
    let host = env
        .sims
        .falcon()
        .remove_host("corp", &aid)
        .unwrap()
        .unwrap();
    back_before_the_look_up(&env, host);
    let answer = env.sync().await;
    assert_eq!(answer["outcome"], "unchanged", "{answer:#}");
    assert_eq!(env.scores().len(), 40);
    assert_eq!(env.scores(), env.expected());
}

#[tokio::test]
async fn a_clone_that_the_listing_missed_still_holds_the_score_down() {
    let env = TestEnvironment::synced().await;
    let (node, aid) = some_node(&env).await;
    let low = env
        .sims
        .falcon()
        .remove_host("corp", &aid)
        .unwrap()
        .unwrap();
    env.sims.falcon().set_score("corp", &aid, 5).unwrap();
    env.sims.falcon().put_host("corp", low.clone()).unwrap();
    env.sync().await;
    assert_eq!(env.scores()[&node], 5);
    // Another live host claims the serial with a better score, and the first one drops out of the listing.
    let mut high = low.clone();
    high.device_id = "e".repeat(32);
    env.sims.falcon().put_host("corp", high.clone()).unwrap();
    env.sims
        .falcon()
        .set_score("corp", &high.device_id, 95)
        .unwrap();
    env.sims.falcon().remove_host("corp", &aid).unwrap();
    back_before_the_look_up(&env, low);
    assert_eq!(env.sync().await["outcome"], "unchanged");
    assert_eq!(env.scores()[&node], 5);
    env.sims.falcon().remove_score("corp", &aid).unwrap();
    assert_eq!(
        env.sync().await["written"],
        1,
        "once it is really gone, the other decides"
    );
    assert_eq!(env.scores(), env.expected());
}

#[tokio::test]
async fn a_device_that_lost_its_identity_loses_its_attribute() {
    let env = TestEnvironment::synced().await;
    let mut devices = env.sims.tailscale().devices(TAILNET).unwrap();
    let mut lost = devices.swap_remove(0);
    lost.posture_identity = Some(PostureIdentity::disabled());
    let mut nameless = devices.swap_remove(0);
    nameless.posture_identity = Some(PostureIdentity::serials(["To Be Filled By O.E.M."]));
    for device in [&lost, &nameless] {
        env.sims
            .tailscale()
            .put_device(TAILNET, device.clone())
            .unwrap();
    }
    let answer = env.sync().await;
    assert_eq!(answer["removed"], 2);
    assert_eq!(env.scores(), env.expected());
    assert_eq!(
        finding(&answer, "noIdentity")["examples"],
        json!([lost.name])
    );
    env.assert_sound().await;
}

#[tokio::test]
async fn a_device_that_belongs_to_others_by_now_is_asked_for_and_its_refusal_is_named() {
    let env = TestEnvironment::synced().await;
    let mut abroad = env
        .sims
        .tailscale()
        .devices(TAILNET)
        .unwrap()
        .swap_remove(0);
    abroad.is_external = true;
    env.sims
        .tailscale()
        .put_device(TAILNET, abroad.clone())
        .unwrap();
    let dry = env
        .ask(json!({"command": "sync", "integration": "corp", "dryRun": true}))
        .await;
    assert_eq!(
        dry["plan"][0]["reason"],
        "it is shared in from another tailnet"
    );
    assert_eq!(dry["plan"][0]["new"], Value::Null);
    // Tailscale rejects writes to a shared-in device.
    let answer = env.sync().await;
    assert_eq!(
        (&answer["outcome"], &answer["failed"]),
        (&json!("failed"), &json!(1))
    );
    let refused = finding(&answer, "refusedWrites");
    assert!(
        refused["examples"][0]
            .as_str()
            .unwrap()
            .contains(&abroad.name),
        "{refused}"
    );
    env.assert_sound().await;
}

#[tokio::test]
async fn a_device_that_left_the_tailnet_is_forgotten_without_an_audit_record() {
    let env = TestEnvironment::synced().await;
    let (node, _) = some_node(&env).await;
    let audit = env.node_audit().await.len();
    env.sims.tailscale().remove_device(TAILNET, &node).unwrap();
    env.requests();
    let answer = env.sync().await;
    assert_eq!(answer["outcome"], "unchanged");
    assert_eq!(
        env.requests()[&format!("GET /api/v2/device/{node}")],
        1,
        "it was looked up"
    );
    assert_eq!(env.items("nodes").await.len(), 39);
    assert_eq!(env.node_audit().await.len(), audit);
}

#[tokio::test]
async fn what_is_kept_stays_until_there_is_a_score_again() {
    let env = TestEnvironment::synced().await;
    env.edit("onMissing", AttributeValue::S("keep".to_owned()))
        .await;
    let (node, aid) = some_node(&env).await;
    let before = env.scores()[&node];
    env.sims.falcon().remove_score("corp", &aid).unwrap();
    assert_eq!(env.sync().await["outcome"], "unchanged");
    assert_eq!(env.scores()[&node], before);
    env.sims.falcon().set_score("corp", &aid, 5).unwrap();
    assert_eq!(env.sync().await["written"], 1);
    assert_eq!(env.scores()[&node], 5);
    env.assert_sound().await;
}

#[tokio::test]
async fn a_mass_removal_is_held_while_scores_are_written() {
    let env = TestEnvironment::synced().await;
    let nodes = env.items("nodes").await;
    let aid = |n: usize| nodes[n]["aid"].as_str().unwrap();
    for n in 0..20 {
        env.sims.falcon().remove_score("corp", aid(n)).unwrap();
    }
    env.sims.falcon().set_score("corp", aid(30), 2).unwrap();
    for _ in 0..2 {
        let answer = env.sync().await;
        assert_eq!(answer["outcome"], "held", "{answer:#}");
        assert_eq!(answer["removed"], 0);
        assert_eq!(finding(&answer, "heldRemovals")["count"], 20);
        assert_eq!(env.scores().len(), 40);
        assert_eq!(
            env.scores()[nodes[30]["nodeId"].as_str().unwrap()],
            2,
            "a score that fell arrives"
        );
    }
    let dry = env
        .ask(json!({"command": "sync", "integration": "corp", "dryRun": true}))
        .await;
    assert_eq!(
        finding(&dry, "heldRemovals")["count"],
        20,
        "so says a dry run"
    );
    let status = env.corp().await["status"].clone();
    assert!(
        status["error"]
            .as_str()
            .unwrap()
            .contains("20 of 40 attributes"),
        "{status}"
    );
    let allowed = env
        .ask(json!({"command": "sync", "integration": "corp", "allowMassRemoval": 1000}))
        .await;
    assert_eq!(
        (&allowed["outcome"], &allowed["removed"]),
        (&json!("synced"), &json!(20))
    );
    assert_eq!(env.scores(), env.expected());
    env.assert_sound().await;
}

#[tokio::test]
async fn an_account_that_shows_nothing_takes_nothing_away() {
    let env = TestEnvironment::synced().await;
    let hosts = env.sims.falcon().hosts("corp").unwrap();
    for host in &hosts {
        env.sims
            .falcon()
            .remove_host("corp", &host.device_id)
            .unwrap();
    }
    let answer = env.sync().await;
    assert_eq!(answer["outcome"], "held");
    assert!(
        answer["error"]
            .as_str()
            .unwrap()
            .contains("Falcon returned no host"),
        "{answer}"
    );
    assert_eq!(env.scores().len(), 40);
    for host in hosts {
        env.sims.falcon().put_host("corp", host).unwrap();
    }
    assert_eq!(env.sync().await["outcome"], "unchanged");
}
