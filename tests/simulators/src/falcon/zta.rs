//! Zero Trust Assessments: the listing by score, the records, the audit.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::fql::{Fql, Op, Term};
use super::model::{UnknownIds, ZtaCursorName};
use super::routes::Request;
use super::state::{Cursor, Listing, Position, Tenant};
use crate::clock::to_second;
use crate::reply::Reply;

/// `powered_by` in errors only; recorded responses have no `powered_by`.
const POWERED_BY: &str = "zero-trust-assessment";
/// Signals of each kind in a record.
const SIGNALS_PER_KIND: i64 = 16;
const MAX_IDS: usize = 1000;
/// Maximum cached listings: more than the ranges of scores that a client can request.
const MAX_LISTINGS: usize = 128;

/// `GET /zero-trust-assessment/queries/assessments/v1`.
///
/// Sorted by score, then agent id, and paged by position in the present order. If a score moves
/// between two pages, one record is missed and another appears twice, as in the real service.
pub(crate) fn list_by_score(request: &mut Request<'_>) -> Reply {
    match page(request) {
        Ok(reply) => reply,
        Err((status, message)) => request.facts.error(status, POWERED_BY, &message),
    }
}

fn page(request: &mut Request<'_>) -> Result<Reply, (u16, String)> {
    let bad = |message: &str| (400, message.to_owned());
    let limit = request.limit(MAX_IDS).map_err(|message| (400, message))?;
    let filter = request
        .param("filter")
        .filter(|filter| !filter.is_empty())
        .ok_or_else(|| bad("filter is required"))?
        .to_owned();
    let descending = match request.param("sort").unwrap_or("score") {
        "score" | "score|asc" => false,
        "score|desc" => true,
        _ => return Err(bad("invalid sort")),
    };
    let listing = format!("zta|{filter}|{descending}");
    let account = request.tenant.account.name.clone();
    let start = match request.param("after").unwrap_or_default() {
        "" => 0,
        after => match request
            .cursors
            .find(after, &account, &listing, request.now)
            .map(|cursor| &cursor.position)
        {
            Some(Position::Index(index)) => *index,
            Some(Position::After(..)) | None => {
                return Err((
                    404,
                    "Search context expired, 'after' key no longer valid".to_owned(),
                ));
            }
        },
    };

    let aids =
        sorted_aids(request.tenant, &filter, descending).map_err(|problem| (400, problem))?;
    let served = aids.iter().skip(start).take(limit);
    let scores = &request.tenant.scores;
    let resources = Value::Array(
        served
            .map(|aid| json!({"aid": aid, "score": scores.get(aid)}))
            .collect(),
    );

    let end = start + limit;
    let cursor = if end < aids.len() {
        let expires = request
            .now
            .checked_add(Duration::from_secs(request.settings.cursor_lifetime_s))
            .unwrap_or(request.now);
        request.cursors.issue(
            Cursor {
                account,
                query: listing,
                position: Position::Index(end),
                expires,
            },
            request.now,
        )
    } else {
        // recorded: empty, not absent, at the end
        String::new()
    };
    let total = aids.len();
    let pagination = match request.settings.zta_cursor {
        ZtaCursorName::After => json!({"limit": limit, "total": total, "after": cursor}),
        ZtaCursorName::Next => {
            json!({"limit": limit, "total": total, "offset": start, "next": cursor})
        }
    };
    // recorded: `errors` is null, and there is no `powered_by`
    Ok(request
        .facts
        .ok(&json!({"pagination": pagination}), &resources, &Value::Null))
}

/// Returns the agents that the filter selects, in order. Caches the latest listings.
fn sorted_aids(
    tenant: &mut Tenant,
    filter: &str,
    descending: bool,
) -> Result<Arc<Vec<String>>, String> {
    if let Some(listing) = tenant
        .listings
        .iter()
        .find(|listing| listing.filter == filter && listing.descending == descending)
    {
        return Ok(Arc::clone(&listing.aids));
    }
    let terms = parse_filter(filter)?;
    let mut found: Vec<(Option<f64>, &String)> = tenant
        .scores
        .iter()
        .map(|(aid, score)| (score.as_f64(), aid))
        .filter(|(score, _)| passes(&terms, *score))
        .collect();
    // non-numbers sort last
    let rank = |score: Option<f64>| score.unwrap_or(f64::INFINITY);
    found.sort_by(|(left, left_aid), (right, right_aid)| {
        let list_by_score = rank(*left)
            .partial_cmp(&rank(*right))
            .unwrap_or(Ordering::Equal);
        let ascending = list_by_score.then_with(|| left_aid.cmp(right_aid));
        if descending {
            ascending.reverse()
        } else {
            ascending
        }
    });
    let aids = Arc::new(
        found
            .into_iter()
            .map(|(_, aid)| aid.clone())
            .collect::<Vec<_>>(),
    );
    if tenant.listings.len() == MAX_LISTINGS {
        tenant.listings.pop_front();
    }
    tenant.listings.push_back(Listing {
        filter: filter.to_owned(),
        descending,
        aids: Arc::clone(&aids),
    });
    Ok(aids)
}

/// Scores that the real service never holds pass every filter, so that a client which asks for
/// `score:>=0` receives them.
fn passes(terms: &[(Op, f64)], score: Option<f64>) -> bool {
    match score.filter(|score| (0.0..=100.0).contains(score)) {
        Some(score) => terms.iter().all(|(op, bound)| op.holds(&score, bound)),
        None => true,
    }
}

