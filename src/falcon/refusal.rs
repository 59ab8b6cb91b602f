//! What Falcon's statuses and texts mean.

use reqwest::StatusCode;

use crate::error::{UpstreamError, said};
use crate::falcon::wire::{self, Problem};
use crate::http::Reply;
use crate::integration::CloudId;
use crate::retry::Operation;

/// Requests whose token is missing, malformed or expired are counted apart: 15 a minute for each IP address.
const BAD_BEARER_LIMIT: u64 = 15;

/// No cloud's name is longer.
const CLOUD_CHARS: usize = 10;

/// How much of an upstream message is kept.
const MESSAGE_CHARS: usize = 200;

const CREDENTIAL: &str = "check clientId and clientSecret, that the API client still exists, and that cloudId is its cloud";
const CLIENT_ID: &str = "check clientId, and that cloudId is the account's cloud, which does not know it (government \
     clouds are never found from elsewhere)";
const MEMBER_CID: &str =
    "correct memberCid: it is not a child account of this API client's account";
const NOT_ALLOWED: &str = "give the API client the scope that this call needs, or put this function's IP address on the \
     account's API allow-list: the cloud has the same words for both";
const ALLOW_LIST: &str = "put the address that the function comes from on the list (it has a fixed one only in a VPC with a \
     NAT gateway), or do without the list";
const TOKEN: &str = "check that the API client still exists and that cloudId is its cloud: the token that Falcon had just \
     issued was refused";
const CLOUD: &str = "correct cloudId; a cloud that this deployment does not know can be added by FALCON_CLOUDS_EXTRA";

/// The exact words for an address off the allow-list, at the token call (gofalcon's cloud discovery knows them).
const OFF_THE_LIST: &str = "access denied, authorization failed";

/// Takes a success, and makes an error of anything else.
pub(super) fn success(operation: Operation, reply: &Reply) -> Result<(), UpstreamError> {
    if reply.status.is_success() {
        Ok(())
    } else {
        Err(classify(operation, reply))
    }
}

/// What an unsuccessful answer to an API call means.
pub(super) fn classify(operation: Operation, reply: &Reply) -> UpstreamError {
    let status = reply.status.as_u16();
    match status {
        300..=399 => elsewhere(operation, reply),
        401 => operation.refused(status, TOKEN),
        403 => forbidden(operation, reply),
        408 | 500.. => operation.failing(status),
        429 => operation.rate_limited(reply.wait_until()),
        _ => operation.rejected(status, message(reply)),
    }
}

/// What an unsuccessful answer to the token call means. Its text is not taken along: it may echo the client id.
pub(super) fn classify_token(operation: Operation, reply: &Reply) -> UpstreamError {
    let status = reply.status.as_u16();
    match status {
        400 => operation.refused(status, CLIENT_ID),
        401 => operation.refused(status, CREDENTIAL),
        403 => match message(reply).to_lowercase() {
            text if text == OFF_THE_LIST => {
                let problem = "this function's IP address is not on the account's API allow-list";
                operation.misconfigured(Some(status), problem, ALLOW_LIST)
            }
            text if text.contains("customer id") => operation.refused(status, MEMBER_CID),
            _ => operation.refused(status, CREDENTIAL),
        },
        300..=399 => elsewhere(operation, reply),
        408 | 500.. => operation.failing(status),
        429 => operation.rate_limited(reply.wait_until()),
        _ => operation.rejected(status, String::new()),
    }
}

/// The error of an answer that does not accept the token, if it is one: 401, or a 429 from the bucket of bad tokens.
pub(super) fn bad_bearer(operation: Operation, reply: &Reply) -> Option<UpstreamError> {
    let bad = reply.status == StatusCode::UNAUTHORIZED
        || (reply.status == StatusCode::TOO_MANY_REQUESTS
            && number(reply, "x-ratelimit-limit").is_some_and(|limit| limit <= BAD_BEARER_LIMIT));
    bad.then(|| operation.refused(reply.status.as_u16(), TOKEN))
}

/// What the answer says of the account's quota. The buckets of the token call (300) and of bad tokens are other ones.
pub(super) fn quota(reply: &Reply) -> Option<(u64, u64)> {
    let limit = number(reply, "x-ratelimit-limit").filter(|limit| *limit > 300)?;
    Some((limit, number(reply, "x-ratelimit-remaining")?))
}

/// Older clouds answer a missing scope and an address off the allow-list with the same words.
fn forbidden(operation: Operation, reply: &Reply) -> UpstreamError {
    if message(reply)
        .to_lowercase()
        .contains("authorization failed")
    {
        operation.refused(403, NOT_ALLOWED)
    } else {
        operation.missing_scope()
    }
}

/// A redirect that is not followed. Recorded: every call to the wrong cloud is answered with a 308 that names the right
/// one.
pub(super) fn elsewhere(operation: Operation, reply: &Reply) -> UpstreamError {
    let mut problem = "the account lives in another CrowdStrike cloud".to_owned();
    let region = reply
        .header("x-cs-region")
        .filter(|name| name.len() <= CLOUD_CHARS);
    if let Some(Ok(cloud)) = region.map(|name| CloudId::try_from(name.to_owned())) {
        problem.push_str(", ");
        problem.push_str(cloud.as_str());
    }
    operation.misconfigured(Some(reply.status.as_u16()), problem, CLOUD)
}

/// There is no address for a cloud.
pub(super) fn unknown_cloud(operation: Operation, cloud: &CloudId) -> UpstreamError {
    let problem = format!("this deployment knows no CrowdStrike cloud named {cloud}");
    operation.misconfigured(None, problem, CLOUD)
}

fn message(reply: &Reply) -> String {
    wire::problems(&reply.body)
        .first()
        .map(|problem| said(&problem.message, MESSAGE_CHARS))
        .unwrap_or_default()
}

fn number(reply: &Reply, header: &str) -> Option<u64> {
    reply.header(header)?.trim().parse().ok()
}

/// The error that a 2xx answer carries: what came with it is no whole observation.
pub(super) fn partial(operation: Operation, reply: &Reply, problem: &Problem) -> UpstreamError {
    let text = said(&problem.message, MESSAGE_CHARS);
    match problem.code {
        Some(429) => operation.rate_limited(reply.wait_until()),
        Some(500..) => operation.unreachable(text),
        _ => operation.protocol(PartialAnswer(text)),
    }
}

#[derive(Debug, thiserror::Error)]
#[error("a success that reports an error: {0}")]
struct PartialAnswer(String);
