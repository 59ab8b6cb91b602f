//! Scores expire unless a run renews them, in simulated time.

use std::collections::BTreeMap;
use std::time::Duration;

use falcon_posture_sync::tailscale::WriteLimits;
use jiff::{SignedDuration, Timestamp};
use posture_simulators::{Fault, GeneratorSpec, Matcher, Side};
use serde_json::{Value, json};

use crate::environment::{KEY, TAILNET, TestEnvironment};

const PATCH: &str = "PATCH /api/v2/tailnet/-/device-attributes";

fn hours(env: &TestEnvironment, hours: u64) {
    env.app.clock.advance(Duration::from_hours(hours));
}

/// The ends that the tailnet has, by node.
async fn ends(env: &TestEnvironment) -> BTreeMap<String, Timestamp> {
    let mut ends = BTreeMap::new();
    for item in env.items("nodes").await {
        let node = item["nodeId"].as_str().unwrap();
        let held = env.sims.tailscale().attribute(TAILNET, node, KEY).unwrap();
        if let Some(expiry) = held.and_then(|held| held.expiry) {
            ends.insert(node.to_owned(), expiry);
        }
    }
    ends
}

/// The ends that the records have, by node.
async fn recorded_ends(env: &TestEnvironment) -> BTreeMap<String, Timestamp> {
    let items = env.items("nodes").await.into_iter();
    let ends = items.filter_map(|item| {
        let expiry = item["expiry"].as_str()?.parse().unwrap();
        Some((item["nodeId"].as_str().unwrap().to_owned(), expiry))
    });
    ends.collect()
}

/// The number of scores that end this many hours from now, give or take a minute. Asserts that each record says the same.
async fn ending_in(env: &TestEnvironment, hours: i64) -> usize {
    let ends = ends(env).await;
    assert_eq!(ends, recorded_ends(env).await);
    let end = env.app.clock.now() + SignedDuration::from_hours(hours);
    let is_near = |expiry: &&Timestamp| end.duration_since(**expiry).as_secs().abs() <= 60;
    ends.values().filter(is_near).count()
}

#[tokio::test]
async fn each_write_names_its_end() {
    let env = TestEnvironment::synced().await;
    assert_eq!(ending_in(&env, 168).await, 40);
}

/// A run renews what has less than three quarters of its life left. The value does not change, so nothing is audited.
#[tokio::test]
async fn scores_are_renewed_after_a_quarter_of_their_life() {
    let env = TestEnvironment::synced().await;
    let audited = env.node_audit().await.len();
    hours(&env, 41);
    env.requests();
    let early = env.sync().await;
    assert_eq!(
        (&early["outcome"], &early["renewed"]),
        (&json!("unchanged"), &Value::Null)
    );
    assert_eq!(env.requests().get(PATCH), None);
    hours(&env, 1);
    let answer = env.sync().await;
    assert_eq!(
        (
            &answer["outcome"],
            &answer["renewed"],
            &answer["written"],
            &answer["unchanged"]
        ),
        (&json!("unchanged"), &json!(40), &json!(0), &json!(40)),
        "{answer:#}"
    );
    assert_eq!(env.requests()[PATCH], 1);
    assert_eq!(ending_in(&env, 168).await, 40);
    assert_eq!(env.node_audit().await.len(), audited);
    assert_eq!(env.sync().await["renewed"], Value::Null);
    env.assert_sound().await;
}

/// Changes and renewals share the calls to Tailscale.
#[tokio::test]
async fn changes_and_renewals_share_their_calls() {
    let env = TestEnvironment::synced().await;
    hours(&env, 50);
    env.lower_a_score().await;
    env.requests();
    let answer = env.sync().await;
    assert_eq!(
        (&answer["written"], &answer["renewed"]),
        (&json!(1), &json!(39))
    );
    assert_eq!(env.requests()[PATCH], 1);
    assert_eq!(ending_in(&env, 168).await, 40);
    assert_eq!(env.scores(), env.expected());
    env.assert_sound().await;
}

