//! Functions with a timeout that is too short for their work. All times are scaled to a tenth: six seconds stand for a
//! minute. Slow responses stand for a large account.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use posture_simulators::{Fault, FaultKind, GeneratorSpec, Host, Matcher, Side};
use serde_json::{Value, json};

use crate::environment::{TAILNET, TestEnvironment};
use crate::second_integration::Integration;

/// The function's timeout. It is so short that a quarter is reserved for recording.
const TIMEOUT: Duration = Duration::from_secs(6);

async fn sync_within(env: &TestEnvironment, time: Duration) -> Value {
    let answer = env.ask_within(time, json!({"command": "sync"}));
    answer.await.unwrap()
}

/// Asserts that a run that was stopped by its deadline reports that, and left nothing behind.
async fn assert_stopped(env: &TestEnvironment, answer: &Value) -> Value {
    assert_eq!(answer["outcome"], "failed", "{answer:#}");
    let error = answer["error"].as_str().unwrap();
    assert!(error.contains("a longer timeout"), "{error}");
    let corp = env.corp().await;
    assert_eq!(corp["lease"], Value::Null);
    assert_eq!(corp["status"]["errorKind"], "deadline", "{error}");
    assert_eq!(corp["status"]["error"], error);
    assert_eq!(corp["status"]["runId"], answer["runId"]);
    corp["status"].clone()
}

#[tokio::test]
async fn a_crawl_that_takes_longer_than_the_function_has_says_how_far_it_came() {
    let env = TestEnvironment::live(GeneratorSpec::plain(12_000, 60)).await;
    assert_eq!(env.sync().await["outcome"], "synced");
    let before = (env.scores(), env.node_audit().await);
    Integration::corp().move_a_score(&env, 0);
    // A token and twelve pages of scores, one after another, in the time for four of them.
    env.sims.set_latency(Side::Falcon, Duration::from_secs(1));
    for failures in 1..=3 {
        env.requests();
        let answer = sync_within(&env, TIMEOUT).await;
        let status = assert_stopped(&env, &answer).await;
        assert_eq!(status["consecutiveFailures"], failures);
        assert_eq!(status["matchedCount"], 60, "the last counts are kept");
        let error = status["error"].as_str().unwrap();
        let how_far = error.contains("listing") && error.contains("of 12000 records");
        assert!(how_far, "{error}");
        let pages: u64 = env
            .requests()
            .into_iter()
            .filter(|(route, _)| route.starts_with("GET /zero-trust-assessment/queries"))
            .map(|(_, times)| times)
            .sum();
        assert!((1..12).contains(&pages), "{pages} pages");
    }
    assert_eq!((env.scores(), env.node_audit().await), before);

    env.sims.set_latency(Side::Falcon, Duration::ZERO);
    let answer = env.sync().await;
    assert_ne!(answer["outcome"], "failed", "{answer:#}");
    assert_eq!(env.scores(), env.expected());
    assert_eq!(env.corp().await["status"]["consecutiveFailures"], 0);
    env.assert_sound().await;
}

/// Runs until all scores are written, each run further than the one before. Returns the number of runs. With `moves`,
/// some scores that a run wrote without recording change before the next run.
async fn runs_until_written(env: &TestEnvironment, devices: usize, moves: bool) -> usize {
    let mut all = devices;
    for run in 1.. {
        let before = env.node_audit().await.len();
        let answer = sync_within(env, TIMEOUT).await;
        let written = usize::try_from(answer["written"].as_u64().unwrap()).unwrap();
        let after = env.node_audit().await.len();
        // What an earlier run did unheard is recorded, too, and is not this run's.
        assert!(after >= before + written, "{answer:#}");
        assert_eq!(env.corp().await["status"]["written"], written);
        if answer["outcome"] == "synced" {
            assert_eq!(after, all);
            return run;
        }
        assert!(after > before, "each run comes further: {answer:#}");
        let status = assert_stopped(env, &answer).await;
        let error = status["error"].as_str().unwrap();
        let progress = format!("{written} of {} changes", all - (after - written));
        assert!(error.contains(&progress), "{progress}? {error}");
        env.outlive_writes().await;
        if moves {
            all += move_some_unheard(env).await;
        }
    }
    unreachable!()
}

/// Changes some scores of devices that have an attribute and no record. Returns their number.
async fn move_some_unheard(env: &TestEnvironment) -> usize {
    let mut unheard = env.scores();
    for record in env.items("nodes").await {
        unheard.remove(record["nodeId"].as_str().unwrap());
    }
    let falcon = env.sims.falcon();
    let hosts = falcon.hosts("corp").unwrap();
    let mut devices = env.sims.tailscale().devices(TAILNET).unwrap();
    devices.retain(|device| unheard.contains_key(&device.node_id));
    devices.truncate(5);
    for device in &devices {
        let is_its = |host: &&Host| host.serial_number.as_ref() == device.serials().first();
        let host = hosts.iter().find(is_its).unwrap();
        let score = (unheard[&device.node_id] + 17) % 101;
        falcon.set_score("corp", &host.device_id, score).unwrap();
    }
    devices.len()
}

/// Asserts that the attributes, the records and the audit trail are right.
async fn assert_finished(env: &TestEnvironment) {
    env.sims.faults().clear();
    assert_eq!(env.scores(), env.expected());
    env.assert_sound().await;
    let written = env.sims.tailscale().writes(TAILNET).unwrap();
    // A write that was accepted after an attempt without an answer is judged first.
    env.outlive_writes().await;
    assert_eq!(env.sync().await["outcome"], "unchanged");
    assert_eq!(env.sims.tailscale().writes(TAILNET).unwrap(), written);
}

fn writes() -> Matcher {
    Matcher::side(Side::Tailscale)
        .method("PATCH")
        .path("/api/v2/tailnet/-/device-attributes")
}

#[tokio::test]
async fn writing_that_takes_longer_than_the_function_has_goes_on_in_the_next_run() {
    let env = TestEnvironment::live(GeneratorSpec::plain(1_000, 1_000)).await;
    // Twenty chunks, four at a time. Every other write hangs for two seconds, and comes to nothing.
    let (faults, count) = (env.sims.faults().clone(), AtomicUsize::new(0));
    env.sims.on_request(writes(), move |_| {
        if count.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) {
            faults.add(Fault::new(writes(), FaultKind::Stall { ms: Some(2_000) }));
        }
    });
    let runs = runs_until_written(&env, 1_000, false).await;
    assert!(runs > 1, "the time was to be too short");
    assert_finished(&env).await;
}

#[tokio::test]
async fn what_tailscale_did_after_the_run_had_stopped_listening_is_recorded_by_the_next_one() {
    let env = TestEnvironment::live(GeneratorSpec::plain(1_000, 1_000)).await;
    // Tailscale writes at once, and its answer trickles in for two seconds: the run gives up on some that are done.
    let slow = Fault::new(writes(), FaultKind::SlowBody { ms: 5_000 });
    env.sims.faults().add(slow.always());
    let runs = runs_until_written(&env, 1_000, true).await;
    assert!(runs > 1, "the time was to be too short");
    assert_finished(&env).await;
}
