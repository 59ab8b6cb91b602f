//! Redirects are never followed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::http::StatusCode;
use posture_simulators::{Fault, FaultKind, Matcher, Side};
use serde_json::json;

use crate::aws;
use crate::environment::{TAILNET, TestEnvironment};

/// All calls of a run.
const ROUTES: [(Side, &str, &str); 9] = [
    (Side::Falcon, "POST", "/oauth2/token"),
    (Side::Falcon, "GET", "/devices/combined"),
    (Side::Falcon, "GET", "/zero-trust-assessment/queries"),
    (Side::Falcon, "GET", "/zero-trust-assessment/entities"),
    (Side::Tailscale, "POST", "/api/v2/oauth/token"),
    (Side::Tailscale, "GET", "/api/v2/tailnet/-/devices"),
    (Side::Tailscale, "GET", "/api/v2/device/"),
    (
        Side::Tailscale,
        "PATCH",
        "/api/v2/tailnet/-/device-attributes",
    ),
    (Side::Tailscale, "POST", "/api/v2/device/"),
];

const STATUSES: [u16; 6] = [300, 301, 302, 303, 307, 308];

/// Returns an environment whose next run looks up a host, a score and a device, and has a write to make.
async fn stirred() -> TestEnvironment {
    let env = TestEnvironment::synced().await;
    let nodes = env.items("nodes").await;
    let text = |n: usize, name: &str| nodes[n][name].as_str().unwrap().to_owned();
    let (falcon, tailscale) = (env.sims.falcon(), env.sims.tailscale());
    falcon.remove_host("corp", &text(0, "aid")).unwrap();
    falcon.remove_score("corp", &text(1, "aid")).unwrap();
    tailscale
        .remove_device(TAILNET, &text(2, "nodeId"))
        .unwrap();
    env.lower_a_score().await;
    env
}

#[tokio::test]
async fn no_redirect_of_any_call_is_followed() {
    let visits = Arc::new(AtomicUsize::new(0));
    let visited = Arc::clone(&visits);
    let elsewhere = aws::serve(Router::new().fallback(move || {
        visited.fetch_add(1, Ordering::SeqCst);
        async { StatusCode::OK }
    }))
    .await;
    let env = stirred().await;
    env.update(json!({"maxRemovals": {"percent": 50, "atLeast": 5}}))
        .await;
    let before = env.scores();
    let moving = env.items("nodes").await[3]["aid"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut score = 0;
    let mut departing = env.items("nodes").await.split_off(10).into_iter();
    for (side, method, path) in ROUTES {
        // Attributes are written one by one if there is no batch call.
        let singly = method == "POST" && side == Side::Tailscale && path.ends_with("device/");
        env.sims.faults().clear();
        if singly {
            let batch = Matcher::side(side).method("PATCH");
            env.sims.faults().add(Fault::status(batch, 405).always());
        }
        for status in STATUSES {
            let requests = Matcher::side(side).method(method).path(path);
            let kind = FaultKind::Status {
                code: status,
                headers: BTreeMap::from([(
                    "Location".to_owned(),
                    format!("{}{path}", elsewhere.url()),
                )]),
                body: None,
            };
            env.sims.faults().add(Fault::new(requests, kind));
            // A run that fails at another lookup has already written the score.
            score += 1;
            env.sims.falcon().set_score("corp", &moving, score).unwrap();
            if side == Side::Tailscale && path.ends_with("device/") {
                // The other lookups of a run go on, so an earlier run has found that the last one has left.
                let node = departing.next().unwrap();
                let node = node["nodeId"].as_str().unwrap();
                env.sims.tailscale().remove_device(TAILNET, node).unwrap();
            }
            let answer = env.force().await;
            let ends = ["failed", "paused"].map(serde_json::Value::from);
            assert!(
                ends.contains(&answer["outcome"]),
                "{method} {path} {status}: {answer:#}"
            );
            assert_eq!(visits.load(Ordering::SeqCst), 0, "{method} {path} {status}");
        }
    }
    // Removed: the devices that left, and removals confirmed by runs whose lookups were not redirected.
    let left = before.len() - 10 - departing.len();
    let gone = before.len() - env.scores().len() - left;
    assert!((1..=3).contains(&gone), "{gone}");
    env.sims.faults().clear();
    env.outlive_writes().await;
    env.force().await;
    assert_eq!(env.scores(), env.expected());
    env.assert_sound().await;
}

#[tokio::test]
async fn a_known_cloud_is_followed_by_the_token_call_alone() {
    let env = stirred().await;
    for path in [
        "/devices/combined",
        "/zero-trust-assessment/queries",
        "/zero-trust-assessment/entities",
    ] {
        for location in [
            format!("{}/oauth2/token", env.sims.falcon_url("us-2")),
            env.sims.falcon_url("us-2") + path,
        ] {
            let kind = FaultKind::Status {
                code: 308,
                headers: BTreeMap::from([("Location".to_owned(), location)]),
                body: None,
            };
            let requests = Matcher::side(Side::Falcon).path(path);
            env.sims.faults().add(Fault::new(requests, kind));
            env.sims.requests().clear();
            assert_eq!(env.force().await["outcome"], "failed", "{path}");
            let asked = env.sims.requests().of(Side::Falcon);
            assert!(
                asked
                    .iter()
                    .all(|request| request.region.as_deref() == Some("us-1")),
                "{asked:#?}"
            );
        }
    }
}