/// When the function is dead, the scores end. The next write says that they had.
#[tokio::test]
async fn the_scores_of_a_dead_function_end() {
    let env = TestEnvironment::synced().await;
    let before = env.scores();
    let gone = env.items("nodes").await.swap_remove(3);
    let aid = gone["aid"].as_str().unwrap();
    env.sims.falcon().remove_host("corp", aid).unwrap();
    hours(&env, 169);
    assert!(env.scores().is_empty());
    let answer = env.sync().await;
    // The host that is gone has no score to lose, so nothing waits for a second look.
    assert_eq!(
        (
            &answer["outcome"],
            &answer["written"],
            &answer["removed"],
            &answer["waiting"]
        ),
        (&json!("synced"), &json!(39), &json!(0), &Value::Null),
        "{answer:#}"
    );
    let mut expected = before.clone();
    expected.remove(gone["nodeId"].as_str().unwrap());
    assert_eq!(env.scores(), expected);
    assert_eq!(env.items("nodes").await.len(), 39);
    let audit = env.node_audit().await;
    let of_run = audit
        .iter()
        .filter(|record| record["runId"] == answer["runId"]);
    for record in of_run {
        assert_eq!(
            (&record["old"], &record["details"]["expired"]),
            (&Value::Null, &json!(true))
        );
    }
    env.assert_sound().await;
    assert_eq!(env.sync().await["outcome"], "unchanged");
}

/// A score that expired does not come back if the sensor is silent: a first score needs a sensor of the last day.
#[tokio::test]
async fn a_score_that_ended_is_no_ground_for_another_one() {
    let env = TestEnvironment::synced().await;
    let node = env.items("nodes").await.swap_remove(3);
    env.silence(node["aid"].as_str().unwrap());
    // A connected device keeps its score for a week of silence, but a first one needs a sensor of the last day.
    hours(&env, 40);
    env.update(json!({"scoreTtlHours": 1})).await;
    env.sync().await;
    hours(&env, 2);
    let answer = env.sync().await;
    assert_eq!(answer["written"], 39, "{answer:#}");
    assert_eq!(env.scores().get(node["nodeId"].as_str().unwrap()), None);
    env.assert_sound().await;
}

#[tokio::test]
async fn a_changed_life_renews_all() {
    let env = TestEnvironment::synced().await;
    for life in [24, 8760, 168] {
        env.update(json!({"scoreTtlHours": life})).await;
        assert_eq!(env.sync().await["renewed"], 40);
        assert_eq!(ending_in(&env, life).await, 40);
        assert_eq!(env.sync().await["renewed"], Value::Null);
    }
    env.assert_sound().await;
}

/// An attribute whose record names no end may have any end: it gets one.
#[tokio::test]
async fn a_record_without_an_end_gets_one() {
    let env = TestEnvironment::synced().await;
    let node = env.items("nodes").await.swap_remove(3)["nodeId"].clone();
    let update = env.tables.update_item().table_name("nodes");
    let text = |value: &str| aws_sdk_dynamodb::types::AttributeValue::S(value.to_owned());
    update
        .key("integrationId", text("corp"))
        .key("nodeId", text(node.as_str().unwrap()))
        .update_expression("REMOVE expiry")
        .send()
        .await
        .unwrap();
    assert_eq!(env.sync().await["renewed"], 1);
    assert_eq!(ending_in(&env, 168).await, 40);
}

/// A kept score is renewed, and what waits or is held is not.
#[tokio::test]
async fn kept_scores_are_renewed_and_waiting_ones_end() {
    for on_missing in ["keep", "delete"] {
        let env = TestEnvironment::synced().await;
        env.update(json!({"onMissing": on_missing, "removeAfterMinutes": 1440}))
            .await;
        let node = env.items("nodes").await.swap_remove(3);
        let aid = node["aid"].as_str().unwrap();
        env.sims.falcon().remove_host("corp", aid).unwrap();
        hours(&env, 160);
        let answer = env.sync().await;
        let (renewed, left) = if on_missing == "keep" {
            (40, 40)
        } else {
            (39, 39)
        };
        assert_eq!(answer["renewed"], renewed, "{answer:#}");
        hours(&env, 9);
        assert_eq!(env.scores().len(), left);
        let answer = env.sync().await;
        assert_eq!(
            (&answer["outcome"], &answer["removed"], &answer["waiting"]),
            (&json!("unchanged"), &json!(0), &Value::Null)
        );
        assert_eq!(env.items("nodes").await.len(), left);
        env.assert_sound().await;
    }
}

