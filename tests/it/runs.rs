//! Whole runs: from the payload to the posture attributes, the records and the answer.

use std::collections::BTreeMap;

use posture_simulators::tailscale::BatchEndpoint;
use posture_simulators::{Account, Device, GeneratorSpec, Host, Matcher, Side, Tailnet};
use serde_json::{Value, json};

use crate::world::{KEY, Stage, TAILNET, falcon_secret, tailscale_secret};

/// A tailnet of 300 devices against 1,000 hosts, with a little of every trap.
fn a_company() -> GeneratorSpec {
    GeneratorSpec {
        hosts: 1000,
        devices: 300,
        ..GeneratorSpec::default()
    }
}

#[tokio::test]
async fn each_device_gets_what_the_oracle_says_and_each_change_is_audited_once() {
    let stage = Stage::of(&a_company()).await;
    let answer = stage.sync().await;
    assert_eq!(answer["outcome"], "synced", "{answer:#}");
    assert_eq!(stage.scores(), stage.expected());
    assert!(stage.scores().len() > 150, "the world is not an empty one");
    assert_eq!(answer["written"], stage.scores().len());
    assert_eq!(stage.node_audit().await.len(), stage.scores().len());
    assert_eq!(stage.items("nodes").await.len(), stage.scores().len());
    stage.assert_sound().await;
    stage.requests();
    let changes = stage.sims.tailscale().changes(TAILNET).unwrap().len();

    let again = stage.sync().await;
    assert_eq!(again["outcome"], "unchanged", "{again:#}");
    assert_eq!(again["unchanged"], stage.scores().len());
    let requests = stage.requests();
    assert!(
        requests.keys().all(|route| !route.starts_with("PATCH")),
        "{requests:?}"
    );
    assert_eq!(
        stage.sims.tailscale().changes(TAILNET).unwrap().len(),
        changes
    );
    assert_eq!(stage.node_audit().await.len(), stage.scores().len());
}

#[tokio::test]
async fn random_companies_equal_the_oracle() {
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
        let stage = Stage::of(&spec).await;
        stage.sync().await;
        assert_eq!(stage.scores(), stage.expected(), "seed {seed}");
        stage.assert_sound().await;
        assert_eq!(stage.sync().await["outcome"], "unchanged", "seed {seed}");
    }
}

#[tokio::test]
async fn a_large_account_is_read_page_by_page_and_written_chunk_by_chunk() {
    let stage = Stage::of(&GeneratorSpec::plain(25_000, 5_000)).await;
    stage.requests();
    let answer = stage.sync().await;
    assert_eq!(answer["outcome"], "synced", "{answer:#}");
    assert_eq!(answer["providerHostCount"], 25_000);
    assert_eq!(answer["matchedCount"], 5_000);
    let requests = stage.requests();
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
            ("PATCH /api/v2/tailnet/-/device-attributes".to_owned(), 100),
        ])
    );
    assert_eq!(stage.scores().len(), 5_000);
    assert_eq!(stage.node_audit().await.len(), 5_000);
}

#[tokio::test]
async fn a_score_that_falls_is_the_only_thing_written() {
    let stage = Stage::synced().await;
    let node = stage.items("nodes").await.swap_remove(7);
    let (aid, id) = (
        node["aid"].as_str().unwrap(),
        node["nodeId"].as_str().unwrap(),
    );
    stage.sims.falcon().set_score("corp", aid, 3).unwrap();
    stage.requests();

    let answer = stage.sync().await;
    assert_eq!(
        (&answer["written"], &answer["unchanged"]),
        (&json!(1), &json!(39))
    );
    assert_eq!(
        stage.requests()["PATCH /api/v2/tailnet/-/device-attributes"],
        1
    );
    assert_eq!(stage.scores(), stage.expected());
    let audit = stage.node_audit().await;
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
    stage.assert_sound().await;
}

