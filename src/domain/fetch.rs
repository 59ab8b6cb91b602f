//! Chooses how to fetch hosts and scores: all of them by listings, or only those that the devices need.
//!
//! A listing takes one request for 10,000 hosts or 1,000 scores, whatever the size of the tailnet. If the tailnet has few
//! devices and the account many hosts, a lookup by serial takes far fewer requests. But a filter finds only the exact
//! spelling. Each serial is asked for as reported, in upper and in lower case; Falcon's spelling may still be another one, or
//! have characters that a filter cannot hold. So all hosts are listed once a day, and the sensors that matched are looked up
//! by id from then on.

pub mod ranges;
pub(crate) mod unmatched;

use std::collections::BTreeSet;
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::domain::fetch::unmatched::UnmatchedDevices;
use crate::domain::inventory::device::NodeId;
use crate::domain::inventory::host::{Aid, Score};
use crate::domain::plan::{Change, Plan};

/// Lookups must take at most a quarter of the listings' requests: listings see more, and an assessment that is looked up has
/// a hundred times the bytes of a listed score.
const MIN_SAVING_FACTOR: usize = 4;
/// Time between two listings of all hosts, which find serials that filters do not. A refused lookup is tried again after it.
const FULL_LISTING_INTERVAL: SignedDuration = SignedDuration::from_hours(24);
/// The API's largest page of hosts; the default is 100.
pub(crate) const HOSTS_PER_PAGE: usize = 10_000;
/// The API's largest page of scores; the default is 100.
pub(crate) const SCORES_PER_PAGE: usize = 1_000;
/// Values per filter, as in `CrowdStrike`'s own sample (falconpy, `serial_search.py`).
pub(crate) const HOSTS_PER_LOOKUP: usize = 250;
/// Spellings of a usual serial, which is reported in upper case: that one, and lower case.
pub(crate) const SPELLINGS_PER_SERIAL: usize = 2;
/// Requests of a look at a few devices: hosts by serial, hosts by id, scores.
const FEW_LOOKUPS: usize = 3;
/// Ids per score look-up. The API takes 1,000; psfalcon sends 500, which makes a URL of 18 kB.
pub(crate) const SCORES_PER_LOOKUP: usize = 500;
/// Maximum tracked sensors. In an account with more of them, every run lists the hosts.
pub(crate) const MAX_TRACKED_AIDS: usize = 200;

/// The strategies; the names are stable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum FetchStrategy {
    /// Lists all hosts and scores.
    #[default]
    Full,
    /// Lists all hosts, and looks up the scores of those that match.
    Hosts,
    /// Looks up hosts by the devices' serials, and the scores of the hosts found.
    Filtered,
}

/// The strategy of a run, and the numbers for the choice of the next run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FetchState {
    #[serde(rename = "way")]
    pub(crate) strategy: FetchStrategy,
    /// The reason for the strategy, as half a sentence.
    #[serde(rename = "why")]
    pub(crate) reason: String,
    /// Visible hosts of the account.
    pub(crate) hosts: usize,
    /// Scores of the account, at the last listing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) scores: Option<usize>,
    /// The lowest score of each range of the next listing, except the first range.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) score_bounds: Vec<Score>,
    #[serde(rename = "lastFull", default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_full_listing: Option<Timestamp>,
    /// Sensors that matched a device but did not decide its score, such as a clone with a higher score.
    #[serde(rename = "beside", default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) tracked_aids: BTreeSet<Aid>,
    /// Devices without a host after the previous run that did not list everything; `None` if they were too many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) unmatched: Option<UnmatchedDevices>,
    /// When Falcon last refused a lookup, so that a listing of everything took its place.
    #[serde(
        rename = "lookupsRefused",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) lookups_refused_at: Option<Timestamp>,
}

impl FetchState {
    /// Records a listing of all hosts, in which these sensors matched that no record names.
    #[must_use]
    pub(crate) fn with_listing(mut self, now: Timestamp, matching: BTreeSet<Aid>) -> Self {
        (self.last_full_listing, self.tracked_aids) = (Some(now), matching);
        self
    }

    /// Returns how many of these devices had a host in the previous run, or are new. Before the first run of an account all are
    /// new.
    pub(crate) fn newly_unmatched(previous: Option<&Self>, nodes: &[&NodeId]) -> usize {
        let Some(previous) = previous else {
            return nodes.len();
        };
        let is_new = |known: &UnmatchedDevices| {
            let new = nodes.iter().filter(|node| !known.contains(node));
            new.count()
        };
        previous.unmatched.as_ref().map_or(0, is_new)
    }

