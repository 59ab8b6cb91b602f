//! The token endpoint.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use super::envelope::{RequestFacts, TOKENS};
use super::state::{State, Token};
use crate::reply::{Call, Reply};

/// The message since 2023.
const WRONG_SECRET: &str = "Failed to issue access token - Client authentication failed \
    (e.g., unknown client, no client authentication included, or unsupported authentication method)";
/// Also the message for an address outside the customer's allow-list.
pub(crate) const NOT_AUTHORIZED: &str = "access denied, authorization failed";

/// `POST /oauth2/token`: 201, never 200. The wrong cloud answers 308 before it checks the secret.
pub(crate) fn token(state: &mut State, facts: &RequestFacts, call: &Call, now: Timestamp) -> Reply {
    let form = call.form();
    let field = |name| {
        form.as_ref()
            .and_then(|form| form.get(name))
            .unwrap_or_default()
    };
    let (client_id, member_cid) = (field("client_id"), field("member_cid"));
    let unknown = || {
        // the id is echoed, as by the real service: a client that logs the error logs the id
        facts.error(
            400,
            TOKENS,
            &format!("Failed to generate access token for clientID={client_id}."),
        )
    };

    let well_formed =
        client_id.len() == 32 && client_id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut known = state
        .accounts
        .values()
        .map(|tenant| &tenant.account)
        .filter(|account| account.client_id == client_id)
        .peekable();
    let Some(first) = known.peek().copied().filter(|_| well_formed) else {
        return unknown();
    };

    if first.region != facts.region {
        // other clouds neither redirect to government clouds nor to a cloud without a server here
        let base = state
            .regions
            .get(&first.region)
            .filter(|_| !first.region.starts_with("us-gov"));
        let Some(base) = base else { return unknown() };
        let location = state
            .settings
            .redirect_location
            .clone()
            .unwrap_or_else(|| format!("{base}/oauth2/token"));
        return facts.redirect(&first.region, &location);
    }
    if field("client_secret") != first.client_secret {
        return facts.error(403, TOKENS, WRONG_SECRET);
    }
    let Some(account) =
        known.find(|account| account.member_cid.as_deref().unwrap_or_default() == member_cid)
    else {
        return facts.error(
            403,
            TOKENS,
            &format!("Failed to generate access token for customer ID=\"{member_cid}\""),
        );
    };
    if !account.ip_allowed {
        return facts.error(403, TOKENS, NOT_AUTHORIZED);
    }

    let (account, region) = (account.name.clone(), account.region.clone());
    let serial = state.next_serial();
    // a JWT of the usual size (1.2 kB), without meaning
    let word = format!("{:016x}", serial.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let access_token = format!(
        "eyJhbGciOiJSUzI1NiJ9.{}.{}",
        word.repeat(50),
        word.repeat(22)
    );
    let lifetime = Duration::from_secs(state.settings.token_lifetime_s);
    let expires = now.checked_add(lifetime).unwrap_or(now);
    state.tokens.retain(|_, token| token.expires > now);
    state.tokens.insert(
        access_token.clone(),
        Token {
            account,
            region,
            expires,
        },
    );
    let announced = state.settings.announced_lifetime_s;
    facts.finish(Reply::json(
        201,
        &json!({"access_token": access_token, "expires_in": announced, "token_type": "bearer"}),
    ))
}
