//! Valid payloads, and the messages about invalid ones.

mod hostile;

use serde_json::json;

use super::*;

fn refused(payload: &Value, expect: &str) {
    let error = Command::parse(payload.clone())
        .expect_err("is refused")
        .to_string();
    assert!(error.contains(expect), "{payload}: {error}");
}

#[test]
fn payloads_that_are_none_of_ours_are_told_what_is_accepted() {
    for payload in [
        json!(null),
        json!([]),
        json!("sync"),
        json!(17),
        json!({}),
        json!({"x": 1}),
    ] {
        refused(&payload, "\"sync\"|\"connect\"|\"update\"");
    }
    refused(&json!({"command": "sink"}), "unknown command \"sink\"");
    refused(
        &json!({"command": 7}),
        "command: must be the name of a command",
    );
    refused(
        &json!({"detail-type": "Object Created"}),
        "unsupported event \"Object Created\"",
    );
}

#[test]
fn fields_are_named() {
    refused(
        &json!({"command": "sync", "integration": "A B"}),
        "integration: must be 1 to 64",
    );
    refused(
        &json!({"command": "sync", "integration": "corp", "forced": true}),
        "unknown field `forced`",
    );
    refused(
        &json!({"command": "sync", "integration": "corp", "force": "yes"}),
        "force: invalid type",
    );
    refused(
        &json!({"command": "sync", "dryRun": true}),
        "dryRun: is for one integration",
    );
    refused(
        &json!({"command": "connect"}),
        "missing field `integration`",
    );
    refused(
        &json!({"command": "connect", "integration": []}),
        "integration: ",
    );
    refused(
        &json!({"command": "connect", "integration": {"id": "corp"}}),
        "integration: missing field `provider`",
    );
}

#[test]
fn events_of_others_are_refused() {
    let event = |source: &str, detail: Value| json!({"detail-type": "Posture Sync Requested", "source": source, "detail": detail});
    refused(
        &event("somebody", json!({"integration": "corp"})),
        "from somebody",
    );
    refused(
        &event(SOURCE, json!({})),
        "detail: missing field `integration`",
    );
    assert!(matches!(
        Command::parse(event(
            SOURCE,
            json!({"integration": "corp", "reason": "schedule"})
        )),
        Ok(Command::Sync(SyncRequest {
            trigger: Trigger::Automatic,
            force: false,
            ..
        }))
    ));
}

#[test]
fn a_change_is_an_object_of_settings() {
    refused(
        &json!({"command": "update", "integration": "corp"}),
        "missing field `changes`",
    );
    refused(
        &json!({"command": "update", "integration": "corp", "changes": 7}),
        "changes: must be an object",
    );
    refused(
        &json!({"command": "remove", "integration": "corp", "attributes": "burn"}),
        "attributes: unknown variant `burn`, expected `delete` or `keep`",
    );
}

#[test]
fn a_search_is_bounded() {
    let audit = |field: &str, value: Value| {
        let mut payload = json!({"command": "audit", "integration": "corp", "since": "2026-11-22"});
        payload[field] = value;
        payload
    };
    refused(
        &json!({"command": "audit"}),
        "integration: give an integration, or the node id",
    );
    refused(
        &audit("limit", json!(0)),
        "limit: must be an integer from 1 to 1000",
    );
    refused(&audit("limit", json!("5")), "limit: must be an integer");
    refused(&audit("since", json!("yesterday")), "since: must be a time");
    refused(
        &audit("until", json!("2026-11-21")),
        "until: is before since",
    );
    refused(
        &audit("next", json!("2026-11-21T")),
        "next: does not belong",
    );
    refused(&audit("device", json!("")), "device: must be a node id");
    refused(
        &audit("format", json!("csv")),
        "format: unknown variant `csv`",
    );
    let Ok(Command::Audit(query, _)) =
        Command::parse(audit("until", json!("2026-11-22T09:00:00+01:00")))
    else {
        panic!("is understood");
    };
    assert_eq!(query.limit, 100);
    assert_eq!(query.since.unwrap().to_string(), "2026-11-22T00:00:00Z");
    assert_eq!(query.until.unwrap().to_string(), "2026-11-22T08:00:00Z");
}

#[test]
fn a_device_is_asked_about_by_a_text() {
    let explain = |field: &str, value: Value| {
        let mut payload = json!({"command": "explain", "integration": "corp", "device": "laptop"});
        payload[field] = value;
        payload
    };
    for (field, value, expect) in [
        ("device", json!(""), "device: must be a node id"),
        (
            "device",
            json!("x".repeat(256)),
            "device: must be a node id",
        ),
        ("device", json!(7), "device: invalid type"),
        ("format", json!("html"), "format: unknown variant `html`"),
        ("integration", json!(null), "integration: invalid type"),
        ("limit", json!(5), "unknown field `limit`"),
    ] {
        refused(&explain(field, value), expect);
    }
    assert!(matches!(
        Command::parse(explain("format", json!("text"))),
        Ok(Command::Explain(request)) if request.device.0 == "laptop" && request.format == Format::Text
    ));
}

#[test]
fn an_event_about_a_secret_names_it() {
    let event = |detail: Value| json!({"detail-type": "Secret Label Updated", "source": "aws.secretsmanager", "detail": detail});
    refused(&event(json!({})), "detail: the event has no secret");
    assert!(matches!(
        Command::parse(event(json!({"name": "corp/falcon"}))),
        Ok(Command::SecretChanged { names }) if names.len() == 1
    ));
}
