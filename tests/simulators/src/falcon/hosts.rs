//! Host listings and entities.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::envelope::GATEWAY;
use super::fql::{Fql, Op, Term};
use super::model::{CursorStyle, Host, LastPage};
use super::record::{field, record};
use super::routes::Request;
use super::state::{Cursor, Position};
use crate::reply::Reply;

const POWERED_BY: &str = "device-api";

/// The fields that a filter or a sort may name, of the 192 of the real service.
const SEARCHABLE: [&str; 8] = [
    "device_id",
    "serial_number",
    "hostname",
    "first_seen",
    "last_seen",
    "modified_timestamp",
    "platform_name",
    "status",
];

/// `GET /devices/combined/devices/v1`.
pub(crate) fn list_visible(request: &mut Request<'_>) -> Reply {
    list(request, false)
}

/// `GET /devices/combined/devices-hidden/v1`.
pub(crate) fn hidden(request: &mut Request<'_>) -> Reply {
    list(request, true)
}

fn list(request: &mut Request<'_>, hidden: bool) -> Reply {
    match page(request, hidden) {
        Ok(reply) => reply,
        Err((status, message)) => request.facts.error(status, POWERED_BY, &message),
    }
}

struct Sort {
    field: String,
    descending: bool,
}

/// Parameters of a listing.
struct Query {
    filter: Option<Fql>,
    sort: Sort,
    fields: Option<Vec<String>>,
    limit: usize,
    /// The parameters that a request with a cursor must repeat.
    identity: String,
}

impl Query {
    fn parse(request: &Request<'_>, hidden: bool) -> Result<Self, String> {
        let given = |name| request.param(name).filter(|text| !text.is_empty());
        let split = |list: &str| {
            list.split(',')
                .map(|field| field.trim().to_owned())
                .collect()
        };
        let (filter, sort) = (given("filter"), given("sort"));
        Ok(Self {
            filter: filter.map(parse_filter).transpose()?,
            sort: parse_sort(sort)?,
            fields: given("fields").map(split),
            limit: request.limit(10_000)?,
            identity: format!(
                "{hidden}|{}|{}",
                filter.unwrap_or_default(),
                sort.unwrap_or_default()
            ),
        })
    }
}

fn page(request: &mut Request<'_>, hidden: bool) -> Result<Reply, (u16, String)> {
    let longest = request.settings.longest_filter.unwrap_or(usize::MAX);
    if request
        .param("filter")
        .is_some_and(|filter| filter.len() > longest)
    {
        let status = request.settings.long_filter_status;
        return Err((status, "the filter is too long".to_owned()));
    }
    let query = Query::parse(request, hidden).map_err(|problem| (400, problem))?;
    let start = start(request, &query)?;
    let hosts = if hidden {
        &request.tenant.hidden
    } else {
        &request.tenant.hosts
    };
    let natural = query.sort.field == "device_id" && !query.sort.descending;
    // one record more than requested shows whether a next page exists
    let (found, index, total) = if natural && query.filter.is_none() {
        from_tree(hosts, &start, query.limit + 1)
    } else {
        from_sorted(
            hosts,
            &query,
            request.settings.fql_ignores_case,
            &start,
            query.limit + 1,
        )
    };
    let more = found.len() > query.limit;
    let served = found.get(..query.limit).unwrap_or(&found);
    let cid = request.tenant.cid();
    let records = served
        .iter()
        .map(|host| record(host, cid, query.fields.as_deref()));
    let resources = Value::Array(records.collect());
    let last = served.last().filter(|_| more);
    let last = last.map(|host| (text(host, &query.sort.field), host.device_id.clone()));

    let mut pagination = json!({"offset": index, "total": total, "limit": query.limit});
    match (last, request.settings.host_cursor) {
        (Some(_), CursorStyle::Numeric) => pagination["next"] = json!(index + query.limit),
        (Some((key, id)), CursorStyle::Opaque) => {
            let lifetime = Duration::from_secs(request.settings.cursor_lifetime_s);
            let expires = request.now.checked_add(lifetime).unwrap_or(request.now);
            let account = request.tenant.account.name.clone();
            let position = Position::After(key, id);
            let cursor = Cursor {
                account,
                query: query.identity,
                position,
                expires,
            };
            // the recorded scroll listing counts in nanoseconds
            pagination["expires_at"] =
                json!(i64::try_from(expires.as_nanosecond()).unwrap_or(i64::MAX));
            pagination["next"] = json!(request.cursors.issue(cursor, request.now));
        }
        (None, _) if request.settings.last_page == LastPage::Empty => {
            pagination["next"] = json!("");
        }
        (None, _) => {}
    }
    let meta = json!({"powered_by": POWERED_BY, "pagination": pagination});
    Ok(request.facts.ok(&meta, &resources, &json!([])))
}

fn start(request: &Request<'_>, query: &Query) -> Result<Position, (u16, String)> {
    let offset = request.param("offset").unwrap_or_default();
    if offset.is_empty() {
        return Ok(Position::Index(0));
    }
    if let (CursorStyle::Numeric, Ok(index)) = (request.settings.host_cursor, offset.parse()) {
        return Ok(Position::Index(index));
    }
    let account = &request.tenant.account.name;
    let cursor = request
        .cursors
        .find(offset, account, &query.identity, request.now);
    let expired = || {
        (
            404,
            "Search context expired, 'offset' key no longer valid".to_owned(),
        )
    };
    cursor
        .map(|cursor| cursor.position.clone())
        .ok_or_else(expired)
}

