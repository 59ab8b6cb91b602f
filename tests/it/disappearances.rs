//! Identities, hosts, scores and devices that disappear.

use falcon_posture_sync::domain::status::finding::Finding;
use posture_simulators::{GeneratorSpec, Tailnet};
use serde_json::{Value, json};

use crate::environment::{TAILNET, TestEnvironment, tailscale_secret};
use crate::runs::finding;

/// The node ids with a score, in order.
async fn scored(env: &TestEnvironment) -> Vec<String> {
    let items = env.items("nodes").await;
    let id = |item: &Value| item["nodeId"].as_str().unwrap().to_owned();
    items.iter().map(id).collect()
}

fn identity(env: &TestEnvironment, node: &str, identity: Value) -> Value {
    let tailscale = env.sims.tailscale();
    let mut device = tailscale
        .devices(TAILNET)
        .unwrap()
        .into_iter()
        .find(|device| device.node_id == node)
        .unwrap();
    let before = serde_json::to_value(&device.posture_identity).unwrap();
    device.posture_identity = serde_json::from_value(identity).unwrap();
    tailscale.put_device(TAILNET, device).unwrap();
    before
}

fn kinds(answer: &Value) -> Vec<String> {
    let findings = answer["findings"].as_array().unwrap();
    let kind = |finding: &Value| finding["kind"].as_str().unwrap().to_owned();
    findings.iter().map(kind).collect()
}

#[tokio::test]
async fn a_device_that_lost_its_identity_is_named_until_it_reports_again() {
    let env = TestEnvironment::synced().await;
    let nodes = scored(&env).await;
    // Switched off on one device, not reported by another, and a third that only has what is no serial.
    let first = identity(&env, &nodes[0], json!({"disabled": true}));
    let second = identity(&env, &nodes[1], Value::Null);
    identity(
        &env,
        &nodes[2],
        json!({"serialNumbers": ["To Be Filled By O.E.M."]}),
    );
    let answer = env.sync().await;
    assert_eq!(answer["removed"], 3, "{answer:#}");
    let lost = finding(&answer, "lostIdentity").clone();
    assert_eq!(lost["count"], 3);
    let since = env.corp().await["status"]["lostIdentity"][0]["since"].clone();
    for (node, example) in nodes.iter().zip(lost["examples"].as_array().unwrap()) {
        let example = example.as_str().unwrap();
        assert!(example.contains(node), "{example}");
        assert!(example.contains("since 2026-01-15T12:"), "{example}");
    }
    assert_eq!(finding(&answer, "noIdentity")["count"], 2);

    // The records are gone, and they are still known.
    let answer = env.sync().await;
    assert_eq!(answer["outcome"], "unchanged");
    assert_eq!(finding(&answer, "lostIdentity"), &lost);
    identity(&env, &nodes[0], first);
    let answer = env.sync().await;
    assert_eq!(answer["written"], 1);
    assert_eq!(finding(&answer, "lostIdentity")["count"], 2);
    let known = env.corp().await["status"]["lostIdentity"].clone();
    assert_eq!(known[0]["nodeId"], nodes[1].as_str());
    assert_eq!(known[0]["since"], since, "since it was lost");

    identity(&env, &nodes[1], second);
    let tailscale = env.sims.tailscale();
    tailscale.remove_device(TAILNET, &nodes[2]).unwrap();
    let answer = env.sync().await;
    assert_eq!(kinds(&answer), Vec::<String>::new(), "{answer:#}");
    assert_eq!(env.corp().await["status"]["lostIdentity"], Value::Null);
    assert_eq!(env.scores(), env.expected());
    env.assert_sound().await;
}

#[tokio::test]
async fn a_lost_identity_is_told_though_the_score_is_kept() {
    let env = TestEnvironment::connected(&GeneratorSpec::plain(20, 10)).await;
    env.update(json!({"onMissing": "keep"})).await;
    env.sync().await;
    let nodes = scored(&env).await;
    identity(&env, &nodes[4], Value::Null);
    let answer = env.sync().await;
    assert_eq!(answer["outcome"], "unchanged");
    assert_eq!(finding(&answer, "lostIdentity")["count"], 1);
    assert_eq!(env.scores().len(), 10);
}

#[tokio::test]
async fn collection_that_is_switched_off_in_the_tailnet_is_held_and_all_are_counted() {
    let env = TestEnvironment::synced().await;
    let before = env.scores();
    let off = |tailnet: &mut Tailnet| tailnet.identity_collection = false;
    env.sims.tailscale().configure(TAILNET, off).unwrap();
    for _ in 0..2 {
        let answer = env.sync().await;
        assert_eq!(answer["outcome"], "held", "{answer:#}");
        let lost = finding(&answer, "lostIdentity");
        assert_eq!(lost["count"], 40);
        let examples = lost["examples"].as_array().unwrap();
        assert_eq!(examples.len(), Finding::EXAMPLES);
        assert_eq!(finding(&answer, "heldRemovals")["count"], 40);
    }
    assert_eq!(env.scores(), before);
    let on = |tailnet: &mut Tailnet| tailnet.identity_collection = true;
    env.sims.tailscale().configure(TAILNET, on).unwrap();
    let answer = env.sync().await;
    assert_eq!(answer["outcome"], "unchanged");
    assert_eq!(kinds(&answer), Vec::<String>::new());
}

