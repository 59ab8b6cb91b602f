//! A look at one device of a large account asks Falcon for that device's hosts, and explains as a complete observation does.

use std::collections::BTreeSet;

use falcon_posture_sync::domain::explain::ExplainContext;
use falcon_posture_sync::domain::inventory::device::NodeId;
use posture_simulators::{Device, GeneratorSpec};
use serde_json::{Value, json};

use super::random::{change_world, snapshot};
use super::{explain, host, nodes, note, pair};
use crate::environment::{TAILNET, TestEnvironment};

const HOSTS: &str = "GET /devices/combined/devices/v1";
const SCORES: &str = "GET /zero-trust-assessment/queries/assessments/v1";
const ASSESSMENTS: &str = "GET /zero-trust-assessment/entities/assessments/v1";

/// Returns the requests for hosts, for listed scores and for single scores since the last call.
fn reads(env: &TestEnvironment) -> (u64, u64, u64) {
    let requests = env.requests();
    let count = |route| requests.get(route).copied().unwrap_or_default();
    (count(HOSTS), count(SCORES), count(ASSESSMENTS))
}

async fn way(env: &TestEnvironment) -> Value {
    env.corp().await["status"]["crawl"]["way"].clone()
}

/// 30,000 hosts, which the runs list: with 600 devices, lookups would not take much less.
async fn large() -> TestEnvironment {
    let env = TestEnvironment::connected(&GeneratorSpec::plain(30_000, 600)).await;
    assert_eq!(env.sync().await["written"], 600);
    assert_eq!(way(&env).await, "full");
    env
}

#[tokio::test]
async fn a_look_at_one_device_costs_three_requests() {
    let env = large().await;
    env.requests();
    // A complete observation, as a preview takes it.
    env.ask(json!({"command": "preview", "integration": "corp", "minScore": 70}))
        .await;
    let (hosts, scores, assessments) = reads(&env);
    assert_eq!((hosts, assessments), (3, 0));
    assert!((30..=33).contains(&scores), "{scores}");

    let record = &env.items("nodes").await[7];
    let text = |field: &str| record[field].as_str().unwrap().to_owned();
    for device in [text("nodeId"), text("name"), text("serial").to_lowercase()] {
        let answer = explain(&env, &device).await;
        assert_eq!(nodes(&answer), [text("nodeId")]);
        assert_eq!(answer["explanations"][0]["verdict"], "scored");
        assert_eq!(answer["explanations"][0]["nextAction"], "nothing");
        assert_eq!(reads(&env), (2, 0, 1), "by serial, by id, the score");
    }
    env.sims
        .falcon()
        .set_score("corp", &text("aid"), 4)
        .unwrap();
    let answer = explain(&env, &text("nodeId")).await;
    assert_eq!(answer["explanations"][0]["nextAction"], "change");
    assert_eq!(reads(&env), (2, 0, 1));
}

#[tokio::test]
async fn what_the_filter_does_not_find_is_looked_for_in_all_hosts() {
    let env = large().await;
    // A serial in mixed case, and no record.
    pair(&env, "nOdd", "odd", "5CG1111XYZ", Value::Null);
    let falcon = env.sims.falcon();
    let aid = super::aid("nOdd");
    falcon.remove_host("corp", &aid).unwrap();
    host(&env, "nOdd", "5cG1111xYz", 88);
    env.requests();
    let answer = explain(&env, "nOdd").await;
    assert_eq!(
        answer["explanations"][0]["next"],
        "sets custom:ztaScore to 88"
    );
    assert_eq!(reads(&env), (1 + 4, 0, 1), "a lookup, the pages, the score");

    // A text that means nothing, and a host that no device reports.
    let answer = explain(&env, "nowhere").await;
    assert!(
        note(&answer).contains("and 30001 Falcon hosts by serial number"),
        "{answer:#}"
    );
    assert_eq!(reads(&env), (1 + 4, 0, 0));
    host(&env, "lost", "c02lost", 50);
    let answer = explain(&env, "C02LOST").await;
    assert_eq!(answer["hosts"][0]["score"], 50);
    assert_eq!(reads(&env), (1, 0, 1));
    let answer = explain(&env, "none").await;
    assert!(
        note(&answer).contains("a vendor's placeholder"),
        "{answer:#}"
    );
    assert_eq!(reads(&env), (0, 0, 0));

    // A device without a serial needs nothing of Falcon.
    let device = Device::new("nBlank", "blank", ["Default string"]);
    env.sims.tailscale().put_device(TAILNET, device).unwrap();
    let answer = explain(&env, "nBlank").await;
    assert_eq!(answer["explanations"][0]["verdict"], "noSerial");
    assert_eq!(reads(&env), (0, 0, 0));
}