#[tokio::test]
async fn the_write_names_its_run_in_the_tailnets_own_log() {
    let stage = Stage::synced().await;
    let changes = stage.sims.tailscale().changes(TAILNET).unwrap();
    let run = stage.corp().await["status"]["runId"]
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
    let stage = Stage::synced().await;
    let status = stage.corp().await["status"].clone();
    assert_eq!(status["outcome"], "synced");
    assert_eq!(status["lastSync"], status["lastSuccess"]);
    assert_eq!(status["written"], 40);
    assert_eq!(status["configVersion"], 1);
    assert_eq!(status["consecutiveFailures"], 0);
    assert_eq!(status["error"], Value::Null);

    let shown = stage.ask(json!({"command": "status"})).await;
    let corp = &shown["integrations"][0];
    assert_eq!(corp["id"], "corp");
    assert_eq!(corp["attributeKey"], KEY);
    assert_eq!(corp["status"]["matchedCount"], 40);
    assert_eq!(corp["overdue"], false);
    let one = stage
        .ask(json!({"command": "status", "integration": "corp"}))
        .await;
    assert_eq!(one["configUpdatedBy"], "amelie");
    stage
        .world
        .clock
        .advance(std::time::Duration::from_hours(1));
    let later = stage
        .ask(json!({"command": "status", "integration": "corp"}))
        .await;
    assert_eq!(later["overdue"], true);
}

#[tokio::test]
async fn a_dry_run_answers_the_plan_and_writes_nothing() {
    let stage = Stage::of(&GeneratorSpec::plain(20, 10)).await;
    let before = stage.corp().await;
    let dry = json!({"command": "sync", "integration": "corp", "dryRun": true});
    let answer = stage.ask(dry).await;
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
    assert_eq!(planned, stage.expected());
    assert!(stage.scores().is_empty());
    assert!(stage.items("nodes").await.is_empty());
    assert_eq!(stage.corp().await, before);
    assert!(
        stage
            .requests()
            .keys()
            .all(|route| !route.starts_with("PATCH"))
    );
}

#[tokio::test]
async fn a_tailnet_without_the_batch_call_is_written_node_by_node() {
    for missing in [BatchEndpoint::NotFound, BatchEndpoint::MethodNotAllowed] {
        let stage = Stage::of(&GeneratorSpec::plain(20, 10)).await;
        stage
            .sims
            .tailscale()
            .configure(TAILNET, |tailnet| tailnet.switches.batch = missing)
            .unwrap();
        let answer = stage.sync().await;
        assert_eq!(answer["outcome"], "synced", "{answer:#}");
        assert_eq!(stage.scores(), stage.expected());
        assert_eq!(
            stage.sims.tailscale().writes(TAILNET).unwrap().post_calls,
            10
        );
        stage.assert_sound().await;
    }
}

#[tokio::test]
async fn an_account_in_another_cloud_is_found_by_the_clouds_own_word() {
    let stage = Stage::empty().await;
    stage
        .sims
        .falcon()
        .put_account(Account::new("corp").region("us-2"));
    stage.load(&GeneratorSpec::plain(5, 5));
    stage.connect(json!({})).await;
    assert_eq!(stage.sync().await["outcome"], "synced");
    assert_eq!(stage.scores(), stage.expected());
}

#[tokio::test]
async fn an_api_key_and_another_attribute_serve_as_well() {
    let stage = Stage::empty().await;
    let key = Tailnet::new(TAILNET).api_keys.pop_first().unwrap();
    stage
        .services
        .put_secret("corp/key", json!({"apiKey": key}));
    stage.load(&GeneratorSpec::plain(5, 5));
    stage
        .connect(json!({"tailnet": TAILNET, "tailscaleSecret": "corp/key", "attributeKey": "custom:zta:v2"}))
        .await;
    stage.sync().await;
    assert_eq!(stage.scores_at("custom:zta:v2"), stage.expected());
}

#[tokio::test]
async fn one_integration_runs_in_place_and_several_are_requested() {
    let stage = Stage::synced().await;
    assert_eq!(stage.sync().await["integration"], "corp");
    for name in ["labs", "shop"] {
        let tailnet = format!("{name}.example.com");
        stage.sims.falcon().put_account(Account::new(name));
        stage.sims.tailscale().put_tailnet(Tailnet::new(&tailnet));
        stage
            .services
            .put_secret(&format!("{name}/falcon"), falcon_secret(name));
        stage
            .services
            .put_secret(&format!("{name}/tailscale"), tailscale_secret(&tailnet));
        stage
            .connect(json!({
                "id": name, "falconSecret": format!("{name}/falcon"), "tailscaleSecret": format!("{name}/tailscale")
            }))
            .await;
    }
    stage
        .connect(json!({"id": "dormant", "enabled": false}))
        .await;
    stage.services.held().events.clear();
    let answer = stage.sync().await;
    assert_eq!(answer, json!({"requested": ["corp", "labs", "shop"]}));
    let events = stage.services.held().events.clone();
    assert_eq!(events.len(), 3);
    assert_eq!(
        events[0],
        json!({
            "source": "falcon-posture-sync", "detail-type": "Posture Sync Requested",
            "detail": {"integration": "corp", "reason": "schedule"}
        })
    );
    for event in events {
        assert_eq!(stage.ask(event).await["outcome"], "unchanged");
    }
    let dormant = stage
        .ask(json!({"command": "sync", "integration": "dormant"}))
        .await;
    assert_eq!(
        (&dormant["outcome"], &dormant["error"]),
        (&json!("skipped"), &json!("it is disabled"))
    );
}

