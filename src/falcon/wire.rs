//! Falcon's JSON, as lenient as its traffic demands, and strict about what a decision rests on.
//!
//! Recorded traffic: `errors` is null on success, `resources` is null on failure, `powered_by` is absent, a cursor is
//! `""` at the end, and the score listing's cursor is named `after` in some years of the specification and `next` in
//! others. A record that is odd in one field must not cost the other ten thousand of its page.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::domain::host::{Aid, Assessment, Host, Score, Scores};
use crate::domain::serial::Serial;
use crate::error::{UpstreamError, plain};
use crate::falcon::paging::{Page, Record};
use crate::falcon::refusal;
use crate::http::{Reply, decode};
use crate::retry::Operation;

/// How much of a host name is kept.
const HOSTNAME_CHARS: usize = 255;
/// How much of a score that is none is kept; with the ellipsis 40.
const SCORE_CHARS: usize = 39;

/// A text; anything else counts as absent.
pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) => Some(text),
        _ => None,
    })
}

/// A cursor: any scalar. pipedream#21339 saw numbers where the specification has strings.
fn cursor<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) if !text.is_empty() => Some(text),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    })
}

#[derive(Deserialize)]
struct Pagination {
    total: u64,
    #[serde(default, deserialize_with = "cursor")]
    after: Option<String>,
    #[serde(default, deserialize_with = "cursor")]
    next: Option<String>,
}

#[derive(Deserialize)]
struct Meta {
    pagination: Pagination,
}

/// An entry of `errors`. Its code can differ from the HTTP status.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) code: Option<u16>,
    pub(super) message: String,
}

/// The errors of an answer that may be anything: empty, HTML, or JSON. No list of errors is none; anything else in its
/// place is one.
pub(super) fn problems(body: &[u8]) -> Vec<Problem> {
    #[derive(Default, Deserialize)]
    struct Envelope {
        #[serde(default)]
        errors: Value,
    }
    let problem = |error: &Value| Problem {
        code: error["code"]
            .as_u64()
            .and_then(|code| u16::try_from(code).ok()),
        message: error["message"].as_str().unwrap_or_default().to_owned(),
    };
    match serde_json::from_slice(body).unwrap_or_default() {
        Envelope {
            errors: Value::Null,
        } => Vec::new(),
        Envelope {
            errors: Value::Array(errors),
        } => errors.iter().map(problem).collect(),
        Envelope { errors } => vec![problem(&errors)],
    }
}

/// Reads a page of a listing.
pub(super) fn page<R: Record + DeserializeOwned>(
    operation: Operation,
    reply: &Reply,
) -> Result<Page<R>, UpstreamError> {
    #[derive(Deserialize)]
    #[serde(bound = "R: DeserializeOwned")]
    struct Envelope<R> {
        meta: Meta,
        resources: Option<Vec<Option<R>>>,
    }
    refusal::success(operation, reply)?;
    // Looked at first: an answer that reports errors may lack what a page must have.
    if let Some(problem) = problems(&reply.body).first() {
        return Err(refusal::partial(operation, problem));
    }
    let envelope: Envelope<R> = decode(operation, &reply.body)?;
    let Pagination { total, after, next } = envelope.meta.pagination;
    Ok(Page {
        records: envelope.resources.unwrap_or_default(),
        total: usize::try_from(total).unwrap_or(usize::MAX),
        next: after.or(next),
    })
}

