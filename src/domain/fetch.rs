//! Which way hosts and scores are fetched: all of them by listings, or those that the devices need.
//!
//! The listings take a request for 10,000 hosts and for 1,000 scores, whatever the size of the tailnet. Where its devices
//! are few against the account, asking for their serials takes far fewer. But a filter finds what is spelled as it says:
//! Falcon's own spelling of a serial may differ in case or in characters that cannot stand in a filter. So once a day all
//! hosts are listed, and the sensors that matched are asked for by id from then on, however their serial is spelled.

pub mod ranges;

use std::collections::BTreeSet;
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::domain::inventory::host::{Aid, Score};
use crate::domain::plan::{Change, Plan};

/// By serials it must take at most a quarter of the requests: the listings see more, and a looked up assessment has a
/// hundred times the bytes of a listed score.
const WORTH_IT: usize = 4;

/// What filters cannot see is looked for this often.
const FULL_EVERY: SignedDuration = SignedDuration::from_hours(24);

/// How the requests of the ways are counted: values in a request.
#[derive(Clone, Copy, Debug)]
pub struct PageSizes {
    /// Hosts in a page of the listing.
    pub hosts: usize,
    /// Scores in a page of the listing.
    pub scores: usize,
    /// Serials or sensors in a filter of hosts.
    pub hosts_by_value: usize,
    /// Sensors in a look-up of scores.
    pub scores_by_id: usize,
}

/// So many matching sensors that did not decide are kept in mind. In an account with more of them, hosts are listed in
/// every run.
const BESIDE: usize = 200;

/// The ways; stable names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FetchStrategy {
    /// All hosts and scores are listed.
    Full,
    /// All hosts are listed, and scores asked for by the hosts that match.
    Hosts,
    /// Hosts are asked for by the devices' serials, and scores by the hosts found.
    Filtered,
}

/// How a run fetched hosts and scores, and what it learned for the next one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FetchState {
    /// Which way it took.
    pub way: FetchStrategy,
    /// Why.
    pub why: String,
    /// Visible hosts of the account.
    pub hosts: usize,
    /// Scores of the account, when they were last listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scores: Option<usize>,
    /// The lowest scores of the ranges in which the next listing is walked, but for the first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub score_bounds: Vec<Score>,
    /// When all hosts were last listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_full: Option<Timestamp>,
    /// The hosts in it that matched a device and had no part in what was written: a clone, say, whose score was higher.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub beside: BTreeSet<Aid>,
}

impl FetchState {
    /// Takes note of a listing of all hosts, in which these matched a device and had no part in what is written.
    #[must_use]
    pub fn with_listing(mut self, now: Timestamp, beside: BTreeSet<Aid>) -> Self {
        (self.last_full, self.beside) = (Some(now), BTreeSet::new());
        self.keep_in_mind(beside);
        self
    }

    /// What the next run is to know, after this plan: a host that decided until now may be spelled in its own way, too.
    #[must_use]
    pub fn after(mut self, plan: &Plan) -> Self {
        if self.way != FetchStrategy::Full {
            let replaced = |change: &Change| {
                let old = &change.old.as_ref()?.aid;
                let new = change.new.as_ref().map(|new| &new.aid);
                (new != Some(old)).then(|| old.clone())
            };
            self.keep_in_mind(plan.changes.iter().filter_map(replaced));
        }
        self
    }

    /// Goes on asking for these sensors, though they have no part in what is written any more.
    fn keep_in_mind(&mut self, beside: impl IntoIterator<Item = Aid>) {
        self.beside.extend(beside);
        if self.beside.len() > BESIDE {
            // Those who cannot be kept in mind are looked for in the next run.
            self.last_full = None;
            self.beside.clear();
        }
    }
}

/// What the filtered way would ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LookupDemand {
    /// Serials of devices, in all spellings.
    pub serials: usize,
    /// Sensors that matched before.
    pub aids: usize,
}

/// A way, with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StrategyChoice {
    /// The way.
    pub way: FetchStrategy,
    /// The reason, as half a sentence.
    pub why: String,
}

