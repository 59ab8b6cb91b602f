//! Classifies Tailscale's error responses.

use serde::Deserialize;
use tracing::warn;

use crate::text::redact;
use crate::upstream::client::Response;
use crate::upstream::error::{Operation, UpstreamError};

const MAX_MESSAGE_CHARS: usize = 200;

const CREDENTIAL: &str = "check that the OAuth client still exists and that the secret holds its clientId and clientSecret";
const TOKEN: &str = "store a new credential: this one is revoked or expired (API keys expire after at most 90 days)";
const PLAN: &str = "check whether the tailnet's plan has custom posture attributes (Premium or Enterprise); the \
                    log has Tailscale's message";
const REDIRECT: &str = "check TAILSCALE_API_URL: redirects are not followed with a credential";
const TAILNET: &str =
    "correct `tailnet`, or use a credential that belongs to it; `-` is the credential's own";

/// Classifies an unsuccessful response to an API call.
pub(super) fn classify(operation: Operation, response: &Response) -> UpstreamError {
    let status = response.status.as_u16();
    match status {
        300..=399 => redirected(operation, status),
        401 => operation.unauthorized(status, TOKEN),
        403 => forbidden(operation, response),
        429 => operation.rate_limited(response.retry_after()),
        // A retry does not help if the call is not implemented.
        501 => operation.rejected(status, error_message(response).unwrap_or_default()),
        408 | 500.. => operation.server_error(status),
        _ => operation.rejected(status, error_message(response).unwrap_or_default()),
    }
}

/// Classifies an unsuccessful response to the token call. Its message is dropped, because it may echo the credential.
pub(super) fn classify_token(operation: Operation, response: &Response) -> UpstreamError {
    let status = response.status.as_u16();
    match status {
        400 | 401 | 403 => operation.unauthorized(status, CREDENTIAL),
        300..=399 => redirected(operation, status),
        429 => operation.rate_limited(response.retry_after()),
        408 | 500.. => operation.server_error(status),
        _ => operation.rejected(status, String::new()),
    }
}

/// Classifies a 403. The message for a missing scope is "calling actor does not have enough permissions to perform this function".
fn forbidden(operation: Operation, response: &Response) -> UpstreamError {
    match error_message(response) {
        Some(text) if !text.contains("permission") && !text.contains("scope") => {
            warn!(operation = operation.name, text, "Tailscale rejects a call");
            let problem = "the tailnet does not allow it, whatever the credential's scopes";
            operation.misconfigured(Some(403), problem, PLAN)
        }
        _ => operation.missing_scope(),
    }
}

fn redirected(operation: Operation, status: u16) -> UpstreamError {
    operation.misconfigured(Some(status), "it responded with a redirect", REDIRECT)
}

/// Turns a 404 of the tailnet's own path into an error of the settings.
pub(super) fn no_tailnet(operation: Operation, error: UpstreamError) -> UpstreamError {
    if error.is_rejected_with(404) {
        let problem = "the credential has no access to such a tailnet";
        operation.misconfigured(Some(404), problem, TAILNET)
    } else {
        error
    }
}

/// Returns whether a 404 is about the requested item. The 404 of a proxy or router for an unknown path does not have the
/// form of the API.
pub(super) fn is_not_found(response: &Response) -> bool {
    response.status == 404 && error_message(response).is_some()
}

/// Returns the message of an error in the form of the API: `{"message": "…"}`.
fn error_message(response: &Response) -> Option<String> {
    #[derive(Deserialize)]
    struct Wire {
        message: String,
    }
    let Wire { message } = serde_json::from_slice(&response.body).ok()?;
    Some(redact(&message, MAX_MESSAGE_CHARS))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use reqwest::StatusCode;
    use reqwest::header::HeaderMap;

    use super::*;
    use crate::domain::status::error_kind::{ErrorKind, Service};

    const PROBE: Operation = Operation::new(Service::Tailscale, "a probe", "devices:core:read");

    fn response(status: u16, body: &str) -> Response {
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
            let error = classify(PROBE, &response(status, body));
            assert_eq!(error.error_kind(), kind, "{status}");
        }
    }

    #[test]
    fn messages_of_the_token_call_are_dropped() {
        for status in [400, 401, 403, 404, 422, 429, 500] {
            let response = response(status, r#"{"message":"tskey-client-s3cret"}"#);
            let error = classify_token(PROBE, &response);
            assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
        }
    }
}
