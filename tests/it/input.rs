//! Invalid input: the error names the field and the accepted values, and nothing is written.

use serde_json::{Value, json};

use crate::environment::{TestEnvironment, chain};

/// Sends a payload and expects an error with these words, unchanged tables and no call to any API.
async fn refused(env: &TestEnvironment, payload: Value, words: &[&str]) {
    let error = env.try_ask(payload.clone()).await.unwrap_err();
    let text = chain(&error);
    for word in words {
        assert!(
            text.contains(word),
            "{payload} was answered {text:?}, without {word:?}"
        );
    }
    for table in ["integrations", "nodes", "audit"] {
        assert!(
            env.items(table).await.is_empty(),
            "{payload} wrote to {table}"
        );
    }
    assert!(
        env.services.state().events.is_empty(),
        "{payload} put an event"
    );
}

fn connect(changes: Value) -> Value {
    let mut integration = json!({
        "id": "corp", "provider": "falcon", "cloudId": "us-1",
        "falconSecret": "corp/falcon", "tailscaleSecret": "corp/tailscale"
    });
    integration
        .as_object_mut()
        .unwrap()
        .extend(changes.as_object().unwrap().clone());
    json!({"command": "connect", "integration": integration})
}

#[tokio::test]
async fn payloads() {
    let env = TestEnvironment::empty().await;
    for payload in [json!([1]), json!("sync"), json!(null), json!({})] {
        refused(&env, payload, &["must be a JSON object", "\"sync\""]).await;
    }
    refused(
        &env,
        json!({"command": "resync"}),
        &["unknown command \"resync\"", "\"connect\""],
    )
    .await;
    refused(
        &env,
        json!({"command": "sync", "integration": "corp"}),
        &["no integration \"corp\""],
    )
    .await;
    refused(
        &env,
        json!({"command": "status", "integration": "corp"}),
        &["no integration \"corp\""],
    )
    .await;
    refused(
        &env,
        json!({"command": "preview", "integration": "corp", "minScore": 70}),
        &["no integration \"corp\""],
    )
    .await;
    refused(
        &env,
        json!({"command": "explain", "integration": "corp", "device": "laptop"}),
        &["no integration \"corp\""],
    )
    .await;
    refused(
        &env,
        json!({"command": "sync", "integration": "../corp"}),
        &["integration", "lower-case letters"],
    )
    .await;
    assert!(
        env.requests().is_empty(),
        "nobody is asked about a bad payload"
    );
}

#[tokio::test]
async fn settings() {
    let env = TestEnvironment::empty().await;
    let long_key = format!("custom:{}", "k".repeat(122));
    for (changes, words) in [
        (json!({"id": "Corp"}), ["integration.id", "lower-case"]),
        (
            json!({"provider": "intune"}),
            ["integration.provider", "expected `falcon`"],
        ),
        (
            json!({"cloudId": "us-9"}),
            ["integration.cloudId", "us-gov-1"],
        ),
        (
            json!({"attributeKey": "custom:zta score"}),
            ["integration.attributeKey", "letters, digits"],
        ),
        (
            json!({"attributeKey": long_key}),
            ["integration.attributeKey", "128 characters"],
        ),
        (
            json!({"attributeKey": "intune:ztaScore"}),
            ["integration.attributeKey", "\"custom:\""],
        ),
        (
            json!({"maxHostAgeDays": -3}),
            ["integration.maxHostAgeDays", "1 to 3650"],
        ),
        (
            json!({"maxRemovals": {"atLeast": -1}}),
            ["integration.maxRemovals.atLeast", "0 to 1000000"],
        ),
        (
            json!({"scoreTtlHours": 0}),
            ["integration.scoreTtlHours", "1 to 8760"],
        ),
        (
            json!({"osScoreKey": "custom:os"}),
            ["integration.osScoreKey", "not implemented yet"],
        ),
        (
            json!({"falconUrl": "https://evil.example"}),
            ["falconUrl", "unknown field"],
        ),
    ] {
        refused(&env, connect(changes), &words).await;
    }
    assert!(
        env.requests().is_empty(),
        "nobody is asked about bad settings"
    );
}

#[tokio::test]
async fn secrets() {
    let env = TestEnvironment::empty().await;
    env.services.put_secret("corp/text", json!("hush-hush"));
    env.services
        .put_secret("corp/lacking", json!({"clientId": "hush-hush"}));
    env.services.put_secret(
        "corp/wrong",
        json!({"clientId": "0".repeat(32), "clientSecret": "hush-hush"}),
    );
    for (secret, words) in [
        (
            "corp/absent",
            ["secret corp/absent", "ResourceNotFoundException"],
        ),
        ("corp/text", ["secret corp/text", "not JSON"]),
        (
            "corp/lacking",
            ["secret corp/lacking", "lacks the field clientSecret"],
        ),
        (
            "corp/wrong",
            [
                "Falcon: token request failed (HTTP 400): the credential was rejected",
                "not connected",
            ],
        ),
    ] {
        let payload = connect(json!({"falconSecret": secret}));
        refused(&env, payload.clone(), &words).await;
        let error = chain(&env.try_ask(payload).await.unwrap_err());
        assert!(!error.contains("hush-hush"), "{error}");
    }
    refused(
        &env,
        connect(json!({"tailscaleSecret": "corp/lacking"})),
        &["lacks the field clientSecret", "apiKey"],
    )
    .await;
}

#[tokio::test]
async fn a_second_integration_of_the_same_name_is_refused() {
    let env = TestEnvironment::empty().await;
    env.ask(connect(json!({}))).await;
    let error = env
        .try_ask(connect(
            json!({"tailnet": "other.example.com", "check": null}),
        ))
        .await;
    assert!(error.is_err());
    let error = env
        .try_ask(connect(json!({"attributeKey": "custom:other"})))
        .await
        .unwrap_err();
    assert!(
        chain(&error).contains("the integration corp already exists"),
        "{}",
        chain(&error)
    );
    assert_eq!(env.items("audit").await.len(), 1);
    assert_eq!(env.corp().await["attributeKey"], "custom:ztaScore");
}