/// A sensor's id in its usual form: both APIs use lower case, and the join must not depend on it.
fn aid(text: Option<String>) -> Option<Aid> {
    let text = text?;
    let usable = (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    usable.then(|| Aid(text.to_ascii_lowercase()))
}

/// A host, with the fields that are asked for. All are optional: recorded hosts lack some.
#[derive(Deserialize)]
pub(super) struct HostRecord {
    #[serde(default, deserialize_with = "text")]
    device_id: Option<String>,
    #[serde(default, deserialize_with = "text")]
    serial_number: Option<String>,
    #[serde(default, deserialize_with = "text")]
    hostname: Option<String>,
    #[serde(default, deserialize_with = "text")]
    last_seen: Option<String>,
}

impl Record for HostRecord {
    type Value = Host;

    fn entry(self) -> Option<(Aid, Host)> {
        let aid = aid(self.device_id)?;
        let host = Host {
            aid: aid.clone(),
            serial: self
                .serial_number
                .and_then(|text| Serial::parse(&text).ok()),
            hostname: self
                .hostname
                .filter(|name| !name.is_empty())
                .map(|name| plain(&name, HOSTNAME_CHARS)),
            last_seen: self.last_seen.and_then(|text| text.parse().ok()),
        };
        Some((aid, host))
    }

    /// The later one is the newer one.
    fn merge(_: Host, later: Host) -> Host {
        later
    }
}

/// A pair of the score listing.
#[derive(Deserialize)]
pub(super) struct ScoreRecord {
    #[serde(default, deserialize_with = "text")]
    aid: Option<String>,
    #[serde(default)]
    score: Value,
}

impl Record for ScoreRecord {
    type Value = Assessment;

    fn entry(self) -> Option<(Aid, Assessment)> {
        Some((aid(self.aid)?, assess(&self.score)))
    }

    /// A score that moved while the listing was paged through appears twice. The lower one counts: a device never gets
    /// more than it deserves. One that is no score at all is the lowest.
    fn merge(known: Assessment, later: Assessment) -> Assessment {
        if known.score() <= later.score() {
            known
        } else {
            later
        }
    }
}

/// Only a JSON integer from 0 to 100 is a score.
fn assess(value: &Value) -> Assessment {
    value.as_i64().and_then(Score::new).map_or_else(
        || Assessment::Invalid(plain(&value.to_string(), SCORE_CHARS)),
        Assessment::Score,
    )
}

/// Reads the answer of the score look-up. Falcon left out the sensors without an assessment in two ways: until 2024
/// with a 404 that holds the others' records (netskope's client still expects it), since then with a 200.
pub(super) fn assessments(operation: Operation, reply: &Reply) -> Result<Scores, UpstreamError> {
    #[derive(Deserialize)]
    struct Envelope {
        resources: Option<Vec<Option<Entity>>>,
    }
    #[derive(Deserialize)]
    struct Entity {
        #[serde(default, deserialize_with = "text")]
        aid: Option<String>,
        #[serde(default)]
        assessment: Value,
    }
    let problems = problems(&reply.body);
    let only_unknown_ids = problems.iter().all(is_unknown_id);
    let not_found = reply.status == 404 && !problems.is_empty() && only_unknown_ids;
    if !not_found {
        refusal::success(operation, reply)?;
        if let Some(problem) = problems.iter().find(|problem| !is_unknown_id(problem)) {
            return Err(refusal::partial(operation, problem));
        }
    }
    let envelope: Envelope = decode(operation, &reply.body)?;
    // A missing list is no news of anyone, except in the 404.
    let entities = match envelope.resources {
        None if !not_found => return Err(operation.protocol("the list of resources is missing")),
        list => list.unwrap_or_default(),
    };
    let mut scores = BTreeMap::new();
    for entity in entities.into_iter().flatten() {
        // psfalcon#179: a record without an assessment. It says the same as no record.
        let overall = entity.assessment.get("overall").filter(|v| !v.is_null());
        if let (Some(aid), Some(overall)) = (aid(entity.aid), overall) {
            scores.insert(aid, assess(overall));
        }
    }
    Ok(scores)
}

/// "One or more of the specified agent IDs is not found", "Assessment not found": words for a sensor, and not for a
/// path that does not exist.
fn is_unknown_id(problem: &Problem) -> bool {
    let text = problem.message.to_lowercase();
    text.contains("not found") && (text.contains("agent id") || text.contains("assessment"))
}
