//! Reads an item of the integrations table. Another version may have written it, or a person may have edited it.

use std::collections::HashMap;
use std::error::Error as StdError;

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_dynamo::from_item;
use serde_json::{Map, Value};
use serde_path_to_error::Segment;
use smol_str::SmolStr;

use crate::domain::plan::deprovision::Removal;
use crate::domain::plan::journal::Journal;
use crate::domain::plan::lifetime::Lifetime;
use crate::domain::status::Status;
use crate::domain::status::pause::Pause;
use crate::domain::status::scores_end::ScoresEnd;
use crate::settings::{FieldError, IntegrationId, Settings};
use crate::text::{redact, sanitize_smol};

/// A stored integration.
#[derive(Clone, Debug)]
pub struct Integration {
    pub(crate) id: IntegrationId,
    /// The settings, or what is wrong with them. A person may have edited the item, which must not stop other integrations.
    pub settings: Result<Settings, FieldError>,
    /// The settings as stored, valid or not.
    pub(crate) stored: Map<String, Value>,
    /// The number of changes, from 1.
    pub(crate) config_version: u64,
    pub(crate) config_updated: Option<Timestamp>,
    pub(crate) config_updated_by: Option<String>,
    /// The status after the latest run; `None` before the first.
    pub(crate) status: Option<Status>,
    /// The latest pause, active or expired.
    pub(crate) pause: Option<Pause>,
    /// The lease of the run in progress, or of a run that died.
    pub(crate) lease: Option<Lease>,
    /// The request to remove the integration, which the next run executes.
    pub(crate) removal: Option<Removal>,
    /// Writes that runs were about to make and have not recorded.
    pub pending: Journal,
    /// Parts of optional attributes that this version cannot read, each with its path and the reason. They count as absent;
    /// the next run overwrites status and pause.
    pub(crate) unreadable: Vec<String>,
}

/// The right to work on an integration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The run that holds it.
    pub(crate) owner: String,
    pub(crate) until: Timestamp,
    /// Another one for each acquisition, so that two invocations with one id are two runs.
    #[serde(default)]
    pub(crate) term: String,
}

/// All integrations, sorted by name.
#[derive(Debug, Default)]
pub struct Integrations {
    pub(crate) readable: Vec<Integration>,
    /// Items that cannot be read. They are not synced until a person repairs them.
    pub(crate) unreadable: Vec<UnreadableItem>,
}

/// An item of the integrations table that this version cannot read: another version wrote it, or a person edited it.
#[derive(Debug, thiserror::Error)]
#[error("integration {id:?}: its item in the integrations table cannot be read")]
pub struct UnreadableItem {
    /// The item's key, sanitized. It may be an invalid name.
    pub(crate) id: SmolStr,
    /// The last success, or the last change of the settings if that was later, if the item has such a time.
    pub(crate) last_good: Option<Timestamp>,
    /// The path and the reason.
    #[source]
    source: Box<dyn StdError + Send + Sync>,
}

/// The attributes, other than settings, that decide what a run may do.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct IntegrationAttributes {
    id: IntegrationId,
    #[serde(default)]
    config_version: u64,
    lease: Option<Lease>,
    removal: Option<Removal>,
    #[serde(default)]
    pending: Journal,
}

const ID_CHARS: usize = 64;
/// Maximum characters of the reason for an unreadable part.
const REASON_CHARS: usize = 400;

pub(super) type Item = HashMap<String, AttributeValue>;

const OWN_ATTRIBUTES: [&str; 8] = [
    "configVersion",
    "configUpdated",
    "configUpdatedBy",
    "status",
    "pause",
    "lease",
    "removal",
    "pending",
];

impl Integration {
    /// Returns whether the schedule runs the integration. A run also reports invalid settings.
    pub(crate) fn should_run(&self) -> bool {
        self.removal.is_some() || self.settings.as_ref().map_or(true, |s| s.enabled)
    }

    /// Returns the end of the scores that no run renews: all of a disabled integration.
    pub(crate) fn scores_end(&self) -> Option<ScoresEnd> {
        let status = self.status.as_ref().filter(|_| self.removal.is_none())?;
        if self.should_run() {
            status.scores_end
        } else {
            status.recorded_end
        }
    }

    /// Returns the same if the first of these scores has less than half of its life left.
    pub(crate) fn ending_scores(&self, now: Timestamp) -> Option<ScoresEnd> {
        let lifetime = Lifetime::new(self.settings.as_ref().ok()?, now);
        self.scores_end()
            .filter(|end| lifetime.is_nearly_over(end.first))
    }

