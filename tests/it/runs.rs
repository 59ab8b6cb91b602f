//! Complete runs: from the payload to the posture attributes, the records and the answer.

use std::collections::BTreeMap;

use falcon_posture_sync::tailscale::WriteLimits;
use posture_simulators::tailscale::BatchEndpoint;
use posture_simulators::{Account, Device, GeneratorSpec, Host, Tailnet};
use serde_json::{Value, json};

use crate::environment::{KEY, TAILNET, TestEnvironment};

/// A tailnet of 300 devices against 1,000 hosts, with a little of every trap.
fn spec() -> GeneratorSpec {
    GeneratorSpec {
        hosts: 1000,
        devices: 300,
        ..GeneratorSpec::default()
    }
}

#[tokio::test]
async fn each_device_gets_what_the_oracle_says_and_each_change_is_audited_once() {
    let env = TestEnvironment::connected(&spec()).await;
    let answer = env.sync().await;
    assert_eq!(answer["outcome"], "synced", "{answer:#}");
    assert_eq!(env.scores(), env.expected());
    assert!(env.scores().len() > 150, "the world is not an empty one");
    assert_eq!(answer["written"], env.scores().len());
    assert_eq!(env.node_audit().await.len(), env.scores().len());
    assert_eq!(env.items("nodes").await.len(), env.scores().len());
    env.assert_sound().await;
    env.requests();
    let changes = env.sims.tailscale().changes(TAILNET).unwrap().len();

    let again = env.sync().await;
    assert_eq!(again["outcome"], "unchanged", "{again:#}");
    assert_eq!(again["unchanged"], env.scores().len());
    let requests = env.requests();
    assert!(
        requests.keys().all(|route| !route.starts_with("PATCH")),
        "{requests:?}"
    );
    assert_eq!(
        env.sims.tailscale().changes(TAILNET).unwrap().len(),
        changes
    );
    assert_eq!(env.node_audit().await.len(), env.scores().len());
}

#[tokio::test]
async fn random_worlds_equal_the_oracle() {
    for seed in 2..12 {
        let spec = GeneratorSpec {
            seed,
            hosts: 80,
            devices: 60,
            duplicate_serial: 0.3,
            multi_serial: 0.5,
            unassessed: 0.2,
            several_nodes: 0.2,
            odd_spelling: 0.5,
            ..GeneratorSpec::default()
        };
        let env = TestEnvironment::connected(&spec).await;
        env.sync().await;
        assert_eq!(env.scores(), env.expected(), "seed {seed}");
        env.assert_sound().await;
        assert_eq!(env.sync().await["outcome"], "unchanged", "seed {seed}");
    }
}

#[tokio::test]
async fn a_large_account_is_read_page_by_page_and_written_chunk_by_chunk() {
    let env = TestEnvironment::connected(&GeneratorSpec::plain(25_000, 5_000)).await;
    env.requests();
    let answer = env.sync().await;
    assert_eq!(answer["outcome"], "synced", "{answer:#}");
    assert_eq!(answer["providerHostCount"], 25_000);
    assert_eq!(answer["matchedCount"], 5_000);
    let requests = env.requests();
    assert_eq!(
        requests,
        BTreeMap::from([
            ("POST /oauth2/token".to_owned(), 1),
            ("GET /devices/combined/devices/v1".to_owned(), 3),
            (
                "GET /zero-trust-assessment/queries/assessments/v1".to_owned(),
                25
            ),
            ("POST /api/v2/oauth/token".to_owned(), 1),
            ("GET /api/v2/tailnet/-/devices".to_owned(), 1),
            // At most once an hour, and only with a credential that may.
            ("GET /api/v2/tailnet/-/posture/integrations".to_owned(), 1),
            ("PATCH /api/v2/tailnet/-/device-attributes".to_owned(), 100),
        ])
    );
    assert_eq!(env.scores().len(), 5_000);
    assert_eq!(env.node_audit().await.len(), 5_000);
}

#[tokio::test]
async fn many_changes_take_few_calls_and_few_ones_are_spread_over_those_at_once() {
    for (devices, calls) in [(40, 1), (150, 3), (500, 5), (1_000, 5), (2_600, 7)] {
        let mut env = TestEnvironment::connected(&GeneratorSpec::plain(devices, devices)).await;
        env.app.write_limits = WriteLimits::default();
        env.requests();
        assert_eq!(env.sync().await["written"], devices);
        let patches = env.requests()["PATCH /api/v2/tailnet/-/device-attributes"];
        assert!(patches <= calls, "{devices} devices: {patches}");
        assert_eq!(env.scores(), env.expected());
        assert_eq!(env.corp().await["pending"], json!({}));
        env.assert_sound().await;
    }
}

