//! Runs that are killed at each of their writes, and the runs after them, which repair everything.

mod crash_at_write;

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_dynamodb::operation::scan::ScanOutput;
use aws_sdk_dynamodb::types::{AttributeValue, Select};
use aws_simulators::lambda::NoAnswer;
use posture_simulators::{Device, GeneratorSpec, Host};
use serde_json::{Value, json};

use crate::environment::{TAILNET, TestEnvironment};
use crate::process::Process;
use crash_at_write::{CrashAtWrite, Moment};

/// Enough devices for three batches of changes, the third of which is small.
fn spec() -> GeneratorSpec {
    GeneratorSpec::plain(106, 106)
}

/// The writes of a run that was not killed: operations and their counts.
type Steps = BTreeMap<String, usize>;

/// One kill of a series.
#[derive(Clone, Copy)]
struct Kill {
    at: usize,
    moment: Moment,
}

impl Kill {
    fn invocation(self) -> String {
        format!("killed-{}", self.at)
    }

    /// The next invocation: in half of the cases Lambda's retry of the killed one, otherwise a later one.
    fn next(self) -> String {
        if self.is_retried() {
            self.invocation()
        } else {
            format!("later-{}", self.at)
        }
    }

    fn is_retried(self) -> bool {
        self.at.is_multiple_of(2) == (self.moment == Moment::Before)
    }
}

/// Asks a process that is killed at one of its writes. Returns that write, or the counts of all writes if the run
/// finished before.
async fn killed(env: &TestEnvironment, kill: Kill, payload: &Value) -> Result<String, Steps> {
    let crash = CrashAtWrite::new(env, kill.at, kill.moment).await;
    let process = crash.process(env).await;
    let outcome = process
        .invoke(&kill.invocation(), payload, Duration::from_mins(15))
        .await;
    if let Some(step) = crash.killed().await {
        assert_eq!(outcome, Err(NoAnswer::Died), "killed at {step}");
        return Ok(step);
    }
    assert!(outcome.is_ok(), "{outcome:?}\n{}", process.output());
    let mut steps = Steps::new();
    for step in crash.steps() {
        *steps.entry(step).or_default() += 1;
    }
    let all = steps.values().sum::<usize>();
    assert_eq!(all, kill.at - 1, "each write was the fatal one once");
    Err(steps)
}

/// Lets the time pass until the lease of a dead run expires, and until none of its writes can take effect. Until then, no
/// other run can take the lease: Lambda's retry of a run is another run.
async fn outlive_lease(env: &TestEnvironment, process: &Process) {
    env.outlive_writes().await;
    if env.corp().await["lease"].is_null() {
        return;
    }
    let answer = process.ask("too-early", &sync()).await;
    assert_eq!(answer["outcome"], "skipped", "{answer:#}");
    env.tables
        .update_item()
        .table_name("integrations")
        .key("id", AttributeValue::S("corp".to_owned()))
        .update_expression("SET #lease.#until = :past")
        .expression_attribute_names("#lease", "lease")
        .expression_attribute_names("#until", "until")
        .expression_attribute_values(
            ":past",
            AttributeValue::S("2026-01-01T00:00:00.000Z".to_owned()),
        )
        .send()
        .await
        .unwrap();
}

fn sync() -> Value {
    // Each step removes something, and there are many in a day.
    json!({"command": "sync", "integration": "corp", "allowMassRemoval": 1000})
}

/// The payload that the schedule sends.
fn tick() -> Value {
    json!({"command": "sync"})
}

/// Changes scores between a kill and the next run: some get a new score, some get their old score back.
fn move_on(env: &TestEnvironment, before: &BTreeMap<String, Value>) {
    for (n, (aid, score)) in before.iter().enumerate() {
        let score = match n % 3 {
            0 => continue,
            1 => score.clone(),
            _ => json!((n * 31 + 5) % 101),
        };
        env.sims.falcon().set_score("corp", aid, score).unwrap();
    }
}

