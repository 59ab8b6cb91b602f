//! Classifies Tailscale's error responses.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::text::redact;
use crate::upstream::client::Response;
use crate::upstream::error::{Operation, UpstreamError};

const MAX_MESSAGE_CHARS: usize = 200;

const CREDENTIAL: &str = "check that the OAuth client still exists and that the secret holds its clientId and clientSecret";
const TOKEN: &str = "store a new credential: this one is revoked or expired (API keys expire after at most 90 days)";
const PLAN: &str =
    "check whether the tailnet's plan has custom posture attributes (Premium or Enterprise)";
const REFUSED: &str = "see Tailscale's words; the credential has the scope, so its tags or its user's role may be the limit";
const REDIRECT: &str = "check TAILSCALE_API_URL: redirects are not followed with a credential";
const TAILNET: &str = "correct `tailnet`, or leave it at `-`, which is the credential's own and nearly always right; the \
                       name is in the admin console under Settings, General, and does not end in .ts.net";
const CREDENTIAL_SCOPES: &str = "create the OAuth client anew with the scopes that the README lists: Tailscale \
                                 does not grant them to this one";

/// Classifies an unsuccessful response to an API call. `granted` are the scopes of the token, if they are known.
pub(super) fn classify(
    operation: Operation,
    response: &Response,
    granted: Option<&BTreeSet<String>>,
) -> UpstreamError {
    let status = response.status.as_u16();
    match status {
        300..=399 => redirected(operation, status),
        401 if response.is_foreign_text() => operation.intercepted(status),
        407 => operation.intercepted(status),
        401 => operation.unauthorized(status, TOKEN),
        403 => forbidden(operation, response, granted),
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
        400 | 401 | 403 if response.is_foreign_text() => operation.intercepted(status),
        407 => operation.intercepted(status),
        403 if is_about_scopes(response) => {
            let problem = "Tailscale does not grant the client's scopes";
            operation.misconfigured(Some(status), problem, CREDENTIAL_SCOPES)
        }
        400 | 401 | 403 => operation.unauthorized(status, CREDENTIAL),
        300..=399 => redirected(operation, status),
        429 => operation.rate_limited(response.retry_after()),
        408 | 500.. => operation.server_error(status),
        _ => operation.rejected(status, String::new()),
    }
}

/// Returns whether the token call was refused for the scopes of the client: `OAuth client cannot grant scopes ...`.
fn is_about_scopes(response: &Response) -> bool {
    error_message(response).is_some_and(|text| text.to_lowercase().contains("cannot grant scopes"))
}

/// The words of a 403 about the tailnet that the path names: `user tailnet does not match`, `unknown tailnet`.
const TAILNET_WORDS: [&str; 5] = [
    "tailnet does not match",
    "tailnet mismatch",
    "unknown tailnet",
    "tailnet not found",
    "invalid tailnet",
];

/// The words of a 403 about the plan.
const PLAN_WORDS: [&str; 7] = [
    "plan",
    "upgrade",
    "billing",
    "premium",
    "enterprise",
    "subscription",
    "trial",
];

/// The words of a 403 about the credential: `calling actor does not have enough permissions to perform this function`.
const SCOPE_WORDS: [&str; 4] = ["permission", "scope", "not authorized", "unauthorized"];

/// Classifies a 403. What the token says of itself counts more than the words.
fn forbidden(
    operation: Operation,
    response: &Response,
    granted: Option<&BTreeSet<String>>,
) -> UpstreamError {
    let Some(message) = error_message(response) else {
        return operation.intercepted(403);
    };
    let words = message.to_lowercase();
    let has = |list: &[&str]| list.iter().any(|word| words.contains(word));
    let refused = |problem: &str, remedy| {
        let quoted = if message.is_empty() {
            problem.to_owned()
        } else {
            format!("{problem} ({message:?})")
        };
        operation.misconfigured(Some(403), quoted, remedy)
    };
    let has_scope = granted.map(|granted| covers(granted, operation.scope));
    if has(&TAILNET_WORDS) {
        refused("the credential belongs to another tailnet", TAILNET)
    } else if has_scope == Some(false) {
        operation.missing_scope(true, message)
    } else if has(&SCOPE_WORDS) && has_scope.is_none() {
        operation.missing_scope(false, message)
    } else if has(&PLAN_WORDS) {
        refused("the tailnet's plan does not allow it", PLAN)
    } else {
        refused("Tailscale refuses it", REFUSED)
    }
}

