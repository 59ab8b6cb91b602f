//! Chooses how to fetch hosts and scores: all of them by listings, or only those that the devices need.
//!
//! A listing takes one request for 10,000 hosts or 1,000 scores, whatever the size of the tailnet. If the tailnet has few
//! devices and the account many hosts, a lookup by serial takes far fewer requests. But a filter finds only the exact
//! spelling, and Falcon's spelling of a serial may differ in case or in characters that a filter cannot hold. So all hosts
//! are listed once a day, and the sensors that matched are looked up by id from then on.

pub mod ranges;

use std::collections::BTreeSet;
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::domain::inventory::host::{Aid, Score};
use crate::domain::plan::{Change, Plan};

/// Lookups must take at most a quarter of the listings' requests: listings see more, and an assessment that is looked up has
/// a hundred times the bytes of a listed score.
const MIN_SAVING_FACTOR: usize = 4;
/// Time between two listings of all hosts, which find serials that filters do not.
const FULL_LISTING_INTERVAL: SignedDuration = SignedDuration::from_hours(24);
/// The API's largest page of hosts; the default is 100.
pub(crate) const HOSTS_PER_PAGE: usize = 10_000;
/// The API's largest page of scores; the default is 100.
pub(crate) const SCORES_PER_PAGE: usize = 1_000;
/// Values per filter, as in `CrowdStrike`'s own sample (falconpy, `serial_search.py`).
pub(crate) const HOSTS_PER_LOOKUP: usize = 250;
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
}

impl FetchState {
    /// Records a listing of all hosts, in which these sensors matched without deciding a score.
    #[must_use]
    pub(crate) fn with_listing(mut self, now: Timestamp, tracked_aids: BTreeSet<Aid>) -> Self {
        (self.last_full_listing, self.tracked_aids) = (Some(now), BTreeSet::new());
        self.track(tracked_aids);
        self
    }

    /// Tracks the hosts that decided until this plan: filters may not find their serials either.
    #[must_use]
    pub(crate) fn after(mut self, plan: &Plan) -> Self {
        if self.strategy != FetchStrategy::Full {
            let replaced = |change: &Change| {
                let old = &change.old.as_ref()?.aid;
                let new = change.new.as_ref().map(|new| &new.aid);
                (new != Some(old)).then(|| old.clone())
            };
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
    pub(crate) serials: usize,
    /// Sensors that matched before.
    pub(crate) aids: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StrategyChoice {
    pub(crate) strategy: FetchStrategy,
    /// Half a sentence.
    pub(crate) reason: String,
}

/// Chooses the cheapest strategy for an account with this many hosts. `previous` is the state of the previous run of the same
/// account.
pub(crate) fn choose_strategy(
    previous: Option<&FetchState>,
    hosts: usize,
    need: LookupDemand,
    now: Timestamp,
) -> StrategyChoice {
    let full = listing_requests(previous, hosts);
    let filtered = 1
        + need.serials.div_ceil(HOSTS_PER_LOOKUP)
        + need.aids.div_ceil(HOSTS_PER_LOOKUP)
        + need.serials.div_ceil(SCORES_PER_LOOKUP);
    let is_old = |last: Timestamp| now.duration_since(last) >= FULL_LISTING_INTERVAL;
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
    StrategyChoice { strategy, reason }
}

/// Returns the choice of a full listing if it is the cheapest strategy whatever the devices of a new account need.
pub(crate) fn full_listing_is_cheapest(hosts: usize) -> Option<StrategyChoice> {
    let full = listing_requests(None, hosts);
    (MIN_SAVING_FACTOR > full).then(|| StrategyChoice {
        strategy: FetchStrategy::Full,
        reason: format!("{full} requests list all {hosts} hosts and their scores"),
    })
}

fn listing_requests(previous: Option<&FetchState>, hosts: usize) -> usize {
    let scores = previous.and_then(|state| state.scores).unwrap_or(hosts);
    hosts.div_ceil(HOSTS_PER_PAGE).max(1) + scores.div_ceil(SCORES_PER_PAGE).max(1)
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
            serials: devices,
            aids: devices,
        }
    }

    fn before(last_full_listing: Option<i64>) -> FetchState {
        FetchState {
            strategy: FetchStrategy::Full,
            reason: String::new(),
            hosts: 100_000,
            scores: Some(90_000),
            score_bounds: Vec::new(),
            last_full_listing: last_full_listing.map(at),
            tracked_aids: BTreeSet::new(),
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
    fn matches_are_kept_in_mind_as_far_as_they_are_few() {
        let aids = |n: usize| {
            (0..n)
                .map(|n| Aid::from(format!("{n:032x}").as_str()))
                .collect()
        };
        let few = before(None).with_listing(at(1), aids(200));
        assert_eq!(
            (few.last_full_listing, few.tracked_aids.len()),
            (Some(at(1)), 200)
        );
        let many = before(Some(0)).with_listing(at(1), aids(201));
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
    fn the_reason_is_told() {
        let choice = choose_strategy(Some(&before(Some(0))), 100_000, need(200), at(1));
        assert_eq!(
            choice.reason,
            "100 requests list all 100000 hosts and their scores, 4 ask by serial number"
        );
    }
}
