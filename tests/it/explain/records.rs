//! Devices that left the tailnet, changed their name or cannot be observed: the records explain them.

use posture_simulators::{Device, Fault, Matcher, Side};
use serde_json::{Value, json};

use super::{aid, explain, nodes, note, small, text};
use crate::environment::{KEY, TAILNET, chain};

#[tokio::test]
async fn a_device_that_left_is_known_from_the_records() {
    let env = small().await;
    env.sims.tailscale().remove_device(TAILNET, "nBob").unwrap();
    let ways = ["nBob", "bob-pc", "BOB-PC.tail0sim.ts.net", "c02bob"];
    for device in ways {
        let answer = explain(&env, device).await;
        assert!(nodes(&answer).is_empty());
        assert!(note(&answer).contains("has left the tailnet"), "{answer:#}");
        let trace = &answer["traces"][0];
        assert_eq!(trace["nodeId"], "nBob");
        assert_eq!(trace["name"], "bob-pc.tail0sim.ts.net");
        assert_eq!(trace["written"]["score"], 64);
        assert_eq!(trace["history"][0]["new"], json!({KEY: 64}));
    }
    // Falcon still has its serial.
    let answer = explain(&env, "C02BOB").await;
    assert_eq!(answer["hosts"][0]["aid"], aid("nBob"));

    // The next sync drops the record; the audit trail stays.
    env.sync().await;
    assert_eq!(env.items("nodes").await.len(), 2);
    for device in ways {
        let answer = explain(&env, device).await;
        assert!(note(&answer).contains("has left the tailnet"), "{answer:#}");
        let trace = &answer["traces"][0];
        assert_eq!(
            (&trace["nodeId"], &trace["written"]),
            (&json!("nBob"), &Value::Null)
        );
        assert_eq!(trace["history"].as_array().unwrap().len(), 1);
        assert!(
            text(&env, device)
                .await
                .contains("bob-pc.tail0sim.ts.net, node nBob\n")
        );
    }
}

#[tokio::test]
async fn a_device_that_was_renamed_or_fell_silent_is_still_found() {
    let env = small().await;
    let mut device = Device::new("nBob", "robert-pc", ["C02BOB"]);
    device.posture_identity = None;
    env.sims.tailscale().put_device(TAILNET, device).unwrap();
    for removed in [false, true] {
        for device in ["bob-pc", "C02BOB"] {
            let answer = explain(&env, device).await;
            assert_eq!(nodes(&answer), ["nBob"], "{answer:#}");
            assert!(
                note(&answer).starts_with("No device matches now"),
                "{answer:#}"
            );
            let explanation = &answer["explanations"][0];
            assert_eq!(explanation["name"], "robert-pc.tail0sim.ts.net");
            assert_eq!(explanation["verdict"], "noIdentity");
            assert_eq!(
                explanation["nextAction"],
                if removed { "nothing" } else { "remove" }
            );
            let remedy = explanation["remedy"].as_str().unwrap();
            assert!(remedy.contains("have lost access"), "{remedy}");
        }
        assert_eq!(env.sync().await["removed"], usize::from(!removed));
    }
}

#[tokio::test]
async fn while_nothing_can_be_seen_the_records_speak() {
    let env = small().await;
    let ways = ["nBob", "bob-pc", "c02bob"];
    let told = async |words: &str| {
        for device in ways {
            let answer = explain(&env, device).await;
            let error = answer["error"].as_str().unwrap();
            assert!(error.contains(words), "{error}");
            assert!(nodes(&answer).is_empty());
            let trace = &answer["traces"][0];
            assert_eq!(
                (&trace["nodeId"], &trace["written"]["score"]),
                (&json!("nBob"), &json!(64))
            );
            assert_eq!(trace["history"][0]["target"]["id"], "nBob");
            let text = text(&env, device).await;
            assert!(
                text.starts_with("No data: ") && text.contains("custom:ztaScore 64 at"),
                "{text}"
            );
        }
        let answer = explain(&env, "nowhere").await;
        assert!(
            note(&answer).starts_with("There are no records of a device"),
            "{answer:#}"
        );
    };
    let falcon = Matcher::side(Side::Falcon).path("/devices/combined");
    env.sims.faults().add(Fault::status(falcon, 503).always());
    told("Falcon: host listing failed (HTTP 503)").await;
    env.sims.faults().clear();

    env.services.put_secret(
        "corp/falcon",
        json!({"clientId": "0".repeat(32), "clientSecret": "hush-hush"}),
    );
    assert_eq!(env.sync().await["outcome"], "paused");
    env.requests();
    told("corp is paused until 2026-01-15T13:").await;
    assert!(env.requests().is_empty(), "nobody is called");
    assert!(
        !explain(&env, "nBob")
            .await
            .to_string()
            .contains("hush-hush")
    );

    // The removal cannot complete while the credential is rejected.
    env.services
        .put_secret("corp/tailscale", json!({"apiKey": "hush-hush"}));
    env.ask(json!({"command": "remove", "integration": "corp"}))
        .await;
    told("corp is being removed").await;
}

#[tokio::test]
async fn a_fault_of_our_own_is_an_error() {
    let env = small().await;
    env.tables
        .delete_table()
        .table_name("nodes")
        .send()
        .await
        .unwrap();
    let payload = json!({"command": "explain", "integration": "corp", "device": "nBob"});
    let error = chain(&env.try_ask(payload).await.unwrap_err());
    assert!(
        error.contains("DynamoDB: could not read the node records"),
        "{error}"
    );
}