/// Parses comparisons joined with `+`: "The query endpoint only filters on `score`".
fn parse_filter(text: &str) -> Result<Vec<(Op, f64)>, String> {
    let filter = Fql::parse(text).map_err(|problem| format!("invalid filter: {problem}"))?;
    let terms = match filter {
        Fql::All(parts) => parts,
        single @ Fql::Term(_) => vec![single],
        Fql::Any(_) => {
            return Err("invalid filter: only comparisons joined with + are supported".to_owned());
        }
    };
    terms.into_iter().map(comparison).collect()
}

fn comparison(part: Fql) -> Result<(Op, f64), String> {
    let Fql::Term(Term { field, op, values }) = part else {
        return Err("invalid filter: parentheses are not supported".to_owned());
    };
    if field != "score" {
        return Err(format!("invalid filter: unknown field {field}"));
    }
    let mut values = values.into_iter();
    match (
        values.next().and_then(|value| value.parse().ok()),
        values.next(),
    ) {
        (Some(bound), None) => Ok((op, bound)),
        _ => Err("invalid filter: score takes a number".to_owned()),
    }
}

/// `GET /zero-trust-assessment/entities/assessments/v1?ids=…&ids=…`, up to 1,000 ids.
pub(crate) fn entities_by_ids(request: &mut Request<'_>) -> Reply {
    if request.query.is_empty() {
        return request.facts.error(400, POWERED_BY, "ids is required");
    }
    if request.query.len() > MAX_IDS {
        return request.facts.error(
            400,
            POWERED_BY,
            "Number of agent IDs exceeds the limit of 1000",
        );
    }
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for (_, aid) in &request.query {
        match record(request.tenant, aid) {
            Some(record) => found.push(record),
            None => errors.push(json!({"code": 404, "id": aid, "message": "Assessment not found"})),
        }
    }
    let resources = Value::Array(found);
    match request.settings.unknown_ids {
        UnknownIds::NotFound if !errors.is_empty() => {
            request
                .facts
                .answer(404, &json!({}), &resources, &Value::Array(errors))
        }
        UnknownIds::NotFound | UnknownIds::Missing => {
            request.facts.ok(&json!({}), &resources, &json!([]))
        }
    }
}

/// Returns a record as recorded, with the serial of the host. The sub-scores follow the overall
/// score.
fn record(tenant: &Tenant, aid: &str) -> Option<Value> {
    let overall = tenant.scores.get(aid)?;
    let host = tenant.host(aid);
    let near = |offset: i64| {
        overall
            .as_i64()
            .map(|score| score.saturating_add(offset).clamp(0, 100))
    };
    let platform = match host.and_then(|host| host.platform_name.as_deref()) {
        Some("Windows") => "Win",
        Some("Linux") => "Lin",
        _ => "Mac",
    };
    let assessed = tenant.assessed.get(aid).copied().unwrap_or(tenant.loaded);
    // signals are most of a recorded record's 8.3 kB
    let signals = |kind: &str| -> Vec<Value> {
        (0..SIGNALS_PER_KIND)
            .map(|number| {
                json!({
                    "signal_id": format!("{kind}_protection_signal_{number:02}"),
                    "signal_name": format!("Protection against technique {number:02} ({kind})"),
                    "group_name": platform,
                    "criteria": format!("protection against technique {number:02} is on and set to block"),
                    "meets_criteria": if near(0) > Some(100 * number / SIGNALS_PER_KIND) { "yes" } else { "no" },
                })
            })
            .collect()
    };
    Some(json!({
        "aid": aid,
        "cid": tenant.cid(),
        "system_serial_number": host.and_then(|host| host.serial_number.as_deref()).unwrap_or_default(),
        "event_platform": platform,
        "product_type_desc": host.and_then(|host| host.product_type_desc.as_deref()).unwrap_or("Workstation"),
        "modified_time": to_second(assessed),
        "sensor_file_status": "not deployed",
        "assessment": {"overall": overall, "os": near(6), "sensor_config": near(-9), "version": "4.0.7"},
        "assessment_items": {
            "os_signals": signals("os"),
            "sensor_signals": signals("sensor"),
        },
    }))
}

/// `GET /zero-trust-assessment/entities/audit/v1`.
pub(crate) fn audit(request: &mut Request<'_>) -> Reply {
    let tenant = &*request.tenant;
    let mut platforms: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (aid, score) in &tenant.scores {
        let platform = tenant
            .host(aid)
            .and_then(|host| host.platform_name.as_deref())
            .unwrap_or("Mac");
        platforms
            .entry(platform)
            .or_default()
            .extend(score.as_f64());
    }
    let all: Vec<f64> = platforms.values().flatten().copied().collect();
    let platforms: Vec<Value> = platforms
        .iter()
        .map(|(name, scores)| json!({"name": name, "average_overall_score": average(scores), "num_aids": scores.len(), "audit": Map::new()}))
        .collect();
    let resource = json!({
        "cid": tenant.cid(), "average_overall_score": average(&all), "num_aids": tenant.scores.len(), "platforms": platforms,
    });
    request.facts.ok(&json!({}), &json!([resource]), &json!([]))
}

fn average(scores: &[f64]) -> f64 {
    let count = u32::try_from(scores.len()).unwrap_or(u32::MAX);
    if count == 0 {
        0.0
    } else {
        scores.iter().sum::<f64>() / f64::from(count)
    }
}
