//! The second look and the guard over a day, as a person meets them: status, explanation, preview, dry run, records.

use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use posture_simulators::{GeneratorSpec, Host};
use serde_json::{Value, json};

use crate::console::view;
use crate::environment::{TestEnvironment, chain};
use crate::runs::finding;

/// Devices with a score, and the default second look.
async fn environment(devices: usize) -> TestEnvironment {
    let env = TestEnvironment::connected(&GeneratorSpec::plain(devices + 5, devices)).await;
    env.update(json!({"removeAfterMinutes": null})).await;
    assert_eq!(env.sync().await["written"], devices);
    assert_eq!(env.corp().await["removeAfterMinutes"], 25);
    env
}

/// Takes away the hosts of these devices, in the order of their node ids.
async fn remove_hosts(
    env: &TestEnvironment,
    positions: impl IntoIterator<Item = usize>,
) -> Vec<Host> {
    let items = env.items("nodes").await;
    let remove = |n: usize| {
        let aid = items[n]["aid"].as_str().unwrap();
        env.sims.falcon().remove_host("corp", aid).unwrap().unwrap()
    };
    positions.into_iter().map(remove).collect()
}

fn put_host(env: &TestEnvironment, host: Host) {
    env.sims.falcon().put_host("corp", host).unwrap();
}

async fn record(env: &TestEnvironment, n: usize) -> Value {
    env.items("nodes").await.swap_remove(n)
}

fn wait(env: &TestEnvironment, minutes: u64) {
    env.app.clock.advance(Duration::from_mins(minutes));
}

async fn explain(env: &TestEnvironment, node: &Value) -> Value {
    let answer = env
        .ask(json!({"command": "explain", "integration": "corp", "device": node}))
        .await;
    answer["explanations"][0].clone()
}

#[tokio::test]
async fn an_attribute_goes_at_the_second_look() {
    let env = environment(12).await;
    let node = record(&env, 3).await["nodeId"].clone();
    remove_hosts(&env, [3]).await;
    let answer = env.sync().await;
    assert_eq!(answer["outcome"], "unchanged", "{answer:#}");
    assert_eq!(
        (&answer["removed"], &answer["waiting"]),
        (&json!(0), &json!(1))
    );
    let since = record(&env, 3).await["absentSince"].clone();
    let example = finding(&answer, "waitingRemovals")["examples"][0]
        .as_str()
        .unwrap()
        .to_owned();
    for part in [
        node.as_str().unwrap(),
        "no Falcon host has its serial number",
        "goes after 2026-01-15T12:29:",
    ] {
        assert!(example.contains(part), "{example}");
    }
    assert_eq!(env.corp().await["status"]["waiting"], 1);

    let shown = view(&env, "findings").await;
    for part in ["1 absent, with a removal that waits", &example[..40]] {
        assert!(shown.contains(part), "{part} in {shown}");
    }

    // Everything that looks ahead knows it, and changes nothing about it.
    let explanation = explain(&env, &node).await;
    assert_eq!(explanation["nextAction"], "waits");
    let next = explanation["next"].as_str().unwrap();
    assert!(next.contains("goes after 2026-01-15T12:29:"), "{next}");
    let explained = explanation["written"]["absentSince"].as_str().unwrap();
    assert_eq!(explained[..19], since.as_str().unwrap()[..19]);
    let preview = env
        .ask(json!({"command": "preview", "integration": "corp", "minScore": 0}))
        .await;
    assert_eq!(preview["previews"][0]["counts"]["pass"], 12);
    let waiting = preview["waiting"].as_str().unwrap();
    assert!(
        waiting.contains("keeps its score until 2026-01-15T12:29:"),
        "{waiting}"
    );
    let dry = env
        .ask(json!({"command": "sync", "integration": "corp", "dryRun": true}))
        .await;
    assert_eq!((&dry["waiting"], &dry["plan"]), (&json!(1), &json!([])));
    assert_eq!(record(&env, 3).await["absentSince"], since);

    wait(&env, 15);
    assert_eq!(env.sync().await["removed"], 0);
    assert_eq!(
        record(&env, 3).await["absentSince"],
        since,
        "the clock goes on"
    );
    wait(&env, 10);
    let answer = env.sync().await;
    assert_eq!(
        (&answer["removed"], &answer["waiting"]),
        (&json!(1), &Value::Null),
        "{answer:#}"
    );
    assert_eq!(env.scores(), env.expected());
    env.assert_sound().await;
}

