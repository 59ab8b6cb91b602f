//! Falcon's JSON, as lenient as its traffic demands, and strict about what a decision rests on.
//!
//! Recorded traffic: `errors` is null on success, `resources` is null on failure, `powered_by` is absent, a cursor is
//! `""` at the end, and the score listing's cursor is named `after` in some years of the specification and `next` in
//! others. A record that is odd in one field must not cost the other ten thousand of its page.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use serde_json::Number;
use smol_str::SmolStr;

use crate::domain::inventory::host::{Aid, Assessment, Assessments, Host, Score};
use crate::domain::inventory::serial::Serial;
use crate::falcon::errors::{self, FalconApiError};
use crate::falcon::paging::{ListedRecord, ListingPage};
use crate::json::lenient::{BoundedList, FromText, LenientObject, LenientText, LooseValue};
use crate::text::{sanitize, sanitize_smol};
use crate::upstream::client::Response;
use crate::upstream::error::UpstreamError;
use crate::upstream::operation::Operation;

/// How much of a host name is kept.
const HOSTNAME_CHARS: usize = 255;
/// How much of a score that is none is kept; with the ellipsis 40.
const SCORE_CHARS: usize = 39;
/// Records in one answer: the largest page that is ever asked for.
const RECORDS: usize = 10_000;
/// Recorded cursors have some 250 characters. A URL takes 64 kB, and encoding may make three of each byte.
const CURSOR_BYTES: usize = 16 << 10;

/// A cursor: any scalar. pipedream#21339 saw numbers where the specification has strings. One that does not fit in a URL
/// is refused rather than sent.
fn cursor<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    match LooseValue::deserialize(deserializer)? {
        LooseValue::LenientText(text) if text.len() > CURSOR_BYTES => {
            Err(D::Error::invalid_length(text.len(), &"a shorter cursor"))
        }
        LooseValue::LenientText(text) if !text.is_empty() => Ok(Some(text)),
        LooseValue::Number(number) => Ok(Some(number.to_string())),
        _ => Ok(None),
    }
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

/// Reads a page of a listing.
pub(super) fn page<R: ListedRecord + DeserializeOwned>(
    operation: Operation,
    reply: &Response,
) -> Result<ListingPage<R>, UpstreamError> {
    #[derive(Deserialize)]
    #[serde(bound = "R: DeserializeOwned")]
    struct Envelope<R> {
        #[serde(default, deserialize_with = "errors::list")]
        errors: Vec<FalconApiError>,
        meta: Meta,
        resources: Option<BoundedList<Option<R>, RECORDS>>,
    }
    errors::check_status(operation, reply)?;
    let envelope = operation.decode::<Envelope<R>>(&reply.body);
    // Looked at first: an answer that reports errors may lack what a page must have.
    let problems = match &envelope {
        Ok(envelope) => &envelope.errors,
        Err(_) => &errors::in_success(operation, reply)?,
    };
    if let Some(problem) = problems.first() {
        return Err(errors::error_in_success(operation, reply, problem));
    }
    let envelope = envelope?;
    let Pagination { total, after, next } = envelope.meta.pagination;
    Ok(ListingPage {
        records: envelope.resources.map_or_else(Vec::new, |list| list.0),
        total: usize::try_from(total).unwrap_or(usize::MAX),
        next: after.or(next),
    })
}

impl FromText for Aid {
    /// Both APIs use lower case, and the join must not depend on it.
    fn of_text(text: &str) -> Option<Self> {
        let aid = Self::from(text);
        if aid.is_hex() {
            return Some(aid);
        }
        let usable = (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        usable.then(|| Self::from(text.to_ascii_lowercase().as_str()))
    }
}

impl FromText for Serial {
    fn of_text(text: &str) -> Option<Self> {
        Self::parse(text).ok()
    }
}

impl FromText for Timestamp {
    fn of_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

/// A host name as it is kept.
#[derive(Debug)]
struct Hostname(SmolStr);

impl FromText for Hostname {
    fn of_text(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self(sanitize_smol(text, HOSTNAME_CHARS)))
    }
}

/// A host, with the fields that are asked for. All are optional: recorded hosts lack some.
#[derive(Debug, Deserialize)]
pub(super) struct HostRecord {
    #[serde(default)]
    device_id: LenientText<Aid>,
    #[serde(default)]
    serial_number: LenientText<Serial>,
    #[serde(default)]
    hostname: LenientText<Hostname>,
    #[serde(default)]
    last_seen: LenientText<Timestamp>,
}

impl ListedRecord for HostRecord {
    type Value = Host;

