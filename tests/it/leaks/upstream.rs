//! Secrets must not leak when Falcon or Tailscale fails.

use posture_simulators::tailscale::BatchEndpoint;
use posture_simulators::{Fault, FaultKind, Matcher, Side};
use serde_json::Value;

use super::canaries::Evidence;
use super::echo::{Route, Shape};
use super::instance::{Instance, LONG, Level, SHORT, Stirred, force};
use crate::environment::TAILNET;

const fn route(method: &'static str, path: &'static str) -> Route {
    Route {
        method,
        path,
        after: 0,
    }
}

const FALCON_TOKEN: Route = route("POST", "/oauth2/token");
const HOSTS: Route = route("GET", "/devices/combined");
const HOST_LOOK_UP: Route = Route { after: 1, ..HOSTS };
const SCORES: Route = route("GET", "/zero-trust-assessment/queries");
const SCORE_LOOK_UP: Route = route("GET", "/zero-trust-assessment/entities");
const TAILSCALE_TOKEN: Route = route("POST", "/api/v2/oauth/token");
const DEVICES: Route = route("GET", "/api/v2/tailnet/-/devices");
const DEVICE_LOOK_UP: Route = route("GET", "/api/v2/device/");
const BATCH: Route = route("PATCH", "/api/v2/tailnet/-/device-attributes");
const SINGLE_SET: Route = route("POST", "/api/v2/device/");
const SINGLE_DELETE: Route = route("DELETE", "/api/v2/device/");

/// Every request of a run.
const ROUTES: [Route; 11] = [
    FALCON_TOKEN,
    HOSTS,
    HOST_LOOK_UP,
    SCORES,
    SCORE_LOOK_UP,
    TAILSCALE_TOKEN,
    DEVICES,
    DEVICE_LOOK_UP,
    BATCH,
    SINGLE_SET,
    SINGLE_DELETE,
];

fn shapes() -> Vec<Shape> {
    let errors = [400, 401, 403, 404, 422, 429, 500, 501];
    let mut shapes: Vec<Shape> = errors.map(|status| Shape::Error(status, "")).into();
    shapes.extend([403, 404, 503].map(Shape::Text));
    shapes.extend([302, 308].map(Shape::Redirect));
    shapes.extend([
        Shape::WrongJson,
        Shape::BrokenJson,
        Shape::UnfitToken,
        Shape::PartialSuccess,
    ]);
    shapes
}

/// True if the function must report this response as a failure.
fn fails(route: Route, shape: Shape) -> bool {
    let writes = [BATCH, SINGLE_SET, SINGLE_DELETE].contains(&route);
    match shape {
        // The body of the response to a write is not read.
        Shape::WrongJson | Shape::BrokenJson | Shape::UnfitToken | Shape::PartialSuccess => !writes,
        // Not found is an answer here, not a failure.
        Shape::Error(404, _) => route != DEVICE_LOOK_UP && route != SINGLE_DELETE,
        // The batch call is missing, which has a fallback.
        Shape::Error(501, _) | Shape::Text(404) => route != BATCH,
        _ => true,
    }
}

/// True if the run failed for all devices or for one.
fn is_bad(said: &Result<Value, Value>) -> bool {
    let bad = ["failed", "paused"].map(Value::from);
    said.as_ref().map_or(true, |answer| {
        let mut findings = answer["findings"].as_array().into_iter().flatten();
        let left_out = findings.any(|finding| finding["kind"] == "unreadableDevices");
        bad.contains(&answer["outcome"]) || answer["failed"] != 0 || left_out
    })
}

/// Makes the next run send this request.
async fn prepare(instance: &mut Instance, route: Route) -> Option<Stirred> {
    if [FALCON_TOKEN, HOSTS, SCORES, TAILSCALE_TOKEN, DEVICES].contains(&route) {
        return None;
    }
    instance.calm().await;
    singly(instance, [SINGLE_SET, SINGLE_DELETE].contains(&route));
    Some(instance.stir().await)
}