    /// Reads an item. Optional attributes (status, pause, time and actor of the last change) are dropped if they cannot be
    /// read.
    pub(super) fn from_item(item: Item) -> Result<Self, UnreadableItem> {
        let id = item.get("id").and_then(|id| id.as_s().ok());
        let id = id.map_or_else(SmolStr::default, |id| sanitize_smol(id, ID_CHARS));
        // Decodes via JSON, so that an edited setting gets the same message as in `connect`.
        let unreadable_item = |last_good, reason: String| UnreadableItem {
            id: id.clone(),
            last_good,
            source: reason.into(),
        };
        let all: Map<String, Value> = from_item(item)
            .map_err(|error| unreadable_item(None, redact(&error.to_string(), REASON_CHARS)))?;
        let (mut own, stored): (Map<String, Value>, Map<String, Value>) = all
            .into_iter()
            .partition(|(name, _)| OWN_ATTRIBUTES.contains(&name.as_str()));
        own.extend(stored.get("id").map(|id| ("id".to_owned(), id.clone())));
        let last_good = last_good(&own);

        let mut unreadable = Vec::new();
        let status = take_optional(&mut own, "status", &mut unreadable);
        let pause = take_optional(&mut own, "pause", &mut unreadable);
        let config_updated = take_optional(&mut own, "configUpdated", &mut unreadable);
        let config_updated_by = take_optional(&mut own, "configUpdatedBy", &mut unreadable);
        let attributes: IntegrationAttributes =
            serde_path_to_error::deserialize(Value::Object(own))
                .map_err(|error| unreadable_item(last_good, at_path("", &error)))?;
        Ok(Self {
            settings: Settings::parse(stored.clone().into(), "integration"),
            stored,
            id: attributes.id,
            config_version: attributes.config_version,
            config_updated,
            config_updated_by,
            status,
            pause,
            lease: attributes.lease,
            removal: attributes.removal,
            pending: attributes.pending,
            unreadable,
        })
    }

    /// Returns the seconds since the last success or the last change of the settings, whichever was later. `status` is the
    /// latest status, which may not be stored yet.
    pub(crate) fn seconds_since_success(&self, status: Option<&Status>, now: Timestamp) -> u64 {
        let success = status.and_then(|status| status.last_success);
        seconds_since(success.max(self.config_updated).unwrap_or(now), now)
    }
}

impl UnreadableItem {
    /// Returns the seconds since the last success, if the item has a plausible time. Otherwise they count from 1970, so that
    /// the alarm is raised at once.
    pub(crate) fn seconds_since_success(&self, now: Timestamp) -> u64 {
        let last_good = self.last_good.filter(|time| *time <= now);
        seconds_since(last_good.unwrap_or(Timestamp::UNIX_EPOCH), now)
    }
}

fn seconds_since(time: Timestamp, now: Timestamp) -> u64 {
    u64::try_from(now.duration_since(time).as_secs()).unwrap_or(0)
}

/// Takes an optional attribute. A field that cannot be read is dropped and added to `unreadable`. If the rest cannot be read
/// without that field, the whole attribute is dropped.
fn take_optional<T: DeserializeOwned>(
    item: &mut Map<String, Value>,
    name: &str,
    unreadable: &mut Vec<String>,
) -> Option<T> {
    let mut value = item.remove(name).filter(|value| !value.is_null())?;
    loop {
        let error = match serde_path_to_error::deserialize(&value) {
            Ok(read) => return Some(read),
            Err(error) => error,
        };
        unreadable.push(at_path(name, &error));
        let Some(Segment::Map { key: field }) = error.path().iter().next() else {
            return None;
        };
        value.as_object_mut()?.remove(field)?;
    }
}

/// Returns the latest success or change of the settings, from an item in any condition.
fn last_good(item: &Map<String, Value>) -> Option<Timestamp> {
    let success = item.get("status").map(|status| &status["lastSuccess"]);
    let times = success.into_iter().chain(item.get("configUpdated"));
    times.filter_map(|time| time.as_str()?.parse().ok()).max()
}

