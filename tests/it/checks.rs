//! `check`: the problems that keep an integration from working, each with its service and its remedy.

use posture_simulators::{Account, Fault, GeneratorSpec, Matcher, Side, Tailnet};
use serde_json::{Value, json};

use crate::environment::{KEY, TAILNET, TestEnvironment, chain, corp};

fn check() -> Value {
    json!({"command": "check", "integration": "corp"})
}

/// The result and the message of one check.
fn found<'a>(answer: &'a Value, check: &str) -> (&'a str, String) {
    let checks = answer["checks"].as_array().unwrap();
    let check = checks.iter().find(|c| c["check"] == check).unwrap();
    let words = format!("{} | {}", check["found"], check["remedy"]);
    (check["result"].as_str().unwrap(), words)
}

async fn expect(env: &TestEnvironment, check_name: &str, result: &str, words: &[&str]) {
    let answer = env.ask(check()).await;
    let (got, text) = found(&answer, check_name);
    assert_eq!(got, result, "{answer:#}");
    for word in words {
        assert!(text.contains(word), "{text}");
    }
    assert_eq!(answer["ok"], result != "failed", "{answer:#}");
}

async fn environment() -> TestEnvironment {
    TestEnvironment::connected(&GeneratorSpec::plain(12, 8)).await
}

#[tokio::test]
async fn a_good_integration_passes_and_nothing_is_written() {
    let env = environment().await;
    env.requests();
    let before = (env.corp().await, env.items("audit").await);
    let events = env.services.state().events.len();
    let answer = env.ask(check()).await;
    assert_eq!(answer["ok"], true, "{answer:#}");
    let checks = answer["checks"].as_array().unwrap();
    assert!(
        checks.iter().all(|check| check["result"] == "passed"),
        "{answer:#}"
    );
    insta::assert_json_snapshot!(
        checks
            .iter()
            .map(|c| json!({"check": c["check"], "side": c["side"], "found": c["found"]}))
            .collect::<Vec<_>>()
    );
    assert_eq!((env.corp().await, env.items("audit").await), before);
    assert_eq!(env.services.state().events.len(), events);
    let requests = env.requests();
    assert!(
        requests
            .keys()
            .all(|r| r.starts_with("GET ") || r.ends_with("/token")),
        "{requests:?}"
    );
    assert_eq!(requests["GET /devices/combined/devices/v1"], 1);
    assert_eq!(
        requests["GET /zero-trust-assessment/queries/assessments/v1"],
        1
    );
}

#[tokio::test]
async fn connect_tells_what_it_found_and_refuses_what_cannot_work() {
    let env = TestEnvironment::empty().await;
    env.load(&GeneratorSpec::plain(12, 8));
    env.sims
        .tailscale()
        .configure(TAILNET, |tailnet| {
            tailnet.oauth_clients[0].scopes = ["devices:core:read".to_owned()].into();
        })
        .unwrap();
    let payload =
        json!({"command": "connect", "integration": corp(json!({"falconSecret": "corp/absent"}))});
    let error = chain(&env.try_ask(payload).await.unwrap_err());
    for words in [
        "the integration corp is not connected: 2 of 12 checks failed: ",
        "Secrets Manager: cannot read the secret corp/absent (ResourceNotFoundException): create it with `make secret`",
        "the credential cannot write posture attributes: add the scope devices:posture_attributes",
    ] {
        assert!(error.contains(words), "{error}");
    }
    assert!(env.items("integrations").await.is_empty());
    assert!(env.items("audit").await.is_empty());
    assert!(env.services.state().events.is_empty());

    env.sims.tailscale().put_tailnet(Tailnet::new(TAILNET));
    let answer = env.connect(json!({})).await;
    assert_eq!(answer["checks"].as_array().unwrap().len(), 12);
}

#[tokio::test]
async fn falcons_side_is_told_apart() {
    let env = environment().await;
    let account = |scopes: &[&str]| {
        let account = Account::new("corp").scopes(scopes.iter().copied());
        env.sims.falcon().put_account(account);
        env.load(&GeneratorSpec::plain(12, 8));
    };
    account(&["hosts:read"]);
    expect(
        &env,
        "assessmentsScope",
        "failed",
        &["add the scope Zero Trust Assessment: Read"],
    )
    .await;
    account(&["zta:read"]);
    expect(&env, "hostsScope", "failed", &["add the scope Hosts: Read"]).await;
    account(&["hosts:read", "zta:read"]);
    env.update(json!({"cloudId": "us-2"})).await;
    expect(
        &env,
        "falconToken",
        "warning",
        &["the account is in us-1, not in us-2", "set cloudId to us-1"],
    )
    .await;
    let wrong = json!({"clientId": "0".repeat(32), "clientSecret": "wrong"});
    env.services.put_secret("corp/falcon", wrong);
    expect(
        &env,
        "falconToken",
        "failed",
        &["the credential was rejected", "check clientId"],
    )
    .await;
    let answer = env.ask(check()).await;
    assert_eq!(found(&answer, "hostsScope").0, "skipped");
    assert_eq!(
        found(&answer, "attribute").0,
        "passed",
        "the other side is still tried"
    );
    env.services.put_secret("corp/falcon", json!("no JSON"));
    expect(
        &env,
        "falconSecret",
        "failed",
        &["it is not JSON", "clientSecret"],
    )
    .await;
}

