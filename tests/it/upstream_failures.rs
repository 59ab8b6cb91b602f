//! Failures of Falcon, Tailscale and the AWS services.

use std::time::Duration;

use falcon_posture_sync::clock::Clock;
use posture_simulators::{Fault, FaultKind, GeneratorSpec, Matcher, Side};
use serde_json::{Value, json};

use crate::environment::{TAILNET, TestEnvironment, chain};
use crate::runs::finding;

fn falcon(path: &str) -> Matcher {
    Matcher::side(Side::Falcon).path(path)
}

fn tailscale(path: &str) -> Matcher {
    Matcher::side(Side::Tailscale).path(path)
}

/// Runs with a persistent fault, then without it.
async fn fails_and_recovers(fault: Fault, kind: &str) {
    let env = TestEnvironment::synced().await;
    env.lower_a_score().await;
    let before = env.scores();
    env.sims.faults().add(fault);
    let answer = env.sync().await;
    assert_eq!(answer["outcome"], "failed", "{answer:#}");
    let status = env.corp().await["status"].clone();
    assert_eq!(status["errorKind"], kind, "{status:#}");
    assert_eq!(status["consecutiveFailures"], 1);
    assert_ne!(status["lastSync"], status["lastSuccess"]);
    assert_eq!(status["matchedCount"], 40, "the last counts are kept");
    assert_eq!(env.scores(), before, "nothing is removed");
    env.assert_sound().await;

    env.sims.faults().clear();
    assert_eq!(env.sync().await["written"], 1);
    assert_eq!(env.scores(), env.expected());
    assert_eq!(env.corp().await["status"]["consecutiveFailures"], 0);
    env.assert_sound().await;
}

#[tokio::test]
async fn an_outage_changes_nothing_and_passes() {
    for requests in [
        falcon("/oauth2/token"),
        falcon("/devices/combined"),
        falcon("/zero-trust-assessment/queries"),
        tailscale("/api/v2/oauth/token"),
        tailscale("/api/v2/tailnet"),
    ] {
        fails_and_recovers(Fault::status(requests, 503).always(), "unavailable").await;
    }
}

#[tokio::test]
async fn answers_that_are_none_change_nothing() {
    for (requests, kind, expect) in [
        (
            falcon("/devices/combined"),
            FaultKind::TruncatedJson,
            "unavailable",
        ),
        (
            falcon("/zero-trust-assessment/queries"),
            FaultKind::WrongJson { body: None },
            "protocol",
        ),
        (
            tailscale("/api/v2/tailnet/-/devices"),
            FaultKind::TruncatedJson,
            "unavailable",
        ),
        (
            tailscale("/api/v2/tailnet/-/devices"),
            FaultKind::EmptyBody,
            "unavailable",
        ),
        (
            falcon("/devices/combined"),
            FaultKind::ResetMidBody,
            "unavailable",
        ),
        (
            tailscale("/api/v2/tailnet/-/devices"),
            FaultKind::ResetMidBody,
            "unavailable",
        ),
    ] {
        fails_and_recovers(Fault::new(requests, kind).always(), expect).await;
    }
}

#[tokio::test]
async fn a_passing_fault_is_retried_within_the_run() {
    for fault in [
        Fault::status(falcon("/devices/combined"), 500),
        Fault::status(falcon("/zero-trust-assessment/queries"), 429),
        Fault::new(
            tailscale("/api/v2/tailnet/-/devices"),
            FaultKind::ResetMidBody,
        ),
        Fault::status(tailscale("/api/v2/tailnet/-/device-attributes"), 500),
        Fault::new(falcon("/oauth2/token"), FaultKind::Reset),
    ] {
        let env = TestEnvironment::connected(&GeneratorSpec::plain(20, 10)).await;
        env.sims.faults().add(fault);
        let answer = env.sync().await;
        assert_eq!(answer["outcome"], "synced", "{answer:#}");
        assert_eq!(env.scores(), env.expected());
        env.assert_sound().await;
    }
}

#[tokio::test]
async fn a_token_that_ends_in_mid_crawl_is_minted_anew_once() {
    let env = TestEnvironment::connected(&GeneratorSpec::plain(3_000, 10)).await;
    let (falcon_side, first) = (
        env.sims.falcon().clone(),
        std::sync::atomic::AtomicBool::new(true),
    );
    env.sims
        .on_request(falcon("/zero-trust-assessment/queries"), move |_| {
            if first.swap(false, std::sync::atomic::Ordering::SeqCst) {
                falcon_side.expire_tokens();
            }
        });
    env.requests();
    assert_eq!(env.sync().await["outcome"], "synced");
    assert_eq!(env.requests()["POST /oauth2/token"], 2);
    assert_eq!(env.scores(), env.expected());
}

