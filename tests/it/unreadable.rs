//! Items that another version of the function wrote, or that a person edited. Unreadable parts are reported, and stop as little
//! as possible.

use std::time::Duration;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use falcon_posture_sync::handler::HandlerError;
use falcon_posture_sync::store::StoreError;
use serde_json::{Value, json};

use crate::environment::{TestEnvironment, chain};
use crate::runs::finding;

const UNKNOWN_WORD: &str = "a word of the next version";

fn unknown_word() -> AttributeValue {
    AttributeValue::S(UNKNOWN_WORD.to_owned())
}

/// Replaces the value at a path in the item of `corp`.
async fn overwrite(env: &TestEnvironment, path: &[&str], value: AttributeValue) {
    let names: Vec<String> = (0..path.len()).map(|n| format!("#p{n}")).collect();
    let update = env
        .tables
        .update_item()
        .table_name("integrations")
        .key("id", AttributeValue::S("corp".to_owned()))
        .update_expression(format!("SET {} = :value", names.join(".")))
        .expression_attribute_values(":value", value);
    let names = names.into_iter().zip(path);
    let update = names.fold(update, |update, (name, attribute)| {
        update.expression_attribute_names(name, *attribute)
    });
    update.send().await.unwrap();
}

async fn status(env: &TestEnvironment) -> Value {
    env.ask(json!({"command": "status", "integration": "corp"}))
        .await
}

fn has_finding(answer: &Value) -> bool {
    let findings = answer["findings"].as_array().unwrap();
    findings
        .iter()
        .any(|finding| finding["kind"] == "unreadableState")
}

/// Returns the metrics of the latest tick.
fn tick(env: &TestEnvironment) -> Value {
    let mut lines = env.app.metrics.drain();
    lines.retain(|line| line.get("integration").is_none());
    lines.pop().unwrap()
}

/// Lowers a score and checks that a sync writes it.
async fn assert_synced(env: &TestEnvironment, what: &str) -> Value {
    let aid = env.items("nodes").await[3]["aid"].clone();
    let aid = aid.as_str().unwrap();
    let score = env.sims.falcon().scores("corp").unwrap()[aid]
        .as_u64()
        .unwrap();
    let falcon = env.sims.falcon();
    falcon.set_score("corp", aid, (score + 50) % 101).unwrap();
    let answer = env.sync().await;
    assert_eq!(
        (&answer["outcome"], &answer["written"]),
        (&json!("synced"), &json!(1)),
        "{what}: {answer:#}"
    );
    assert_eq!(env.scores(), env.expected(), "{what}");
    env.assert_sound().await;
    answer
}

/// A status field that cannot be read is dropped. The rest of the status stays, and the run continues.
#[tokio::test]
async fn a_status_that_cannot_be_read_stops_nothing_and_is_told() {
    let env = TestEnvironment::synced().await;
    env.sync().await;
    let fields = env.corp().await["status"].clone();
    let mut told = 0;
    for field in fields.as_object().unwrap().keys() {
        let success = env.corp().await["status"]["lastSuccess"].clone();
        overwrite(&env, &["status", field], unknown_word()).await;
        let shown = status(&env).await;
        let kept = shown["status"]["lastSuccess"] == success;
        let answer = assert_synced(&env, field).await;
        // These fields accept any text.
        if ["runId", "error"].contains(&field.as_str()) {
            assert!(!has_finding(&answer), "{field}");
            continue;
        }
        told += 1;
        let path = format!("status.{field}");
        let unreadable = shown["unreadable"][0].as_str().unwrap_or_default();
        assert!(unreadable.starts_with(&path), "{shown:#}");
        assert_eq!(
            shown["status"].is_null(),
            shown["state"] == "failing",
            "{shown:#}"
        );
        assert_eq!(
            shown["status"].is_object() && field != "lastSuccess",
            kept,
            "{field}: {shown:#}"
        );
        let example = finding(&answer, "unreadableState")["examples"][0].clone();
        assert!(example.as_str().unwrap().starts_with(&path), "{example}");
        assert!(!has_finding(&env.sync().await), "{field}: once");
        assert!(status(&env).await.get("unreadable").is_none());
    }
    assert!(told > 15, "{told}");
}

#[tokio::test]
async fn words_of_another_version_cost_no_more_than_their_field() {
    let env = TestEnvironment::synced().await;
    let finding = json!({"kind": UNKNOWN_WORD, "count": 1, "examples": [], "remedy": ""});
    let last = env.corp().await["status"]["history"][0].clone();
    let mut run = last.clone();
    run["outcome"] = UNKNOWN_WORD.into();
    for (path, value) in [
        ("findings", json!([finding])),
        ("history", json!([run, last])),
        ("announced", json!(UNKNOWN_WORD)),
        ("crawl", json!({"way": UNKNOWN_WORD})),
    ] {
        let success = env.corp().await["status"]["lastSuccess"].clone();
        let value = serde_dynamo::to_attribute_value(value).unwrap();
        overwrite(&env, &["status", path], value).await;
        let shown = status(&env).await;
        assert_eq!(
            (&shown["state"], &shown["status"]["lastSuccess"]),
            (&json!("ok"), &success)
        );
        let text = env
            .ask(json!({"command": "status", "integration": "corp", "format": "text"}))
            .await;
        let line = format!("  unreadable    status.{path}");
        assert!(text.as_str().unwrap().contains(&line), "{text}");
        assert!(has_finding(&assert_synced(&env, path).await));
    }
}

