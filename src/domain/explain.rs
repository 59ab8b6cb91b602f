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
use crate::domain::matching::candidates::{Candidate, CandidateStatus};
use crate::domain::matching::reasons::{Verdict, truncate};
use crate::domain::matching::{MatchOutcome, Matcher, UnmatchedCause, finding_kind};
use crate::domain::snapshot::Snapshot;
use crate::domain::status::finding::FindingKind;
use crate::settings::IgnoredSerials;

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
    matcher: Matcher<'a>,
}

impl<'a> ExplainContext<'a> {
    /// Matches the snapshot anew, to tell each host's part in it.
    pub fn new(snapshot: &'a Snapshot) -> Self {
        let Snapshot {
            falcon,
            devices,
            records,
            rules,
            ..
        } = snapshot;
        Self {
            matcher: Matcher::new(falcon, devices, records, rules),
            snapshot,
        }
    }

    /// Explains a device; `None` if it is not in the tailnet. `history` becomes part of the explanation.
    pub fn explain(&self, node_id: &NodeId, history: Vec<AuditRecord>) -> Option<Explanation> {
        let device = self.snapshot.devices.get(node_id)?;
        let outcome = self.snapshot.matches.outcomes.get(node_id)?;
        let candidates = self.matcher.candidates(node_id);
        let written = self.snapshot.records.get(node_id);
        let had_score = written.is_some() || !history.is_empty();
        let (next_action, next) = self.next_step(node_id, outcome);
        let (serials, serials_omitted) =
            reported_serials(device, &self.snapshot.rules.ignored_serials);
        let (hosts, hosts_omitted) = self.explain_hosts(candidates, Some((device, outcome)));
        Some(Explanation {
            node_id: node_id.clone(),
            name: truncate(&device.name),
            hostname: truncate(&device.hostname),
            user: truncate(&device.user),
            os: truncate(&device.os),
            verdict: outcome.into(),
            reason: outcome.full_reason(candidates, &self.matcher),
            remedy: remedy(outcome, candidates, had_score),
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
        let candidates = self.matcher.rivals(serial, None);
        self.explain_hosts(&candidates, None)
    }

    fn explain_hosts(
        &self,
        candidates: &[Candidate<'_>],
        device: Option<(&Device, &MatchOutcome)>,
    ) -> (Vec<ExplainedHost>, usize) {
        let outcome = device.map(|(_, outcome)| outcome);
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
                reason: self.host_reason(candidate, device),
            })
        });
        (hosts.collect(), candidates.len().saturating_sub(MAX_HOSTS))
    }
}

/// Returns the first serials of a device, and how many more there are.
fn reported_serials(device: &Device, ignored: &IgnoredSerials) -> (Vec<ReportedSerial>, usize) {
    let texts = device.identity.serials();
    let first = texts.iter().take(MAX_SERIALS).map(|text| {
        let parsed = Serial::identify(text, ignored);
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
    let mut live = candidates.iter().filter(|one| one.status.counts());
    let finding = match Verdict::from(outcome) {
        Verdict::NoIdentity | Verdict::NoSerial if had_score => FindingKind::LostIdentity,
        Verdict::NoSerial => FindingKind::PlaceholderSerials,
        Verdict::Unassessed if live.all(|one| one.status == CandidateStatus::InvalidScore) => {
            FindingKind::InvalidScores
        }
        _ => finding_kind(outcome)?,
    };
    let remedy = match outcome {
        MatchOutcome::Unmatched { cause, .. } => UnmatchedCause::remedy(cause.as_ref()),
        _ => finding.remedy(),
    };
    Some(remedy.to_owned())
}
