//! Tokens, credentials and scopes.

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::routes::message;
use super::state::{State, Token};
use crate::reply::{Call, Reply};

pub(crate) const INVALID: &str = "API token invalid";
pub(crate) const NOT_PERMITTED: &str =
    "calling actor does not have enough permissions to perform this function";
/// The message of a rejected token request; the real service gives no reason either.
const UNAUTHORIZED: &str =
    "Unauthorized. Visit https://login.tailscale.com/admin/settings/trust-credentials for details";

/// A caller: its tailnet and its permissions.
pub(crate) struct Caller {
    pub(crate) tailnet: String,
    /// `None`: an API key, with all permissions of its person.
    scopes: Option<BTreeSet<String>>,
}

impl Caller {
    /// Returns whether a scope is granted, directly or through a scope that includes it.
    pub(crate) fn has_scope(&self, scope: &str) -> bool {
        let Some(granted) = &self.scopes else {
            return true;
        };
        let writing = scope.strip_suffix(":read");
        let mut enough = vec![scope, "all"];
        enough.extend(writing);
        if writing.is_some() {
            enough.push("all:read");
        }
        enough.iter().any(|scope| granted.contains(*scope))
    }
}

/// `POST /api/v2/oauth/token`.
pub(crate) fn token(state: &mut State, call: &Call, now: Timestamp) -> Reply {
    let form = call.form();
    let secret = form
        .as_ref()
        .and_then(|form| form.get("client_secret"))
        .unwrap_or_default();
    let found = state.tailnets.iter().find_map(|(name, tenant)| {
        // the secret alone identifies the client
        let client = tenant
            .config
            .oauth_clients
            .iter()
            .find(|client| client.client_secret == secret)?;
        Some((
            name.clone(),
            client.scopes.clone(),
            tenant.config.switches.token_lifetime_s,
        ))
    });
    let Some((tailnet, mut scopes, lifetime_s)) = found else {
        return message(401, INVALID);
    };
    if let Some(asked) = form
        .as_ref()
        .and_then(|form| form.get("scope"))
        .filter(|asked| !asked.is_empty())
    {
        let asked: BTreeSet<String> = asked.split_whitespace().map(str::to_owned).collect();
        let granted = Caller {
            tailnet: tailnet.clone(),
            scopes: Some(scopes),
        };
        if !asked.iter().all(|scope| granted.has_scope(scope)) {
            return message(403, NOT_PERMITTED);
        }
        scopes = asked;
    }
    issue(state, tailnet, scopes, lifetime_s, now)
}

/// `POST /api/v2/oauth/token-exchange`: exactly `client_id` and `jwt`.
pub(crate) fn exchange(state: &mut State, call: &Call, now: Timestamp) -> Reply {
    let form = call.form();
    let field = |name| {
        form.as_ref()
            .and_then(|form| form.get(name))
            .unwrap_or_default()
    };
    let claims = claims(field("jwt")).unwrap_or_default();
    let claim = |name: &str| claims.get(name).and_then(Value::as_str).unwrap_or_default();
    let alive = claims
        .get("exp")
        .and_then(Value::as_i64)
        .is_some_and(|end| end > now.as_second());
    let found = state.tailnets.iter().find_map(|(name, tenant)| {
        let identity = tenant
            .config
            .federated_identities
            .iter()
            .find(|identity| identity.client_id == field("client_id"))?;
        let subject_fits = match identity.subject.strip_suffix('*') {
            Some(start) => claim("sub").starts_with(start),
            None => claim("sub") == identity.subject,
        };
        let fits = alive && subject_fits && claim("aud") == identity.audience;
        fits.then(|| {
            (
                name.clone(),
                identity.scopes.clone(),
                tenant.config.switches.token_lifetime_s,
            )
        })
    });
    match found {
        Some((tailnet, scopes, lifetime_s)) => issue(state, tailnet, scopes, lifetime_s, now),
        None => message(401, UNAUTHORIZED),
    }
}

fn claims(jwt: &str) -> Option<Value> {
    let mut parts = jwt.split('.');
    let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

fn issue(
    state: &mut State,
    tailnet: String,
    scopes: BTreeSet<String>,
    lifetime_s: u64,
    now: Timestamp,
) -> Reply {
    state.issued += 1;
    let access_token = format!(
        "tskey-api-kSim{:08}CNTRL-{:032x}",
        state.issued,
        u128::from(state.issued).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
    );
    let scope = scopes.iter().cloned().collect::<Vec<_>>().join(" ");
    let expires = now
        .checked_add(Duration::from_secs(lifetime_s))
        .unwrap_or(now);
    state.tokens.retain(|_, token| token.expires > now);
    state.tokens.insert(
        access_token.clone(),
        Token {
            tailnet,
            scopes,
            expires,
        },
    );
    // "expires after 1 hour - this time cannot be modified": the announced lifetime never varies
    Reply::json(
        200,
        &json!({"access_token": access_token, "token_type": "Bearer", "expires_in": 3600, "scope": scope}),
    )
}

/// Returns the caller of `Authorization`: Bearer, or Basic with the key as user name and no
/// password.
pub(crate) fn caller(state: &State, call: &Call, now: Timestamp) -> Option<Caller> {
    let key = match call.bearer() {
        Some(token) => token.to_owned(),
        None => basic_user(call)?,
    };
    if let Some(token) = state.tokens.get(&key).filter(|token| token.expires > now) {
        return Some(Caller {
            tailnet: token.tailnet.clone(),
            scopes: Some(token.scopes.clone()),
        });
    }
    let (tailnet, _) = state
        .tailnets
        .iter()
        .find(|(_, tenant)| tenant.config.api_keys.contains(&key))?;
    Some(Caller {
        tailnet: tailnet.clone(),
        scopes: None,
    })
}

fn basic_user(call: &Call) -> Option<String> {
    let (scheme, encoded) = call.header("authorization")?.split_once(' ')?;
    let decoded = scheme
        .eq_ignore_ascii_case("basic")
        .then(|| STANDARD.decode(encoded.trim()).ok())??;
    let text = String::from_utf8(decoded).ok()?;
    text.split_once(':').map(|(user, _)| user.to_owned())
}
