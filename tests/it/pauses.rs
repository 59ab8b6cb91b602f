//! Rejected credentials: the pause, and the ways in which it ends.

mod days;
mod not_auth_errors;

use std::time::Duration;

use posture_simulators::{Account, GeneratorSpec, Tailnet};
use serde_json::{Value, json};

use crate::environment::{TAILNET, TestEnvironment, falcon_secret};

#[tokio::test]
async fn a_refused_credential_pauses_until_its_secret_changes() {
    let env = TestEnvironment::synced().await;
    env.services.put_secret(
        "corp/falcon",
        json!({"clientId": "0".repeat(32), "clientSecret": "hush-hush"}),
    );
    let answer = env.sync().await;
    assert_eq!(answer["outcome"], "paused", "{answer:#}");
    let corp = env.corp().await;
    assert_eq!(corp["pause"]["side"], "falcon");
    assert_eq!(corp["pause"]["secretVersion"], "version-2");
    assert_eq!(corp["pause"]["attempts"], 1);
    assert_eq!(corp["status"]["errorKind"], "authentication");
    assert!(!corp.to_string().contains("hush-hush"));
    assert_eq!(env.scores().len(), 40, "a pause deletes nothing");
    env.requests();

    for _ in 0..3 {
        let tick = env.sync().await;
        assert_eq!(tick["outcome"], "paused");
        assert!(
            tick["error"].as_str().unwrap().starts_with("paused until"),
            "{tick}"
        );
    }
    let dry = env
        .ask(json!({"command": "sync", "integration": "corp", "dryRun": true}))
        .await;
    assert_eq!(dry["outcome"], "paused");
    assert!(env.requests().is_empty(), "nobody is asked");
    let shown = env
        .ask(json!({"command": "status", "integration": "corp"}))
        .await;
    assert_eq!(shown["nextSync"], shown["pause"]["until"]);

    env.app.clock.advance(Duration::from_hours(1));
    assert_eq!(env.sync().await["outcome"], "paused");
    assert_eq!(
        env.requests()["POST /oauth2/token"],
        1,
        "one try after the hour"
    );
    assert_eq!(env.corp().await["pause"]["attempts"], 2);

    env.services
        .put_secret("corp/falcon", falcon_secret("corp"));
    assert_eq!(env.sync().await["outcome"], "unchanged");
    assert_eq!(env.corp().await["pause"], Value::Null);
    env.assert_sound().await;
}

#[tokio::test]
async fn force_and_changed_settings_end_a_pause_at_once() {
    let env = TestEnvironment::synced().await;
    let good = Tailnet::new(TAILNET);
    env.sims
        .tailscale()
        .configure(TAILNET, |tailnet| tailnet.oauth_clients.clear())
        .unwrap();
    assert_eq!(env.sync().await["outcome"], "paused");
    assert_eq!(env.corp().await["pause"]["side"], "tailscale");
    env.sims
        .tailscale()
        .configure(TAILNET, |tailnet| {
            tailnet.oauth_clients = good.oauth_clients;
        })
        .unwrap();
    assert_eq!(env.sync().await["outcome"], "paused");
    assert_eq!(env.force().await["outcome"], "unchanged");
    assert_eq!(env.sync().await["outcome"], "unchanged");
}

#[tokio::test]
async fn a_secret_that_is_gone_pauses_and_its_return_ends_the_pause() {
    let env = TestEnvironment::empty().await;
    env.load(&GeneratorSpec::plain(5, 5));
    env.ask(
        json!({"command": "connect", "check": false, "integration": {
            "id": "corp", "provider": "falcon", "cloudId": "us-1",
            "falconSecret": "corp/later", "tailscaleSecret": "corp/tailscale"
        }}),
    )
    .await;
    let answer = env.sync().await;
    assert_eq!(answer["outcome"], "paused", "{answer:#}");
    assert_eq!(env.corp().await["pause"]["side"], "secrets");
    assert_eq!(env.sync().await["outcome"], "paused");
    env.services.put_secret("corp/later", falcon_secret("corp"));
    assert_eq!(env.sync().await["outcome"], "synced");
}

#[tokio::test]
async fn a_missing_scope_is_named() {
    let env = TestEnvironment::empty().await;
    env.load(&GeneratorSpec::plain(5, 5));
    env.sims
        .falcon()
        .put_account(Account::new("corp").scopes(["hosts:read"]));
    env.load(&GeneratorSpec::plain(5, 5));
    env.connect_unchecked(json!({})).await;
    let answer = env.sync().await;
    assert_eq!(answer["outcome"], "paused", "{answer:#}");
    let error = answer["error"].as_str().unwrap();
    assert!(error.contains("Zero Trust Assessment"), "{error}");
    assert_eq!(env.corp().await["status"]["errorKind"], "missingScope");
}