/// Each echoing response to each request of a run. Runs the cases of one share.
pub(super) async fn echoed(level: Level, share: usize, of: usize) -> Evidence {
    let mut instance = Instance::start(level, true).await;
    let all = ROUTES
        .into_iter()
        .flat_map(|route| shapes().into_iter().map(move |shape| (route, shape)));
    for (route, shape) in all.skip(share).step_by(of) {
        let stirred = prepare(&mut instance, route).await;
        // A slow machine may need more time to reach the request.
        for time in [SHORT, LONG] {
            instance.env.outlive_writes().await;
            instance.echo.arm(route, shape);
            let said = instance.ask_within(time, force()).await;
            if instance.echo.disarm() > 0 {
                assert!(
                    is_bad(&said) || !fails(route, shape),
                    "{route:?} {shape:?}: {said:#?}"
                );
                break;
            }
            assert!(time != LONG, "{route:?} was never asked for: {said:#?}");
        }
        instance.note_status().await;
        if let Some(stirred) = stirred {
            instance.restore(stirred);
            singly(&instance, false);
        }
    }
    instance.end().await
}

/// Removes or restores the batch call of the tailnet.
fn singly(instance: &Instance, without_batch: bool) {
    instance
        .env
        .sims
        .tailscale()
        .configure(TAILNET, |tailnet| {
            tailnet.switches.batch = if without_batch {
                BatchEndpoint::NotFound
            } else {
                BatchEndpoint::Present
            };
        })
        .unwrap();
}

fn kinds() -> [FaultKind; 8] {
    [
        FaultKind::Reset,
        FaultKind::ResetMidBody,
        FaultKind::Stall { ms: None },
        FaultKind::TruncatedJson,
        FaultKind::WrongJson { body: None },
        FaultKind::EmptyBody,
        FaultKind::Html,
        FaultKind::SlowBody { ms: 50 },
    ]
}

/// Each fault at each request of a run. Runs the cases of one share.
pub(super) async fn broken(level: Level, share: usize, of: usize) -> Evidence {
    let mut instance = Instance::start(level, false).await;
    let all = ROUTES
        .into_iter()
        .flat_map(|route| kinds().into_iter().map(move |kind| (route, kind)));
    for (route, kind) in all.skip(share).step_by(of) {
        let stirred = prepare(&mut instance, route).await;
        for time in [SHORT, LONG] {
            instance.env.outlive_writes().await;
            let requests = Matcher::side(side(route))
                .method(route.method)
                .path(route.path);
            let fault = Fault::new(requests, kind.clone()).always();
            let after = u64::try_from(route.after).unwrap();
            instance.env.sims.faults().add(fault.after(after));
            instance.env.sims.requests().clear();
            let said = instance.ask_within(time, force()).await;
            instance.env.sims.faults().clear();
            let entries = instance.env.sims.requests().entries();
            if entries.iter().any(|entry| entry.fault.is_some()) {
                let passes = matches!(kind, FaultKind::SlowBody { .. });
                assert!(
                    passes || is_bad(&said) || answer_is_not_read(route, &kind),
                    "{route:?} {kind:?}: {said:#?}"
                );
                break;
            }
            assert!(time != LONG, "{route:?} was never asked for: {said:#?}");
        }
        instance.note_status().await;
        if let Some(stirred) = stirred {
            instance.restore(stirred);
            singly(&instance, false);
        }
    }
    instance.end().await
}

fn side(route: Route) -> Side {
    if route.path.starts_with("/api/v2") {
        Side::Tailscale
    } else {
        Side::Falcon
    }
}

fn answer_is_not_read(route: Route, kind: &FaultKind) -> bool {
    let writes = [BATCH, SINGLE_SET, SINGLE_DELETE].contains(&route);
    writes
        && !matches!(
            kind,
            FaultKind::Reset | FaultKind::Stall { .. } | FaultKind::ResetMidBody | FaultKind::Html
        )
}