    /// Tracks the hosts that decided until this plan: filters may not find their serials either. Remembers the devices without
    /// a host.
    #[must_use]
    pub(crate) fn after(mut self, plan: &Plan, unmatched: &[&NodeId]) -> Self {
        self.unmatched = None;
        if self.strategy != FetchStrategy::Full {
            self.unmatched = UnmatchedDevices::new(unmatched);
            let replaced = |change: &Change| {
                let old = &change.old.as_ref()?.aid;
                let new = change.new.as_ref().map(|new| &new.aid);
                (new != Some(old)).then(|| old.clone())
            };
            // The records name these from now on.
            for new in plan.changes.iter().filter_map(|change| change.new.as_ref()) {
                self.tracked_aids.remove(&new.aid);
            }
            self.track(plan.changes.iter().filter_map(replaced));
        }
        self
    }

    /// Adds sensors that later runs look up by id.
    fn track(&mut self, tracked_aids: impl IntoIterator<Item = Aid>) {
        self.tracked_aids.extend(tracked_aids);
        if self.tracked_aids.len() > MAX_TRACKED_AIDS {
            // The next run lists all hosts instead.
            self.last_full_listing = None;
            self.tracked_aids.clear();
        }
    }
}

/// The number of values that lookups would ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LookupDemand {
    /// Serials of devices, in each spelling.
    pub(crate) spellings: usize,
    /// Sensors that matched before.
    pub(crate) aids: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StrategyChoice {
    pub(crate) strategy: FetchStrategy,
    /// Half a sentence.
    pub(crate) reason: String,
    /// When Falcon refused the lookups that this strategy avoids.
    pub(crate) refused_at: Option<Timestamp>,
}

impl StrategyChoice {
    /// Lists all hosts because these many devices have none, for the first time.
    pub(crate) fn for_unmatched(devices: usize) -> Self {
        let devices = match devices {
            1 => "1 device has no host for the first time".to_owned(),
            devices => format!("{devices} devices have no host for the first time"),
        };
        let why = "all hosts are listed, to find serial numbers that a filter does not find";
        Self {
            strategy: FetchStrategy::Hosts,
            reason: format!("{devices}, so {why}"),
            refused_at: None,
        }
    }

    /// Lists everything because Falcon refused a lookup at this time.
    pub(crate) fn for_refusal(at: Timestamp) -> Self {
        Self {
            strategy: FetchStrategy::Full,
            reason: format!(
                "Falcon refused a lookup at {at:.0}, so all hosts and scores are listed for a day"
            ),
            refused_at: Some(at),
        }
    }
}

/// Chooses the cheapest strategy for an account with this many hosts. `previous` is the state of the previous run of the same
/// account.
pub(crate) fn choose_strategy(
    previous: Option<&FetchState>,
    hosts: usize,
    need: LookupDemand,
    now: Timestamp,
) -> StrategyChoice {
    let is_old = |last: Timestamp| now.duration_since(last) >= FULL_LISTING_INTERVAL;
    let refused_at = previous.and_then(|state| state.lookups_refused_at);
    if let Some(at) = refused_at.filter(|at| !is_old(*at)) {
        return StrategyChoice::for_refusal(at);
    }
    let full = listing_requests(previous, hosts);
    let filtered = 1
        + need.spellings.div_ceil(HOSTS_PER_LOOKUP)
        + need.aids.div_ceil(HOSTS_PER_LOOKUP)
        + need
            .spellings
            .div_ceil(SPELLINGS_PER_SERIAL * SCORES_PER_LOOKUP);
    let due = previous.is_some_and(|state| state.last_full_listing.is_none_or(is_old));
    let costs = format!(
        "{full} requests list all {hosts} hosts and their scores, {filtered} ask by serial number"
    );
    let (strategy, reason) = if filtered * MIN_SAVING_FACTOR > full {
        (FetchStrategy::Full, costs)
    } else if due {
        let reason =
            "all hosts are listed once a day, to find serial numbers that a filter does not find";
        (FetchStrategy::Hosts, reason.to_owned())
    } else {
        (FetchStrategy::Filtered, costs)
    };
    StrategyChoice {
        strategy,
        reason,
        refused_at: None,
    }
}

/// Returns the choice of a full listing if it is the cheapest strategy whatever the devices of a new account need.
pub(crate) fn full_listing_is_cheapest(hosts: usize) -> Option<StrategyChoice> {
    let full = listing_requests(None, hosts);
    (MIN_SAVING_FACTOR > full).then(|| StrategyChoice {
        strategy: FetchStrategy::Full,
        reason: format!("{full} requests list all {hosts} hosts and their scores"),
        refused_at: None,
    })
}

/// Returns true if a look at a few devices takes fewer requests by lookups than by listings. Without the state of a previous
/// run, the size of the account is not known, and the listings decide it.
pub(crate) fn are_few_lookups_cheaper(previous: Option<&FetchState>, now: Timestamp) -> bool {
    previous.is_some_and(|state| {
        let is_recent = |at: Timestamp| now.duration_since(at) < FULL_LISTING_INTERVAL;
        let are_refused = state.lookups_refused_at.is_some_and(is_recent);
        !are_refused && listing_requests(previous, state.hosts) > FEW_LOOKUPS
    })
}

