//! Explains devices from one snapshot. Explanations show the values that decided: the outcome of the join, the status of
//! each host, and the change in the plan.

pub mod explanation;
mod next_sync;
mod reasons;
mod search;

use std::cmp::Reverse;

use crate::domain::audit::AuditRecord;
use crate::domain::explain::explanation::{ExplainedHost, Explanation, ReportedSerial};
use crate::domain::inventory::device::{Device, NodeId};
use crate::domain::inventory::serial::Serial;
use crate::domain::matching::candidates::{Candidate, CandidateStatus, HostsBySerial};
use crate::domain::matching::reasons::{Verdict, truncate};
use crate::domain::matching::{MatchOutcome, finding_kind, serials};
use crate::domain::snapshot::Snapshot;
use crate::domain::status::finding::FindingKind;

pub(crate) use search::{find_devices, find_in_records};

use reasons::is_deciding;

/// Maximum hosts in an explanation: hundreds of clones may share a serial.
const MAX_HOSTS: usize = 20;
/// Maximum serials in an explanation: real devices report three.
const MAX_SERIALS: usize = 20;

/// The snapshot of an integration that explanations are made from.
#[derive(Debug)]
pub struct ExplainContext<'a> {
    pub(crate) snapshot: &'a Snapshot,
    hosts_by_serial: HostsBySerial<'a>,
}

impl<'a> ExplainContext<'a> {
    /// Groups the hosts of the snapshot by serial.
    pub fn new(snapshot: &'a Snapshot) -> Self {
        Self {
            hosts_by_serial: HostsBySerial::new(&snapshot.falcon, snapshot.min_last_seen),
            snapshot,
        }
    }

    /// Explains a device; `None` if it is not in the tailnet. `history` becomes part of the explanation.
    pub fn explain(&self, node_id: &NodeId, history: Vec<AuditRecord>) -> Option<Explanation> {
        let device = self.snapshot.devices.get(node_id)?;
        let outcome = self.snapshot.matches.outcomes.get(node_id)?;
        let candidates = self.candidates(device);
        let written = self.snapshot.records.get(node_id);
        let had_score = written.is_some() || !history.is_empty();
        let (next_action, next) = self.next_step(node_id, outcome);
        let (serials, serials_omitted) = reported_serials(device);
        let (hosts, hosts_omitted) = self.explain_hosts(&candidates, Some(outcome));
        Some(Explanation {
            node_id: node_id.clone(),
            name: truncate(&device.name),
            hostname: truncate(&device.hostname),
            user: truncate(&device.user),
            os: truncate(&device.os),
            verdict: outcome.into(),
            reason: outcome.full_reason(&candidates, &self.age_limit()),
            remedy: remedy(outcome, &candidates, had_score),
            score: outcome.score(),
            serials,
            serials_omitted,
            hosts,
            hosts_omitted,
            written: written.cloned(),
            next,
            next_action,
            history,
        })
    }

    /// Explains the hosts with a serial that no device reports. Returns how many more there are, too.
    pub(crate) fn hosts_with_serial(&self, serial: &Serial) -> (Vec<ExplainedHost>, usize) {
        let candidates = self.hosts_by_serial.candidates(serial);
        self.explain_hosts(&candidates, None)
    }

    /// Returns the hosts with one of a device's serials.
    fn candidates(&self, device: &Device) -> Vec<Candidate<'_>> {
        serials(device.identity.serials())
            .0
            .iter()
            .flat_map(|serial| self.hosts_by_serial.candidates(serial))
            .collect()
    }

    fn explain_hosts(
        &self,
        candidates: &[Candidate<'_>],
        outcome: Option<&MatchOutcome>,
    ) -> (Vec<ExplainedHost>, usize) {
        let mut candidates = candidates.to_vec();
        candidates.sort_by_key(|candidate| {
            (
                !is_deciding(outcome, candidate.host),
                candidate.status,
                Reverse(candidate.host.last_seen),
                &candidate.host.aid,
            )
        });
        let hosts = candidates.iter().take(MAX_HOSTS).filter_map(|candidate| {
            Some(ExplainedHost {
                aid: candidate.host.aid.clone(),
                hostname: candidate.host.hostname.as_deref().map(truncate),
                serial: candidate.host.serial.as_ref()?.to_string(),
                last_seen: candidate.host.last_seen,
                score: candidate.score(),
                is_deciding: is_deciding(outcome, candidate.host),
                status: candidate.status,
                reason: self.host_reason(candidate, outcome),
            })
        });
        (hosts.collect(), candidates.len().saturating_sub(MAX_HOSTS))
    }

    /// Returns the age limit as half a sentence.
    fn age_limit(&self) -> String {
        let days = self.snapshot.settings.max_host_age_days.unwrap_or_default();
        let since = self.snapshot.min_last_seen.unwrap_or_default();
        format!("with maxHostAgeDays {days} only hosts seen since {since:.0} count")
    }
}

/// Returns the first serials of a device, and how many more there are.
fn reported_serials(device: &Device) -> (Vec<ReportedSerial>, usize) {
    let texts = device.identity.serials();
    let first = texts.iter().take(MAX_SERIALS).map(|text| {
        let parsed = Serial::parse(text);
        ReportedSerial {
            reported: truncate(text),
            serial: parsed.as_ref().ok().map(ToString::to_string),
            problem: parsed.err().map(|error| error.to_string()),
        }
    });
    (first.collect(), texts.len().saturating_sub(MAX_SERIALS))
}

/// Returns the remedy of the finding that the device belongs to.
fn remedy(outcome: &MatchOutcome, candidates: &[Candidate<'_>], had_score: bool) -> Option<String> {
    let mut live = candidates.iter().filter(|one| one.status.is_live());
    let finding = match Verdict::from(outcome) {
        Verdict::NoIdentity | Verdict::NoSerial if had_score => FindingKind::LostIdentity,
        Verdict::NoSerial => FindingKind::PlaceholderSerials,
        Verdict::Unassessed if live.all(|one| one.status == CandidateStatus::InvalidScore) => {
            FindingKind::InvalidScores
        }
        _ => finding_kind(outcome)?,
    };
    Some(finding.remedy().to_owned())
}
