//! The control interface: JSON over HTTP, for the demo and for end-to-end tests.
//!
//! | request | body |
//! | --- | --- |
//! | `GET /` | the URLs of both sides |
//! | `POST /generate` | `{"spec":{"seed":1,"hosts":500,"devices":100},"account":{"name":"corp"},"tailnet":{"name":"example.com"}}` |
//! | `PUT`, `DELETE /falcon/accounts/{name}` | `{"client_id"?,"client_secret"?,"cid"?,"region"?,"scopes"?,…}` |
//! | `GET /falcon/accounts/{name}/hosts`, `…/scores` | |
//! | `PUT`, `DELETE /falcon/accounts/{name}/hosts/{aid}` | `{"serial_number","hostname","first_seen"?,"last_seen","status"?,"platform_name",…}` |
//! | `POST /falcon/accounts/{name}/heartbeat` | `{"time"?,"except"?:["<aid>"]}`: the hosts were seen at this time, or now |
//! | `POST /falcon/accounts/{name}/hosts/{aid}/hide` | |
//! | `PUT`, `DELETE /falcon/accounts/{name}/scores/{aid}` | any JSON value |
//! | `GET`, `PUT /falcon/settings` | any fields of [`Settings`]; omitted fields stay |
//! | `POST /falcon/expire-tokens`, `/falcon/expire-cursors`, `/tailscale/expire-tokens` | |
//! | `PUT`, `DELETE /tailscale/tailnets/{name}` | `{"oauth_clients"?,"api_keys"?,"switches"?,…}` |
//! | `GET /tailscale/tailnets/{name}/devices`, `…/attributes`, `…/writes` | |
//! | `GET`, `DELETE /tailscale/tailnets/{name}/changes` | |
//! | `PUT`, `DELETE /tailscale/tailnets/{name}/devices/{nodeId}` | a device, by its JSON names: `{"hostname","os","connectedToControl","lastSeen"?,"multipleConnections"?,…}` |
//! | `PUT`, `DELETE /tailscale/tailnets/{name}/devices/{nodeId}/attributes/{key}` | any JSON value |
//! | `GET`, `DELETE /requests` | |
//! | `PUT /latency` | `{"falcon_ms"?,"tailscale_ms"?}` |
//! | `PUT /listening` | `{"falcon"?:false,"tailscale"?:true}` |
//! | `GET`, `POST`, `DELETE /faults` | `{"side":"falcon","path_prefix":"/devices","kind":{"status":{"code":503}}}` |
//! | `POST`, `DELETE /late-requests` | |
//! | `POST /scripts` | `{"after":{"side":"falcon","path_prefix":"/zero-trust-assessment/queries","count":1},"do":[{"setScore":{"account","aid","score"}}]}` |
//! | `POST /clock` | `{"advance_s":120}` |
//! | `POST /reset` | |
//!
//! Responses are JSON; an error is `{"error": …}` with 400 or 404. A field that a `PUT` of an account
//! or a tailnet omits keeps its value; in a new one it starts as in `Account::new` and `Tailnet::new`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::NotFound;
use crate::falcon::{Account, Host, Settings};
use crate::faults::Fault;
use crate::generate::{GeneratorSpec, generate};
use crate::hooks::Script;
use crate::matching::Side;
use crate::simulators::Core;
use crate::tailscale::{Device, Tailnet};

/// Larger than any data set sent in one request.
const MAX_BODY_BYTES: usize = 256 << 20;

type Answer = Result<Value, Problem>;

struct Problem {
    status: StatusCode,
    text: String,
}

impl From<NotFound> for Problem {
    fn from(missing: NotFound) -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            text: missing.to_string(),
        }
    }
}

impl From<serde_json::Error> for Problem {
    fn from(error: serde_json::Error) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            text: error.to_string(),
        }
    }
}

pub(crate) fn router(core: Arc<Core>) -> Router {
    Router::new().fallback(move |request: Request| {
        let core = Arc::clone(&core);
        async move { respond(&core, request).await }
    })
}