#[tokio::test]
async fn a_score_that_falls_is_the_only_thing_written() {
    let env = TestEnvironment::synced().await;
    let node = env.items("nodes").await.swap_remove(7);
    let (aid, id) = (
        node["aid"].as_str().unwrap(),
        node["nodeId"].as_str().unwrap(),
    );
    env.sims.falcon().set_score("corp", aid, 3).unwrap();
    env.requests();

    let answer = env.sync().await;
    assert_eq!(
        (&answer["written"], &answer["unchanged"]),
        (&json!(1), &json!(39))
    );
    assert_eq!(
        env.requests()["PATCH /api/v2/tailnet/-/device-attributes"],
        1
    );
    assert_eq!(env.scores(), env.expected());
    let audit = env.node_audit().await;
    let record = audit
        .iter()
        .find(|record| record["runId"] == answer["runId"])
        .unwrap();
    assert_eq!(record["action"], "Update node attribute");
    assert_eq!(record["target"]["id"], id);
    assert_eq!(record["targetId"], id);
    assert_eq!(record["old"], json!({KEY: node["score"]}));
    assert_eq!(record["new"], json!({KEY: 3}));
    assert_eq!(record["details"]["aid"], aid);
    assert_eq!(record["actor"], "falcon-posture-sync");
    assert!(record["expiresAt"].as_i64().unwrap() > 1_768_478_400 + 364 * 86_400);
    env.assert_sound().await;
}

#[tokio::test]
async fn the_write_names_its_run_in_the_tailnets_own_log() {
    let env = TestEnvironment::synced().await;
    let changes = env.sims.tailscale().changes(TAILNET).unwrap();
    let run = env.corp().await["status"]["runId"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        changes
            .iter()
            .all(|change| change.comment.as_deref().unwrap().contains(&run))
    );
}

#[tokio::test]
async fn the_status_tells_the_latest_run() {
    let env = TestEnvironment::synced().await;
    let status = env.corp().await["status"].clone();
    assert_eq!(status["outcome"], "synced");
    assert_eq!(status["lastSync"], status["lastSuccess"]);
    assert_eq!(status["written"], 40);
    assert_eq!(status["configVersion"], 1);
    assert_eq!(status["consecutiveFailures"], 0);
    assert_eq!(status["error"], Value::Null);

    let shown = env.ask(json!({"command": "status"})).await;
    let corp = &shown["integrations"][0];
    assert_eq!(corp["id"], "corp");
    assert_eq!(corp["attributeKey"], KEY);
    assert_eq!(corp["status"]["matchedCount"], 40);
    assert_eq!(corp["overdue"], false);
    let one = env
        .ask(json!({"command": "status", "integration": "corp"}))
        .await;
    assert_eq!(one["configUpdatedBy"], "amelie");
    env.app.clock.advance(std::time::Duration::from_hours(1));
    let later = env
        .ask(json!({"command": "status", "integration": "corp"}))
        .await;
    assert_eq!(later["overdue"], true);
}

#[tokio::test]
async fn a_dry_run_answers_the_plan_and_writes_nothing() {
    let env = TestEnvironment::connected(&GeneratorSpec::plain(20, 10)).await;
    let before = env.corp().await;
    let dry = json!({"command": "sync", "integration": "corp", "dryRun": true});
    let answer = env.ask(dry).await;
    assert_eq!(answer["outcome"], "planned");
    assert_eq!(answer["written"], 10);
    let planned: BTreeMap<String, i64> = answer["plan"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| {
            assert_eq!(change["old"], Value::Null);
            (
                change["nodeId"].as_str().unwrap().to_owned(),
                change["new"][KEY].as_i64().unwrap(),
            )
        })
        .collect();
    assert_eq!(planned, env.expected());
    assert!(env.scores().is_empty());
    assert!(env.items("nodes").await.is_empty());
    assert_eq!(env.corp().await, before);
    assert!(
        env.requests()
            .keys()
            .all(|route| !route.starts_with("PATCH"))
    );
}

#[tokio::test]
async fn a_tailnet_without_the_batch_call_is_written_node_by_node() {
    for missing in [BatchEndpoint::NotFound, BatchEndpoint::MethodNotAllowed] {
        let env = TestEnvironment::connected(&GeneratorSpec::plain(20, 10)).await;
        env.sims
            .tailscale()
            .configure(TAILNET, |tailnet| tailnet.switches.batch = missing)
            .unwrap();
        let answer = env.sync().await;
        assert_eq!(answer["outcome"], "synced", "{answer:#}");
        assert_eq!(env.scores(), env.expected());
        assert_eq!(env.sims.tailscale().writes(TAILNET).unwrap().post_calls, 10);
        env.assert_sound().await;
    }
}

#[tokio::test]
async fn an_account_in_another_cloud_is_found_by_the_clouds_own_word() {
    let env = TestEnvironment::empty().await;
    env.sims
        .falcon()
        .put_account(Account::new("corp").region("us-2"));
    env.load(&GeneratorSpec::plain(5, 5));
    env.connect(json!({})).await;
    assert_eq!(env.sync().await["outcome"], "synced");
    assert_eq!(env.scores(), env.expected());
}

