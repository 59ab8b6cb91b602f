//! The steps from an observation to a guarded plan, as values.

use std::collections::BTreeSet;

use super::observe::Observation;
use super::run::Run;
use crate::domain::inventory::device::NodeId;
use crate::domain::matching::{MatchRules, Matches, join};
use crate::domain::plan::confirm::{Lookups, Unconfirmed, find_unconfirmed};
use crate::domain::plan::guard::GuardedPlan;
use crate::domain::plan::lifetime::Lifetime;
use crate::domain::plan::{Plan, PlanRules, plan};
use crate::domain::status::lost_identity::LostIdentity;
use crate::settings::Settings;
use crate::upstream::error::UpstreamError;

/// The plan that follows from an observation, before it is confirmed and guarded.
pub(super) struct Proposal {
    pub(super) matches: Matches,
    pub(super) plan: Plan,
}

impl Proposal {
    pub(super) fn new(run: &Run<'_>, settings: &Settings, observation: &Observation) -> Self {
        let (devices, records) = (&observation.devices, &observation.records);
        let rules = MatchRules::new(settings, run.started);
        let mut matches = join(&observation.falcon, devices, records, &rules);
        let expired = &observation.expired;
        let plan_rules = PlanRules {
            key: &settings.attribute_key,
            on_missing: settings.on_missing,
            lifetime: Lifetime::new(settings, run.started),
        };
        let plan = plan(&matches, devices, records, expired, &plan_rules);
        let beyond = devices.keys().chain(records.keys()).chain(expired.keys());
        let beyond = beyond.filter(|node| observation.is_beyond(node));
        let left_out = observation.unreadable.keys();
        let left_out = left_out.chain(observation.unsettled.keys()).chain(beyond);
        let plan = plan.without_devices(left_out);
        // Without their hosts, the other devices look unmatched.
        matches
            .outcomes
            .retain(|node, _| !observation.is_beyond(node));
        Self { matches, plan }
    }

    /// Returns the changes that rest on missing data which is not `done`.
    pub(super) fn unconfirmed(
        &self,
        settings: &Settings,
        observation: &Observation,
        done: &Lookups,
    ) -> Unconfirmed {
        let falcon = &observation.falcon;
        find_unconfirmed(
            &self.plan,
            &self.matches,
            falcon,
            &observation.devices,
            &settings.ignored_serials,
            done,
        )
    }
}

/// The result of the lookups for a proposal.
#[derive(Debug, Default)]
pub(super) struct Confirmation {
    /// Devices whose change still rests on missing data. This run does not make it.
    pub(super) unresolved: BTreeSet<NodeId>,
    /// The device to begin with in the next run, if this one could not look up all.
    pub(super) next_lookup: Option<NodeId>,
    /// The device to begin with in the next run, if this one could not confirm all rises.
    pub(super) next_rise: Option<NodeId>,
    /// The failure that ended the lookups, if any.
    pub(super) error: Option<UpstreamError>,
}

/// The plan of a run, and all that it rests on.
#[derive(Debug)]
pub(super) struct Decision {
    pub(super) observation: Observation,
    pub(super) matches: Matches,
    pub(super) confirmation: Confirmation,
    pub(super) lost_identities: Vec<LostIdentity>,
    pub(super) guarded: GuardedPlan,
    /// How long the scores last that the run writes.
    pub(super) lifetime: Lifetime,
}

impl Decision {
    /// Returns true if the run leaves a question about a device to the next one.
    pub(super) fn has_open_questions(&self) -> bool {
        let Observation {
            unreadable,
            unsettled,
            ..
        } = &self.observation;
        let unresolved = &self.confirmation.unresolved;
        !(unresolved.is_empty() && unreadable.is_empty() && unsettled.is_empty())
    }
}
