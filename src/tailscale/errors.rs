//! Classifies Tailscale's error responses.

use serde::Deserialize;
use tracing::warn;

use crate::text::redact;
use crate::upstream::client::Response;
use crate::upstream::error::UpstreamError;
use crate::upstream::operation::Operation;

/// How much of an upstream message is kept.
const MESSAGE_CHARS: usize = 200;

const CREDENTIAL: &str = "check that the OAuth client still exists and that the secret holds its clientId and clientSecret";
const TOKEN: &str = "store a new credential: this one was revoked or has ended (API keys end after 90 days at most)";
const PLAN: &str = "see whether the tailnet's plan has custom posture attributes (Premium or Enterprise); Tailscale's own words \
     are in the log";
const REDIRECT: &str = "check TAILSCALE_API_URL: redirects are not followed with a credential";
const TAILNET: &str =
    "correct `tailnet`, or use a credential that belongs to it; `-` is the credential's own";

/// Classifies an unsuccessful response to an API call.
pub(super) fn classify(operation: Operation, reply: &Response) -> UpstreamError {
    let status = reply.status.as_u16();
    match status {
        300..=399 => redirected(operation, status),
        401 => operation.refused(status, TOKEN),
        403 => forbidden(operation, reply),
        429 => operation.rate_limited(reply.wait_until()),
        // "Not implemented" stays so.
        501 => operation.rejected(status, message(reply).unwrap_or_default()),
        408 | 500.. => operation.failing(status),
        _ => operation.rejected(status, message(reply).unwrap_or_default()),
    }
}

/// Classifies an unsuccessful response to the token call. Its message is dropped, because it may echo the credential.
pub(super) fn classify_token(operation: Operation, reply: &Response) -> UpstreamError {
    let status = reply.status.as_u16();
    match status {
        400 | 401 | 403 => operation.refused(status, CREDENTIAL),
        300..=399 => redirected(operation, status),
        429 => operation.rate_limited(reply.wait_until()),
        408 | 500.. => operation.failing(status),
        _ => operation.rejected(status, String::new()),
    }
}

/// A missing scope is answered with "calling actor does not have enough permissions to perform this function".
fn forbidden(operation: Operation, reply: &Response) -> UpstreamError {
    match message(reply) {
        Some(text) if !text.contains("permission") && !text.contains("scope") => {
            warn!(operation = operation.name, text, "Tailscale forbids a call");
            let problem = "the tailnet does not allow it, whatever the credential's scopes";
            operation.misconfigured(Some(403), problem, PLAN)
        }
        _ => operation.missing_scope(),
    }
}

fn redirected(operation: Operation, status: u16) -> UpstreamError {
    operation.misconfigured(Some(status), "it answers with a redirect", REDIRECT)
}

/// The tailnet's own path is not found: that is no matter of the device asked for.
pub(super) fn no_tailnet(operation: Operation, error: UpstreamError) -> UpstreamError {
    match error {
        UpstreamError::Rejected { status: 404, .. } => {
            let problem = "this credential sees no such tailnet";
            operation.misconfigured(Some(404), problem, TAILNET)
        }
        error => error,
    }
}

/// Whether a 404 speaks of the thing asked for. A path that no server knows is answered by a proxy or a router, without
/// the API's own form.
pub(super) fn is_not_found(reply: &Response) -> bool {
    reply.status == 404 && message(reply).is_some()
}

/// The API's own form of an error: `{"message": "…"}`.
fn message(reply: &Response) -> Option<String> {
    #[derive(Deserialize)]
    struct Wire {
        message: String,
    }
    let Wire { message } = serde_json::from_slice(&reply.body).ok()?;
    Some(redact(&message, MESSAGE_CHARS))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use reqwest::StatusCode;
    use reqwest::header::HeaderMap;

    use super::*;
    use crate::domain::status::error_kind::{ErrorKind, Service};

    const PROBE: Operation = Operation {
        side: Service::Tailscale,
        name: "a probe",
        scope: "devices:core:read",
    };

    fn reply(status: u16, body: &str) -> Response {
        Response {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            received: Timestamp::UNIX_EPOCH,
            body: body.into(),
        }
    }

    #[test]
    fn each_status_has_its_class() {
        let scope = r#"{"message":"calling actor does not have enough permissions to perform this function"}"#;
        for (status, body, kind) in [
            (302, "", ErrorKind::Configuration),
            (400, r#"{"message":"bad"}"#, ErrorKind::Protocol),
            (
                401,
                r#"{"message":"API token invalid"}"#,
                ErrorKind::Authentication,
            ),
            (403, scope, ErrorKind::MissingScope),
            (403, "", ErrorKind::MissingScope),
            (
                403,
                r#"{"message":"not on this plan"}"#,
                ErrorKind::Configuration,
            ),
            (404, "", ErrorKind::Protocol),
            (429, "", ErrorKind::RateLimited),
            (500, "", ErrorKind::Unavailable),
            (501, "", ErrorKind::Protocol),
            (504, "<html>", ErrorKind::Unavailable),
        ] {
            let error = classify(PROBE, &reply(status, body));
            assert_eq!(error.kind(), kind, "{status}");
        }
    }

    #[test]
    fn the_token_calls_words_are_not_repeated() {
        for status in [400, 401, 403, 404, 422, 429, 500] {
            let reply = reply(status, r#"{"message":"tskey-client-s3cret"}"#);
            let error = classify_token(PROBE, &reply);
            assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
        }
    }
}