#[tokio::test]
async fn an_api_key_and_another_attribute_serve_as_well() {
    let env = TestEnvironment::empty().await;
    let key = Tailnet::new(TAILNET).api_keys.pop_first().unwrap();
    env.services.put_secret("corp/key", json!({"apiKey": key}));
    env.load(&GeneratorSpec::plain(5, 5));
    env.connect(
        json!({"tailnet": TAILNET, "tailscaleSecret": "corp/key", "attributeKey": "custom:zta:v2"}),
    )
    .await;
    env.sync().await;
    assert_eq!(env.scores_at("custom:zta:v2"), env.expected());
}

#[tokio::test]
async fn hostile_data_harms_only_itself() {
    let env = TestEnvironment::synced().await;
    let seen = "2026-01-15T12:00:00Z";
    for (n, score) in [
        json!(-1),
        json!(101),
        json!(55.5),
        json!("80"),
        json!(null),
        json!({"a": 1}),
    ]
    .into_iter()
    .enumerate()
    {
        let (aid, serial, node) = (
            format!("{n:032x}"),
            format!("HOSTILE{n}"),
            format!("nHostile{n}"),
        );
        env.sims
            .falcon()
            .put_host("corp", Host::new(&aid, &serial, "h\u{1b}[31m\n", seen))
            .unwrap();
        env.sims.falcon().set_score("corp", &aid, score).unwrap();
        env.sims
            .tailscale()
            .put_device(TAILNET, Device::new(&node, "hostile", [serial]))
            .unwrap();
    }
    let fql = Host::new(
        &"f".repeat(32),
        "A'],device_id:['*",
        &"x".repeat(100_000),
        seen,
    );
    env.sims.falcon().put_host("corp", fql).unwrap();
    env.sims
        .falcon()
        .set_score("corp", &"f".repeat(32), 66)
        .unwrap();
    let device = Device::new("nFql", "fql", ["a'],device_id:['*", "\u{0}\u{1}", "\"}]"]);
    env.sims.tailscale().put_device(TAILNET, device).unwrap();

    let answer = env.sync().await;
    assert_eq!(answer["outcome"], "synced", "{answer:#}");
    assert_eq!(answer["written"], 1, "only the last of them has a score");
    assert_eq!(env.scores(), env.expected());
    let invalid = finding(&answer, "invalidScores");
    assert_eq!(invalid["count"], 6);
    assert!(
        !answer.to_string().contains("\\u001b"),
        "control characters stay outside"
    );
    assert!(
        env.corp().await.to_string().len() < 20_000,
        "a name of 100,000 characters is not stored"
    );
    env.assert_sound().await;
}

#[tokio::test]
async fn the_findings_name_what_a_person_should_know() {
    let env = TestEnvironment::connected(&GeneratorSpec {
        duplicate_serial: 0.2,
        unassessed: 0.2,
        ..GeneratorSpec::default()
    })
    .await;
    let answer = env.sync().await;
    for kind in [
        "noIdentity",
        "unmatched",
        "unassessed",
        "placeholderSerials",
        "sharedSerials",
    ] {
        let finding = finding(&answer, kind);
        assert!(finding["count"].as_u64().unwrap() > 0, "{kind}");
        assert!(finding["examples"].as_array().unwrap().len() <= 5);
        assert!(!finding["remedy"].as_str().unwrap().is_empty());
    }
    assert_eq!(env.corp().await["status"]["findings"], answer["findings"]);
}

#[tokio::test]
async fn hosts_beyond_the_age_limit_do_not_count() {
    let env = TestEnvironment::empty().await;
    env.load(&GeneratorSpec::plain(5, 5));
    let aid = "a".repeat(32);
    env.sims
        .falcon()
        .put_host(
            "corp",
            Host::new(&aid, "OLDTIMER1", "old", "2025-11-01T00:00:00Z"),
        )
        .unwrap();
    env.sims.falcon().set_score("corp", &aid, 90).unwrap();
    env.sims
        .tailscale()
        .put_device(TAILNET, Device::new("nOld", "old", ["OLDTIMER1"]))
        .unwrap();
    env.connect(json!({"maxHostAgeDays": 30})).await;
    let answer = env.sync().await;
    assert_eq!(answer["written"], 5);
    assert!(!env.scores().contains_key("nOld"));
    assert_eq!(
        finding(&answer, "staleHosts")["examples"],
        json!(["old.tail0sim.ts.net"])
    );
}

#[tokio::test]
async fn of_two_runs_at_once_one_works() {
    let env = TestEnvironment::connected(&GeneratorSpec::plain(60, 40)).await;
    let both = tokio::join!(env.sync(), env.sync());
    let mut outcomes = [
        both.0["outcome"].as_str().unwrap(),
        both.1["outcome"].as_str().unwrap(),
    ];
    outcomes.sort_unstable();
    assert_eq!(outcomes, ["skipped", "synced"]);
    assert_eq!(env.node_audit().await.len(), 40);
    env.assert_sound().await;
}

pub(crate) fn finding<'a>(answer: &'a Value, kind: &str) -> &'a Value {
    let findings = answer["findings"].as_array().unwrap();
    findings
        .iter()
        .find(|finding| finding["kind"] == kind)
        .unwrap_or_else(|| panic!("no finding {kind} in {findings:#?}"))
}