#[tokio::test]
async fn connecting_stores_audits_and_requests_the_first_sync() {
    let stage = Stage::empty().await;
    stage.load(&GeneratorSpec::plain(5, 5));
    stage.connect(json!({"maxHostAgeDays": 30})).await;
    let corp = stage.corp().await;
    assert_eq!(corp["configVersion"], 1);
    assert_eq!(corp["maxHostAgeDays"], 30);
    let audit = stage.items("audit").await;
    assert_eq!(audit.len(), 1);
    assert_eq!(audit[0]["action"], "Create posture integration");
    assert_eq!(audit[0]["target"]["type"], "Integration");
    assert_eq!(audit[0]["actor"], "amelie");
    assert_eq!(audit[0]["old"], Value::Null);
    assert_eq!(audit[0]["new"]["cloudId"], "us-1");
    let event = stage.services.held().events[0].clone();
    assert_eq!(
        event["detail"],
        json!({"integration": "corp", "change": "created", "configVersion": 1})
    );
    assert_eq!(stage.ask(event).await["outcome"], "synced");
    assert_eq!(stage.scores(), stage.expected());
}

#[tokio::test]
async fn a_bus_that_is_down_does_not_undo_a_connect() {
    let stage = Stage::empty().await;
    stage.services.held().bus_is_down = true;
    let answer = stage
        .ask(json!({"command": "connect", "integration": {
            "id": "corp", "provider": "falcon", "cloudId": "us-1",
            "falconSecret": "corp/falcon", "tailscaleSecret": "corp/tailscale"
        }}))
        .await;
    assert!(
        answer["sync"]
            .as_str()
            .unwrap()
            .starts_with("not requested"),
        "{answer}"
    );
    assert_eq!(stage.corp().await["configUpdatedBy"], "unknown");
}

#[tokio::test]
async fn secrets_are_fetched_once_for_as_long_as_their_version_stays() {
    let stage = Stage::synced().await;
    assert_eq!(stage.services.calls("GetSecretValue"), 2);
    stage.sync().await;
    stage.sync().await;
    assert_eq!(stage.services.calls("GetSecretValue"), 2);
    stage
        .services
        .put_secret("corp/falcon", falcon_secret("corp"));
    assert_eq!(stage.sync().await["outcome"], "unchanged");
    assert_eq!(stage.services.calls("GetSecretValue"), 3);
}

#[tokio::test]
async fn hostile_data_harms_only_itself() {
    let stage = Stage::synced().await;
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
        stage
            .sims
            .falcon()
            .put_host("corp", Host::new(&aid, &serial, "h\u{1b}[31m\n", seen))
            .unwrap();
        stage.sims.falcon().set_score("corp", &aid, score).unwrap();
        stage
            .sims
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
    stage.sims.falcon().put_host("corp", fql).unwrap();
    stage
        .sims
        .falcon()
        .set_score("corp", &"f".repeat(32), 66)
        .unwrap();
    let device = Device::new("nFql", "fql", ["a'],device_id:['*", "\u{0}\u{1}", "\"}]"]);
    stage.sims.tailscale().put_device(TAILNET, device).unwrap();

    let answer = stage.sync().await;
    assert_eq!(answer["outcome"], "synced", "{answer:#}");
    assert_eq!(answer["written"], 1, "only the last of them has a score");
    assert_eq!(stage.scores(), stage.expected());
    let invalid = finding(&answer, "invalidScores");
    assert_eq!(invalid["count"], 6);
    assert!(
        !answer.to_string().contains("\\u001b"),
        "control characters stay outside"
    );
    assert!(
        stage.corp().await.to_string().len() < 20_000,
        "a name of 100,000 characters is not stored"
    );
    stage.assert_sound().await;
}

#[tokio::test]
async fn the_findings_name_what_a_person_should_know() {
    let stage = Stage::of(&GeneratorSpec {
        duplicate_serial: 0.2,
        unassessed: 0.2,
        ..GeneratorSpec::default()
    })
    .await;
    let answer = stage.sync().await;
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
    assert_eq!(stage.corp().await["status"]["findings"], answer["findings"]);
}