async fn respond(core: &Core, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let answer = match axum::body::to_bytes(body, MAX_BODY_BYTES).await {
        Ok(body) => route(core, parts.method.as_str(), parts.uri.path(), &body).await,
        Err(error) => Err(Problem {
            status: StatusCode::BAD_REQUEST,
            text: error.to_string(),
        }),
    };
    let (status, value) = match answer {
        Ok(value) => (StatusCode::OK, value),
        Err(problem) => (problem.status, json!({"error": problem.text})),
    };
    let mut response = Response::new(Body::from(format!("{value}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(
        "content-type",
        axum::http::HeaderValue::from_static("application/json"),
    );
    response
}

async fn route(core: &Core, method: &str, path: &str, body: &Bytes) -> Answer {
    let segments: Vec<String> = path
        .trim_matches('/')
        .split('/')
        .map(|segment| percent_decode_str(segment).decode_utf8_lossy().into_owned())
        .collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    match segments.as_slice() {
        ["falcon", rest @ ..] => falcon(core, method, rest, body),
        ["tailscale", rest @ ..] => tailscale(core, method, rest, body),
        ["listening"] if method == "PUT" => listening(core, body).await,
        rest => both(core, method, rest, body),
    }
}

/// Body of `PUT /listening`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listening {
    falcon: Option<bool>,
    tailscale: Option<bool>,
}

async fn listening(core: &Core, body: &[u8]) -> Answer {
    let Listening { falcon, tailscale } = serde_json::from_slice(body)?;
    for (side, listen) in [(Side::Falcon, falcon), (Side::Tailscale, tailscale)] {
        match listen {
            Some(true) => {
                let accepted = core.accept_connections(side).await;
                accepted.map_err(|error| Problem {
                    status: StatusCode::CONFLICT,
                    text: error.to_string(),
                })?;
            }
            Some(false) => core.refuse_connections(side).await,
            None => {}
        }
    }
    done()
}

/// Body of `POST /generate`. Account and tailnet are created or changed as by their `PUT`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Generate {
    #[serde(default)]
    spec: GeneratorSpec,
    #[serde(default)]
    account: Option<Value>,
    #[serde(default)]
    tailnet: Option<Value>,
}

/// Body of `PUT /latency`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Latency {
    falcon_ms: Option<u64>,
    tailscale_ms: Option<u64>,
}

/// Body of `POST /falcon/accounts/{name}/heartbeat`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Heartbeat {
    #[serde(default)]
    time: Option<Timestamp>,
    #[serde(default)]
    except: BTreeSet<String>,
}

/// Body of `POST /clock`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Advance {
    advance_s: u64,
}

fn both(core: &Core, method: &str, segments: &[&str], body: &[u8]) -> Answer {
    let handler = &core.handler;
    match (method, segments) {
        ("GET", [""]) => to_value(core.urls()),
        ("POST", ["generate"]) => generate_both(core, serde_json::from_slice(body)?),
        ("GET", ["requests"]) => Ok(json!({
            "requests": to_value(handler.log.entries())?,
            "routes": to_value(handler.log.routes())?,
            "peak": {"falcon": handler.log.peak(Side::Falcon), "tailscale": handler.log.peak(Side::Tailscale)},
        })),
        ("DELETE", ["requests"]) => did(|| handler.log.clear()),
        ("PUT", ["latency"]) => {
            let Latency {
                falcon_ms,
                tailscale_ms,
            } = serde_json::from_slice(body)?;
            for (side, ms) in [(Side::Falcon, falcon_ms), (Side::Tailscale, tailscale_ms)] {
                if let Some(ms) = ms {
                    core.set_latency(side, Duration::from_millis(ms));
                }
            }
            done()
        }
        ("GET", ["faults"]) => to_value(handler.state.faults.pending()),
        ("POST", ["faults"]) => {
            let fault: Fault = serde_json::from_slice(body)?;
            did(|| handler.state.faults.add(fault))
        }
        ("DELETE", ["faults"]) => did(|| handler.state.faults.clear()),
        ("POST", ["late-requests"]) => did(|| handler.state.late.release()),
        ("DELETE", ["late-requests"]) => did(|| handler.state.late.clear()),
        ("POST", ["scripts"]) => {
            let script: Script = serde_json::from_slice(body)?;
            did(|| handler.hooks.add(script))
        }
        ("POST", ["clock"]) => {
            let Advance { advance_s } = serde_json::from_slice(body)?;
            did(|| handler.state.clock.advance(Duration::from_secs(advance_s)))
        }
        ("POST", ["reset"]) => did(|| core.reset()),
        _ => no_route(),
    }
}

