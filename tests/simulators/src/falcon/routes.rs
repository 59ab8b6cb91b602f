//! Dispatch of a request to its endpoint: route, method, token, cloud, budget, scope, parameters.

use jiff::Timestamp;

use super::access::{self, NOT_AUTHORIZED};
use super::envelope::{GATEWAY, RequestFacts};
use super::model::{HOSTS_READ, Settings, ZTA_READ};
use super::state::{Allowance, Cursors, State, Tenant};
use super::{hosts, zta};
use crate::reply::{Call, Reply};

/// An accepted request, with the data for its response.
pub(crate) struct Request<'a> {
    pub(crate) facts: RequestFacts,
    pub(crate) settings: &'a Settings,
    pub(crate) cursors: &'a mut Cursors,
    pub(crate) tenant: &'a mut Tenant,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) body: &'a [u8],
    pub(crate) now: Timestamp,
}

impl Request<'_> {
    pub(crate) fn param(&self, name: &str) -> Option<&str> {
        self.query
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// Returns `limit`, from 1 to `max`, or less if the settings limit pages. The default is 100:
    /// a client that omits it seems to see only 100 hosts.
    pub(crate) fn limit(&self, max: usize) -> Result<usize, String> {
        let asked = match self.param("limit") {
            None => Some(100),
            Some(text) => text.parse().ok().filter(|limit| (1..=max).contains(limit)),
        };
        let asked = asked.ok_or_else(|| format!("limit must be between 1 and {max}"))?;
        Ok(asked.min(self.settings.longest_page.unwrap_or(max).max(1)))
    }
}

struct Route {
    method: &'static str,
    path: &'static str,
    scope: &'static str,
    parameters: &'static [&'static str],
    answer: fn(&mut Request<'_>) -> Reply,
}

const LISTING: &[&str] = &["offset", "limit", "sort", "filter", "fields"];

const ROUTES: &[Route] = &[
    Route {
        method: "GET",
        path: "/devices/combined/devices/v1",
        scope: HOSTS_READ,
        parameters: LISTING,
        answer: hosts::list_visible,
    },
    Route {
        method: "GET",
        path: "/devices/combined/devices-hidden/v1",
        scope: HOSTS_READ,
        parameters: LISTING,
        answer: hosts::hidden,
    },
    Route {
        method: "GET",
        path: "/devices/entities/devices/v2",
        scope: HOSTS_READ,
        parameters: &["ids"],
        answer: hosts::entities_by_query,
    },
    Route {
        method: "POST",
        path: "/devices/entities/devices/v2",
        scope: HOSTS_READ,
        parameters: &[],
        answer: hosts::entities_by_body,
    },
    Route {
        method: "GET",
        path: "/zero-trust-assessment/queries/assessments/v1",
        scope: ZTA_READ,
        parameters: &["filter", "limit", "after", "sort"],
        answer: zta::list_by_score,
    },
    Route {
        method: "GET",
        path: "/zero-trust-assessment/entities/assessments/v1",
        scope: ZTA_READ,
        parameters: &["ids"],
        answer: zta::entities_by_ids,
    },
    Route {
        method: "GET",
        path: "/zero-trust-assessment/entities/audit/v1",
        scope: ZTA_READ,
        parameters: &[],
        answer: zta::audit,
    },
];

const TOKEN_PATH: &str = "/oauth2/token";

pub(crate) fn answer(state: &mut State, region: &str, call: &Call, now: Timestamp) -> Reply {
    let serial = state.next_serial();
    let mut facts = RequestFacts {
        region: region.to_owned(),
        trace_id: format!(
            "{:08x}-5f1d-4c3a-9b7e-{serial:012x}",
            serial.wrapping_mul(0x9e37_79b1) & 0xffff_ffff
        ),
        allowance: Allowance {
            limit: state.settings.requests_per_minute,
            remaining: 0,
            retry_ms: None,
        },
        retry_after: state.settings.retry_after,
    };
    let method = call.seen.method.as_str();
    let path = call.seen.path.as_str();

    if path == TOKEN_PATH {
        facts.allowance = state
            .token_budget
            .take(state.settings.tokens_per_minute, now);
        return match method {
            _ if facts.allowance.retry_ms.is_some() => too_many(&facts),
            "POST" => access::token(state, &facts, call, now),
            _ => facts
                .error(405, GATEWAY, "Method Not Allowed")
                .with("allow", &"POST"),
        };
    }

    let token = call
        .bearer()
        .and_then(|token| state.tokens.get(token))
        .filter(|token| token.expires > now)
        .cloned();
    let Some(token) = token.filter(|token| state.accounts.contains_key(&token.account)) else {
        facts.allowance = state
            .anonymous_budget
            .take(state.settings.strangers_per_minute, now);
        return if facts.allowance.retry_ms.is_some() {
            too_many(&facts)
        } else {
            facts.error(401, GATEWAY, "access denied, invalid bearer token")
        };
    };
    if token.region != region {
        // another cloud's token counts as invalid (recorded: limit 15)
        facts.allowance = state
            .anonymous_budget
            .take(state.settings.strangers_per_minute, now);
        if facts.allowance.retry_ms.is_some() {
            return too_many(&facts);
        }
        let base = state.regions.get(&token.region).map_or("", String::as_str);
        let mark = if call.seen.query.is_empty() { "" } else { "?" };
        return facts.redirect(
            &token.region,
            &format!("{base}{path}{mark}{}", call.seen.query),
        );
    }
    let State {
        accounts,
        settings,
        cursors,
        ..
    } = state;
    let Some(tenant) = accounts.get_mut(&token.account) else {
        return facts.error(401, GATEWAY, "access denied, invalid bearer token");
    };
    facts.allowance = tenant.budget.take(settings.requests_per_minute, now);
    if facts.allowance.retry_ms.is_some() {
        return too_many(&facts);
    }
    if !tenant.account.ip_allowed {
        return facts.error(403, GATEWAY, NOT_AUTHORIZED);
    }

    let mut at_path = ROUTES.iter().filter(|route| route.path == path).peekable();
    if at_path.peek().is_none() {
        return facts.error(404, GATEWAY, "404: Page Not Found");
    }
    let Some(route) = at_path.find(|route| route.method == method) else {
        return facts.error(405, GATEWAY, "Method Not Allowed");
    };
    if !tenant.account.scopes.contains(route.scope) {
        return facts.error(403, GATEWAY, "access denied, scope not permitted");
    }
    let query = call.query();
    if let Some((unknown, _)) = query
        .iter()
        .find(|(name, _)| !route.parameters.contains(&name.as_str()))
    {
        return facts.error(400, GATEWAY, &format!("unknown query parameter {unknown}"));
    }
    (route.answer)(&mut Request {
        facts,
        settings,
        cursors,
        tenant,
        query,
        body: &call.body,
        now,
    })
}

/// A third party's imitation is the source of this message; no 429 body of the real service was
/// found.
fn too_many(facts: &RequestFacts) -> Reply {
    facts.error(429, GATEWAY, "API rate limit exceeded.")
}
