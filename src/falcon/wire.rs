//! Falcon's JSON: lenient in general, and strict in the fields that decisions use.
//!
//! Recorded traffic: `errors` is null on success, `resources` is null on failure, `powered_by` is absent, and a cursor is
//! `""` at the end. The score listing's cursor is named `after` in some years of the specification and `next` in others.
//! One invalid field must not cost the other ten thousand records of its page.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use serde_json::Number;
use smol_str::SmolStr;

use crate::domain::inventory::host::{Aid, Assessment, Assessments, Host, Score};
use crate::domain::inventory::platform::Platform;
use crate::domain::inventory::serial::Serial;
use crate::falcon::errors::{self, FalconApiError};
use crate::falcon::paging::{ListedRecord, ListingPage};
use crate::json::lenient::{BoundedList, FromText, LenientObject, LenientText, LooseValue};
use crate::text::sanitize;
use crate::upstream::client::Response;
use crate::upstream::error::{Operation, UpstreamError};

/// Maximum characters of an invalid score, before the ellipsis.
const MAX_SCORE_CHARS: usize = 39;
/// Maximum records of a response: the largest page that is requested.
const MAX_RECORDS: usize = 10_000;
/// Maximum bytes of a cursor. Recorded cursors have some 250. A URL takes 64 kB, and encoding can triple the bytes.
const MAX_CURSOR_BYTES: usize = 16 << 10;