#[tokio::test]
async fn a_device_that_is_present_again_starts_anew() {
    let env = environment(12).await;
    let hosts = remove_hosts(&env, [3, 4]).await;
    env.sync().await;
    wait(&env, 15);
    for host in &hosts {
        put_host(&env, host.clone());
    }
    // One of the two comes back with another score.
    let aid = &hosts[1].device_id;
    env.sims.falcon().set_score("corp", aid, 1).unwrap();
    assert_eq!(env.sync().await["written"], 1);
    for n in [3, 4] {
        assert_eq!(record(&env, n).await["absentSince"], Value::Null);
    }
    remove_hosts(&env, [3, 4]).await;
    wait(&env, 15);
    let answer = env.sync().await;
    assert_eq!(
        (&answer["removed"], &answer["waiting"]),
        (&json!(0), &json!(2)),
        "{answer:#}"
    );
    assert_eq!(env.scores().len(), 12);
}

/// `held` says what, since when, how many, and the command. That many go, the longest absent first; what came later waits.
#[tokio::test]
async fn what_is_held_passes_by_its_number() {
    let env = environment(12).await;
    let late = remove_hosts(&env, [0]).await;
    put_host(&env, late[0].clone());
    remove_hosts(&env, 5..9).await;
    env.sync().await;
    wait(&env, 25);
    let answer = env.sync().await;
    assert_eq!(
        (&answer["outcome"], &answer["removed"]),
        (&json!("held"), &json!(0))
    );
    let error = answer["error"].as_str().unwrap();
    let since = record(&env, 5).await["heldSince"].as_str().unwrap()[..19].to_owned();
    assert_eq!(
        error,
        format!(
            "4 removals are held since {since}Z: 4 of 12 attributes would be removed within 24 hours; maxRemovals \
             allows 10 % or 2. If that is right, let them pass with \
             {{\"command\":\"sync\",\"integration\":\"corp\",\"allowMassRemoval\":4}}."
        )
    );
    let node = record(&env, 5).await["nodeId"].clone();
    let explanation = explain(&env, &node).await;
    assert_eq!(explanation["nextAction"], "held");

    // Two come back: two are left, which the limit of a day would allow. They stay held, also days later.
    let hosts = env.items("nodes").await;
    for n in [7, 8] {
        let aid = hosts[n]["aid"].as_str().unwrap();
        let host = Host::new(
            aid,
            hosts[n]["serial"].as_str().unwrap(),
            "back",
            "2026-01-15T12:00:00Z",
        );
        // No platform matches all: the devices are of several.
        put_host(
            &env,
            Host {
                platform_name: None,
                ..host
            },
        );
    }
    for days in [0, 1, 3] {
        wait(&env, days * 24 * 60);
        let answer = env.sync().await;
        assert_eq!(
            (&answer["outcome"], &answer["removed"]),
            (&json!("held"), &json!(0)),
            "{answer:#}"
        );
        assert_eq!(finding(&answer, "heldRemovals")["count"], 2);
        let error = answer["error"].as_str().unwrap();
        assert!(
            error.contains(&format!("2 removals are held since {since}")),
            "{error}"
        );
    }
    assert_eq!(record(&env, 7).await["heldSince"], Value::Null);

    // One more goes missing after a person has looked at the two.
    remove_hosts(&env, [0]).await;
    env.sync().await;
    wait(&env, 25);
    let allow = |number: Value| json!({"command": "sync", "integration": "corp", "allowMassRemoval": number});
    let answer = env.ask(allow(json!(2))).await;
    assert_eq!(
        (&answer["outcome"], &answer["removed"]),
        (&json!("held"), &json!(2)),
        "{answer:#}"
    );
    assert_eq!(finding(&answer, "heldRemovals")["count"], 1);
    let approved = env
        .node_audit()
        .await
        .into_iter()
        .filter(|one| one["details"]["approved"] == true);
    assert_eq!(
        approved.count(),
        2,
        "the audit trail tells what a person let pass"
    );
    assert_eq!(env.ask(allow(json!(1))).await["removed"], 1);
    assert_eq!(env.sync().await["outcome"], "unchanged");
    assert_eq!(env.scores(), env.expected());

    for number in [json!(true), json!(-1), json!("12"), json!(1.5)] {
        let error = chain(&env.try_ask(allow(number)).await.unwrap_err());
        let expected = "allowMassRemoval: must be a number: how many of the held removals may go, as the status says";
        assert_eq!(error, expected);
    }
    env.assert_sound().await;
}

