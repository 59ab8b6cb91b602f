//! Failures of Falcon, Tailscale and the AWS services.

use std::time::Duration;

use falcon_posture_sync::clock::Clock;
use posture_simulators::{Fault, FaultKind, GeneratorSpec, Matcher, Side};
use serde_json::{Value, json};

use crate::runs::finding;
use crate::world::{TAILNET, TestEnvironment, chain};

fn falcon(path: &str) -> Matcher {
    Matcher::side(Side::Falcon).path(path)
}

fn tailscale(path: &str) -> Matcher {
    Matcher::side(Side::Tailscale).path(path)
}

/// Runs with a persistent fault, then without it.
async fn fails_and_recovers(fault: Fault, kind: &str) {
    let stage = TestEnvironment::synced().await;
    stage.lower_a_score().await;
    let before = stage.scores();
    stage.sims.faults().add(fault);
    let answer = stage.sync().await;
    assert_eq!(answer["outcome"], "failed", "{answer:#}");
    let status = stage.corp().await["status"].clone();
    assert_eq!(status["errorKind"], kind, "{status:#}");
    assert_eq!(status["consecutiveFailures"], 1);
    assert_ne!(status["lastSync"], status["lastSuccess"]);
    assert_eq!(status["matchedCount"], 40, "the last counts are kept");
    assert_eq!(stage.scores(), before, "nothing is removed");
    stage.assert_sound().await;

    stage.sims.faults().clear();
    assert_eq!(stage.sync().await["written"], 1);
    assert_eq!(stage.scores(), stage.expected());
    assert_eq!(stage.corp().await["status"]["consecutiveFailures"], 0);
    stage.assert_sound().await;
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
        let stage = TestEnvironment::connected(&GeneratorSpec::plain(20, 10)).await;
        stage.sims.faults().add(fault);
        let answer = stage.sync().await;
        assert_eq!(answer["outcome"], "synced", "{answer:#}");
        assert_eq!(stage.scores(), stage.expected());
        stage.assert_sound().await;
    }
}

#[tokio::test]
async fn a_token_that_ends_in_mid_crawl_is_minted_anew_once() {
    let stage = TestEnvironment::connected(&GeneratorSpec::plain(3_000, 10)).await;
    let (falcon_side, first) = (
        stage.sims.falcon().clone(),
        std::sync::atomic::AtomicBool::new(true),
    );
    stage
        .sims
        .on_request(falcon("/zero-trust-assessment/queries"), move |_| {
            if first.swap(false, std::sync::atomic::Ordering::SeqCst) {
                falcon_side.expire_tokens();
            }
        });
    stage.requests();
    assert_eq!(stage.sync().await["outcome"], "synced");
    assert_eq!(stage.requests()["POST /oauth2/token"], 2);
    assert_eq!(stage.scores(), stage.expected());
}

#[tokio::test]
async fn a_device_that_tailscale_refuses_is_found_and_the_others_are_written() {
    let stage = TestEnvironment::connected(&GeneratorSpec::plain(120, 100)).await;
    // The listing still has them, the batch call does not know them any more.
    let gone: Vec<String> = stage.expected().into_keys().step_by(37).collect();
    let tailscale_side = stage.sims.tailscale().clone();
    let doomed = gone.clone();
    stage.sims.on_request(
        tailscale("/api/v2/tailnet/-/device-attributes"),
        move |_| {
            for node in &doomed {
                let _ = tailscale_side.remove_device(TAILNET, node).unwrap();
            }
        },
    );
    let answer = stage.sync().await;
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
    assert_eq!(stage.scores().len(), 97);
    stage.assert_sound().await;
}

#[tokio::test]
async fn an_outage_amid_the_writing_records_what_was_accepted() {
    let stage = TestEnvironment::connected(&GeneratorSpec::plain(400, 300)).await;
    let writes = tailscale("/api/v2/tailnet/-/device-attributes");
    stage
        .sims
        .faults()
        .add(Fault::status(writes, 503).always().after(3));
    let answer = stage.sync().await;
    assert_eq!(answer["outcome"], "failed", "{answer:#}");
    assert_eq!(answer["written"], 150);
    assert!(
        answer["error"]
            .as_str()
            .unwrap()
            .contains("150 of 300 changes are written"),
        "{answer:#}"
    );
    stage.assert_sound().await;
    stage.sims.faults().clear();
    assert_eq!(stage.sync().await["written"], 150);
    assert_eq!(stage.scores(), stage.expected());
    stage.assert_sound().await;
}

#[tokio::test]
async fn scores_are_written_while_a_removal_cannot_be_confirmed() {
    let stage = TestEnvironment::synced().await;
    let nodes = stage.items("nodes").await;
    stage
        .sims
        .falcon()
        .remove_score("corp", nodes[1]["aid"].as_str().unwrap())
        .unwrap();
    stage
        .sims
        .falcon()
        .set_score("corp", nodes[2]["aid"].as_str().unwrap(), 9)
        .unwrap();
    stage
        .sims
        .faults()
        .add(Fault::status(falcon("/zero-trust-assessment/entities"), 400).always());
    let answer = stage.sync().await;
    assert_eq!(answer["outcome"], "failed", "{answer:#}");
    assert_eq!(
        (&answer["written"], &answer["removed"]),
        (&json!(1), &json!(0))
    );
    assert!(
        answer["error"].as_str().unwrap().contains("1 changes wait"),
        "{answer:#}"
    );
    stage.sims.faults().clear();
    assert_eq!(stage.sync().await["removed"], 1);
    assert_eq!(stage.scores(), stage.expected());
    stage.assert_sound().await;
}

