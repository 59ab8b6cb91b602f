//! The ways in which a call can fail.

use std::fmt;

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::call_sites::Server;
use crate::process::relay::{Answered, Delivery};

/// A way in which a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// The server goes down at the request, and refuses connections from then on.
    Refused,
    /// The connection breaks within the body.
    Reset,
    /// No answer.
    Stall,
    Unauthorized,
    Forbidden,
    NotFound,
    /// 429; of AWS a `ThrottlingException`.
    TooMany,
    Failing,
    /// A load balancer's 503 page.
    Html,
    /// A filter's 403 page.
    Blocked,
    /// A login page, with 200.
    LoginPage,
    Truncated,
    WrongJson,
    Empty,
}

impl Kind {
    pub(crate) const ALL: [Self; 14] = [
        Self::Refused,
        Self::Reset,
        Self::Stall,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::TooMany,
        Self::Failing,
        Self::Html,
        Self::Blocked,
        Self::LoginPage,
        Self::Truncated,
        Self::WrongJson,
        Self::Empty,
    ];

    /// True if the fault damages the response of a request that was carried out. Other faults replace the response.
    pub(crate) fn spoils(self) -> bool {
        matches!(
            self,
            Self::Reset | Self::Stall | Self::Truncated | Self::WrongJson | Self::Empty
        )
    }

    /// True if the service says that it did not carry out the request.
    pub(crate) fn denies(self) -> bool {
        matches!(self, Self::NotFound | Self::Forbidden)
    }

    /// Applies the fault to a response.
    pub(crate) fn deliver(self, server: Server, answered: Answered) -> Delivery {
        let body = |body: Bytes| {
            Delivery::Whole(Answered {
                body,
                ..answered.clone()
            })
        };
        match self {
            Self::Refused => Delivery::Down,
            Self::Reset => Delivery::Half(answered),
            Self::Stall => Delivery::Never,
            Self::Truncated => body(answered.body.slice(..answered.body.len() / 2)),
            Self::WrongJson => body(wrong().to_string().into()),
            Self::Empty => body(Bytes::new()),
            Self::Unauthorized => Delivery::Whole(self.error(server, 401)),
            Self::Forbidden => Delivery::Whole(self.error(server, 403)),
            Self::NotFound => Delivery::Whole(self.error(server, 404)),
            Self::TooMany if matches!(server, Server::Falcon | Server::Tailscale) => {
                Delivery::Whole(self.error(server, 429))
            }
            Self::TooMany => Delivery::Whole(self.error(server, 400)),
            Self::Failing => Delivery::Whole(self.error(server, 500)),
            Self::Html => Delivery::Whole(page(503, "503 Service Temporarily Unavailable")),
            Self::Blocked => Delivery::Whole(page(403, "Blocked by policy")),
            Self::LoginPage => Delivery::Whole(page(200, "Log in")),
        }
    }

    /// An error response in the server's own format.
    fn error(self, server: Server, status: u16) -> Answered {
        let (code, aws, falcon, tailscale) = match self {
            Self::Unauthorized => (
                401,
                "UnrecognizedClientException",
                "access denied, invalid bearer token",
                "API token invalid",
            ),
            Self::Forbidden => (
                403,
                "AccessDeniedException",
                "access denied, scope not permitted",
                "calling actor does not have enough permissions to perform this function",
            ),
            Self::NotFound => (
                404,
                "ResourceNotFoundException",
                "404: Page Not Found",
                "not found",
            ),
            Self::TooMany => (
                429,
                "ThrottlingException",
                "API rate limit exceeded.",
                "too many requests",
            ),
            _ => (
                500,
                "InternalServerError",
                "internal error",
                "internal error",
            ),
        };
        let body = match server {
            Server::Falcon => {
                json!({"errors": [{"code": code, "message": falcon}], "resources": null})
            }
            Server::Tailscale => json!({"message": tailscale}),
            Server::DynamoDb | Server::Services => {
                json!({"__type": aws, "message": "as it was told to"})
            }
        };
        let aws = matches!(server, Server::DynamoDb | Server::Services);
        let kind = if aws {
            "application/x-amz-json-1.1"
        } else {
            "application/json"
        };
        answer(status, kind, body.to_string())
    }
}

fn page(status: u16, title: &str) -> Answered {
    let page = format!("<html><body><h1>{title}</h1></body></html>");
    answer(status, "text/html", page)
}

fn answer(status: u16, kind: &'static str, body: String) -> Answered {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    Answered {
        status: StatusCode::from_u16(status).unwrap(),
        headers,
        body: body.into(),
    }
}

/// A document with a text in place of each number, list and object.
fn wrong() -> Value {
    json!({
        "access_token": ["none"],
        "resources": "none",
        "devices": 7,
        "nodeId": 7,
        "attributes": [],
        "Item": "none",
        "Items": "none",
        "Attributes": "none",
        "ConsumedCapacity": "none",
        "SecretString": ["none"],
        "VersionIdsToStages": "none",
        "FailedEntryCount": "none",
        "Entries": "none",
    })
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "refused",
            Self::Reset => "reset in mid-body",
            Self::Stall => "stall",
            Self::Unauthorized => "401",
            Self::Forbidden => "403",
            Self::NotFound => "404",
            Self::TooMany => "429",
            Self::Failing => "500",
            Self::Html => "503 HTML",
            Self::Blocked => "403 HTML",
            Self::LoginPage => "200 HTML",
            Self::Truncated => "truncated JSON",
            Self::WrongJson => "wrong JSON",
            Self::Empty => "empty body",
        })
    }
}
