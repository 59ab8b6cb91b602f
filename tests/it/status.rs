//! The status command, as JSON and as text.

use posture_simulators::GeneratorSpec;
use serde_json::{Value, json};

use crate::environment::TestEnvironment;
use crate::second_integration::Integration;

async fn status(env: &TestEnvironment) -> Value {
    env.ask(json!({"command": "status", "integration": "corp"}))
        .await
}

async fn text(env: &TestEnvironment, integration: Value) -> String {
    let answer = env
        .ask(json!({"command": "status", "integration": integration, "format": "text"}))
        .await;
    answer.as_str().unwrap().to_owned()
}

#[tokio::test]
async fn what_changed_last_stays_known_while_nothing_changes() {
    let env = TestEnvironment::synced().await;
    let first = env.last_run();
    env.sync().await;
    env.sync().await;
    let shown = status(&env).await["status"].clone();
    let change = &shown["lastChange"];
    assert_eq!(
        (&change["runId"], &change["written"], &change["removed"]),
        (&json!(first), &json!(40), &json!(0))
    );
    let history: Vec<(&Value, &Value, &Value)> = shown["history"]
        .as_array()
        .unwrap()
        .iter()
        .map(|stretch| (&stretch["outcome"], &stretch["runs"], &stretch["written"]))
        .collect();
    assert_eq!(
        history,
        [
            (&json!("unchanged"), &json!(2), &json!(0)),
            (&json!("synced"), &json!(1), &json!(40))
        ]
    );
}

#[tokio::test]
async fn the_scores_of_the_devices_are_counted() {
    let env = TestEnvironment::synced().await;
    let counts = |status: &Value| -> usize {
        let counts = status["status"]["scoreCounts"].as_object().unwrap();
        let of_tailnet = |score: &String| {
            let score: i64 = score.parse().unwrap();
            env.scores().values().filter(|s| **s == score).count()
        };
        for (score, count) in counts {
            assert_eq!(count, of_tailnet(score), "{score}");
        }
        counts
            .values()
            .map(|count| usize::try_from(count.as_u64().unwrap()).unwrap())
            .sum()
    };
    assert_eq!(counts(&status(&env).await), 40);
    env.lower_a_score().await;
    env.sync().await;
    let shown = status(&env).await;
    assert_eq!(counts(&shown), 40);
    assert_eq!(shown["status"]["scoreCounts"]["4"], 1);
}

#[tokio::test]
async fn each_integration_has_a_state_and_all_have_numbers() {
    let env = TestEnvironment::synced().await;
    let spec = GeneratorSpec::plain(10, 5);
    let labs = Integration::connect(&env, posture_simulators::Account::new("labs"), &spec).await;
    let overall = |answer: &Value| answer["overall"].clone();
    let answer = env.ask(json!({"command": "status"})).await;
    assert_eq!(answer["integrations"][1]["state"], "new");
    assert_eq!(
        overall(&answer),
        json!({"integrations": 2, "ok": 1, "failing": 0, "paused": 0, "held": 0, "new": 1, "disabled": 0, "removing": 0,
               "overdue": 0})
    );
    env.sims.tailscale().remove_tailnet(&labs.tailnet);
    env.ask(labs.requested()).await;
    env.update(json!({"enabled": false})).await;
    let answer = env.ask(json!({"command": "status"})).await;
    assert_eq!(answer["integrations"][0]["state"], "disabled");
    assert_eq!(answer["integrations"][1]["state"], "paused", "{answer:#}");
    assert_eq!(overall(&answer)["paused"], 1);
    assert!(
        text(&env, json!(null))
            .await
            .starts_with("2 integrations: 1 paused, 1 disabled\n\ncorp: disabled\n")
    );
}

#[tokio::test]
async fn a_person_reads_lines() {
    let env = TestEnvironment::empty().await;
    assert_eq!(
        text(&env, json!(null)).await,
        "No integration is connected. `make connect` connects one.\n"
    );
    let spec = GeneratorSpec {
        hosts: 200,
        devices: 60,
        ..GeneratorSpec::default()
    };
    let env = TestEnvironment::connected(&spec).await;
    insta::assert_snapshot!(
        "status_before_the_first_sync",
        text(&env, json!("corp")).await
    );
    env.sync().await;
    env.app.clock.advance(std::time::Duration::from_mins(40));
    let told = text(&env, json!("corp")).await;
    // The duration does not depend on the fixed clock.
    insta::assert_snapshot!("status_overdue_with_findings", told);
    env.services
        .put_secret("corp/falcon", json!({"clientId": "x", "clientSecret": "y"}));
    env.sync().await;
    insta::assert_snapshot!("status_paused", text(&env, json!("corp")).await);
}