#[tokio::test]
async fn a_device_that_tailscale_refuses_is_found_and_the_others_are_written() {
    let env = TestEnvironment::connected(&GeneratorSpec::plain(120, 100)).await;
    // The listing still has them, the batch call does not know them any more.
    let gone: Vec<String> = env.expected().into_keys().step_by(37).collect();
    let tailscale_side = env.sims.tailscale().clone();
    let doomed = gone.clone();
    env.sims.on_request(
        tailscale("/api/v2/tailnet/-/device-attributes"),
        move |_| {
            for node in &doomed {
                let _ = tailscale_side.remove_device(TAILNET, node).unwrap();
            }
        },
    );
    let answer = env.sync().await;
    assert_eq!(answer["outcome"], "synced", "{answer:#}");
    assert_eq!(answer["failed"], 3);
    assert_eq!(answer["written"], 97);
    let refused = finding(&answer, "refusedWrites");
    for (node, example) in gone.iter().zip(refused["examples"].as_array().unwrap()) {
        assert!(
            example.as_str().unwrap().contains(node.as_str()),
            "{example}"
        );
    }
    assert_eq!(env.scores().len(), 97);
    env.assert_sound().await;
}

#[tokio::test]
async fn an_outage_amid_the_writing_records_what_was_accepted() {
    let env = TestEnvironment::connected(&GeneratorSpec::plain(400, 300)).await;
    let writes = tailscale("/api/v2/tailnet/-/device-attributes");
    env.sims
        .faults()
        .add(Fault::status(writes, 503).always().after(3));
    let answer = env.sync().await;
    assert_eq!(answer["outcome"], "failed", "{answer:#}");
    assert_eq!(answer["written"], 150);
    assert!(
        answer["error"]
            .as_str()
            .unwrap()
            .contains("150 of 300 changes are written"),
        "{answer:#}"
    );
    env.assert_sound().await;
    env.sims.faults().clear();
    env.outlive_writes().await;
    assert_eq!(env.sync().await["written"], 150);
    assert_eq!(env.scores(), env.expected());
    env.assert_sound().await;
}

#[tokio::test]
async fn scores_are_written_while_a_removal_cannot_be_confirmed() {
    let env = TestEnvironment::synced().await;
    let nodes = env.items("nodes").await;
    env.sims
        .falcon()
        .remove_score("corp", nodes[1]["aid"].as_str().unwrap())
        .unwrap();
    env.sims
        .falcon()
        .set_score("corp", nodes[2]["aid"].as_str().unwrap(), 9)
        .unwrap();
    env.sims
        .faults()
        .add(Fault::status(falcon("/zero-trust-assessment/entities"), 400).always());
    let answer = env.sync().await;
    assert_eq!(answer["outcome"], "failed", "{answer:#}");
    assert_eq!(
        (&answer["written"], &answer["removed"]),
        (&json!(1), &json!(0))
    );
    assert!(
        answer["error"].as_str().unwrap().contains("1 changes wait"),
        "{answer:#}"
    );
    env.sims.faults().clear();
    assert_eq!(env.sync().await["removed"], 1);
    assert_eq!(env.scores(), env.expected());
    env.assert_sound().await;
}

