//! Tailscale's native Falcon integration in the same tailnet is reported, and changes nothing.

use std::time::Duration;

use posture_simulators::{Fault, FaultKind, GeneratorSpec, Matcher, Side, Tailnet};
use serde_json::{Value, json};

use crate::environment::{TAILNET, TestEnvironment};

#[tokio::test]
async fn a_native_integration_beside_ours_is_found_and_asked_for_once_an_hour() {
    const ROUTE: &str = "GET /api/v2/tailnet/-/posture/integrations";
    let env = TestEnvironment::synced().await;
    let native = |there: bool| {
        let change = |tailnet: &mut Tailnet| {
            let falcon = json!({"id": "p1", "provider": "falcon", "cloudId": "us-1"});
            tailnet.integrations = there.then_some(falcon).into_iter().collect();
        };
        env.sims.tailscale().configure(TAILNET, change).unwrap();
    };
    let found = |answer: &Value| {
        let kinds = answer["findings"].as_array().unwrap();
        kinds
            .iter()
            .any(|found| found["kind"] == "nativeIntegration")
    };
    native(true);
    env.requests();
    assert!(!found(&env.sync().await), "known for an hour");
    assert_eq!(env.requests().get(ROUTE), None);
    env.app.clock.advance(Duration::from_hours(1));
    let answer = env.sync().await;
    assert!(found(&answer), "{answer:#}");
    assert_eq!(env.requests()[ROUTE], 1);
    assert!(found(&env.sync().await), "remembered");
    assert_eq!(env.requests().get(ROUTE), None);
    native(false);
    env.app.clock.advance(Duration::from_hours(1));
    assert!(!found(&env.sync().await));
}

#[tokio::test]
async fn what_is_only_good_to_know_neither_fails_nor_holds_up_a_run() {
    for kind in [FaultKind::Stall { ms: None }, FaultKind::Reset] {
        let env = TestEnvironment::connected(&GeneratorSpec::plain(30, 20)).await;
        let asking = Matcher::side(Side::Tailscale).path("/api/v2/tailnet/-/posture");
        env.sims.faults().add(Fault::new(asking, kind).always());
        let answer = env.sync().await;
        assert_eq!(answer["outcome"], "synced", "{answer:#}");
        assert_eq!(env.corp().await["status"]["nativeIntegration"], Value::Null);
        env.assert_sound().await;
    }
    // A credential that may not see it is not tried.
    let env = TestEnvironment::connected(&GeneratorSpec::plain(30, 20)).await;
    let less = |tailnet: &mut Tailnet| {
        tailnet.oauth_clients[0]
            .scopes
            .remove("feature_settings:read");
    };
    env.sims.tailscale().configure(TAILNET, less).unwrap();
    env.requests();
    assert_eq!(env.sync().await["outcome"], "synced");
    assert!(
        env.requests()
            .keys()
            .all(|route| !route.contains("/posture/"))
    );
}
