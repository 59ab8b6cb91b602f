//! The guard before removals, in tailnets of each small size: most customers start with a small pilot.

use posture_simulators::{GeneratorSpec, Host, PostureIdentity};
use serde_json::{Value, json};

use crate::runs::finding;
use crate::world::{TAILNET, TestEnvironment};

/// A tailnet of devices with a score, and an account with five more hosts.
async fn environment(devices: usize) -> TestEnvironment {
    let stage = TestEnvironment::connected(&GeneratorSpec::plain(devices + 5, devices)).await;
    assert_eq!(stage.sync().await["written"], devices);
    stage
}

/// The hosts that gave the scores, in the order of the nodes.
async fn aids(stage: &TestEnvironment) -> Vec<String> {
    let items = stage.items("nodes").await;
    let aid = |item: &Value| item["aid"].as_str().unwrap().to_owned();
    items.iter().map(aid).collect()
}

/// Asserts that nothing is removed, that the run reports the reason, and that a person can allow it.
async fn assert_held(stage: &TestEnvironment, why: &str) {
    let before = stage.scores();
    let answer = stage.sync().await;
    assert_eq!(
        (&answer["outcome"], &answer["removed"]),
        (&json!("held"), &json!(0)),
        "{answer:#}"
    );
    let examples = &finding(&answer, "suspiciousObservation")["examples"];
    assert_eq!(examples, &json!([why]));
    assert_eq!(stage.scores(), before);
    let allowed = json!({"command": "sync", "integration": "corp", "allowMassRemoval": true});
    let answer = stage.ask(allowed).await;
    assert_eq!(answer["outcome"], "synced", "{answer:#}");
    assert_eq!(stage.scores(), stage.expected());
    stage.assert_sound().await;
}

#[tokio::test]
async fn the_greater_of_two_and_a_tenth_may_go_and_never_more_than_half() {
    for devices in [1, 2, 3, 4, 5, 9] {
        let stage = environment(devices).await;
        let aids = aids(&stage).await;
        for gone in 1..=devices {
            let host = stage.sims.falcon().remove_host("corp", &aids[gone - 1]);
            host.unwrap().unwrap();
            let dry = json!({"command": "sync", "integration": "corp", "dryRun": true});
            let answer = stage.ask(dry).await;
            let may_go = gone <= 2.max(devices / 10);
            let leaves_half = gone == 1 || 2 * gone <= devices;
            let leaves_one = gone < devices || devices == 1;
            let removed = if may_go && leaves_half && leaves_one {
                gone
            } else {
                0
            };
            assert_eq!(
                answer["removed"], removed,
                "{gone} of {devices}: {answer:#}"
            );
            let names = &finding(&answer, "unmatched")["count"];
            assert_eq!(names, gone);
        }
    }
}

#[tokio::test]
async fn the_hosts_of_another_account_take_nothing_from_nine_devices() {
    let stage = environment(9).await;
    let falcon = stage.sims.falcon();
    for (n, host) in falcon.hosts("corp").unwrap().into_iter().enumerate() {
        falcon.remove_host("corp", &host.device_id).unwrap();
        let aid = format!("{n:032x}");
        let stranger = Host::new(
            &aid,
            &format!("STRANGER{n}"),
            "other",
            "2026-01-15T12:00:00Z",
        );
        falcon.put_host("corp", stranger).unwrap();
        falcon.set_score("corp", &aid, 80).unwrap();
    }
    assert_held(
        &stage,
        "no Falcon host matches any of the 9 devices that have a score",
    )
    .await;
}

#[tokio::test]
async fn a_listing_without_identities_takes_nothing_from_three_devices() {
    let stage = environment(3).await;
    for mut device in stage.sims.tailscale().devices(TAILNET).unwrap() {
        device.posture_identity = None;
        stage.sims.tailscale().put_device(TAILNET, device).unwrap();
    }
    assert_held(
        &stage,
        "no Falcon host matches any of the 3 devices that have a score",
    )
    .await;
}

#[tokio::test]
async fn a_tailnet_without_either_of_two_devices_forgets_neither() {
    let stage = environment(2).await;
    let devices = stage.sims.tailscale().devices(TAILNET).unwrap();
    for device in &devices {
        let tailscale = stage.sims.tailscale();
        tailscale.remove_device(TAILNET, &device.node_id).unwrap();
    }
    let answer = stage.sync().await;
    assert_eq!(answer["outcome"], "held", "{answer:#}");
    assert_eq!(stage.items("nodes").await.len(), 2);
}

#[tokio::test]
async fn an_account_without_a_valid_score_takes_nothing_away() {
    for devices in [1, 9] {
        let stage = environment(devices).await;
        for aid in stage.sims.falcon().scores("corp").unwrap().into_keys() {
            stage.sims.falcon().set_score("corp", &aid, "71").unwrap();
        }
        let why = format!("Falcon shows no valid score, although {devices} devices have one");
        assert_held(&stage, &why).await;
    }
}

#[tokio::test]
async fn a_whole_number_is_a_score_in_whatever_form_it_comes() {
    let stage = environment(9).await;
    for (aid, score) in stage.sims.falcon().scores("corp").unwrap() {
        let score = score.as_f64().unwrap();
        stage.sims.falcon().set_score("corp", &aid, score).unwrap();
    }
    let answer = stage.sync().await;
    assert_eq!(answer["outcome"], "unchanged", "{answer:#}");
    assert_eq!(answer["findings"], json!([]));
    let low = aids(&stage).await.swap_remove(4);
    stage.sims.falcon().set_score("corp", &low, 3.0).unwrap();
    let answer = stage.sync().await;
    assert_eq!(
        (&answer["outcome"], &answer["written"]),
        (&json!("synced"), &json!(1))
    );
    assert!(stage.scores().values().any(|score| *score == 3));
    assert_eq!(stage.scores(), stage.expected());
    stage.assert_sound().await;
}

/// With `onMissing: keep`, devices may stay without a host: no removal waits for a person.
#[tokio::test]
async fn kept_scores_without_a_host_wait_for_nobody() {
    let stage = environment(2).await;
    stage.update(json!({"onMissing": "keep"})).await;
    for aid in aids(&stage).await {
        stage.sims.falcon().remove_host("corp", &aid).unwrap();
    }
    let answer = stage.sync().await;
    assert_eq!(answer["outcome"], "unchanged", "{answer:#}");
    assert_eq!(stage.scores().len(), 2);
    let mut device = stage
        .sims
        .tailscale()
        .devices(TAILNET)
        .unwrap()
        .swap_remove(0);
    device.posture_identity = Some(PostureIdentity::disabled());
    stage.sims.tailscale().put_device(TAILNET, device).unwrap();
    assert_eq!(stage.sync().await["outcome"], "unchanged");
}