/// Asserts that the run after a killed run repairs everything, and that the run after that changes nothing. The audit
/// trail must contain the writes that the killed run did not record, although the scores have changed since.
async fn assert_healed_by_a_sync(env: &TestEnvironment, kill: Kill, step: &str) {
    let process = Process::start(env, &[]).await;
    outlive_lease(env, &process).await;
    let answer = process.ask(&kill.next(), &sync()).await;
    let good = ["synced", "unchanged"].map(Value::from);
    assert!(good.contains(&answer["outcome"]), "{step}: {answer:#}");
    assert_right(env, &kill.next(), step).await;

    let written = env.sims.tailscale().writes(TAILNET).unwrap();
    let audited = audit_count(env).await;
    let answer = process.ask("last", &sync()).await;
    assert_eq!(answer["outcome"], "unchanged", "{step}: {answer:#}");
    assert_eq!(env.sims.tailscale().writes(TAILNET).unwrap(), written);
    assert_eq!(audit_count(env).await, audited, "{step}");
    assert_eq!(env.corp().await["lease"], Value::Null, "{step}");
}

async fn audit_count(env: &TestEnvironment) -> i32 {
    let scan = env.tables.scan().table_name("audit");
    let pages = scan.select(Select::Count).into_paginator().send();
    let pages: Vec<_> = pages.try_collect().await.unwrap();
    pages.iter().map(ScanOutput::count).sum()
}

async fn assert_right(env: &TestEnvironment, run: &str, step: &str) {
    assert_eq!(env.scores(), env.expected(), "{step}");
    let records: BTreeMap<String, i64> = env
        .items("nodes")
        .await
        .iter()
        .map(|record| {
            let node = record["nodeId"].as_str().unwrap();
            (node.to_owned(), record["score"].as_i64().unwrap())
        })
        .collect();
    assert_eq!(records, env.scores(), "{step}");
    assert_eq!(env.corp().await["status"]["runId"], run, "{step}");
    env.assert_sound().await;
}

