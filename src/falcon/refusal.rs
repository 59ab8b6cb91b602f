//! What Falcon's statuses and texts mean.

use jiff::Timestamp;
use reqwest::StatusCode;

use crate::error::{UpstreamError, said};
use crate::falcon::wire::{self, Problem};
use crate::http::Reply;
use crate::integration::CloudId;
use crate::retry::Operation;

/// Requests whose token is missing, malformed or expired are counted apart: 15 a minute for each IP address.
const BAD_BEARER_LIMIT: u64 = 15;

/// Epoch times past this are milliseconds: the specification says so, all traffic seen had seconds.
const LATEST_IN_SECONDS: i64 = 100_000_000_000;

/// No cloud's name is longer.
const CLOUD_CHARS: usize = 10;

/// How much of an upstream message is kept.
const MESSAGE_CHARS: usize = 200;

const CREDENTIAL: &str = "check clientId and clientSecret, that the API client still exists, and that cloudId is its cloud";
const CLIENT_ID: &str = "this cloud does not know the client id: check clientId and cloudId (government clouds are never \
     found from elsewhere)";
const MEMBER_CID: &str = "memberCid is not a child account of this API client's account";
const ALLOW_LIST: &str = "this function's IP address is not on the account's API allow-list, or the API client lacks the \
     scope";
const TOKEN: &str = "the token that Falcon had just issued was refused: check that the API client still exists and that \
     cloudId is its cloud";
pub(super) const CLOUD: &str = "the account lives in another CrowdStrike cloud than cloudId says, and not in one that \
     this deployment knows: correct cloudId";

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
        300..=399 => operation.rejected(status, redirected(reply)),
        401 => operation.refused(status, TOKEN),
        403 => forbidden(operation, reply),
        408 | 500.. => operation.failing(status),
        429 => operation.rate_limited(retry_after(reply)),
        _ => operation.rejected(status, message(reply)),
    }
}

/// What an unsuccessful answer to the token call means. Its text is not taken along: it may echo the client id.
pub(super) fn classify_token(operation: Operation, reply: &Reply) -> UpstreamError {
    let status = reply.status.as_u16();
    match status {
        400 => operation.refused(status, CLIENT_ID),
        401 => operation.refused(status, CREDENTIAL),
        403 => {
            let text = message(reply).to_lowercase();
            operation.refused(
                status,
                if text == "access denied, authorization failed" {
                    ALLOW_LIST
                } else if text.contains("customer id") {
                    MEMBER_CID
                } else {
                    CREDENTIAL
                },
            )
        }
        300..=399 => operation.refused(status, CLOUD),
        408 | 500.. => operation.failing(status),
        429 => operation.rate_limited(retry_after(reply)),
        _ => operation.rejected(status, String::new()),
    }
}

/// Whether the answer says that the token is not accepted: 401, or a 429 from the bucket of bad tokens.
pub(super) fn is_bad_bearer(reply: &Reply) -> bool {
    reply.status == StatusCode::UNAUTHORIZED
        || (reply.status == StatusCode::TOO_MANY_REQUESTS
            && number(reply, "x-ratelimit-limit").is_some_and(|limit| limit <= BAD_BEARER_LIMIT))
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
        operation.refused(403, ALLOW_LIST)
    } else {
        operation.missing_scope()
    }
}

/// Recorded: every call to the wrong cloud is answered with a 308 that names the right one.
fn redirected(reply: &Reply) -> String {
    let mut text = "redirects are not followed".to_owned();
    let region = reply
        .header("x-cs-region")
        .filter(|name| name.len() <= CLOUD_CHARS);
    if let Some(Ok(cloud)) = region.map(|name| CloudId::try_from(name.to_owned())) {
        text.push_str("; the account is in cloud ");
        text.push_str(cloud.as_str());
    }
    text
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

fn retry_after(reply: &Reply) -> Option<Timestamp> {
    let time: i64 = reply
        .header("x-ratelimit-retryafter")?
        .trim()
        .parse()
        .ok()?;
    if time > LATEST_IN_SECONDS {
        Timestamp::from_millisecond(time).ok()
    } else {
        Timestamp::from_second(time).ok()
    }
}

/// The error that a 2xx answer carries: what came with it is no whole observation.
pub(super) fn partial(operation: Operation, problem: &Problem) -> UpstreamError {
    let text = said(&problem.message, MESSAGE_CHARS);
    match problem.code {
        Some(429) => operation.rate_limited(None),
        Some(500..) => operation.unreachable(text),
        _ => operation.protocol(PartialAnswer(text)),
    }
}

#[derive(Debug, thiserror::Error)]
#[error("a success that reports an error: {0}")]
struct PartialAnswer(String);