/// An account that suddenly shows nothing is never trusted, whatever the settings are.
#[tokio::test]
async fn an_account_without_hosts_or_scores_is_a_held_run_with_a_finding() {
    for on_missing in ["delete", "keep"] {
        let env = TestEnvironment::connected(&GeneratorSpec::plain(5, 5)).await;
        env.update(json!({"onMissing": on_missing})).await;
        assert_eq!(env.sync().await["outcome"], "synced");
        let (hosts, before) = (env.sims.falcon().hosts("corp").unwrap(), env.scores());
        for host in &hosts {
            let falcon = env.sims.falcon();
            falcon.remove_score("corp", &host.device_id).unwrap();
        }
        let answer = env.sync().await;
        assert_eq!(answer["outcome"], "held", "{answer:#}");
        let examples = &finding(&answer, "suspiciousObservation")["examples"];
        assert_eq!(
            examples[0],
            "Falcon returned no score, but 5 devices have one"
        );
        for host in &hosts {
            let falcon = env.sims.falcon();
            falcon.remove_host("corp", &host.device_id).unwrap();
        }
        let answer = env.sync().await;
        assert_eq!(answer["outcome"], "held", "{answer:#}");
        assert!(
            answer["error"]
                .as_str()
                .unwrap()
                .contains("Falcon returned no host"),
            "{answer:#}"
        );
        assert_eq!(env.scores(), before);
        assert_eq!(env.corp().await["status"]["consecutiveFailures"], 2);

        let allowed = json!({"command": "sync", "integration": "corp", "allowMassRemoval": 1000});
        let answer = env.ask(allowed).await;
        let left = if on_missing == "keep" { 5 } else { 0 };
        assert_eq!(env.scores().len(), left, "{answer:#}");
        env.assert_sound().await;
    }
}

/// A credential of another tailnet shows none of the devices: their records stay, or their attributes could never be found
/// again.
#[tokio::test]
async fn a_tailnet_without_any_of_the_devices_is_held_and_forgets_nothing() {
    let env = TestEnvironment::synced().await;
    let other = "other.example.com";
    let tailscale = env.sims.tailscale();
    tailscale.put_tailnet(Tailnet::new(other));
    let world = posture_simulators::generate(&GeneratorSpec {
        seed: 7,
        ..GeneratorSpec::plain(30, 30)
    });
    tailscale.load(other, &world).unwrap();
    let secret = |tailnet| {
        env.services
            .put_secret("corp/tailscale", tailscale_secret(tailnet));
    };
    secret(other);
    for _ in 0..2 {
        let answer = env.sync().await;
        assert_eq!(answer["outcome"], "held", "{answer:#}");
        let error = answer["error"].as_str().unwrap();
        assert!(error.contains("lists 0 of the 40 devices"), "{error}");
        assert_eq!(env.items("nodes").await.len(), 40);
    }
    secret(TAILNET);
    env.lower_a_score().await;
    assert_eq!(env.sync().await["outcome"], "synced");
    assert_eq!(env.scores(), env.expected());
    env.assert_sound().await;
}

#[tokio::test]
async fn the_status_tells_what_since_when_and_what_to_do() {
    use posture_simulators::{Fault, Matcher, Side};
    let env = TestEnvironment::synced().await;
    let listing = Matcher::side(Side::Falcon).path("/devices/combined");
    let faults = env.sims.faults();
    faults.add(Fault::status(listing, 503).always());
    env.sync().await;
    let first = env.corp().await["status"].clone();
    assert_eq!(
        first["error"],
        "Falcon: host listing failed (HTTP 503). Since 2026-01-15T12:03:00Z. Wait for the next run; if it persists, \
         check Falcon's status page and whether the function can reach it."
    );
    env.sync().await;
    let answer = env.sync().await;
    let status = env.corp().await["status"].clone();
    assert_eq!(status["error"], answer["error"]);
    assert_eq!(status["failingSince"], first["lastSync"]);
    assert!(
        answer["error"].as_str().unwrap().contains(
            "(HTTP 503). Since 2026-01-15T12:03:00Z, 3 runs in a row. Wait for the next run"
        ),
        "{answer:#}"
    );
    faults.clear();
    env.sync().await;
    let status = env.corp().await["status"].clone();
    for field in ["error", "errorKind", "failingSince"] {
        assert_eq!(status[field], Value::Null, "{field}");
    }
    assert_eq!(status["consecutiveFailures"], 0);
}