/// The guard counts the audit trail of the last 24 hours: what a few runs take away is one number.
#[tokio::test]
async fn the_guard_counts_a_day_of_runs() {
    let env = environment(30).await;
    env.update(json!({"removeAfterMinutes": 0})).await;
    remove_hosts(&env, 0..2).await;
    assert_eq!(env.sync().await["removed"], 2);
    wait(&env, 60);
    remove_hosts(&env, [0]).await;
    assert_eq!(env.sync().await["removed"], 1, "3 of 30 are a tenth");
    wait(&env, 60);
    remove_hosts(&env, [0]).await;
    let answer = env.sync().await;
    assert_eq!(
        (&answer["outcome"], &answer["removed"]),
        (&json!("held"), &json!(0)),
        "{answer:#}"
    );
    let error = answer["error"].as_str().unwrap();
    assert!(
        error.contains("4 of 30 attributes would be removed within 24 hours"),
        "{error}"
    );
    wait(&env, 24 * 60);
    assert_eq!(
        env.sync().await["outcome"],
        "held",
        "what was held does not drain away"
    );
    remove_hosts(&env, [1, 2]).await;
    assert_eq!(env.sync().await["outcome"], "held");
    env.assert_sound().await;
}

/// A removed integration that is connected again under its name begins with a count of nothing.
#[tokio::test]
async fn a_removed_integration_counts_for_nothing() {
    let env = environment(12).await;
    env.ask(json!({"command": "remove", "integration": "corp", "actor": "amelie"}))
        .await;
    env.connect(json!({})).await;
    assert_eq!(env.sync().await["written"], 12);
    remove_hosts(&env, 0..2).await;
    assert_eq!(env.sync().await["removed"], 2);
    env.assert_sound().await;
}

#[tokio::test]
async fn a_key_that_differs_in_case_only_is_refused() {
    let env = environment(3).await;
    let update = json!({"command": "update", "integration": "corp", "changes": {"attributeKey": "custom:ZTAscore"}});
    let error = chain(&env.try_ask(update).await.unwrap_err());
    assert_eq!(
        error,
        "changes.attributeKey: differs from the present key in case only, which is one key to Tailscale: must be another key"
    );
    assert_eq!(env.sync().await["outcome"], "unchanged");
}

/// With `onMissing: keep`, the score of a record that somebody wrote by hand reaches no device.
#[tokio::test]
async fn a_hand_made_record_sets_no_score() {
    let env = environment(12).await;
    env.update(json!({"onMissing": "keep"})).await;
    let victim = record(&env, 3).await;
    remove_hosts(&env, [3]).await;
    let text = |value: &Value| AttributeValue::S(value.as_str().unwrap().to_owned());
    env.tables
        .put_item()
        .table_name("nodes")
        .item("integrationId", AttributeValue::S("corp".to_owned()))
        .item("nodeId", text(&victim["nodeId"]))
        .item("score", AttributeValue::N("100".to_owned()))
        .item("attributeKey", AttributeValue::S("custom:other".to_owned()))
        .item("serial", text(&victim["serial"]))
        .item("aid", text(&victim["aid"]))
        .item("runId", AttributeValue::S("run-1".to_owned()))
        .send()
        .await
        .unwrap();
    let before = env.scores();
    for _ in 0..3 {
        wait(&env, 25);
        env.sync().await;
        assert_eq!(env.scores(), before);
        assert!(env.scores_at("custom:other").is_empty());
    }
}