/// Reads a cursor from any scalar: pipedream#21339 saw numbers where the specification has strings. A cursor that does not
/// fit into a URL is an error.
fn cursor<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    match LooseValue::deserialize(deserializer)? {
        LooseValue::Text(text) if text.len() > MAX_CURSOR_BYTES => {
            Err(D::Error::invalid_length(text.len(), &"a shorter cursor"))
        }
        LooseValue::Text(text) if !text.is_empty() => Ok(Some(text)),
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

pub(super) fn page<R: ListedRecord>(
    operation: Operation,
    response: &Response,
) -> Result<ListingPage<R>, UpstreamError> {
    #[derive(Deserialize)]
    #[serde(bound = "R: DeserializeOwned")]
    struct Envelope<R> {
        #[serde(default, deserialize_with = "errors::list")]
        errors: Vec<FalconApiError>,
        meta: Meta,
        resources: Option<BoundedList<Option<R>, MAX_RECORDS>>,
    }
    errors::check_status(operation, response)?;
    let envelope = operation.decode::<Envelope<R>>(&response.body);
    // Errors are read first: a response that reports errors may lack the fields of a page.
    let problems = match &envelope {
        Ok(envelope) => &envelope.errors,
        Err(_) => &errors::in_success(operation, response)?,
    };
    if let Some(problem) = problems.first() {
        return Err(errors::error_in_success(operation, response, problem));
    }
    let envelope = envelope?;
    let Pagination { total, after, next } = envelope.meta.pagination;
    Ok(ListingPage {
        records: envelope.resources.unwrap_or_default().0,
        total: usize::try_from(total).unwrap_or(usize::MAX),
        next: after.or(next),
    })
}

impl FromText for Aid {
    /// Converts to lower case: both APIs use it, and the join must not depend on it.
    fn from_text(text: &str) -> Option<Self> {
        let aid = Self::from(text);
        if aid.is_hex() {
            return Some(aid);
        }
        let is_usable =
            (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        is_usable.then(|| Self::from(text.to_ascii_lowercase().as_str()))
    }
}

impl FromText for Serial {
    fn from_text(text: &str) -> Option<Self> {
        Self::parse(text).ok()
    }
}

/// A host, with the requested fields. All are optional: recorded hosts lack some.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct HostRecord {
    device_id: LenientText<Aid>,
    serial_number: LenientText<Serial>,
    hostname: LenientText<SmolStr>,
    first_seen: LenientText<Timestamp>,
    last_seen: LenientText<Timestamp>,
    platform_name: LenientText<Platform>,
    status: LenientText<Containment>,
}

/// A status that says that the host is isolated, or about to be, or about to be released.
#[derive(Clone, Copy, Debug)]
struct Containment;

impl FromText for Containment {
    fn from_text(text: &str) -> Option<Self> {
        const STATUSES: [&str; 3] = [
            "contained",
            "containment_pending",
            "lift_containment_pending",
        ];
        let text = text.trim();
        let mut statuses = STATUSES.iter();
        let is_contained = statuses.any(|status| text.eq_ignore_ascii_case(status));
        is_contained.then_some(Self)
    }
}

impl FromText for Platform {
    fn from_text(text: &str) -> Option<Self> {
        Some(Self::parse(text))
    }
}

impl ListedRecord for HostRecord {
    type Value = Host;

    fn into_entry(self) -> Option<(Aid, Host)> {
        let aid = self.device_id.0?;
        let host = Host {
            aid: aid.clone(),
            serial: self.serial_number.0,
            hostname: self.hostname.0,
            first_seen: self.first_seen.0,
            last_seen: self.last_seen.0,
            platform: self.platform_name.0.unwrap_or_default(),
            is_contained: self.status.0.is_some(),
        };
        Some((aid, host))
    }

    /// Keeps the later record, which is the newer one.
    fn merge(known: &mut Host, later: Host) {
        *known = later;
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ScoreRecord {
    aid: LenientText<Aid>,
    score: LooseValue,
}

impl ListedRecord for ScoreRecord {
    type Value = Assessment;

    fn into_entry(self) -> Option<(Aid, Assessment)> {
        Some((self.aid.0?, assessment(&self.score)))
    }

    /// Keeps the lower score, so that a device never gets a score that is too high. A score that moves between pages
    /// appears twice. An invalid score is the lowest.
    fn merge(known: &mut Assessment, later: Assessment) {
        if later.score() < known.score() {
            *known = later;
        }
    }
}

/// Reads a score: an integer from 0 to 100 in any form of JSON. Go and Python encoders write the same number as `71`,
/// `71.0` or `7.1e1`.
fn assessment(value: &LooseValue) -> Assessment {
    let number = value.number().and_then(Number::as_f64);
    number.and_then(Score::from_f64).map_or_else(
        || Assessment::Invalid(sanitize(&value.to_string(), MAX_SCORE_CHARS)),
        Assessment::Score,
    )
}

/// Reads the response of the score look-up. It omits sensors without an assessment: with a 200, or until 2024 with a 404
/// that holds the records of the others (netskope's client still expects it).
pub(super) fn assessments(
    operation: Operation,
    response: &Response,
) -> Result<Assessments, UpstreamError> {
    #[derive(Deserialize)]
    struct Envelope {
        resources: Option<BoundedList<Option<Entity>, MAX_RECORDS>>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Entity {
        aid: LenientText<Aid>,
        assessment: LenientObject<Rating>,
    }
    #[derive(Deserialize)]
    struct Rating {
        #[serde(default)]
        overall: LooseValue,
    }
    let is_unknown =
        response.status == 404 && are_about_unknown_ids(&errors::in_body(&response.body));
    if !is_unknown {
        errors::check_status(operation, response)?;
    }
    let problems = errors::in_success(operation, response)?;
    if let Some(problem) = problems.iter().find(|problem| !is_unknown_id(problem)) {
        return Err(errors::error_in_success(operation, response, problem));
    }
    let envelope: Envelope = operation.decode(&response.body)?;
    // Only the 404 may lack the list.
    if envelope.resources.is_none() && !is_unknown {
        return Err(operation.protocol("the list of resources is missing"));
    }
    let BoundedList(entities) = envelope.resources.unwrap_or_default();
    let mut assessments = BTreeMap::new();
    for entity in entities.into_iter().flatten() {
        // psfalcon#179: a record without an assessment. It means the same as no record.
        let rating = entity.assessment.0.map(|rating| rating.overall);
        let overall = rating.filter(|overall| *overall != LooseValue::Null);
        if let (Some(aid), Some(overall)) = (entity.aid.0, overall) {
            assessments.insert(aid, assessment(&overall));
        }
    }
    Ok(assessments)
}

fn are_about_unknown_ids(problems: &[FalconApiError]) -> bool {
    !problems.is_empty() && problems.iter().all(is_unknown_id)
}

/// Returns whether an error is about a sensor, not about a missing path: "One or more of the specified agent IDs is not
/// found", "Assessment not found".
fn is_unknown_id(problem: &FalconApiError) -> bool {
    let text = problem.message().to_lowercase();
    text.contains("not found") && (text.contains("agent id") || text.contains("assessment"))
}
