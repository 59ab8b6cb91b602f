//! The guard before removals, in tailnets of each small size: most customers start with a small pilot.

use posture_simulators::{GeneratorSpec, Host, PostureIdentity};
use serde_json::{Value, json};

use crate::environment::{TAILNET, TestEnvironment};
use crate::runs::finding;

/// A tailnet of devices with a score, and an account with five more hosts.
async fn environment(devices: usize) -> TestEnvironment {
    let env = TestEnvironment::connected(&GeneratorSpec::plain(devices + 5, devices)).await;
    assert_eq!(env.sync().await["written"], devices);
    env
}

/// The hosts that gave the scores, in the order of the nodes.
async fn aids(env: &TestEnvironment) -> Vec<String> {
    let items = env.items("nodes").await;
    let aid = |item: &Value| item["aid"].as_str().unwrap().to_owned();
    items.iter().map(aid).collect()
}

/// Asserts that nothing is removed, that the run reports the reason, and that a person can allow it.
async fn assert_held(env: &TestEnvironment, why: &str) {
    let before = env.scores();
    let answer = env.sync().await;
    assert_eq!(
        (&answer["outcome"], &answer["removed"]),
        (&json!("held"), &json!(0)),
        "{answer:#}"
    );
    let examples = &finding(&answer, "suspiciousObservation")["examples"];
    assert_eq!(examples, &json!([why]));
    assert_eq!(env.scores(), before);
    let allowed = json!({"command": "sync", "integration": "corp", "allowMassRemoval": 1000});
    let answer = env.ask(allowed).await;
    assert_eq!(answer["outcome"], "synced", "{answer:#}");
    assert_eq!(env.scores(), env.expected());
    env.assert_sound().await;
}

#[tokio::test]
async fn the_greater_of_two_and_a_tenth_may_go_and_never_more_than_half() {
    for devices in [1, 2, 3, 4, 5, 9] {
        let env = environment(devices).await;
        let aids = aids(&env).await;
        for gone in 1..=devices {
            let host = env.sims.falcon().remove_host("corp", &aids[gone - 1]);
            host.unwrap().unwrap();
            let dry = json!({"command": "sync", "integration": "corp", "dryRun": true});
            let answer = env.ask(dry).await;
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
    let env = environment(9).await;
    let falcon = env.sims.falcon();
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
        &env,
        "no Falcon host matches any of the 9 devices that have a score",
    )
    .await;
}

#[tokio::test]
async fn a_listing_without_identities_takes_nothing_from_three_devices() {
    let env = environment(3).await;
    for mut device in env.sims.tailscale().devices(TAILNET).unwrap() {
        device.posture_identity = None;
        env.sims.tailscale().put_device(TAILNET, device).unwrap();
    }
    assert_held(
        &env,
        "no Falcon host matches any of the 3 devices that have a score",
    )
    .await;
}

#[tokio::test]
async fn a_tailnet_without_either_of_two_devices_forgets_neither() {
    let env = environment(2).await;
    let devices = env.sims.tailscale().devices(TAILNET).unwrap();
    for device in &devices {
        let tailscale = env.sims.tailscale();
        tailscale.remove_device(TAILNET, &device.node_id).unwrap();
    }
    let answer = env.sync().await;
    assert_eq!(answer["outcome"], "held", "{answer:#}");
    assert_eq!(env.items("nodes").await.len(), 2);
}

#[tokio::test]
async fn an_account_without_a_valid_score_takes_nothing_away() {
    for devices in [1, 9] {
        let env = environment(devices).await;
        for aid in env.sims.falcon().scores("corp").unwrap().into_keys() {
            env.sims.falcon().set_score("corp", &aid, "71").unwrap();
        }
        let why = format!("Falcon returned no valid score, but {devices} devices have one");
        assert_held(&env, &why).await;
    }
}

#[tokio::test]
async fn a_whole_number_is_a_score_in_whatever_form_it_comes() {
    let env = environment(9).await;
    for (aid, score) in env.sims.falcon().scores("corp").unwrap() {
        let score = score.as_f64().unwrap();
        env.sims.falcon().set_score("corp", &aid, score).unwrap();
    }
    let answer = env.sync().await;
    assert_eq!(answer["outcome"], "unchanged", "{answer:#}");
    assert_eq!(answer["findings"], json!([]));
    let low = aids(&env).await.swap_remove(4);
    env.sims.falcon().set_score("corp", &low, 3.0).unwrap();
    let answer = env.sync().await;
    assert_eq!(
        (&answer["outcome"], &answer["written"]),
        (&json!("synced"), &json!(1))
    );
    assert!(env.scores().values().any(|score| *score == 3));
    assert_eq!(env.scores(), env.expected());
    env.assert_sound().await;
}

/// With `onMissing: keep`, devices may stay without a host: no removal waits for a person.
#[tokio::test]
async fn kept_scores_without_a_host_wait_for_nobody() {
    let env = environment(2).await;
    env.update(json!({"onMissing": "keep"})).await;
    for aid in aids(&env).await {
        env.sims.falcon().remove_host("corp", &aid).unwrap();
    }
    let answer = env.sync().await;
    assert_eq!(answer["outcome"], "unchanged", "{answer:#}");
    assert_eq!(env.scores().len(), 2);
    let mut device = env
        .sims
        .tailscale()
        .devices(TAILNET)
        .unwrap()
        .swap_remove(0);
    device.posture_identity = Some(PostureIdentity::disabled());
    env.sims.tailscale().put_device(TAILNET, device).unwrap();
    assert_eq!(env.sync().await["outcome"], "unchanged");
}