#[tokio::test]
async fn tailscales_side_is_told_apart() {
    let env = environment().await;
    let configure = |change: &dyn Fn(&mut Tailnet)| {
        env.sims.tailscale().put_tailnet(Tailnet::new(TAILNET));
        env.load(&GeneratorSpec::plain(12, 8));
        env.sims
            .tailscale()
            .configure(TAILNET, |tailnet| change(tailnet))
            .unwrap();
    };
    let scopes = |scopes: &[&str]| {
        let scopes: Vec<String> = scopes.iter().map(|&scope| scope.to_owned()).collect();
        move |tailnet: &mut Tailnet| {
            tailnet.oauth_clients[0].scopes = scopes.iter().cloned().collect();
        }
    };
    configure(&scopes(&["devices:posture_attributes"]));
    expect(
        &env,
        "deviceListing",
        "failed",
        &["add the scope devices:core:read"],
    )
    .await;
    configure(&scopes(&[
        "devices:core:read",
        "devices:posture_attributes:read",
    ]));
    expect(
        &env,
        "attribute",
        "failed",
        &["add the scope devices:posture_attributes"],
    )
    .await;
    configure(&scopes(&[
        "devices:core:read",
        "devices:posture_attributes",
    ]));
    expect(
        &env,
        "nativeIntegration",
        "skipped",
        &["optional", "feature_settings:read"],
    )
    .await;
    expect(
        &env,
        "identityCollection",
        "passed",
        &["8 of 8 devices report"],
    )
    .await;
    configure(&|tailnet| tailnet.identity_collection = false);
    expect(
        &env,
        "identityCollection",
        "warning",
        &[
            "is off in the tailnet; 0 of 8",
            "switch on Device Identity Collection",
        ],
    )
    .await;
    configure(&|tailnet| {
        tailnet.integrations = vec![json!({"id": "p1", "provider": "falcon", "cloudId": "us-1"})];
    });
    expect(
        &env,
        "nativeIntegration",
        "warning",
        &["writes falcon:ztaScore"],
    )
    .await;
    configure(&|tailnet| tailnet.oauth_clients.clear());
    expect(
        &env,
        "tailscaleToken",
        "failed",
        &["check that the OAuth client still exists"],
    )
    .await;
}

#[tokio::test]
async fn an_api_key_is_tried_by_its_first_read() {
    let env = environment().await;
    let key = Tailnet::new(TAILNET).api_keys.pop_first().unwrap();
    env.services
        .put_secret("corp/tailscale", json!({"apiKey": key}));
    expect(
        &env,
        "attribute",
        "passed",
        &["Tailscale does not tell beforehand whether it can write"],
    )
    .await;
    env.services
        .put_secret("corp/tailscale", json!({"apiKey": "tskey-api-ended"}));
    expect(
        &env,
        "tailscaleToken",
        "failed",
        &["API keys expire after at most 90 days"],
    )
    .await;
}

#[tokio::test]
async fn an_attribute_that_does_not_fit_is_found() {
    for (key, value, words) in [
        (KEY, json!("high"), "with a type other than integer"),
        ("custom:ZTASCORE", json!(7), "which is the same key as"),
    ] {
        let env = environment().await;
        let node = env.sims.tailscale().devices(TAILNET).unwrap()[2]
            .node_id
            .clone();
        env.sims
            .tailscale()
            .set_attribute(TAILNET, &node, key, value)
            .unwrap();
        expect(
            &env,
            "attribute",
            "failed",
            &[words, "choose another attributeKey"],
        )
        .await;
    }
}

/// An attribute under the key that nobody recorded lets its device pass, so it is told before and after connecting.
#[tokio::test]
async fn an_attribute_that_nobody_recorded_is_told() {
    let env = environment().await;
    let devices = env.sims.tailscale().devices(TAILNET).unwrap();
    let (node, name) = (&devices[1].node_id, &devices[1].name);
    env.sims
        .tailscale()
        .set_attribute(TAILNET, node, KEY, 100)
        .unwrap();
    let words = ["1 of them by somebody else", &format!("{name} 100")];
    expect(&env, "attribute", "warning", &words).await;
    env.sync().await;
    expect(&env, "attribute", "passed", &["5 have it"]).await;
}

#[tokio::test]
async fn an_outage_is_no_verdict_on_the_credentials() {
    let env = environment().await;
    let listing = Matcher::side(Side::Falcon).path("/devices/combined");
    env.sims.faults().add(Fault::status(listing, 503).always());
    expect(
        &env,
        "hostsScope",
        "failed",
        &["Falcon: host listing failed", "wait for the next run"],
    )
    .await;
}

#[tokio::test]
async fn settings_that_were_spoilt_by_hand_are_told() {
    let env = environment().await;
    let none = aws_sdk_dynamodb::types::AttributeValue::S("us-9".to_owned());
    env.edit("cloudId", none).await;
    let answer = env.ask(check()).await;
    assert_eq!(answer["ok"], false);
    let (result, words) = found(&answer, "settings");
    assert_eq!(result, "failed");
    assert!(
        words.contains("us-9") && words.contains("`update`"),
        "{words}"
    );
}