/// Formats an error with its path in the item. The error quotes stored values, so it is redacted.
fn at_path(attribute: &str, error: &serde_path_to_error::Error<serde_json::Error>) -> String {
    let path = match (attribute, error.path().to_string()) {
        ("", path) => path,
        (attribute, path) if path == "." => attribute.to_owned(),
        (attribute, path) => format!("{attribute}.{path}"),
    };
    redact(&format!("{path}: {}", error.inner()), REASON_CHARS)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_dynamo::to_attribute_value;
    use serde_json::json;

    use super::*;
    use crate::domain::fetch::MAX_TRACKED_AIDS;
    use crate::domain::fetch::unmatched::MAX_UNMATCHED;
    use crate::domain::inventory::device::NodeId;
    use crate::domain::inventory::host::Score;
    use crate::domain::plan::journal;
    use crate::domain::plan::journal::{JournalEntry, MAX_JOURNAL_BYTES, journal_key};
    use crate::domain::plan::{Change, DesiredAttribute};
    use crate::domain::status::MAX_ERROR_BYTES;
    use crate::domain::status::finding::{Finding, FindingKind};
    use crate::domain::status::history::MAX_ENTRIES;
    use crate::domain::status::lost_identity::{MAX_NAME_BYTES, MAX_STORED};
    use crate::settings::IgnoredSerials;
    use crate::text::truncate_bytes;

    /// DynamoDB's limit.
    const MAX_ITEM_BYTES: usize = 409_600;

    /// The size of a value by DynamoDB's published rules: UTF-8 bytes, at most 21 for a number, 3 for a list or map, and one
    /// for each of its elements.
    fn size(value: &AttributeValue) -> usize {
        match value {
            AttributeValue::S(text) => text.len(),
            AttributeValue::N(_) => 21,
            AttributeValue::L(list) => 3 + list.iter().map(|one| 1 + size(one)).sum::<usize>(),
            AttributeValue::M(map) => {
                let fields = BTreeMap::from_iter(map).into_iter();
                3 + fields
                    .map(|(name, one)| 1 + name.len() + size(one))
                    .sum::<usize>()
            }
            _ => 1,
        }
    }

    fn encode<T: Serialize>(value: &T) -> AttributeValue {
        to_attribute_value(value).unwrap()
    }

    /// A name of a hostile device: four bytes a character.
    fn hostile() -> String {
        "\u{1F980}".repeat(1_000)
    }

    fn change(n: usize) -> Change {
        let change = journal::tests::change(n, &hostile());
        Change {
            node_id: NodeId(format!("n{n:0127}").into()),
            new: change.new.map(|new| DesiredAttribute {
                key: format!("custom:{}", "k".repeat(43)).try_into().unwrap(),
                score: Score::new(100).unwrap(),
                serial: hostile().as_str().into(),
                expiry: Some(Timestamp::MAX),
                ..new
            }),
            ..change
        }
    }

    fn stored_bytes(journal: &Journal) -> usize {
        journal.values().map(JournalEntry::stored_bytes).sum()
    }

    /// As many batches of hostile devices as the journal has room for, and a little one.
    fn full_journal() -> Journal {
        let mut journal = Journal::new();
        let run = "x".repeat(64);
        for n in 0.. {
            let changes: Vec<Change> = (0..50).map(|device| change(50 * n + device)).collect();
            let key = journal_key("0123456789abcdef", n);
            let entry = |changes: &[Change]| JournalEntry::new(&run, changes, Timestamp::MAX);
            let left = MAX_JOURNAL_BYTES - stored_bytes(&journal);
            let fitting = (1..=50).rev();
            let mut fitting = fitting.map(|devices| entry(&changes[..devices]));
            let Some(entry) = fitting.find(|entry| entry.stored_bytes() <= left) else {
                return journal;
            };
            journal.insert(key, entry);
        }
        journal
    }

    fn largest_status() -> Status {
        use FindingKind::*;
        let kinds = [
            LostIdentity,
            SuspiciousObservation,
            NoIdentity,
            Unmatched,
            Unassessed,
            StaleHosts,
            SilentSensors,
            OtherPlatform,
            Contained,
            ChangedSerials,
            PlaceholderSerials,
            SharedSerials,
            InvalidScores,
            UnreadableState,
            UnreadableDevices,
            UnsettledWrites,
            UnconfirmedDevices,
            ShortListing,
            ScoresFell,
            RefusedWrites,
            WaitingRemovals,
            HeldRemovals,
            NativeIntegration,
        ];
        let cases = || std::iter::repeat_n(hostile(), Finding::EXAMPLES + 1);
        let findings = kinds.map(|kind| Finding::new(kind, cases()));
        let (time, run, count) = ("2026-01-15T12:00:00.123456789Z", "x".repeat(64), u32::MAX);
        let lost = json!({
            "nodeId": "n".repeat(128), "since": time, "name": truncate_bytes(&hostile(), MAX_NAME_BYTES),
        });
        let streak = json!({
            "since": time, "until": time, "runs": count, "outcome": "unchanged", "errorKind": "configuration",
            "written": count, "removed": count, "failed": count, "durationMs": count, "runId": run,
        });
        let bounds: Vec<u8> = (0..=100).collect();
        let counts: Map<String, Value> = (0..=100)
            .map(|n: u8| (n.to_string(), json!(count)))
            .collect();
        let aids: Vec<String> = (0..MAX_TRACKED_AIDS).map(|n| format!("{n:032}")).collect();
        let hashes: Vec<String> = (0..MAX_UNMATCHED).map(|n| format!("{n:08x}")).collect();
        let hashes = hashes.join(" ");
        serde_json::from_value(json!({
            "lastSync": time, "lastSuccess": time, "outcome": "unchanged", "errorKind": "configuration",
            "error": truncate_bytes(&hostile(), MAX_ERROR_BYTES), "providerHostCount": count,
            "hostsWithoutSerial": count, "possibleMatchedCount": count, "matchedCount": count, "written": count, "removed": count,
            "waiting": count, "runId": run, "durationMs": count, "configVersion": count,
            "consecutiveFailures": count, "failingSince": time, "findings": findings,
            "lostIdentity": vec![lost; MAX_STORED], "scoreCounts": counts,
            "lastChange": {"at": time, "runId": run, "written": count, "removed": count},
            "crawl": {
                "way": "filtered", "why": "y".repeat(400), "hosts": count, "scores": count, "scoreBounds": bounds,
                "lastFull": time, "beside": aids, "unmatched": hashes, "lookupsRefused": time,
            },
            "announced": "failing", "nativeIntegration": {"asked": time, "present": true},
            "nextLookup": "n".repeat(128), "nextRise": "n".repeat(128), "scoresEnd": {"first": time, "devices": count},
            "recordedEnd": {"first": time, "devices": count}, "endingAnnounced": true,
            "history": vec![streak; MAX_ENTRIES],
        }))
        .unwrap()
    }

    #[test]
    fn the_largest_integration_fits_into_an_item() {
        let journal = full_journal();
        let journal_bytes = size(&encode(&journal));
        assert!(journal_bytes <= stored_bytes(&journal), "{journal_bytes}");
        assert!(stored_bytes(&journal) > MAX_JOURNAL_BYTES - 1_000);
        let status = largest_status();
        let (time, run) = (Timestamp::MAX, "x".repeat(64));
        let text = |length| "s".repeat(length);
        let item = json!({
            "id": text(64), "provider": "falcon", "cloudId": text(64), "falconSecret": text(512),
            "tailscaleSecret": text(512), "tailnet": text(255), "attributeKey": text(50), "enabled": true,
            "onMissing": "delete", "maxHostAgeDays": 3650, "maxSilenceHours": 8760, "onSharedSerial": "withhold",
            "onContained": "withhold", "ignoredSerials": vec![text(IgnoredSerials::MAX_BYTES + 1); IgnoredSerials::MAX_ENTRIES],
            "removeAfterMinutes": 1440,
            "maxRemovals": {"percent": 100, "atLeast": 1_000_000}, "configVersion": u32::MAX, "configUpdated": time,
            "configUpdatedBy": truncate_bytes(&hostile(), 800),
            "lease": {"owner": run, "until": time, "term": "0123456789abcdef"},
            "removal": {"attributes": "delete", "since": time, "actor": truncate_bytes(&hostile(), 800)},
            "pause": {
                "since": time, "until": time, "side": "secretsManager", "attempts": u32::MAX,
                "error": truncate_bytes(&hostile(), MAX_ERROR_BYTES), "secretVersion": text(129),
            },
        });
        let rest = size(&encode(&item)) + "status".len() + size(&encode(&status)) + "pending".len();
        let bytes = rest + journal_bytes;
        assert!(
            bytes <= MAX_ITEM_BYTES,
            "{bytes} = {rest} + {journal_bytes}"
        );
        assert!(rest > 100_000, "it is the worst case: {rest}");
    }
}