#[tokio::test]
async fn a_whole_status_or_pause_that_cannot_be_read_is_none() {
    let pause = json!({"since": "2026-01-15T12:00:00Z", "until": "2036-01-15T12:00:00Z", "side": UNKNOWN_WORD,
        "error": "", "attempts": 1});
    let pause: AttributeValue = serde_dynamo::to_attribute_value(pause).unwrap();
    for (attribute, value) in [
        ("status", unknown_word()),
        ("status", AttributeValue::L(vec![])),
        ("pause", unknown_word()),
        ("pause", pause),
        ("configUpdated", unknown_word()),
        ("configUpdatedBy", AttributeValue::Bool(true)),
    ] {
        let env = TestEnvironment::synced().await;
        overwrite(&env, &[attribute], value).await;
        let answer = assert_synced(&env, attribute).await;
        let example = finding(&answer, "unreadableState")["examples"][0].clone();
        assert!(
            example.as_str().unwrap().starts_with(attribute),
            "{example}"
        );
    }
}

/// An unreadable integration counts as failing everywhere, and the others are synced.
#[tokio::test]
async fn an_item_that_cannot_be_read_counts_as_failing() {
    let far = AttributeValue::M(
        [
            ("owner".to_owned(), unknown_word()),
            ("until".to_owned(), unknown_word()),
        ]
        .into(),
    );
    let note = AttributeValue::M([("run-9".to_owned(), unknown_word())].into());
    for (attribute, value, path) in [
        ("lease", far, "lease.until"),
        ("pending", note, "pending.run-9"),
        ("removal", unknown_word(), "removal"),
        ("configVersion", unknown_word(), "configVersion"),
        ("tailnet", AttributeValue::B(Blob::new(b"odd")), ""),
    ] {
        let env = TestEnvironment::synced().await;
        let lab = json!({"id": "lab", "attributeKey": "custom:lab"});
        env.connect(lab).await;
        let success = env.app.clock.now();
        overwrite(&env, &[attribute], value).await;
        env.app.clock.advance(Duration::from_hours(24));
        env.app.metrics.drain();

        let answer = env.sync().await;
        assert_eq!(answer["integration"], "lab", "{answer:#}");
        assert_eq!(answer["outcome"], "synced");
        assert_eq!(answer["unreadable"], json!(["corp"]));
        let tick = tick(&env);
        assert_eq!(
            (&tick["Integrations"], &tick["Failed"]),
            (&json!(2), &json!(1))
        );
        let seconds = tick["SecondsSinceSuccess"].as_i64().unwrap();
        let since = env.app.clock.now().duration_since(success).as_secs();
        assert!(
            seconds >= since,
            "{attribute}: {seconds} s, and not {since}"
        );

        let shown = env.ask(json!({"command": "status"})).await;
        assert_eq!(shown["overall"]["failing"], 1, "{shown:#}");
        assert_eq!(shown["overall"]["integrations"], 2);
        let corp = status(&env).await;
        assert_eq!(corp, shown["integrations"][0]);
        assert_eq!(
            (&corp["id"], &corp["state"]),
            (&json!("corp"), &json!("failing"))
        );
        assert_eq!(corp["nextSync"], Value::Null);
        let unreadable = corp["unreadable"][0].as_str().unwrap();
        assert!(unreadable.contains(path), "{unreadable}");
        let text = env
            .ask(json!({"command": "status", "format": "text"}))
            .await;
        let text = text.as_str().unwrap();
        assert!(
            text.starts_with("2 integrations: 1 ok, 1 failing"),
            "{text}"
        );
        assert!(text.contains("corp: failing\n  unreadable    "), "{text}");
        let widget = json!({"widgetContext": {}, "view": "overview"});
        let page = env.ask(widget).await;
        assert!(page.as_str().unwrap().contains("cannot be read"), "{page}");

        // A sync of it by name fails, and writes nothing to Tailscale.
        let one = json!({"command": "sync", "integration": "corp", "force": true});
        let error = env.try_ask(one).await.unwrap_err();
        assert!(
            matches!(error, HandlerError::Store(StoreError::Unreadable(_))),
            "{error:?}"
        );
        assert!(chain(&error).contains(path), "{}", chain(&error));
    }
}

/// An item without a plausible time counts as failing since 1970.
#[tokio::test]
async fn an_item_that_tells_nothing_raises_the_alarm_at_once() {
    let env = TestEnvironment::synced().await;
    for id in ["Not An Id\u{1b}[31m", "wreck"] {
        let put = env.tables.put_item().table_name("integrations");
        let put = put.item("id", AttributeValue::S(id.to_owned()));
        let put = put.item("configVersion", unknown_word());
        // A time in the future counts as absent.
        let future = AttributeValue::S("2999-01-01T00:00:00Z".to_owned());
        let put = put.item("configUpdated", future);
        put.send().await.unwrap();
    }
    env.app.metrics.drain();
    let answer = env.sync().await;
    assert_eq!(answer["outcome"], "unchanged");
    assert_eq!(answer["unreadable"].as_array().unwrap().len(), 2);
    assert!(!answer.to_string().contains("\\u001b"), "{answer}");
    let tick = tick(&env);
    assert_eq!(
        (&tick["Integrations"], &tick["Failed"]),
        (&json!(3), &json!(2))
    );
    let month = 30 * 86_400;
    assert!(
        tick["SecondsSinceSuccess"].as_i64().unwrap() > month,
        "{tick}"
    );
}