#[tokio::test]
async fn a_record_that_was_spoilt_by_hand_fails_alone() {
    use aws_sdk_dynamodb::types::AttributeValue;
    let env = TestEnvironment::synced().await;
    env.edit("attributeKey", AttributeValue::S("ztaScore".to_owned()))
        .await;
    let answer = env.sync().await;
    assert_eq!(answer["outcome"], "failed");
    assert!(
        answer["error"]
            .as_str()
            .unwrap()
            .contains("integration.attributeKey"),
        "{answer}"
    );
    assert_eq!(env.corp().await["status"]["errorKind"], "configuration");
    let shown = env.ask(json!({"command": "status"})).await;
    assert!(
        shown["integrations"][0]["settingsError"]
            .as_str()
            .unwrap()
            .contains("attributeKey")
    );
    assert_eq!(env.scores().len(), 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_could_not_be_recorded_is_recorded_by_the_next_run() {
    let env = TestEnvironment::synced().await;
    let nodes = env.items("nodes").await;
    for node in &nodes[..3] {
        let aid = node["aid"].as_str().unwrap();
        env.sims.falcon().set_score("corp", aid, 1).unwrap();
    }
    // While Tailscale is asked to write, another run takes one of the records: the transaction is refused as a whole.
    let taken = env.take_record(nodes[1]["nodeId"].as_str().unwrap());
    env.during(tailscale("/api/v2/tailnet/-/device-attributes"), taken);
    let error = env.try_ask(json!({"command": "sync"})).await.unwrap_err();
    assert!(chain(&error).contains("another run"), "{}", chain(&error));
    let corp = env.corp().await;
    assert_eq!(corp["status"]["errorKind"], "storage");
    assert_eq!(corp["lease"], Value::Null);
    assert_eq!(env.scores(), env.expected(), "Tailscale had accepted it");
    assert_eq!(env.node_audit().await.len(), 40, "and nothing is recorded");

    let failed_run = corp["status"]["runId"].clone();
    env.outlive_writes().await;
    assert_eq!(env.sync().await["outcome"], "unchanged");
    let audit = env.node_audit().await;
    let late = audit
        .iter()
        .filter(|record| record["runId"] == failed_run)
        .count();
    assert_eq!(late, 3, "in the name of the run that wrote it");
    assert_eq!(env.corp().await["pending"], json!({}));
    env.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_score_that_returns_after_what_could_not_be_recorded_is_put_right() {
    let env = TestEnvironment::synced().await;
    let node = env.items("nodes").await[1].clone();
    let (aid, id) = (
        node["aid"].as_str().unwrap(),
        node["nodeId"].as_str().unwrap(),
    );
    let falcon_side = env.sims.falcon();
    falcon_side.set_score("corp", aid, 1).unwrap();
    let taken = env.take_record(id);
    env.during(tailscale("/api/v2/tailnet/-/device-attributes"), taken);
    env.try_ask(json!({"command": "sync"})).await.unwrap_err();
    assert_eq!(env.scores()[id], 1);
    // By the records, all is as it should be; in the tailnet it is not.
    falcon_side
        .set_score("corp", aid, node["score"].clone())
        .unwrap();
    env.outlive_writes().await;
    assert_eq!(env.sync().await["written"], 1);
    assert_eq!(env.scores(), env.expected());
    env.assert_sound().await;
}

#[tokio::test]
async fn a_table_that_is_gone_is_named_in_the_services_own_words() {
    let env = TestEnvironment::synced().await;
    env.tables
        .delete_table()
        .table_name("nodes")
        .send()
        .await
        .unwrap();
    let error = env.try_ask(json!({"command": "sync"})).await.unwrap_err();
    let text = chain(&error);
    assert!(
        text.starts_with("DynamoDB: could not read the node records: ResourceNotFoundException: "),
        "{text}"
    );
    let status = env.corp().await["status"].clone();
    let error = status["error"].as_str().unwrap();
    let since = status["failingSince"].as_str().unwrap();
    let since = since.split_once('.').map_or(since, |(seconds, _)| seconds);
    assert!(
        error.starts_with(&format!("{text}. Since {}", since.trim_end_matches('Z'))),
        "{error}"
    );
    assert!(error.contains("the function's role"), "{error}");
    assert_eq!(status["errorKind"], "storage");
    assert_eq!(env.corp().await["lease"], Value::Null);
}

#[tokio::test]
async fn a_run_that_would_outlive_its_function_stops_in_time_and_says_so() {
    let mut env = TestEnvironment::synced().await;
    env.set_clock(Clock::system());
    let never = FaultKind::Stall { ms: None };
    env.sims
        .faults()
        .add(Fault::new(falcon("/zero-trust-assessment"), never));
    let time = Duration::from_secs(2);
    let answer = env
        .ask_within(time, json!({"command": "sync"}))
        .await
        .unwrap();
    assert_eq!(answer["outcome"], "failed", "{answer:#}");
    assert!(
        answer["error"]
            .as_str()
            .unwrap()
            .contains("a longer timeout"),
        "{answer:#}"
    );
    assert_eq!(env.corp().await["status"]["errorKind"], "deadline");
    env.assert_sound().await;
}

#[tokio::test]
async fn a_lease_that_was_left_behind_ends_by_itself() {
    let env = TestEnvironment::synced().await;
    let now = env.app.clock.now();
    let until = now
        .saturating_add(jiff::SignedDuration::from_mins(10))
        .unwrap();
    let taken = env
        .app
        .store
        .acquire(&corp_id(), "killed", "killed", now, until)
        .await
        .unwrap();
    assert!(taken.is_some());
    assert_eq!(env.sync().await["outcome"], "skipped");
    assert_eq!(
        env.force().await["outcome"],
        "skipped",
        "force does not break a lease"
    );
    env.app.clock.advance(Duration::from_mins(10));
    assert_eq!(env.sync().await["outcome"], "unchanged");
    env.assert_sound().await;
}

fn corp_id() -> falcon_posture_sync::settings::IntegrationId {
    "corp".to_owned().try_into().unwrap()
}