/// The guard counts all devices, so a removal is explained by a complete observation.
#[tokio::test]
async fn a_removal_is_explained_by_a_complete_observation() {
    let env = large().await;
    let records = env.items("nodes").await;
    let falcon = env.sims.falcon();
    let (first, rest) = records.split_first().unwrap();
    let aid = |record: &Value| record["aid"].as_str().unwrap().to_owned();
    falcon.remove_host("corp", &aid(first)).unwrap();
    let next = async || {
        let answer = explain(&env, first["nodeId"].as_str().unwrap()).await;
        answer["explanations"][0]["nextAction"].clone()
    };
    env.requests();
    assert_eq!(next().await, "remove");
    let (_, scores, _) = reads(&env);
    assert!(scores >= 30, "{scores}");
    for record in rest.iter().take(100) {
        falcon.remove_host("corp", &aid(record)).unwrap();
    }
    assert_eq!(next().await, "held");
    // With `keep`, nothing is removed.
    env.update(json!({"onMissing": "keep"})).await;
    assert_eq!(next().await, "nothing");
}

#[tokio::test]
async fn a_refused_lookup_leads_to_a_complete_observation() {
    let env = large().await;
    let falcon = env.sims.falcon();
    falcon.configure(|settings| settings.longest_filter = Some(0));
    env.requests();
    let node = env.items("nodes").await[7]["nodeId"].clone();
    let answer = explain(&env, node.as_str().unwrap()).await;
    assert_eq!(answer["explanations"][0]["verdict"], "scored", "{answer:#}");
    let (_, scores, _) = reads(&env);
    assert!(scores >= 30, "{scores}");
}

/// A device that the last run knows as unmatched is looked for in all hosts again: one of its name may tell the cause.
#[tokio::test]
async fn the_cause_of_an_unmatched_device_is_looked_for_in_all_hosts() {
    let env = TestEnvironment::connected(&GeneratorSpec::plain(20_000, 40)).await;
    let device = Device::new("nNew", "new", ["5CG1111XYZ"]);
    env.sims.tailscale().put_device(TAILNET, device).unwrap();
    env.sync().await;
    assert_eq!(way(&env).await, "hosts");
    env.requests();
    let answer = explain(&env, "nNew").await;
    assert_eq!(answer["explanations"][0]["verdict"], "unmatched");
    let (hosts, scores, _) = reads(&env);
    assert_eq!((hosts, scores), (3, 0), "one lookup and two pages");
}

/// Random worlds with every trap but spellings that no filter finds: each explanation is that of a complete observation.
#[tokio::test]
async fn a_look_explains_as_a_complete_observation_does() {
    let mut seen = BTreeSet::new();
    for seed in 1..=2 {
        let spec = GeneratorSpec {
            seed,
            hosts: 4_000,
            devices: 150,
            duplicate_serial: 0.4,
            multi_serial: 0.4,
            unassessed: 0.15,
            external: 0.08,
            several_nodes: 0.3,
            odd_spelling: 0.0,
            ..GeneratorSpec::default()
        };
        let env = TestEnvironment::connected(&spec).await;
        env.update(json!({"maxRemovals": {"percent": 100, "atLeast": 1000}}))
            .await;
        env.sync().await;
        change_world(&env, seed);
        let devices = env.sims.tailscale().devices(TAILNET).unwrap();
        for device in devices.iter().step_by(4) {
            env.requests();
            let answer = explain(&env, &device.node_id).await;
            let (_, listed, _) = reads(&env);
            let snapshot = snapshot(&env).await;
            let complete = ExplainContext::new(&snapshot);
            let explanation = &answer["explanations"][0];
            let history = serde_json::from_value(explanation["history"].clone()).unwrap();
            let node = NodeId(device.node_id.as_str().into());
            let expect = serde_json::to_value(complete.explain(&node, history)).unwrap();
            assert_eq!(*explanation, expect, "seed {seed}");
            let action = explanation["nextAction"].as_str().unwrap();
            let verdict = explanation["verdict"].as_str().unwrap();
            assert!(
                listed == 0 || action == "remove",
                "{listed}: {explanation:#}"
            );
            seen.insert(format!("{verdict} {action}"));
        }
    }
    for part in ["scored change", "unmatched nothing", "unassessed remove"] {
        assert!(seen.contains(part), "{part}: {seen:?}");
    }
}
