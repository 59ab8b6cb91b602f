//! Explains devices out of one look at everything. What it tells is what decided: the outcome that the join gave the
//! device, the standing that each host has in it, and the change that the plan holds.

pub mod explanation;
mod next_sync;
mod reasons;
mod search;

use std::cmp::Reverse;

use jiff::Timestamp;

use crate::domain::audit::AuditRecord;
use crate::domain::explain::explanation::{
    ExplainedHost, Explanation, HostStatus, ReportedSerial, Verdict,
};
use crate::domain::inventory::device::{Device, Devices, Identity, NodeId};
use crate::domain::inventory::host::{Assessment, FalconInventory};
use crate::domain::inventory::serial::Serial;
use crate::domain::matching::candidates::{Candidate, CandidateStatus, HostsBySerial};
use crate::domain::matching::{MatchOutcome, Matches, serials};
use crate::domain::plan::confirm::Unconfirmed;
use crate::domain::plan::guard::Held;
use crate::domain::plan::journal::Journal;
use crate::domain::plan::{NodeRecords, Plan};
use crate::domain::status::finding::FindingKind;
use crate::settings::Settings;
use crate::text::sanitize;

pub use search::{find, recorded};

use reasons::Perspective;

/// So many hosts are told of one device: clones by the hundred may share a serial.
const HOSTS: usize = 20;

/// So many serials: real devices report three.
const SERIALS: usize = 20;

/// How much of a text from outside is told.
pub(crate) const TEXT_CHARS: usize = 255;

/// One look at an integration: what there is, and what its next sync would make of it.
#[derive(Debug)]
pub struct ExplainContext<'a> {
    /// The settings that it was made by.
    pub settings: &'a Settings,
    /// What Falcon shows.
    pub falcon: &'a FalconInventory,
    /// What each host's claim to its serial is worth.
    pub claims: HostsBySerial<'a>,
    /// The devices of the tailnet.
    pub devices: &'a Devices,
    /// What was written before.
    pub records: &'a NodeRecords,
    /// Since when a host must have been seen to count, if the integration says so.
    pub seen_since: Option<Timestamp>,
    /// One outcome for each device.
    pub joined: &'a Matches,
    /// What the next sync would do.
    pub plan: &'a Plan,
    /// Why its removals would wait, if they would.
    pub held: Option<&'a Held>,
    /// What would wait since it could not be looked up.
    pub open: &'a Unconfirmed,
    /// What earlier runs were about to write and have not recorded.
    pub pending: &'a Journal,
}

