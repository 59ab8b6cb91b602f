//! Looks, such as `explain` and `preview`, hold their tokens while the process is warm.

use std::collections::BTreeMap;
use std::time::Duration;

use posture_simulators::GeneratorSpec;
use serde_json::json;

use crate::environment::{TestEnvironment, falcon_secret, tailscale_secret};

const FALCON: &str = "POST /oauth2/token";
const TAILSCALE: &str = "POST /api/v2/oauth/token";

/// Looks at a device, or previews a score.
async fn look(env: &TestEnvironment, n: usize) {
    let payload = if n.is_multiple_of(2) {
        json!({"command": "explain", "integration": "corp", "device": "nowhere"})
    } else {
        json!({"command": "preview", "integration": "corp", "minScore": 70})
    };
    let answer = env.ask(payload).await;
    assert!(answer["error"].is_null(), "{answer:#}");
}

/// Returns the token calls to Falcon and Tailscale since the last call.
fn tokens(env: &TestEnvironment) -> (u64, u64) {
    let requests: BTreeMap<String, u64> = env.requests();
    let count = |route| requests.get(route).copied().unwrap_or_default();
    (count(FALCON), count(TAILSCALE))
}

async fn environment() -> TestEnvironment {
    let env = TestEnvironment::connected(&GeneratorSpec::plain(60, 40)).await;
    env.sync().await;
    env.requests();
    env
}

#[tokio::test]
async fn ten_looks_cost_one_token() {
    let env = environment().await;
    for n in 0..10 {
        look(&env, n).await;
    }
    assert_eq!(tokens(&env), (1, 1));
    // Ten minutes are over. Falcon's token lives for 30 minutes, Tailscale's for 60.
    env.app.clock.advance(Duration::from_mins(20));
    look(&env, 0).await;
    assert_eq!(tokens(&env), (1, 0));
    env.app.clock.advance(Duration::from_mins(40));
    look(&env, 0).await;
    assert_eq!(tokens(&env), (1, 1));
}

#[tokio::test]
async fn a_rotated_secret_is_another_token() {
    let env = environment().await;
    look(&env, 0).await;
    tokens(&env);
    env.services
        .put_secret("corp/falcon", falcon_secret("corp"));
    look(&env, 0).await;
    assert_eq!(tokens(&env), (1, 0));
    env.services
        .put_secret("corp/tailscale", tailscale_secret("example.com"));
    look(&env, 1).await;
    assert_eq!(tokens(&env), (0, 1));
    look(&env, 0).await;
    assert_eq!(tokens(&env), (0, 0));
    // A secret that no longer works is told at once, though the former token would still work.
    let wrong = json!({"clientId": "0".repeat(32), "clientSecret": "0".repeat(40)});
    env.services.put_secret("corp/falcon", wrong);
    let payload = json!({"command": "explain", "integration": "corp", "device": "nowhere"});
    let answer = env.ask(payload).await;
    assert!(
        answer["error"]
            .as_str()
            .unwrap()
            .contains("token request failed")
    );
}

#[tokio::test]
async fn a_rejected_token_is_replaced_once() {
    let env = environment().await;
    look(&env, 0).await;
    tokens(&env);
    env.sims.falcon().expire_tokens();
    look(&env, 1).await;
    assert_eq!(tokens(&env), (1, 0));
    look(&env, 0).await;
    assert_eq!(tokens(&env), (0, 0));
    // The credential is gone: the token is dropped, and each look asks once for another one.
    env.sims.falcon().remove_account("corp");
    for _ in 0..2 {
        let payload = json!({"command": "explain", "integration": "corp", "device": "nowhere"});
        let answer = env.ask(payload).await;
        assert!(
            answer["error"].as_str().unwrap().contains("Falcon"),
            "{answer:#}"
        );
        assert_eq!(tokens(&env), (1, 0));
    }
}

/// A sync finds out that a credential was revoked, although a look holds a token.
#[tokio::test]
async fn a_sync_signs_in_itself() {
    let env = environment().await;
    look(&env, 0).await;
    tokens(&env);
    for payload in [
        json!({"command": "sync"}),
        json!({"command": "sync", "integration": "corp", "dryRun": true}),
    ] {
        env.ask(payload).await;
        assert_eq!(tokens(&env), (1, 1));
    }
    look(&env, 0).await;
    assert_eq!(tokens(&env), (0, 0));
}