/// A renewal that Tailscale accepted and that could not be recorded is recorded by a later run, and not audited.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_is_recovered() {
    let env = TestEnvironment::synced().await;
    let audited = env.node_audit().await.len();
    hours(&env, 50);
    let nodes = env.items("nodes").await;
    let patch = Matcher::side(Side::Tailscale).path("/api/v2/tailnet/-/device-attributes");
    let taken = env.take_record(nodes[0]["nodeId"].as_str().unwrap());
    env.during(patch, taken);
    env.try_ask(json!({"command": "sync"})).await.unwrap_err();
    assert_ne!(ends(&env).await, recorded_ends(&env).await);
    env.outlive_writes().await;
    let answer = env.sync().await;
    assert_eq!(
        (&answer["outcome"], &answer["renewed"]),
        (&json!("unchanged"), &Value::Null)
    );
    assert_eq!(ends(&env).await, recorded_ends(&env).await);
    assert_eq!(env.node_audit().await.len(), audited);
    env.assert_sound().await;
}

/// A renewal that was not made is made by a later run.
#[tokio::test]
async fn a_lost_renewal_is_made_later() {
    let env = TestEnvironment::synced().await;
    hours(&env, 50);
    let patch = Matcher::side(Side::Tailscale).path("/api/v2/tailnet/-/device-attributes");
    env.sims.faults().add(Fault::status(patch, 500).always());
    let answer = env.sync().await;
    assert_eq!(answer["outcome"], "failed", "{answer:#}");
    env.sims.faults().clear();
    env.outlive_writes().await;
    assert_eq!(env.sync().await["renewed"], 40);
    assert_eq!(ending_in(&env, 168).await, 40);
    env.assert_sound().await;
}

/// 2,600 devices take seven calls, so 20,000 take fewer than 60.
#[tokio::test]
async fn a_round_of_renewals_takes_few_calls() {
    let mut env = TestEnvironment::connected(&GeneratorSpec::plain(2_600, 2_600)).await;
    env.app.write_limits = WriteLimits::default();
    env.sync().await;
    hours(&env, 50);
    env.requests();
    assert_eq!(env.sync().await["renewed"], 2_600);
    let calls = env.requests()[PATCH];
    assert!(calls <= 2_600 * 60 / 20_000, "{calls}");
}

/// The announcements that scores end.
fn announced(env: &TestEnvironment) -> Vec<Value> {
    let events = env.services.state().events.clone().into_iter();
    let events = events.filter(|event| event["detail-type"] == "Posture Scores Ending");
    events.map(|event| event["detail"].clone()).collect()
}

/// Runs the schedule once an hour until the scores have ended, and asserts that it was announced once: in the hour in which half
/// of their life has passed.
async fn assert_announced_at_half_time(env: &TestEnvironment) {
    let mut at = Vec::new();
    for hour in 1..=200 {
        // The call itself takes a minute.
        env.app.clock.advance(Duration::from_mins(59));
        // The schedule ignores the outcome of a run.
        let _ = env.try_ask(json!({"command": "sync"})).await;
        if announced(env).len() > at.len() {
            at.push(hour);
        }
    }
    assert!(at == [84] || at == [85], "{at:?}");
}

