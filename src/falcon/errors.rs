//! Classifies Falcon's error responses.

use serde::{Deserialize, Deserializer};
use serde_json::Number;

use crate::json::lenient::{LenientObject, LenientText, ListOrOther, LooseValue};
use crate::settings::CloudId;
use crate::text::redact;
use crate::upstream::client::Response;
use crate::upstream::error::{Operation, UpstreamError};

/// Quota of requests with a missing, malformed or expired token, per minute and IP address.
const BAD_TOKEN_LIMIT: u64 = 15;

const MAX_CLOUD_CHARS: usize = 10;

/// Maximum errors that are read from one response: more than the ids of a look-up.
const MAX_ERRORS: usize = 200;

const MAX_MESSAGE_CHARS: usize = 200;

const CREDENTIAL: &str = "check clientId and clientSecret, that the API client still exists, and that cloudId is its cloud";
const CLIENT_ID: &str = "check clientId, and that cloudId is the account's cloud (government clouds cannot be \
                         found from other clouds)";
const MEMBER_CID: &str =
    "correct memberCid: it is not a child account of this API client's account";
const NOT_ALLOWED: &str = "give the API client the scope that this call needs, or add this function's IP address \
                           to the account's API allow-list: this cloud returns the same message for both";
const ALLOW_LIST: &str = "add the function's IP address to the list (it has a fixed one only in a VPC with a NAT \
                          gateway), or switch the list off";
const TOKEN: &str = "check that the API client still exists and that cloudId is its cloud: Falcon rejected the \
                     token that it had just issued";
const SUBSCRIPTION: &str = "check in the Falcon console whether the account's subscription and the API client's role allow the call";
const CLOUD: &str = "correct cloudId; a cloud that this deployment does not know can be added by FALCON_CLOUDS_EXTRA";

/// The exact message of the token call for an address that is not on the allow-list (as in gofalcon's cloud discovery).
const NOT_ON_ALLOW_LIST: &str = "access denied, authorization failed";

/// An entry of `errors` in a response. Its code can differ from the HTTP status.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct FalconApiError {
    code: LooseValue,
    message: LenientText<String>,
}

impl FalconApiError {
    fn code(&self) -> Option<u16> {
        let code = self.code.number().and_then(Number::as_u64);
        code.and_then(|code| u16::try_from(code).ok())
    }

    pub(super) fn message(&self) -> &str {
        self.message.0.as_deref().unwrap_or_default()
    }
}

#[derive(Default, Deserialize)]
struct Reported {
    #[serde(default, deserialize_with = "list")]
    errors: Vec<FalconApiError>,
}

/// Reads the list of errors. Any other value in its place counts as one error, and so does the rest of a very long list.
pub(super) fn list<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<FalconApiError>, D::Error> {
    type Errors<'de> = ListOrOther<'de, LenientObject<FalconApiError>, MAX_ERRORS>;
    let (listed, has_more) = match Errors::deserialize(deserializer)? {
        ListOrOther::Scalar(LooseValue::Null) => (Vec::new(), false),
        ListOrOther::Scalar(_) | ListOrOther::Text(_) => (Vec::new(), true),
        ListOrOther::One(error) => (vec![error], false),
        ListOrOther::Many { first, has_more } => (first, has_more),
    };
    let rest = has_more.then_some(LenientObject(None));
    let errors = listed.into_iter().chain(rest);
    Ok(errors.map(|error| error.0.unwrap_or_default()).collect())
}

/// Returns the errors in a body that may be anything: empty, HTML, or JSON.
pub(super) fn in_body(body: &[u8]) -> Vec<FalconApiError> {
    let reported = serde_json::from_slice::<Reported>(body);
    reported.unwrap_or_default().errors
}

/// Returns the errors in a successful response.
///
/// # Errors
/// If the response does not decode.
pub(super) fn in_success(
    operation: Operation,
    response: &Response,
) -> Result<Vec<FalconApiError>, UpstreamError> {
    let reported: Reported = operation.decode(&response.body)?;
    Ok(reported.errors)
}

pub(super) fn check_status(operation: Operation, response: &Response) -> Result<(), UpstreamError> {
    if response.status.is_success() {
        Ok(())
    } else {
        Err(classify(operation, response))
    }
}

/// Classifies an unsuccessful response to an API call.
pub(super) fn classify(operation: Operation, response: &Response) -> UpstreamError {
    let status = response.status.as_u16();
    match status {
        300..=399 => wrong_cloud(operation, response),
        401 if response.is_foreign_text() => operation.intercepted(status),
        407 => operation.intercepted(status),
        401 => operation.unauthorized(status, TOKEN),
        403 => forbidden(operation, response),
        408 | 500.. => operation.server_error(status),
        // Bad tokens have a rate limit of their own.
        429 if rate_limit(response).is_some_and(|limit| limit <= BAD_TOKEN_LIMIT) => {
            operation.unauthorized(status, TOKEN)
        }
        429 => operation.rate_limited(response.retry_after()),
        _ => operation.rejected(status, error_message(response)),
    }
}

/// Classifies an unsuccessful response to the token call. Its message is dropped, because it may echo the client id.
pub(super) fn classify_token(operation: Operation, response: &Response) -> UpstreamError {
    let status = response.status.as_u16();
    match status {
        400 | 401 | 403 if response.is_foreign_text() => operation.intercepted(status),
        407 => operation.intercepted(status),
        400 => operation.unauthorized(status, CLIENT_ID),
        401 => operation.unauthorized(status, CREDENTIAL),
        403 => match lower_case_message(response) {
            text if text == NOT_ON_ALLOW_LIST => {
                let problem = "this function's IP address is not on the account's API allow-list";
                operation.misconfigured(Some(status), problem, ALLOW_LIST)
            }
            text if text.contains("customer id") => operation.unauthorized(status, MEMBER_CID),
            _ => operation.unauthorized(status, CREDENTIAL),
        },
        300..=399 => wrong_cloud(operation, response),
        408 | 500.. => operation.server_error(status),
        429 => operation.rate_limited(response.retry_after()),
        _ => operation.rejected(status, String::new()),
    }
}

