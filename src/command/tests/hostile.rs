//! Hostile payloads.

use proptest::prelude::*;

use super::*;
use crate::testing::hostile::{MARK, assert_message, bytes, cases};

/// One payload of each kind.
fn documents() -> Vec<Value> {
    let integration = json!({
        "id": "corp", "provider": "falcon", "cloudId": "us-2", "falconSecret": "x/corp/falcon", "tailnet": "-",
        "tailscaleSecret": "x/corp/tailscale", "attributeKey": "custom:ztaScore", "enabled": true,
        "onMissing": "delete", "maxHostAgeDays": 30, "maxRemovals": {"percent": 20, "atLeast": 10},
    });
    let arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:corp/falcon-a1b2c3";
    vec![
        json!({"command": "sync", "integration": "corp", "force": true, "dryRun": false, "allowMassRemoval": 1000}),
        json!({"command": "sync"}),
        json!({"command": "connect", "integration": integration, "actor": MARK, "check": false}),
        json!({"command": "update", "integration": "corp", "changes": integration, "actor": MARK, "configVersion": 7}),
        json!({"command": "remove", "integration": "corp", "attributes": "keep", "actor": MARK}),
        json!({"command": "check", "integration": "corp"}),
        json!({"command": "status", "integration": "corp", "format": "text"}),
        json!({"command": "preview", "integration": "corp", "minScore": 70}),
        json!({"command": "preview", "integration": "corp", "policy": true}),
        json!({"command": "explain", "integration": "corp", "device": "nA", "format": "text"}),
        json!({"command": "audit", "integration": "corp", "device": "nA", "since": "2026-01-01", "limit": 7, "next": "2026"}),
        json!({"detail-type": "Posture Sync Requested", "source": SOURCE, "detail": {"integration": "corp"}}),
        json!({"detail-type": "Secret Label Updated", "source": "aws.secretsmanager", "resources": [arn],
               "detail": {"name": "corp/falcon"}}),
        json!({"detail-type": "AWS API Call via CloudTrail", "source": "aws.secretsmanager",
               "detail": {"requestParameters": {"secretId": arn}, "responseElements": {"arn": arn}}}),
    ]
}

fn assert_understood(command: &Command) {
    let assert_actor = |actor: &Option<String>| {
        let actor = actor.as_deref().unwrap_or_default();
        assert!(
            actor.chars().count() <= 201 && !actor.contains(char::is_control),
            "{actor:?}"
        );
    };
    match command {
        Command::Connect(request) => {
            assert_actor(&request.actor);
            let settings = &request.integration;
            assert!(settings.max_removals.percent <= 100);
            assert!(
                settings
                    .max_host_age_days
                    .is_none_or(|days| (1..=3650).contains(&days))
            );
            assert_eq!(
                Settings::parse(settings.to_map().into(), "x").as_ref(),
                Ok(&**settings)
            );
        }
        Command::Update(request) => assert_actor(&request.actor),
        Command::Remove(request) => assert_actor(&request.actor),
        Command::SecretChanged { names } => {
            assert!((1..=12).contains(&names.len()));
            assert!(
                names
                    .iter()
                    .all(|name| (1..=512).contains(&name.as_str().len()))
            );
        }
        Command::Audit(query, _) => {
            assert!((1..=1000).contains(&query.limit));
            assert!(
                query
                    .device
                    .as_ref()
                    .is_none_or(|device| (1..=255).contains(&device.len()))
            );
        }
        Command::Explain(request) => assert!((1..=255).contains(&request.device.0.len())),
        Command::SyncAll
        | Command::Sync(_)
        | Command::Check(_)
        | Command::Status(_)
        | Command::Preview(_)
        | Command::Widget(_) => {}
    }
}

proptest! {
    #![proptest_config(cases(3_000))]

    #[test]
    fn a_payload_is_understood_or_refused_in_a_line(payload in bytes(documents())) {
        let Ok(payload) = serde_json::from_slice::<Value>(&payload) else {
            return Ok(());
        };
        match Command::parse(payload) {
            Ok(command) => assert_understood(&command),
            Err(error) => assert_message(&error.to_string()),
        }
    }

    /// Merges changes of a payload into an item that somebody edited by hand.
    #[test]
    fn settings_are_changed_or_refused_in_a_line(stored in bytes(documents()), changes in bytes(documents())) {
        let object = |bytes: &[u8]| match serde_json::from_slice(bytes) {
            Ok(Value::Object(fields)) => Some(fields.get("changes").and_then(Value::as_object).cloned().unwrap_or(fields)),
            _ => None,
        };
        let (Some(stored), Some(changes)) = (object(&stored), object(&changes)) else {
            return Ok(());
        };
        match Settings::with_changes(&stored, &changes) {
            Ok(settings) => {
                settings.changed_fields(&stored);
            }
            Err(error) => assert_message(&error.to_string()),
        }
    }
}

#[test]
fn what_is_sent_in_the_wrong_place_is_not_repeated_at_length_and_a_secret_not_at_all() {
    let secret = "aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bD1fG3hJ5kM7n";
    let long = "x\u{1b}\n".repeat(1_000_000);
    for text in [secret, &long] {
        for payload in [
            json!({"command": text}),
            json!({"command": "sync", "force": text}),
            json!({"command": "sync", "integration": "corp", text: 1}),
            json!({"command": "sync", "integration": text}),
            json!({"command": "connect", "integration": {text: 1}}),
            json!({"command": "connect", "integration": {"id": "corp", "enabled": text}}),
            json!({"command": "connect", "integration": {"id": "corp", "maxRemovals": {text: 1}}}),
            json!({"command": "connect", "integration": {"id": "corp", "provider": text}}),
            json!({"command": "audit", "integration": "corp", "since": text}),
            json!({"detail-type": text}),
            json!({"detail-type": "Posture Sync Requested", "source": text, "detail": {"integration": "corp"}}),
        ] {
            let error = Command::parse(payload.clone()).unwrap_err().to_string();
            assert_message(&error);
            assert!(!error.contains(secret), "{error}");
        }
        let changes = json!({text: 1});
        let error = Settings::with_changes(&serde_json::Map::new(), changes.as_object().unwrap())
            .unwrap_err();
        assert_message(&error.to_string());
        assert!(!error.to_string().contains(secret), "{error}");
    }
}