#[tokio::test]
async fn hosts_beyond_the_age_limit_do_not_count() {
    let stage = Stage::empty().await;
    stage.load(&GeneratorSpec::plain(5, 5));
    let aid = "a".repeat(32);
    stage
        .sims
        .falcon()
        .put_host(
            "corp",
            Host::new(&aid, "OLDTIMER1", "old", "2025-11-01T00:00:00Z"),
        )
        .unwrap();
    stage.sims.falcon().set_score("corp", &aid, 90).unwrap();
    stage
        .sims
        .tailscale()
        .put_device(TAILNET, Device::new("nOld", "old", ["OLDTIMER1"]))
        .unwrap();
    stage.connect(json!({"maxHostAgeDays": 30})).await;
    let answer = stage.sync().await;
    assert_eq!(answer["written"], 5);
    assert!(!stage.scores().contains_key("nOld"));
    assert_eq!(
        finding(&answer, "staleHosts")["examples"],
        json!(["old.tail0sim.ts.net"])
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_settings_in_mid_run_is_followed_by_another_run() {
    let stage = Stage::synced().await;
    let aid = stage.sims.falcon().hosts("corp").unwrap()[0]
        .device_id
        .clone();
    stage.sims.falcon().set_score("corp", &aid, 1).unwrap();
    let tables = stage.tables.clone();
    // While the devices are listed, somebody moves the scores to another key.
    let listing = Matcher::side(Side::Tailscale).path("/api/v2/tailnet/-/devices");
    stage.amid(listing, async move { rename_key(&tables).await });
    let answer = stage.sync().await;
    assert_eq!(answer["outcome"], "synced", "{answer:#}");
    assert_eq!(stage.scores_at("custom:moved"), stage.expected());
    assert!(
        stage.scores().is_empty(),
        "nothing is left under the old key"
    );
    let corp = stage.corp().await;
    assert_eq!(corp["status"]["configVersion"], 2);
    assert_eq!(corp["lease"], Value::Null);
    assert_eq!(stage.sync().await["outcome"], "unchanged");
}

async fn rename_key(tables: &aws_sdk_dynamodb::Client) {
    use aws_sdk_dynamodb::types::AttributeValue;
    tables
        .update_item()
        .table_name("integrations")
        .key("id", AttributeValue::S("corp".to_owned()))
        .update_expression("SET attributeKey = :key ADD configVersion :one")
        .expression_attribute_values(":key", AttributeValue::S("custom:moved".to_owned()))
        .expression_attribute_values(":one", AttributeValue::N("1".to_owned()))
        .send()
        .await
        .unwrap();
}

#[tokio::test]
async fn a_changed_key_moves_the_scores() {
    let stage = Stage::synced().await;
    rename_key(&stage.tables).await;
    let answer = stage.sync().await;
    assert_eq!(
        (&answer["written"], &answer["removed"]),
        (&json!(40), &json!(0))
    );
    assert_eq!(stage.scores_at("custom:moved"), stage.expected());
    assert!(stage.scores().is_empty());
    let audit = stage.node_audit().await;
    assert_eq!(audit.len(), 80, "one record for each device's move");
    let moved = audit
        .iter()
        .filter(|r| r["old"].get(KEY).is_some() && r["new"].get("custom:moved").is_some());
    assert_eq!(moved.count(), 40);
    assert_eq!(stage.sync().await["outcome"], "unchanged");
}

#[tokio::test]
async fn of_two_runs_at_once_one_works() {
    let stage = Stage::of(&GeneratorSpec::plain(60, 40)).await;
    let both = tokio::join!(stage.sync(), stage.sync());
    let mut outcomes = [
        both.0["outcome"].as_str().unwrap(),
        both.1["outcome"].as_str().unwrap(),
    ];
    outcomes.sort_unstable();
    assert_eq!(outcomes, ["skipped", "synced"]);
    assert_eq!(stage.node_audit().await.len(), 40);
    stage.assert_sound().await;
}

pub(crate) fn finding<'a>(answer: &'a Value, kind: &str) -> &'a Value {
    let findings = answer["findings"].as_array().unwrap();
    findings
        .iter()
        .find(|finding| finding["kind"] == kind)
        .unwrap_or_else(|| panic!("no finding {kind} in {findings:#?}"))
}