fn generate_both(core: &Core, order: Generate) -> Answer {
    let generated = generate(&order.spec);
    let state = &core.handler.state;
    let mut answer = json!({"hosts": generated.hosts.len(), "scores": generated.scores.len(), "devices": generated.devices.len()});
    if let Some(account) = order.account {
        let account = put_account(core, name_of(&account)?, account)?;
        state.falcon.load(&account.name, &generated)?;
        answer["account"] = to_value(account)?;
    }
    if let Some(tailnet) = order.tailnet {
        let tailnet = put_tailnet(core, name_of(&tailnet)?, tailnet)?;
        state.tailscale.load(&tailnet.name, &generated)?;
        answer["tailnet"] = to_value(tailnet)?;
    }
    Ok(answer)
}

fn name_of(value: &Value) -> Result<String, Problem> {
    let name = value.get("name").and_then(Value::as_str).map(str::to_owned);
    name.ok_or_else(|| Problem {
        status: StatusCode::BAD_REQUEST,
        text: "name is required".to_owned(),
    })
}

fn put_account(core: &Core, name: String, changes: Value) -> Result<Account, Problem> {
    let falcon = &core.handler.state.falcon;
    let present = falcon
        .accounts()
        .remove(&name)
        .unwrap_or_else(|| Account::new(&name));
    let account = Account {
        name,
        ..overlay(&present, changes)?
    };
    falcon.put_account(account.clone());
    Ok(account)
}

fn put_tailnet(core: &Core, name: String, changes: Value) -> Result<Tailnet, Problem> {
    let tailscale = &core.handler.state.tailscale;
    let present = tailscale
        .tailnets()
        .remove(&name)
        .unwrap_or_else(|| Tailnet::new(&name));
    let tailnet = Tailnet {
        name,
        ..overlay(&present, changes)?
    };
    tailscale.put_tailnet(tailnet.clone());
    Ok(tailnet)
}

fn falcon(core: &Core, method: &str, segments: &[&str], body: &[u8]) -> Answer {
    let falcon = &core.handler.state.falcon;
    match (method, segments) {
        ("PUT", ["accounts", name]) => to_value(put_account(
            core,
            (*name).to_owned(),
            value_or_empty(body)?,
        )?),
        ("DELETE", ["accounts", name]) => did(|| falcon.remove_account(name)),
        ("GET", ["accounts", name, "hosts"]) => to_value(falcon.hosts(name)?),
        ("GET", ["accounts", name, "scores"]) => to_value(falcon.scores(name)?),
        ("POST", ["accounts", name, "heartbeat"]) => {
            let Heartbeat { time, except } = serde_json::from_value(value_or_empty(body)?)?;
            let time = time.unwrap_or_else(|| core.handler.state.clock.now());
            did_or(falcon.heartbeat(name, time, &except))
        }
        ("PUT", ["accounts", name, "hosts", aid]) => {
            let host: Host = with_id(body, "device_id", aid)?;
            did_or(falcon.put_host(name, host))
        }
        ("DELETE", ["accounts", name, "hosts", aid]) => {
            Ok(json!({"removed": falcon.remove_host(name, aid)?.is_some()}))
        }
        ("POST", ["accounts", name, "hosts", aid, "hide"]) => {
            Ok(json!({"hidden": falcon.hide_host(name, aid)?}))
        }
        ("PUT", ["accounts", name, "scores", aid]) => {
            let score: Value = serde_json::from_slice(body)?;
            did_or(falcon.set_score(name, aid, score))
        }
        ("DELETE", ["accounts", name, "scores", aid]) => {
            Ok(json!({"removed": falcon.remove_score(name, aid)?}))
        }
        ("GET", ["settings"]) => to_value(falcon.settings()),
        ("PUT", ["settings"]) => {
            let changed: Settings = overlay(&falcon.settings(), value_or_empty(body)?)?;
            falcon.configure(|settings| settings.clone_from(&changed));
            to_value(changed)
        }
        ("POST", ["expire-tokens"]) => did(|| falcon.expire_tokens()),
        ("POST", ["expire-cursors"]) => did(|| falcon.expire_cursors()),
        _ => no_route(),
    }
}