/// Chooses the way for an account of so many hosts. `before` is what the run before learned of the same account.
pub fn choose(
    before: Option<&FetchState>,
    hosts: usize,
    need: LookupDemand,
    pages: PageSizes,
    now: Timestamp,
) -> StrategyChoice {
    let looked_up = need.serials.div_ceil(pages.scores_by_id);
    let full = requests_of_listings(before, hosts, pages);
    let filtered = 1
        + need.serials.div_ceil(pages.hosts_by_value)
        + need.aids.div_ceil(pages.hosts_by_value)
        + looked_up;
    let due = before.is_some_and(|crawl| {
        crawl
            .last_full
            .is_none_or(|last| now.duration_since(last) >= FULL_EVERY)
    });
    let costs = format!(
        "{full} requests list all {hosts} hosts and their scores, {filtered} ask by serial number"
    );
    let (way, why) = if filtered * WORTH_IT > full {
        (FetchStrategy::Full, costs)
    } else if due {
        let why = "all hosts are listed once a day, for serials that a filter does not find";
        (FetchStrategy::Hosts, why.to_owned())
    } else {
        (FetchStrategy::Filtered, costs)
    };
    StrategyChoice { way, why }
}

/// The choice for an account of so many hosts, where it is the same whatever the devices need: listing all.
pub fn always_full(
    before: Option<&FetchState>,
    hosts: usize,
    pages: PageSizes,
) -> Option<StrategyChoice> {
    let full = requests_of_listings(before, hosts, pages);
    (WORTH_IT > full).then(|| StrategyChoice {
        way: FetchStrategy::Full,
        why: format!("{full} requests list all {hosts} hosts and their scores"),
    })
}

fn requests_of_listings(before: Option<&FetchState>, hosts: usize, pages: PageSizes) -> usize {
    let scores = before.and_then(|crawl| crawl.scores).unwrap_or(hosts);
    hosts.div_ceil(pages.hosts).max(1) + scores.div_ceil(pages.scores).max(1)
}

impl fmt::Display for FetchStrategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "full",
            Self::Hosts => "hosts",
            Self::Filtered => "filtered",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGES: PageSizes = PageSizes {
        hosts: 10_000,
        scores: 1_000,
        hosts_by_value: 250,
        scores_by_id: 500,
    };

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_second(hours * 3600).unwrap()
    }

    fn need(devices: usize) -> LookupDemand {
        LookupDemand {
            serials: devices,
            aids: devices,
        }
    }

    fn before(last_full: Option<i64>) -> FetchState {
        FetchState {
            way: FetchStrategy::Full,
            why: String::new(),
            hosts: 100_000,
            scores: Some(90_000),
            score_bounds: Vec::new(),
            last_full: last_full.map(at),
            beside: BTreeSet::new(),
        }
    }

    fn way(before: Option<&FetchState>, hosts: usize, devices: usize, hour: i64) -> FetchStrategy {
        choose(before, hosts, need(devices), PAGES, at(hour)).way
    }

    #[test]
    fn few_devices_of_a_large_account_are_asked_for_by_serial() {
        let before = before(Some(0));
        assert_eq!(way(Some(&before), 100_000, 200, 1), FetchStrategy::Filtered);
        assert_eq!(way(Some(&before), 100_000, 20_000, 1), FetchStrategy::Full);
        assert_eq!(way(None, 1_000, 50, 1), FetchStrategy::Full);
        assert_eq!(way(None, 100_000, 200, 1), FetchStrategy::Filtered);
    }

    #[test]
    fn all_hosts_are_listed_once_a_day() {
        assert_eq!(
            way(Some(&before(Some(0))), 100_000, 200, 23),
            FetchStrategy::Filtered
        );
        assert_eq!(
            way(Some(&before(Some(0))), 100_000, 200, 24),
            FetchStrategy::Hosts
        );
        assert_eq!(
            way(Some(&before(None)), 100_000, 200, 1),
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
        assert_eq!((few.last_full, few.beside.len()), (Some(at(1)), 200));
        let many = before(Some(0)).with_listing(at(1), aids(201));
        assert_eq!(many.beside, BTreeSet::new());
        assert_eq!(way(Some(&many), 100_000, 200, 2), FetchStrategy::Hosts);
    }

    #[test]
    fn a_small_account_is_listed_whatever_is_needed() {
        for hosts in (0..12_000).step_by(500) {
            let always = always_full(None, hosts, PAGES);
            let fewest = choose(None, hosts, LookupDemand::default(), PAGES, at(1)).way;
            assert_eq!(always.is_some(), fewest == FetchStrategy::Full, "{hosts}");
        }
    }

    #[test]
    fn the_reason_is_told() {
        let choice = choose(Some(&before(Some(0))), 100_000, need(200), PAGES, at(1));
        assert_eq!(
            choice.why,
            "100 requests list all 100000 hosts and their scores, 4 ask by serial number"
        );
    }
}