impl ExplainContext<'_> {
    /// Explains a device; nothing if it is not in the tailnet. `history` is told as it is.
    pub fn explain(&self, node_id: &NodeId, history: Vec<AuditRecord>) -> Option<Explanation> {
        let device = self.devices.get(node_id)?;
        let outcome = self.joined.outcomes.get(node_id)?;
        let claims = self.claimants(device);
        let written = self.records.get(node_id);
        let had_score = written.is_some() || !history.is_empty();
        let score = match outcome {
            MatchOutcome::Scored(evidence) => Some(evidence.score),
            _ => None,
        };
        let (next_action, next) = self.next(node_id, outcome);
        let (serials, serials_omitted) = told_serials(device);
        let (hosts, hosts_omitted) = self.candidates(&claims, Perspective::of(outcome));
        Some(Explanation {
            node_id: node_id.clone(),
            name: fit(&device.name),
            hostname: fit(&device.hostname),
            user: fit(&device.user),
            os: fit(&device.os),
            verdict: verdict(outcome),
            because: self.because(outcome, &claims),
            remedy: remedy(outcome, &claims, had_score).map(|kind| kind.remedy().to_owned()),
            score,
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

    /// The hosts with a serial that no device reports, and how many more there are.
    pub fn hosts_with(&self, serial: &Serial) -> (Vec<ExplainedHost>, usize) {
        self.candidates(&self.claims.with(serial), Perspective::Nobody)
    }

    /// The hosts that claim to be a device.
    fn claimants(&self, device: &Device) -> Vec<Candidate<'_>> {
        let Identity::Serials(texts) = &device.identity else {
            return Vec::new();
        };
        serials(texts)
            .0
            .iter()
            .flat_map(|serial| self.claims.with(serial))
            .collect()
    }

    fn candidates(
        &self,
        claims: &[Candidate<'_>],
        asking: Perspective<'_>,
    ) -> (Vec<ExplainedHost>, usize) {
        let mut claims = claims.to_vec();
        claims.sort_by_key(|claim| {
            (
                !asking.decides(claim.host),
                place(claim.standing),
                Reverse(claim.host.last_seen),
                &claim.host.aid,
            )
        });
        let told = claims.iter().take(HOSTS).filter_map(|claim| {
            Some(ExplainedHost {
                aid: claim.host.aid.clone(),
                hostname: claim.host.hostname.as_deref().map(fit),
                serial: claim.host.serial.as_ref()?.to_string(),
                last_seen: claim.host.last_seen,
                score: self
                    .falcon
                    .scores
                    .get(&claim.host.aid)
                    .and_then(Assessment::score),
                decides: asking.decides(claim.host),
                standing: place(claim.standing),
                because: self.host_because(claim, asking),
            })
        });
        (told.collect(), claims.len().saturating_sub(HOSTS))
    }
}

/// Text from outside, fit to be shown.
fn fit(text: &str) -> String {
    sanitize(text, TEXT_CHARS)
}

fn told_serials(device: &Device) -> (Vec<ReportedSerial>, usize) {
    let Identity::Serials(texts) = &device.identity else {
        return (Vec::new(), 0);
    };
    let told = texts.iter().take(SERIALS).map(|text| {
        let parsed = Serial::parse(text);
        ReportedSerial {
            reported: fit(text),
            serial: parsed.as_ref().ok().map(ToString::to_string),
            refused: parsed.err().map(|why| why.to_string()),
        }
    });
    (told.collect(), texts.len().saturating_sub(SERIALS))
}

pub(crate) fn verdict(outcome: &MatchOutcome) -> Verdict {
    match outcome {
        MatchOutcome::Scored(_) => Verdict::Scored,
        MatchOutcome::Unassessed { .. } => Verdict::Unassessed,
        MatchOutcome::Stale { .. } => Verdict::Stale,
        MatchOutcome::Unmatched { .. } => Verdict::Unmatched,
        // An empty list says no more than none.
        MatchOutcome::NoSerial { invalid: refused } if refused.is_empty() => Verdict::NoIdentity,
        MatchOutcome::NoSerial { .. } => Verdict::NoSerial,
        MatchOutcome::NoIdentity { .. } => Verdict::NoIdentity,
        MatchOutcome::External => Verdict::External,
    }
}

/// The finding whose remedy is the device's.
fn remedy(
    outcome: &MatchOutcome,
    claims: &[Candidate<'_>],
    had_score: bool,
) -> Option<FindingKind> {
    Some(match verdict(outcome) {
        Verdict::Scored | Verdict::External => return None,
        Verdict::NoIdentity | Verdict::NoSerial if had_score => FindingKind::LostIdentity,
        Verdict::NoIdentity => FindingKind::NoIdentity,
        Verdict::NoSerial => FindingKind::PlaceholderSerials,
        Verdict::Unmatched => FindingKind::Unmatched,
        Verdict::Stale => FindingKind::StaleHosts,
        Verdict::Unassessed => {
            let mut living = claims.iter().filter(|claim| claim.standing.is_alive());
            if living.all(|claim| matches!(claim.standing, CandidateStatus::Invalid(_))) {
                FindingKind::InvalidScores
            } else {
                FindingKind::Unassessed
            }
        }
    })
}

fn place(standing: CandidateStatus<'_>) -> HostStatus {
    match standing {
        CandidateStatus::Lowest(_) => HostStatus::Lowest,
        CandidateStatus::Behind(_) => HostStatus::Behind,
        CandidateStatus::Invalid(_) => HostStatus::Invalid,
        CandidateStatus::Unassessed => HostStatus::Unassessed,
        CandidateStatus::Stale => HostStatus::Stale,
        CandidateStatus::Superseded(_) => HostStatus::Superseded,
    }
}