fn tailscale(core: &Core, method: &str, segments: &[&str], body: &[u8]) -> Answer {
    let tailscale = &core.handler.state.tailscale;
    match (method, segments) {
        ("PUT", ["tailnets", name]) => to_value(put_tailnet(
            core,
            (*name).to_owned(),
            value_or_empty(body)?,
        )?),
        ("DELETE", ["tailnets", name]) => did(|| tailscale.remove_tailnet(name)),
        ("GET", ["tailnets", name, "devices"]) => to_value(tailscale.devices(name)?),
        ("GET", ["tailnets", name, "attributes"]) => to_value(tailscale.attributes(name)?),
        ("GET", ["tailnets", name, "writes"]) => to_value(tailscale.writes(name)?),
        ("GET", ["tailnets", name, "changes"]) => to_value(tailscale.changes(name)?),
        ("DELETE", ["tailnets", name, "changes"]) => did_or(tailscale.clear_changes(name)),
        ("PUT", ["tailnets", name, "devices", node]) => {
            // omitted fields are as in a new device
            let blank = Device::new(node, node, Vec::<String>::new());
            let device: Device = overlay(&blank, with_id(body, "nodeId", node)?)?;
            did_or(tailscale.put_device(name, device))
        }
        ("DELETE", ["tailnets", name, "devices", node]) => {
            Ok(json!({"removed": tailscale.remove_device(name, node)?.is_some()}))
        }
        ("PUT", ["tailnets", name, "devices", node, "attributes", key]) => {
            let value: Value = serde_json::from_slice(body)?;
            did_or(tailscale.set_attribute(name, node, key, value))
        }
        ("DELETE", ["tailnets", name, "devices", node, "attributes", key]) => {
            did_or(tailscale.set_attribute(name, node, key, Value::Null))
        }
        ("POST", ["expire-tokens"]) => did(|| tailscale.expire_tokens()),
        _ => no_route(),
    }
}

/// Returns a value with some of its fields replaced. The type's own rules reject unknown fields.
fn overlay<T: Serialize + DeserializeOwned>(present: &T, changes: Value) -> Result<T, Problem> {
    let mut merged = to_value(present)?;
    match (merged.as_object_mut(), changes) {
        (Some(fields), Value::Object(changes)) => fields.extend(changes),
        _ => {
            return Err(Problem {
                status: StatusCode::BAD_REQUEST,
                text: "expected an object".to_owned(),
            });
        }
    }
    Ok(serde_json::from_value(merged)?)
}

/// Decodes a body whose id is the one of the path.
fn with_id<T: DeserializeOwned>(body: &[u8], field: &str, id: &str) -> Result<T, Problem> {
    let mut value = value_or_empty(body)?;
    if let Some(fields) = value.as_object_mut() {
        fields.insert(field.to_owned(), json!(id));
    }
    Ok(serde_json::from_value(value)?)
}

fn value_or_empty(body: &[u8]) -> Result<Value, Problem> {
    if body.is_empty() {
        Ok(json!({}))
    } else {
        Ok(serde_json::from_slice(body)?)
    }
}

fn to_value(value: impl Serialize) -> Answer {
    Ok(serde_json::to_value(value)?)
}

fn did(action: impl FnOnce()) -> Answer {
    action();
    done()
}

fn did_or(outcome: Result<(), NotFound>) -> Answer {
    outcome?;
    done()
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "stands where answers that can fail stand"
)]
fn done() -> Answer {
    Ok(json!({"ok": true}))
}

fn no_route() -> Answer {
    Err(Problem {
        status: StatusCode::NOT_FOUND,
        text: "no such control route".to_owned(),
    })
}