fn listing_requests(previous: Option<&FetchState>, hosts: usize) -> usize {
    let scores = previous.and_then(|state| state.scores).unwrap_or(hosts);
    hosts.div_ceil(HOSTS_PER_PAGE).max(1) + scores.div_ceil(SCORES_PER_PAGE).max(1)
}

impl FetchStrategy {
    /// Returns whether a run lists all hosts.
    pub(crate) fn lists_hosts(self) -> bool {
        matches!(self, Self::Full | Self::Hosts)
    }
}

impl fmt::Display for FetchStrategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_second(hours * 3600).unwrap()
    }

    fn need(devices: usize) -> LookupDemand {
        LookupDemand {
            spellings: devices * SPELLINGS_PER_SERIAL,
            aids: devices,
        }
    }

    fn before(last_full_listing: Option<i64>) -> FetchState {
        FetchState {
            strategy: FetchStrategy::Full,
            reason: String::new(),
            hosts: 100_000,
            scores: Some(90_000),
            last_full_listing: last_full_listing.map(at),
            ..FetchState::default()
        }
    }

    fn strategy(
        previous: Option<&FetchState>,
        hosts: usize,
        devices: usize,
        hour: i64,
    ) -> FetchStrategy {
        choose_strategy(previous, hosts, need(devices), at(hour)).strategy
    }

    #[test]
    fn few_devices_of_a_large_account_are_asked_for_by_serial() {
        let before = before(Some(0));
        assert_eq!(
            strategy(Some(&before), 100_000, 200, 1),
            FetchStrategy::Filtered
        );
        assert_eq!(
            strategy(Some(&before), 100_000, 20_000, 1),
            FetchStrategy::Full
        );
        assert_eq!(strategy(None, 1_000, 50, 1), FetchStrategy::Full);
        assert_eq!(strategy(None, 100_000, 200, 1), FetchStrategy::Filtered);
    }

    #[test]
    fn all_hosts_are_listed_once_a_day() {
        assert_eq!(
            strategy(Some(&before(Some(0))), 100_000, 200, 23),
            FetchStrategy::Filtered
        );
        assert_eq!(
            strategy(Some(&before(Some(0))), 100_000, 200, 24),
            FetchStrategy::Hosts
        );
        assert_eq!(
            strategy(Some(&before(None)), 100_000, 200, 1),
            FetchStrategy::Hosts
        );
    }

    #[test]
    fn a_refused_lookup_is_tried_again_a_day_later() {
        let refused = FetchState {
            lookups_refused_at: Some(at(0)),
            ..before(Some(23))
        };
        let choice = choose_strategy(Some(&refused), 100_000, need(200), at(23));
        assert_eq!(choice, StrategyChoice::for_refusal(at(0)));
        assert_eq!(
            strategy(Some(&refused), 100_000, 200, 24),
            FetchStrategy::Filtered
        );
    }

    #[test]
    fn matches_are_kept_in_mind_as_far_as_they_are_few() {
        let aids = |n: usize| {
            (0..n)
                .map(|n| Aid::from(format!("{n:032x}").as_str()))
                .collect()
        };
        let after_listing = |aids| {
            let hosts = FetchState {
                strategy: FetchStrategy::Hosts,
                ..before(None)
            };
            let listed = hosts.with_listing(at(1), aids);
            listed.after(&Plan::default(), &[])
        };
        let few = after_listing(aids(200));
        assert_eq!(
            (few.last_full_listing, few.tracked_aids.len()),
            (Some(at(1)), 200)
        );
        let many = after_listing(aids(201));
        assert_eq!(many.tracked_aids, BTreeSet::new());
        assert_eq!(strategy(Some(&many), 100_000, 200, 2), FetchStrategy::Hosts);
    }

    #[test]
    fn a_small_account_is_listed_whatever_is_needed() {
        for hosts in (0..12_000).step_by(500) {
            let always = full_listing_is_cheapest(hosts);
            let fewest = choose_strategy(None, hosts, LookupDemand::default(), at(1)).strategy;
            assert_eq!(always.is_some(), fewest == FetchStrategy::Full, "{hosts}");
        }
    }

    #[test]
    fn a_look_at_one_device_lists_only_a_small_account() {
        let state = |hosts, scores| FetchState {
            hosts,
            scores: Some(scores),
            ..before(Some(0))
        };
        let looks_up = |state: &FetchState| are_few_lookups_cheaper(Some(state), at(1));
        assert!(!looks_up(&state(2_000, 2_000)));
        assert!(looks_up(&state(3_000, 3_000)));
        assert!(!are_few_lookups_cheaper(None, at(1)));
        let refused = FetchState {
            lookups_refused_at: Some(at(0)),
            ..state(3_000, 3_000)
        };
        assert!(!looks_up(&refused));
        assert!(are_few_lookups_cheaper(Some(&refused), at(24)));
    }

    #[test]
    fn the_reason_is_told() {
        let choice = choose_strategy(Some(&before(Some(0))), 100_000, need(200), at(1));
        assert_eq!(
            choice.reason,
            "100 requests list all 100000 hosts and their scores, 5 ask by serial number"
        );
    }
}