/// Returns the account's quota (limit, remaining). The token call (300) and bad tokens have rate limits of their own.
pub(super) fn quota(response: &Response) -> Option<(u64, u64)> {
    let limit = rate_limit(response).filter(|limit| *limit > 300)?;
    Some((limit, numeric_header(response, "x-ratelimit-remaining")?))
}

/// Classifies a 403. Older clouds send one message for a missing scope and for an address that is not on the allow-list.
fn forbidden(operation: Operation, response: &Response) -> UpstreamError {
    let message = error_message(response);
    let words = message.to_lowercase();
    if in_body(&response.body).is_empty() {
        operation.intercepted(403)
    } else if words.contains("authorization failed") {
        operation.unauthorized(403, NOT_ALLOWED)
    } else if words.contains("scope") || words.contains("permission") {
        operation.missing_scope(true, message)
    } else {
        let problem = format!("Falcon refuses it ({message:?})");
        operation.misconfigured(Some(403), problem, SUBSCRIPTION)
    }
}

/// Returns the error of a redirect, which is not followed. The wrong cloud responds to every call with a 308 that
/// names the right cloud (recorded).
pub(super) fn wrong_cloud(operation: Operation, response: &Response) -> UpstreamError {
    let mut problem = "the account is in another CrowdStrike cloud".to_owned();
    let region = response
        .header("x-cs-region")
        .filter(|name| name.len() <= MAX_CLOUD_CHARS);
    if let Some(Ok(cloud)) = region.map(|name| CloudId::try_from(name.to_owned())) {
        problem.push_str(", ");
        problem.push_str(cloud.as_str());
    }
    operation.misconfigured(Some(response.status.as_u16()), problem, CLOUD)
}

pub(super) fn unknown_cloud(operation: Operation, cloud: &CloudId) -> UpstreamError {
    let problem = format!("this deployment has no CrowdStrike cloud {cloud}");
    operation.misconfigured(None, problem, CLOUD)
}

fn error_message(response: &Response) -> String {
    in_body(&response.body)
        .first()
        .map(|error| redact(error.message(), MAX_MESSAGE_CHARS))
        .unwrap_or_default()
}

fn lower_case_message(response: &Response) -> String {
    error_message(response).to_lowercase()
}

fn rate_limit(response: &Response) -> Option<u64> {
    numeric_header(response, "x-ratelimit-limit")
}

fn numeric_header(response: &Response, header: &str) -> Option<u64> {
    response.header(header)?.trim().parse().ok()
}

/// Returns the error in a 2xx response, whose data is incomplete.
pub(super) fn error_in_success(
    operation: Operation,
    response: &Response,
    error: &FalconApiError,
) -> UpstreamError {
    let text = redact(error.message(), MAX_MESSAGE_CHARS);
    match error.code() {
        Some(429) => operation.rate_limited(response.retry_after()),
        Some(500..) => operation.unreachable(text),
        _ => operation.protocol(format!("a successful response with an error: {text}")),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use reqwest::StatusCode;
    use reqwest::header::HeaderMap;

    use super::*;
    use crate::domain::status::error_kind::{ErrorKind, Service};

    const PROBE: Operation = Operation::new(Service::Falcon, "a probe", "Hosts: Read");

    fn response(status: u16, body: &str) -> Response {
        Response {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            received: Timestamp::UNIX_EPOCH,
            body: body.into(),
        }
    }

    /// A 403: the body, the class, and words of the message or the remedy.
    #[test]
    fn a_403_is_told_as_what_it_is() {
        use ErrorKind::{Authentication, Configuration, MissingScope, Protocol};
        let error = |message: &str| {
            serde_json::json!({"errors": [{"code": 403, "message": message}]}).to_string()
        };
        for (body, kind, told) in [
            (
                error("access denied, scope not permitted"),
                MissingScope,
                "scope not permitted",
            ),
            (
                error("insufficient permission"),
                MissingScope,
                "add the scope Hosts: Read",
            ),
            (
                error("access denied, authorization failed"),
                Authentication,
                "allow-list",
            ),
            (
                error("subscription required"),
                Configuration,
                "subscription required",
            ),
            (error(""), Configuration, "Falcon refuses it"),
            (String::new(), Protocol, "something in between"),
            (
                "<html>Zscaler</html>".to_owned(),
                Protocol,
                "a proxy, a firewall",
            ),
            ("{}".to_owned(), Protocol, "not Falcon's"),
        ] {
            let error = classify(PROBE, &response(403, &body));
            let text = format!("{error}. {}", error.remedy());
            assert_eq!(error.error_kind(), kind, "{body}: {text}");
            assert!(text.contains(told), "{body}: {text}");
        }
    }

    #[test]
    fn pages_in_the_place_of_a_rejection_pause_nothing() {
        for status in [401, 403, 407] {
            let page = response(status, "<html>log in</html>");
            for error in [classify(PROBE, &page), classify_token(PROBE, &page)] {
                assert_eq!(error.error_kind(), ErrorKind::Protocol, "{status}: {error}");
            }
        }
    }
}
