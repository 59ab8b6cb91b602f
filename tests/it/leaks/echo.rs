//! A server that repeats the request in its response: secrets, tokens, headers.

use std::sync::Mutex;

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use serde_json::{Value, json};

use crate::process::relay::{Answered, Asked, Watch};

/// The form of the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// An error in the form of either API, or of AWS, with this status and, for AWS, this code.
    Error(u16, &'static str),
    /// Text, with this status.
    Text(u16),
    /// A redirect to another host.
    Redirect(u16),
    /// A success whose JSON is not what was asked for.
    WrongJson,
    /// A success whose JSON ends early.
    BrokenJson,
    /// An invalid token.
    UnfitToken,
    /// Falcon's success that reports errors.
    PartialSuccess,
}

/// Selects the requests to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// An AWS operation, or a method.
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    /// The number of requests that pass first.
    pub(super) after: usize,
}

/// Passes requests on until it is armed.
#[derive(Default)]
pub(super) struct Echo(Mutex<Option<Armed>>);

struct Armed {
    route: Route,
    shape: Shape,
    seen: usize,
    met: usize,
}

impl Echo {
    pub(super) fn arm(&self, route: Route, shape: Shape) {
        *self.0.lock().unwrap() = Some(Armed {
            route,
            shape,
            seen: 0,
            met: 0,
        });
    }

    /// Returns the number of requests that it answered.
    pub(super) fn disarm(&self) -> usize {
        self.0.lock().unwrap().take().map_or(0, |armed| armed.met)
    }
}

impl Watch for Echo {
    fn before(&self, asked: &mut Asked) -> Option<Answered> {
        let mut armed = self.0.lock().unwrap();
        let armed = armed.as_mut()?;
        if !armed.route.is(asked) {
            return None;
        }
        armed.seen += 1;
        if armed.seen <= armed.route.after {
            return None;
        }
        armed.met += 1;
        Some(armed.shape.answer(asked))
    }

    fn after(&self, _: &Asked, _: &Answered) {}
}

impl Route {
    fn is(self, asked: &Asked) -> bool {
        match asked.aws_operation() {
            Some(operation) => operation == self.method,
            None => asked.method == self.method && asked.path.starts_with(self.path),
        }
    }
}

/// The secret first, since truncated texts keep their start; then the rest of the request.
fn echo(asked: &Asked) -> String {
    let body = String::from_utf8_lossy(&asked.body);
    let secret = asked
        .header("authorization")
        .strip_prefix("Bearer ")
        .or_else(|| body.split_once("client_secret=").map(|(_, rest)| rest))
        .unwrap_or(asked.header("x-amz-security-token"));
    format!("{secret} {:?} {body}", asked.headers)
}

impl Shape {
    fn answer(self, asked: &Asked) -> Answered {
        let echo = echo(asked);
        let (status, body) = match self {
            Self::Error(status, code) => (status, error(status, code, &echo).to_string()),
            Self::Text(status) => (status, echo.clone()),
            Self::Redirect(status) => (status, String::new()),
            Self::WrongJson => (200, wrong(&echo).to_string()),
            Self::BrokenJson => (200, format!("{{\"access_token\":7,\"{echo}")),
            Self::UnfitToken => {
                let token = json!({"access_token": format!("{echo}\n"), "expires_in": 3600});
                (200, token.to_string())
            }
            Self::PartialSuccess => (200, error(500, "", &echo).to_string()),
        };
        Answered {
            status: StatusCode::from_u16(status).unwrap(),
            headers: headers(self, &echo),
            body: Bytes::from(body),
        }
    }
}

fn error(status: u16, code: &str, text: &str) -> Value {
    json!({
        "message": text,
        "errors": [{"code": status, "message": text}],
        "meta": {"trace_id": text, "powered_by": text},
        "resources": null,
        "__type": code,
    })
}

/// A document with a text in place of each number and list.
fn wrong(text: &str) -> Value {
    json!({
        "access_token": {"token": text},
        "expires_in": text,
        "meta": {"pagination": {"total": text, "after": text}},
        "resources": text,
        "devices": text,
        "nodeId": [text],
        "postureIdentity": text,
        "Item": text,
        "Items": text,
        "Attributes": text,
        "SecretString": [text],
        "VersionIdsToStages": text,
        "FailedEntryCount": text,
    })
}

fn headers(shape: Shape, echo: &str) -> HeaderMap {
    let word: String = echo.chars().take_while(char::is_ascii_graphic).collect();
    let mut headers = HeaderMap::new();
    let mut put = |name: &'static str, value: &str| {
        headers.insert(HeaderName::from_static(name), value.parse().unwrap());
    };
    put("content-type", "application/json");
    for name in [
        "retry-after",
        "www-authenticate",
        "x-amzn-requestid",
        "x-cs-region",
        "x-cs-traceid",
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-retryafter",
    ] {
        put(name, &word);
    }
    if let Shape::Redirect(_) = shape {
        put(
            "location",
            &format!("http://127.0.0.1:9/oauth2/token?{word}"),
        );
    }
    headers
}