/// Returns whether a token with these scopes can make a call that needs `scope`. A scope includes its `:read` and all that
/// is below it: `devices` includes `devices:core:read`.
fn covers(granted: &BTreeSet<String>, scope: &str) -> bool {
    let write = scope.strip_suffix(":read");
    let is_at_or_above = |wide: &str, scope: &str| {
        wide == "all"
            || scope == wide
            || scope
                .strip_prefix(wide)
                .is_some_and(|rest| rest.starts_with(':'))
    };
    granted
        .iter()
        .any(|granted| match (write, granted.strip_suffix(":read")) {
            // A right to read covers no write.
            (None, Some(_)) => false,
            (None, None) => is_at_or_above(granted, scope),
            (Some(write), _) => {
                is_at_or_above(granted.strip_suffix(":read").unwrap_or(granted), write)
            }
        })
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
            (403, "", ErrorKind::Protocol),
            (403, "<html>", ErrorKind::Protocol),
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
            let error = classify(PROBE, &response(status, body), None);
            assert_eq!(error.error_kind(), kind, "{status}");
        }
    }

    const SCOPE: &str =
        r#"{"message":"calling actor does not have enough permissions to perform this function"}"#;

    /// The scopes of a token, as far as they are known.
    type Granted = Option<&'static [&'static str]>;
    const LACKING: Granted = Some(&["devices:posture_attributes", "logs"]);
    const READ: Granted = Some(&["devices:core:read", "policy_file:read"]);
    const ALL: Granted = Some(&["all"]);
    const UNKNOWN: Granted = None;

    /// A 403: the scopes of the token, the body, the class, and words of the message or the remedy.
    const FORBIDDEN: [(Granted, &str, ErrorKind, &str); 23] = [
        (
            UNKNOWN,
            SCOPE,
            ErrorKind::MissingScope,
            "lacks the scope devices:core:read",
        ),
        (
            LACKING,
            SCOPE,
            ErrorKind::MissingScope,
            "enough permissions",
        ),
        (
            LACKING,
            r#"{"message":"forbidden"}"#,
            ErrorKind::MissingScope,
            "\"forbidden\"",
        ),
        (
            UNKNOWN,
            r#"{"message":"missing required scope"}"#,
            ErrorKind::MissingScope,
            "missing required scope",
        ),
        (
            UNKNOWN,
            r#"{"message":"user is not authorized"}"#,
            ErrorKind::MissingScope,
            "not authorized",
        ),
        (READ, SCOPE, ErrorKind::Configuration, "enough permissions"),
        (ALL, SCOPE, ErrorKind::Configuration, "Tailscale refuses it"),
        (
            ALL,
            r#"{"message":"no manageable device matching this ID found"}"#,
            ErrorKind::Configuration,
            "no manageable device",
        ),
        (
            READ,
            r#"{"message":"user tailnet does not match"}"#,
            ErrorKind::Configuration,
            "`tailnet`",
        ),
        (
            UNKNOWN,
            r#"{"message":"user tailnet does not match"}"#,
            ErrorKind::Configuration,
            "nearly always right",
        ),
        (
            LACKING,
            r#"{"message":"unknown tailnet"}"#,
            ErrorKind::Configuration,
            "another tailnet",
        ),
        (
            UNKNOWN,
            r#"{"message":"Tailnet not found"}"#,
            ErrorKind::Configuration,
            ".ts.net",
        ),
        (
            UNKNOWN,
            r#"{"message":"not on this plan"}"#,
            ErrorKind::Configuration,
            "Premium or Enterprise",
        ),
        (
            READ,
            r#"{"message":"custom posture attributes need an upgrade"}"#,
            ErrorKind::Configuration,
            "need an upgrade",
        ),
        (
            UNKNOWN,
            r#"{"message":"billing is overdue"}"#,
            ErrorKind::Configuration,
            "billing is overdue",
        ),
        (
            UNKNOWN,
            r#"{"message":"subscription ended"}"#,
            ErrorKind::Configuration,
            "subscription ended",
        ),
        (
            UNKNOWN,
            r#"{"message":"access is suspended"}"#,
            ErrorKind::Configuration,
            "access is suspended",
        ),
        (
            UNKNOWN,
            r#"{"message":""}"#,
            ErrorKind::Configuration,
            "Tailscale refuses it",
        ),
        (UNKNOWN, "", ErrorKind::Protocol, "something in between"),
        (
            UNKNOWN,
            "<!doctype html><h1>Blocked</h1>",
            ErrorKind::Protocol,
            "a proxy, a firewall",
        ),
        (
            LACKING,
            "Access denied by policy",
            ErrorKind::Protocol,
            "not Tailscale's",
        ),
        (
            UNKNOWN,
            r#"{"error":"blocked","category":"vpn"}"#,
            ErrorKind::Protocol,
            "not Tailscale's",
        ),
        (UNKNOWN, "[]", ErrorKind::Protocol, "not Tailscale's"),
    ];

    #[test]
    fn a_403_is_told_as_what_it_is() {
        for (granted, body, kind, told) in FORBIDDEN {
            let granted = granted.map(|scopes| scopes.iter().map(ToString::to_string).collect());
            let error = classify(PROBE, &response(403, body), granted.as_ref());
            let text = format!("{error}. {}", error.remedy());
            assert_eq!(error.error_kind(), kind, "{body}: {text}");
            assert!(text.contains(told), "{body}: {text}");
            let is_configuration = kind == ErrorKind::Configuration;
            assert!(is_configuration || !text.contains("plan"), "{body}: {text}");
        }
    }

    fn json(message: &str) -> String {
        serde_json::json!({ "message": message }).to_string()
    }

    #[test]
    fn pages_in_the_place_of_a_rejection_pause_nothing() {
        for status in [401, 403, 407] {
            let page = response(status, "<html>log in</html>");
            for error in [classify(PROBE, &page, None), classify_token(PROBE, &page)] {
                assert_eq!(error.error_kind(), ErrorKind::Protocol, "{status}: {error}");
            }
        }
        let grant = json("OAuth client cannot grant scopes: devices:posture_attributes");
        let error = classify_token(PROBE, &response(403, &grant));
        assert_eq!(error.error_kind(), ErrorKind::Configuration);
        assert!(
            error
                .to_string()
                .contains("does not grant the client's scopes")
        );
    }

    #[test]
    fn a_scope_covers_its_read_and_what_is_below_it() {
        let attributes = "devices:posture_attributes";
        for (granted, scope, expect) in [
            ("devices:core:read", "devices:core:read", true),
            ("devices:core", "devices:core:read", true),
            ("devices:read", "devices:core:read", true),
            ("devices", attributes, true),
            ("all", attributes, true),
            ("all:read", "devices:posture_attributes:read", true),
            ("all:read", attributes, false),
            ("devices:read", attributes, false),
            ("devices:posture_attributes:read", attributes, false),
            ("device", attributes, false),
            ("devices:core", attributes, false),
        ] {
            let granted = BTreeSet::from([granted.to_owned()]);
            assert_eq!(covers(&granted, scope), expect, "{granted:?} {scope}");
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