async fn a_first_sync(moment: Moment) {
    let env = TestEnvironment::live(spec()).await;
    for at in 1.. {
        env.begin_again(spec()).await;
        let kill = Kill { at, moment };
        match killed(&env, kill, &sync()).await {
            Ok(step) => {
                let scores = env.sims.falcon().scores("corp").unwrap();
                move_on(&env, &scores);
                assert_healed_by_a_sync(&env, kill, &step).await;
            }
            Err(steps) => {
                // The lease, a journal entry for each batch, and the status; three batches on each side.
                let expected = [("PATCH", 3), ("TransactWriteItems", 3), ("UpdateItem", 5)];
                assert_eq!(steps, expected.map(|(step, n)| (step.to_owned(), n)).into());
                return assert_right(&env, &kill.invocation(), "no kill").await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_sync_that_is_killed_before_any_of_its_writes_is_made_good() {
    a_first_sync(Moment::Before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_sync_that_is_killed_after_any_of_its_writes_is_made_good() {
    a_first_sync(Moment::After).await;
}

/// Hosts and devices that are removed in one round and put back in the next.
#[derive(Default)]
struct Away {
    hosts: Vec<Host>,
    devices: Vec<Device>,
}

/// Changes nearly every score, removes some hosts and devices, and puts back those that were removed before.
fn stir(env: &TestEnvironment, round: usize, away: &mut Away) {
    let (falcon, tailscale) = (env.sims.falcon(), env.sims.tailscale());
    for host in away.hosts.drain(..) {
        env.put_host_back("corp", host);
    }
    for device in away.devices.drain(..) {
        tailscale.put_device(TAILNET, device).unwrap();
    }
    for (n, host) in falcon.hosts("corp").unwrap().into_iter().enumerate() {
        let score = (n * 13 + round * 7) % 101;
        falcon.set_score("corp", &host.device_id, score).unwrap();
        if n % 12 == round % 12 {
            away.hosts
                .extend(falcon.remove_host("corp", &host.device_id).unwrap());
        }
    }
    let stays = |device: &Device| {
        let mut serials = away
            .hosts
            .iter()
            .filter_map(|host| host.serial_number.as_ref());
        !serials.any(|serial| device.serials().contains(serial))
    };
    let devices = tailscale.devices(TAILNET).unwrap();
    let gone = devices
        .iter()
        .skip(round * 3)
        .filter(|device| stays(device))
        .take(2);
    away.devices.extend(gone.cloned());
    for device in &away.devices {
        tailscale.remove_device(TAILNET, &device.node_id).unwrap();
    }
}

async fn a_sync_of_changes(moment: Moment) {
    let env = TestEnvironment::live(spec()).await;
    assert_eq!(env.sync().await["outcome"], "synced");
    let mut away = Away::default();
    for at in 1.. {
        let before = env.sims.falcon().scores("corp").unwrap();
        stir(&env, at, &mut away);
        let kill = Kill { at, moment };
        match killed(&env, kill, &sync()).await {
            Ok(step) => {
                move_on(&env, &before);
                assert_healed_by_a_sync(&env, kill, &step).await;
            }
            Err(steps) => {
                // The lease, a journal entry for each batch, and the status. One more transaction removes the records of
                // departed devices.
                let expected = [("PATCH", 3), ("TransactWriteItems", 4), ("UpdateItem", 5)];
                assert_eq!(steps, expected.map(|(step, n)| (step.to_owned(), n)).into());
                let deleted = env.sims.tailscale().changes(TAILNET).unwrap();
                assert!(deleted.iter().any(|change| change.new.is_none()));
                return assert_right(&env, &kill.invocation(), "no kill").await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_of_changes_that_is_killed_before_any_of_its_writes_is_made_good() {
    a_sync_of_changes(Moment::Before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_of_changes_that_is_killed_after_any_of_its_writes_is_made_good() {
    a_sync_of_changes(Moment::After).await;
}

/// Asserts that the next removal, or the next scheduled run, completes a killed removal.
async fn assert_finished(env: &TestEnvironment, kill: Kill, step: &str) {
    let process = Process::start(env, &[]).await;
    let begun = env.items("integrations").await;
    let marked = begun.first().is_some_and(|corp| !corp["removal"].is_null());
    if !begun.is_empty() {
        outlive_lease(env, &process).await;
    }
    // A scheduled run continues a removal only once it is marked.
    let payload = if marked && kill.at.is_multiple_of(3) {
        tick()
    } else {
        remove()
    };
    let outcome = process
        .invoke(&kill.next(), &payload, Duration::from_mins(15))
        .await;
    match &outcome {
        Ok(_) => {}
        Err(NoAnswer::Error(error)) => {
            let gone = begun.is_empty() && error["errorType"] == "NoIntegration";
            assert!(gone, "{step}: {error:#}");
        }
        Err(NoAnswer::Died) => panic!("{step}: {}", process.output()),
    }
    assert_gone(env, step).await;
    let answer = process.ask("last", &tick()).await;
    assert_eq!(answer, json!({"requested": []}), "{step}");
    assert_gone(env, step).await;
}

fn remove() -> Value {
    json!({"command": "remove", "integration": "corp", "actor": "amelie"})
}

async fn assert_gone(env: &TestEnvironment, step: &str) {
    assert_eq!(env.scores(), BTreeMap::new(), "{step}");
    for table in ["nodes", "integrations"] {
        assert_eq!(env.items(table).await, Vec::<Value>::new(), "{step}");
    }
    let audit = env.items("audit").await;
    let removed = audit
        .iter()
        .filter(|record| record["action"] == "Removed posture integration");
    assert_eq!(removed.count(), 1, "{step}");
    env.assert_audited().await;
}

async fn a_removal(moment: Moment) {
    let env = TestEnvironment::live(spec()).await;
    for at in 1.. {
        env.begin_again(spec()).await;
        assert_eq!(env.sync().await["outcome"], "synced");
        let kill = Kill { at, moment };
        match killed(&env, kill, &remove()).await {
            Ok(step) => assert_finished(&env, kill, &step).await,
            Err(steps) => {
                // The mark, the lease and the journal; three batches; the integration with its audit record.
                let expected = [("PATCH", 3), ("TransactWriteItems", 4), ("UpdateItem", 5)];
                assert_eq!(steps, expected.map(|(step, n)| (step.to_owned(), n)).into());
                return assert_gone(&env, "no kill").await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_that_is_killed_before_any_of_its_writes_is_brought_to_its_end() {
    a_removal(Moment::Before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_that_is_killed_after_any_of_its_writes_is_brought_to_its_end() {
    a_removal(Moment::After).await;
}