#[tokio::test]
async fn a_record_that_was_spoilt_by_hand_fails_alone() {
    use aws_sdk_dynamodb::types::AttributeValue;
    let stage = TestEnvironment::synced().await;
    stage
        .edit("attributeKey", AttributeValue::S("ztaScore".to_owned()))
        .await;
    let answer = stage.sync().await;
    assert_eq!(answer["outcome"], "failed");
    assert!(
        answer["error"]
            .as_str()
            .unwrap()
            .contains("integration.attributeKey"),
        "{answer}"
    );
    assert_eq!(stage.corp().await["status"]["errorKind"], "configuration");
    let shown = stage.ask(json!({"command": "status"})).await;
    assert!(
        shown["integrations"][0]["settingsError"]
            .as_str()
            .unwrap()
            .contains("attributeKey")
    );
    assert_eq!(stage.scores().len(), 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_could_not_be_recorded_is_recorded_by_the_next_run() {
    let stage = TestEnvironment::synced().await;
    let nodes = stage.items("nodes").await;
    for node in &nodes[..3] {
        let aid = node["aid"].as_str().unwrap();
        stage.sims.falcon().set_score("corp", aid, 1).unwrap();
    }
    // While Tailscale is asked to write, another run takes one of the records: the transaction is refused as a whole.
    let taken = stage.take_record(nodes[1]["nodeId"].as_str().unwrap());
    stage.amid(tailscale("/api/v2/tailnet/-/device-attributes"), taken);
    let error = stage.try_ask(json!({"command": "sync"})).await.unwrap_err();
    assert!(chain(&error).contains("another run"), "{}", chain(&error));
    let corp = stage.corp().await;
    assert_eq!(corp["status"]["errorKind"], "storage");
    assert_eq!(corp["lease"], Value::Null);
    assert_eq!(
        stage.scores(),
        stage.expected(),
        "Tailscale had accepted it"
    );
    assert_eq!(
        stage.node_audit().await.len(),
        40,
        "and nothing is recorded"
    );

    let failed_run = corp["status"]["runId"].clone();
    assert_eq!(stage.sync().await["outcome"], "unchanged");
    let audit = stage.node_audit().await;
    let late = audit
        .iter()
        .filter(|record| record["runId"] == failed_run)
        .count();
    assert_eq!(late, 3, "in the name of the run that wrote it");
    assert_eq!(stage.corp().await["pending"], json!({}));
    stage.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_score_that_returns_after_what_could_not_be_recorded_is_put_right() {
    let stage = TestEnvironment::synced().await;
    let node = stage.items("nodes").await[1].clone();
    let (aid, id) = (
        node["aid"].as_str().unwrap(),
        node["nodeId"].as_str().unwrap(),
    );
    let falcon_side = stage.sims.falcon();
    falcon_side.set_score("corp", aid, 1).unwrap();
    let taken = stage.take_record(id);
    stage.amid(tailscale("/api/v2/tailnet/-/device-attributes"), taken);
    stage.try_ask(json!({"command": "sync"})).await.unwrap_err();
    assert_eq!(stage.scores()[id], 1);
    // By the records, all is as it should be; in the tailnet it is not.
    falcon_side
        .set_score("corp", aid, node["score"].clone())
        .unwrap();
    assert_eq!(stage.sync().await["written"], 1);
    assert_eq!(stage.scores(), stage.expected());
    stage.assert_sound().await;
}

#[tokio::test]
async fn a_table_that_is_gone_is_named_in_the_services_own_words() {
    let stage = TestEnvironment::synced().await;
    stage
        .tables
        .delete_table()
        .table_name("nodes")
        .send()
        .await
        .unwrap();
    let error = stage.try_ask(json!({"command": "sync"})).await.unwrap_err();
    let text = chain(&error);
    assert!(
        text.starts_with("DynamoDB did not read the node records: ResourceNotFoundException: "),
        "{text}"
    );
    let status = stage.corp().await["status"].clone();
    let error = status["error"].as_str().unwrap();
    let since = status["failingSince"].as_str().unwrap();
    let since = since.split_once('.').map_or(since, |(seconds, _)| seconds);
    assert!(
        error.starts_with(&format!("{text}. Since {}", since.trim_end_matches('Z'))),
        "{error}"
    );
    assert!(error.contains("the function's role"), "{error}");
    assert_eq!(status["errorKind"], "storage");
    assert_eq!(stage.corp().await["lease"], Value::Null);
}

#[tokio::test]
async fn a_run_that_would_outlive_its_function_stops_in_time_and_says_so() {
    let mut stage = TestEnvironment::synced().await;
    stage.world.clock = Clock::system();
    let never = FaultKind::Stall { ms: None };
    stage
        .sims
        .faults()
        .add(Fault::new(falcon("/zero-trust-assessment"), never));
    let time = Duration::from_secs(2);
    let answer = stage
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
    assert_eq!(stage.corp().await["status"]["errorKind"], "deadline");
    stage.assert_sound().await;
}

#[tokio::test]
async fn a_lease_that_was_left_behind_ends_by_itself() {
    let stage = TestEnvironment::synced().await;
    let now = stage.world.clock.now();
    let until = now
        .saturating_add(jiff::SignedDuration::from_mins(10))
        .unwrap();
    let taken = stage
        .world
        .store
        .acquire(&corp_id(), "killed", now, until)
        .await
        .unwrap();
    assert!(taken.is_some());
    assert_eq!(stage.sync().await["outcome"], "skipped");
    assert_eq!(
        stage.force().await["outcome"],
        "skipped",
        "force does not break a lease"
    );
    stage.world.clock.advance(Duration::from_mins(10));
    assert_eq!(stage.sync().await["outcome"], "unchanged");
    stage.assert_sound().await;
}

fn corp_id() -> falcon_posture_sync::settings::IntegrationId {
    "corp".to_owned().try_into().unwrap()
}