    fn entry(self) -> Option<(Aid, Host)> {
        let aid = self.device_id.0?;
        let host = Host {
            aid: aid.clone(),
            serial: self.serial_number.0,
            hostname: self.hostname.0.map(|Hostname(name)| name),
            last_seen: self.last_seen.0,
        };
        Some((aid, host))
    }

    /// The later one is the newer one.
    fn merge(known: &mut Host, later: Host) {
        *known = later;
    }
}

/// A pair of the score listing.
#[derive(Debug, Deserialize)]
pub(super) struct ScoreRecord {
    #[serde(default)]
    aid: LenientText<Aid>,
    #[serde(default)]
    score: LooseValue,
}

impl ListedRecord for ScoreRecord {
    type Value = Assessment;

    fn entry(self) -> Option<(Aid, Assessment)> {
        Some((self.aid.0?, assess(&self.score)))
    }

    /// A score that moved while the listing was paged through appears twice. The lower one counts: a device never gets
    /// more than it deserves. One that is no score at all is the lowest.
    fn merge(known: &mut Assessment, later: Assessment) {
        if later.score() < known.score() {
            *known = later;
        }
    }
}

/// A score is a whole number from 0 to 100 in any form that JSON has for it: Go and Python encoders write the same number
/// as `71`, `71.0` or `7.1e1`.
fn assess(value: &LooseValue) -> Assessment {
    let number = value.number().and_then(Number::as_f64);
    number.and_then(Score::from_f64).map_or_else(
        || Assessment::Invalid(sanitize(&value.to_string(), SCORE_CHARS)),
        Assessment::Score,
    )
}

/// Reads the answer of the score look-up. Falcon left out the sensors without an assessment in two ways: until 2024
/// with a 404 that holds the others' records (netskope's client still expects it), since then with a 200.
pub(super) fn assessments(
    operation: Operation,
    reply: &Response,
) -> Result<Assessments, UpstreamError> {
    #[derive(Deserialize)]
    struct Envelope {
        resources: Option<BoundedList<Option<Entity>, RECORDS>>,
    }
    #[derive(Deserialize)]
    struct Entity {
        #[serde(default)]
        aid: LenientText<Aid>,
        #[serde(default)]
        assessment: LenientObject<Rating>,
    }
    #[derive(Deserialize)]
    struct Rating {
        #[serde(default)]
        overall: LooseValue,
    }
    let not_found = reply.status == 404 && is_about_unknown_ids(&errors::in_body(&reply.body));
    if !not_found {
        errors::check_status(operation, reply)?;
    }
    let problems = errors::in_success(operation, reply)?;
    if let Some(problem) = problems.iter().find(|problem| !is_unknown_id(problem)) {
        return Err(errors::error_in_success(operation, reply, problem));
    }
    let envelope: Envelope = operation.decode(&reply.body)?;
    // A missing list is no news of anyone, except in the 404.
    let entities = match envelope.resources {
        None if !not_found => return Err(operation.protocol("the list of resources is missing")),
        list => list.map_or_else(Vec::new, |list| list.0),
    };
    let mut scores = BTreeMap::new();
    for entity in entities.into_iter().flatten() {
        // psfalcon#179: a record without an assessment. It says the same as no record.
        let overall = entity.assessment.0.map(|rating| rating.overall);
        let overall = overall.filter(|overall| *overall != LooseValue::Null);
        if let (Some(aid), Some(overall)) = (entity.aid.0, overall) {
            scores.insert(aid, assess(&overall));
        }
    }
    Ok(scores)
}

fn is_about_unknown_ids(problems: &[FalconApiError]) -> bool {
    !problems.is_empty() && problems.iter().all(is_unknown_id)
}

/// "One or more of the specified agent IDs is not found", "Assessment not found": words for a sensor, and not for a
/// path that does not exist.
fn is_unknown_id(problem: &FalconApiError) -> bool {
    let text = problem.message.to_lowercase();
    text.contains("not found") && (text.contains("agent id") || text.contains("assessment"))
}