/// The end of scores that cannot be renewed is announced once, when half of the life of the first one is left.
#[tokio::test]
async fn the_end_of_scores_is_announced_once() {
    for trouble in ["failing", "paused", "disabled"] {
        let env = TestEnvironment::synced().await;
        match trouble {
            "failing" => {
                let falcon = Matcher::side(Side::Falcon).path("/devices");
                env.sims.faults().add(Fault::status(falcon, 503).always());
            }
            "paused" => {
                let falcon = Matcher::side(Side::Falcon);
                env.sims.faults().add(Fault::status(falcon, 401).always());
            }
            _ => drop(env.update(json!({"enabled": false})).await),
        }
        assert_announced_at_half_time(&env).await;
        let told = announced(&env).swap_remove(0);
        assert_eq!(
            (&told["integration"], &told["devices"]),
            (&json!("corp"), &json!(40))
        );
        let first: Timestamp = told["first"].as_str().unwrap().parse().unwrap();
        assert!(first < env.app.clock.now());
        assert!(env.scores().is_empty());

        env.sims.faults().clear();
        env.update(json!({"enabled": true})).await;
        let force = env.force().await;
        assert_eq!(force["written"], 40, "{force:#}");
        let status = env.corp().await["status"].clone();
        assert_eq!(
            (&status["scoresEnd"], &status["endingAnnounced"]),
            (&Value::Null, &Value::Null)
        );
        assert_eq!(status["recordedEnd"]["devices"], 40);
        env.assert_sound().await;
    }
}

/// The status says when scores end that no run renews, and the metric of the alarm says of how many devices.
#[tokio::test]
async fn the_status_tells_when_scores_end() {
    let env = TestEnvironment::synced().await;
    let view = async || {
        let payload = json!({"command": "status", "integration": "corp"});
        let status = env.ask(payload).await["status"].clone();
        let text = json!({"command": "status", "integration": "corp", "format": "text"});
        (status["scoresEnd"].clone(), env.ask(text).await)
    };
    assert_eq!(view().await.0, Value::Null);
    env.update(json!({"enabled": false})).await;
    let (end, text) = view().await;
    assert_eq!(end["devices"], 40);
    assert!(
        text.as_str()
            .unwrap()
            .contains("40 devices, unless a run renews them"),
        "{text}"
    );
    let ending = |env: &TestEnvironment| {
        let lines = env.app.metrics.drain().into_iter();
        let values: Vec<Value> = lines
            .filter_map(|line| line.get("ScoresEnding").cloned())
            .collect();
        values
    };
    ending(&env);
    for (pass, expected) in [(80, 0), (10, 40), (100, 40)] {
        hours(&env, pass);
        env.ask(json!({"command": "sync"})).await;
        assert_eq!(ending(&env), [expected]);
    }
}

/// While removals are held, their scores end, and the others are renewed.
#[tokio::test]
async fn held_scores_end_and_are_announced() {
    let env = TestEnvironment::synced().await;
    let nodes = env.items("nodes").await;
    for node in &nodes[..30] {
        let aid = node["aid"].as_str().unwrap();
        env.sims.falcon().remove_host("corp", aid).unwrap();
    }
    assert_eq!(env.sync().await["outcome"], "held");
    let status = env.corp().await["status"].clone();
    assert_eq!(status["scoresEnd"]["devices"], 30);
    assert_eq!(status["recordedEnd"]["devices"], 40);
    assert_announced_at_half_time(&env).await;
    assert_eq!(announced(&env)[0]["devices"], 30);
    // The held scores have expired, so no removal is left to hold.
    assert_eq!(env.scores().len(), 10);
    assert_eq!(env.sync().await["outcome"], "unchanged");
    env.assert_sound().await;
}

/// The next tick of the schedule repeats an announcement that EventBridge rejected.
#[tokio::test]
async fn an_announcement_is_not_lost() {
    let env = TestEnvironment::synced().await;
    env.update(json!({"enabled": false})).await;
    hours(&env, 100);
    env.services.state().bus_is_down = true;
    let _ = env.try_ask(json!({"command": "sync"})).await;
    assert!(announced(&env).is_empty());
    env.services.state().bus_is_down = false;
    for _ in 0..3 {
        env.ask(json!({"command": "sync"})).await;
    }
    assert_eq!(announced(&env).len(), 1);
}
