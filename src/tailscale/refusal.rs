//! What Tailscale's statuses and texts mean.

use jiff::fmt::rfc2822;
use jiff::{SignedDuration, Timestamp};
use reqwest::header::RETRY_AFTER;
use serde::Deserialize;
use tracing::warn;

use crate::error::{UpstreamError, said};
use crate::http::Reply;
use crate::retry::Operation;

/// How much of an upstream message is kept.
const MESSAGE_CHARS: usize = 200;

const CREDENTIAL: &str = "check that the OAuth client still exists and that the secret holds its clientId and clientSecret";
const TOKEN: &str = "the credential was revoked or has ended (API keys end after 90 days at most)";
const FORBIDDEN: &str = "the tailnet does not allow this call, whatever the credential's scopes (custom posture attributes \
     need a Premium or Enterprise plan); Tailscale's own words are in the log";

/// What an unsuccessful answer to an API call means.
pub(super) fn classify(operation: Operation, reply: &Reply, now: Timestamp) -> UpstreamError {
    let status = reply.status.as_u16();
    match status {
        300..=399 => operation.rejected(status, "redirects are not followed".to_owned()),
        401 => operation.refused(status, TOKEN),
        403 => forbidden(operation, reply),
        429 => operation.rate_limited(retry_after(reply, now)),
        // "Not implemented" stays so.
        501 => operation.rejected(status, message(reply).unwrap_or_default()),
        408 | 500.. => operation.failing(status),
        _ => operation.rejected(status, message(reply).unwrap_or_default()),
    }
}

/// What an unsuccessful answer to the token call means. Its text is not taken along: it might echo the credential.
pub(super) fn classify_token(operation: Operation, reply: &Reply, now: Timestamp) -> UpstreamError {
    let status = reply.status.as_u16();
    match status {
        400 | 401 | 403 => operation.refused(status, CREDENTIAL),
        300..=399 => operation.rejected(status, "redirects are not followed".to_owned()),
        429 => operation.rate_limited(retry_after(reply, now)),
        408 | 500.. => operation.failing(status),
        _ => operation.rejected(status, String::new()),
    }
}

/// A missing scope is answered with "calling actor does not have enough permissions to perform this function".
fn forbidden(operation: Operation, reply: &Reply) -> UpstreamError {
    match message(reply) {
        Some(text) if !text.contains("permission") && !text.contains("scope") => {
            warn!(operation = operation.name, text, "Tailscale forbids a call");
            operation.refused(403, FORBIDDEN)
        }
        _ => operation.missing_scope(),
    }
}

/// Whether a 404 speaks of the thing asked for. A path that no server knows is answered by a proxy or a router, without
/// the API's own form.
pub(super) fn is_not_found(reply: &Reply) -> bool {
    reply.status == 404 && message(reply).is_some()
}

/// The API's own form of an error: `{"message": "…"}`.
fn message(reply: &Reply) -> Option<String> {
    #[derive(Deserialize)]
    struct Wire {
        message: String,
    }
    let Wire { message } = serde_json::from_slice(&reply.body).ok()?;
    Some(said(&message, MESSAGE_CHARS))
}

/// Whether Tailscale sends the header is not documented; if so it holds seconds or a date, as the standard says.
fn retry_after(reply: &Reply, now: Timestamp) -> Option<Timestamp> {
    let value = reply.header(RETRY_AFTER.as_str())?.trim();
    match value.parse::<u32>() {
        Ok(seconds) => now
            .checked_add(SignedDuration::from_secs(seconds.into()))
            .ok(),
        Err(_) => rfc2822::parse(value).ok().map(|date| date.timestamp()),
    }
}

#[cfg(test)]
mod tests {
    use reqwest::StatusCode;
    use reqwest::header::{HeaderMap, HeaderValue};

    use super::*;
    use crate::error::{ErrorKind, Side};

    const PROBE: Operation = Operation {
        side: Side::Tailscale,
        name: "a probe",
        scope: "devices:core:read",
    };

    fn reply(status: u16, body: &str) -> Reply {
        Reply {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: body.into(),
        }
    }

    #[test]
    fn each_status_has_its_class() {
        let scope = r#"{"message":"calling actor does not have enough permissions to perform this function"}"#;
        for (status, body, kind) in [
            (302, "", ErrorKind::RefusedWrite),
            (400, r#"{"message":"bad"}"#, ErrorKind::RefusedWrite),
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
                ErrorKind::Authentication,
            ),
            (404, "", ErrorKind::RefusedWrite),
            (429, "", ErrorKind::RateLimited),
            (500, "", ErrorKind::Unavailable),
            (501, "", ErrorKind::RefusedWrite),
            (504, "<html>", ErrorKind::Unavailable),
        ] {
            let error = classify(PROBE, &reply(status, body), Timestamp::UNIX_EPOCH);
            assert_eq!(error.kind(), kind, "{status}");
        }
    }

    #[test]
    fn the_token_calls_words_are_not_repeated() {
        for status in [400, 401, 403, 404, 422, 429, 500] {
            let reply = reply(status, r#"{"message":"tskey-client-s3cret"}"#);
            let error = classify_token(PROBE, &reply, Timestamp::UNIX_EPOCH);
            assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
        }
    }

    #[test]
    fn a_wait_is_told_in_seconds_or_as_a_date() {
        let until = |value: &'static str| {
            let mut reply = reply(429, "");
            reply
                .headers
                .insert(RETRY_AFTER, HeaderValue::from_static(value));
            retry_after(&reply, Timestamp::from_second(1000).unwrap()).map(Timestamp::as_second)
        };
        assert_eq!(until("30"), Some(1030));
        assert_eq!(until("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(until("soon"), None);
        assert_eq!(until("-1"), None);
    }
}
