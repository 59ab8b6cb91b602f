//! The text of explanations, also of hostile and of very long ones.

use std::time::Duration;

use posture_simulators::{Device, Host, PostureIdentity};
use serde_json::{Value, json};

use super::{EVENT, aid, explain, host, nodes, small, text};
use crate::environment::TAILNET;
use crate::hostile::assert_fit;

#[tokio::test]
async fn long_lists_are_cut() {
    let env = small().await;
    for number in 0..30 {
        host(&env, &format!("clone{number:02}"), "C02BOB", 70 + number);
    }
    let serials = (0..50).map(|number| format!("C02MANY{number:02}"));
    let mut device = Device::new("nMany", "many", [""]);
    device.posture_identity = Some(PostureIdentity::serials(serials));
    env.sims.tailscale().put_device(TAILNET, device).unwrap();
    let answer = explain(&env, "nBob").await;
    let explanation = &answer["explanations"][0];
    assert_eq!(explanation["hosts"].as_array().unwrap().len(), 20);
    assert_eq!(explanation["hostsOmitted"], 11);
    assert_eq!(explanation["hosts"][0]["aid"], aid("nBob"));
    assert_eq!(
        explanation["because"],
        "64 is the lowest score of 31 live Falcon hosts with its serial numbers"
    );
    let answer = explain(&env, "nMany").await;
    let explanation = &answer["explanations"][0];
    let told = explanation["serials"].as_array().unwrap().len() as u64;
    assert_eq!(told, 20);
    assert!(
        explanation["because"]
            .as_str()
            .unwrap()
            .ends_with("C02MANY00, C02MANY01, C02MANY02, …")
    );
    assert!(text(&env, "nMany").await.contains("\n             and "));
}

#[tokio::test]
async fn hostile_names_stay_in_their_lines() {
    const NAME: &str = "two\r\nlines\u{202e}\u{1b}[31m {\"a\":1} \u{85}";
    let env = small().await;
    let mut device = Device::new(
        "nEve",
        "eve",
        ["c02eve", "SN\u{202e}\n1", &"\u{1f4a9}".repeat(900)],
    );
    for field in [
        &mut device.name,
        &mut device.hostname,
        &mut device.user,
        &mut device.os,
    ] {
        NAME.clone_into(field);
    }
    env.sims.tailscale().put_device(TAILNET, device).unwrap();
    let host = Host::new(&aid("eve"), "C02EVE", NAME, EVENT);
    env.sims.falcon().put_host("corp", host).unwrap();
    let score = json!("\r\n\u{202e}9".repeat(99));
    env.sims
        .falcon()
        .set_score("corp", &aid("eve"), score)
        .unwrap();
    for device in ["nEve", NAME, "C02EVE"] {
        let answer = explain(&env, device).await;
        assert_eq!(nodes(&answer), ["nEve"], "{device:?}");
        assert_fit(&answer);
        let text = text(&env, device).await;
        assert!(text.lines().count() < 40, "{text}");
        for line in text.lines() {
            assert_fit(&line.into());
        }
        let blocks = text
            .lines()
            .filter(|line| line.len() > 13 && line.as_bytes()[2] != b' ');
        let blocks: Vec<&str> = blocks.skip(1).map(|line| line[2..13].trim()).collect();
        assert_eq!(
            blocks,
            [
                "because",
                "to do",
                "written",
                "next sync",
                "device",
                "serials",
                "hosts",
                "history"
            ],
            "{text}"
        );
    }
}

/// Covers the texts of three devices.
#[tokio::test]
async fn the_text_says_what_came_of_it_then_why_then_what_was_changed() {
    let env = small().await;
    // A cloned and re-imaged machine, with a placeholder from its mainboard.
    host(&env, "clone", " c02bob", 41);
    host(&env, "twin", "C02BOB", Value::Null);
    let old = Host {
        last_seen: Some("2025-09-30T08:00:00Z".to_owned()),
        ..Host::new(&aid("old"), "C02BOB", "nBob-host", EVENT)
    };
    env.sims.falcon().put_host("corp", old).unwrap();
    env.sims.falcon().set_score("corp", &aid("old"), 7).unwrap();
    let bob = Device::new("nBob", "bob-pc", ["c02bob", "To be filled by O.E.M."]);
    env.sims.tailscale().put_device(TAILNET, bob).unwrap();
    // A device that no longer reports its identity.
    let mut carol = Device::new("nCarol", "carol-mac", [""]);
    carol.posture_identity = Some(PostureIdentity::disabled());
    env.sims.tailscale().put_device(TAILNET, carol).unwrap();
    // A device without a sensor.
    let dave = Device::new("nDave", "dave-linux", ["VMware-56 4d d1 1f 26 c9 31 7d"]);
    env.sims.tailscale().put_device(TAILNET, dave).unwrap();
    env.app.clock.advance(Duration::from_mins(13));

    insta::assert_snapshot!("scored", text(&env, "bob-pc").await);
    insta::assert_snapshot!("silent", text(&env, "carol-mac").await);
    insta::assert_snapshot!("unmatched", text(&env, "dave-linux").await);
    env.sync().await;
    insta::assert_snapshot!("scored_then", text(&env, "bob-pc").await);
}