/// Reads a page without sorting: the tree has the default order.
fn from_tree<'a>(
    hosts: &'a BTreeMap<String, Host>,
    start: &Position,
    count: usize,
) -> (Vec<&'a Host>, usize, usize) {
    let found = match start {
        Position::Index(index) => {
            return (
                hosts.values().skip(*index).take(count).collect(),
                *index,
                hosts.len(),
            );
        }
        Position::After(_, id) => hosts
            .range::<str, _>((Bound::Excluded(id.as_str()), Bound::Unbounded))
            .map(|(_, host)| host)
            .take(count)
            .collect(),
    };
    // finding a cursor's position would mean counting, and no caller uses the position
    (found, 0, hosts.len())
}

fn from_sorted<'a>(
    hosts: &'a BTreeMap<String, Host>,
    query: &Query,
    ignore_case: bool,
    start: &Position,
    count: usize,
) -> (Vec<&'a Host>, usize, usize) {
    let Sort { field, descending } = &query.sort;
    let holds = |host: &Host| match &query.filter {
        Some(filter) => filter.matches(&|term: &Term| holds(term, host, ignore_case)),
        None => true,
    };
    let selected = hosts.values().filter(|host| holds(host));
    let mut found: Vec<((String, &str), &Host)> = selected
        .map(|host| ((text(host, field), host.device_id.as_str()), host))
        .collect();
    found.sort_by(|(left, _), (right, _)| {
        if *descending {
            right.cmp(left)
        } else {
            left.cmp(right)
        }
    });
    let index = match start {
        Position::Index(index) => *index,
        Position::After(key, id) => {
            let place = (key.clone(), id.as_str());
            found.partition_point(|(other, _)| {
                if *descending {
                    *other >= place
                } else {
                    *other <= place
                }
            })
        }
    };
    let total = found.len();
    (
        found
            .into_iter()
            .skip(index)
            .take(count)
            .map(|(_, host)| host)
            .collect(),
        index,
        total,
    )
}

fn parse_filter(text: &str) -> Result<Fql, String> {
    let filter = Fql::parse(text)
        .map_err(|problem| format!("Invalid filter expression supplied: {problem}"))?;
    for term in filter.terms() {
        if !SEARCHABLE.contains(&term.field.as_str()) {
            return Err(format!(
                "Invalid filter expression supplied: unknown field {}",
                term.field
            ));
        }
        let is_time = matches!(
            term.field.as_str(),
            "first_seen" | "last_seen" | "modified_timestamp"
        );
        if is_time
            && term
                .values
                .iter()
                .any(|value| value.parse::<Timestamp>().is_err())
        {
            return Err(format!(
                "Invalid filter expression supplied: {} takes a time",
                term.field
            ));
        }
    }
    Ok(filter)
}

/// Parses `last_seen.desc`. Only clients of the assessment API accept the pipe form.
fn parse_sort(sort: Option<&str>) -> Result<Sort, String> {
    let sort = sort
        .filter(|sort| !sort.is_empty())
        .unwrap_or("device_id.asc");
    let (field, direction) = sort.rsplit_once('.').unwrap_or((sort, "asc"));
    let known = SEARCHABLE.contains(&field) && matches!(direction, "asc" | "desc");
    if known {
        Ok(Sort {
            field: field.to_owned(),
            descending: direction == "desc",
        })
    } else {
        Err(format!("Invalid sort expression supplied: {sort}"))
    }
}

fn holds(term: &Term, host: &Host, ignore_case: bool) -> bool {
    let Some(Value::String(actual)) = field(host, "", &term.field) else {
        return term.op == Op::Not;
    };
    let listed = || {
        if ignore_case {
            term.values
                .iter()
                .any(|value| value.eq_ignore_ascii_case(&actual))
        } else {
            term.values.contains(&actual)
        }
    };
    match term.op {
        Op::Equal => listed(),
        Op::Not => !listed(),
        Op::Less | Op::LessOrEqual | Op::Greater | Op::GreaterOrEqual => {
            term.values.first().is_some_and(|value| {
                match (actual.parse::<Timestamp>(), value.parse::<Timestamp>()) {
                    (Ok(actual), Ok(value)) => term.op.holds(&actual, &value),
                    _ => term.op.holds(actual.as_str(), value.as_str()),
                }
            })
        }
    }
}

fn text(host: &Host, name: &str) -> String {
    match field(host, "", name) {
        Some(Value::String(text)) => text,
        other => other.unwrap_or_default().to_string(),
    }
}

#[derive(Deserialize)]
struct Ids {
    ids: Vec<String>,
}

/// `POST /devices/entities/devices/v2`, up to 5,000 ids.
pub(crate) fn entities_by_body(request: &mut Request<'_>) -> Reply {
    match serde_json::from_slice::<Ids>(request.body) {
        Ok(Ids { ids }) => by_ids(request, &ids, 5000),
        Err(_) => request.facts.error(400, POWERED_BY, "invalid request body"),
    }
}

/// `GET /devices/entities/devices/v2`, up to 100 ids.
pub(crate) fn entities_by_query(request: &mut Request<'_>) -> Reply {
    let ids: Vec<String> = request.query.iter().map(|(_, id)| id.clone()).collect();
    by_ids(request, &ids, 100)
}

fn by_ids(request: &Request<'_>, ids: &[String], max: usize) -> Reply {
    if ids.len() > max {
        return request.facts.error(
            400,
            GATEWAY,
            &format!("request must contain between 0 and {max} ids"),
        );
    }
    let cid = request.tenant.cid();
    let found = ids
        .iter()
        .filter_map(|id| request.tenant.host(id))
        .map(|host| record(host, cid, None))
        .collect();
    // recorded: `errors` is null here, and an empty list in the listings
    request.facts.ok(
        &json!({"powered_by": POWERED_BY}),
        &Value::Array(found),
        &Value::Null,
    )
}
