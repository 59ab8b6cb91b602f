//! Which way hosts and scores are fetched: all of them by listings, or by serial numbers those that the devices need.
//!
//! The listings take a request for 10,000 hosts and for 1,000 scores, whatever the size of the tailnet. Where its devices
//! are few against the account, asking for their serials takes far fewer. But a filter finds what is spelled as it says:
//! Falcon's own spelling of a serial may differ in case or in characters that cannot stand in a filter. So the sensors
//! that decided before are asked for by id as well, and all hosts are listed once a day.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::domain::host::Score;

/// By serials it must take at most a quarter of the requests: the listings see more, and a looked up assessment has a
/// hundred times the bytes of a listed score.
const WORTH_IT: usize = 4;

/// What filters cannot see is looked for this often.
const FULL_EVERY: SignedDuration = SignedDuration::from_hours(24);

/// How the requests of both ways are counted: values in a request.
#[derive(Clone, Copy, Debug)]
pub struct Pages {
    /// Hosts in a page of the listing.
    pub hosts: usize,
    /// Scores in a page of the listing.
    pub scores: usize,
    /// Serials or sensors in a filter of hosts.
    pub hosts_by_value: usize,
    /// Sensors in a look-up of scores.
    pub scores_by_id: usize,
}

/// The two ways; stable names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Way {
    /// All hosts and scores are listed.
    Full,
    /// Hosts are asked for by the devices' serials, and scores by the hosts found.
    Filtered,
}

/// How a run fetched hosts and scores, and what it learned for the next one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Crawl {
    /// Which way it took.
    pub way: Way,
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
}

/// What the filtered way would ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Serials of devices, in all spellings.
    pub serials: usize,
    /// Sensors that decided before.
    pub aids: usize,
}

/// A way, with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The way.
    pub way: Way,
    /// The reason, as half a sentence.
    pub why: String,
}

/// Chooses the way for an account of so many hosts. `before` is what the run before learned of the same account.
pub fn choose(
    before: Option<&Crawl>,
    hosts: usize,
    need: Need,
    pages: Pages,
    now: Timestamp,
) -> Choice {
    let scores = before.and_then(|crawl| crawl.scores).unwrap_or(hosts);
    let full = hosts.div_ceil(pages.hosts).max(1) + scores.div_ceil(pages.scores).max(1);
    let filtered = 1
        + need.serials.div_ceil(pages.hosts_by_value)
        + need.aids.div_ceil(pages.hosts_by_value)
        + need.serials.div_ceil(pages.scores_by_id);
    let due = before.is_some_and(|crawl| {
        crawl
            .last_full
            .is_none_or(|last| now.duration_since(last) >= FULL_EVERY)
    });
    let costs = format!(
        "{full} requests list all {hosts} hosts and their scores, {filtered} ask by serial number"
    );
    let (way, why) = if filtered * WORTH_IT > full {
        (Way::Full, costs)
    } else if due {
        let why = "all hosts are listed once a day, for serials that a filter does not find";
        (Way::Full, why.to_owned())
    } else {
        (Way::Filtered, costs)
    };
    Choice { way, why }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "full",
            Self::Filtered => "filtered",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGES: Pages = Pages {
        hosts: 10_000,
        scores: 1_000,
        hosts_by_value: 250,
        scores_by_id: 500,
    };

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_second(hours * 3600).unwrap()
    }

    fn need(devices: usize) -> Need {
        Need {
            serials: devices,
            aids: devices,
        }
    }

    fn before(last_full: Option<i64>) -> Crawl {
        Crawl {
            way: Way::Full,
            why: String::new(),
            hosts: 100_000,
            scores: Some(90_000),
            score_bounds: Vec::new(),
            last_full: last_full.map(at),
        }
    }

    fn way(before: Option<&Crawl>, hosts: usize, devices: usize, hour: i64) -> Way {
        choose(before, hosts, need(devices), PAGES, at(hour)).way
    }

    #[test]
    fn few_devices_of_a_large_account_are_asked_for_by_serial() {
        let before = before(Some(0));
        assert_eq!(way(Some(&before), 100_000, 200, 1), Way::Filtered);
        assert_eq!(way(Some(&before), 100_000, 20_000, 1), Way::Full);
        assert_eq!(way(None, 1_000, 50, 1), Way::Full);
        assert_eq!(way(None, 100_000, 200, 1), Way::Filtered);
    }

    #[test]
    fn all_hosts_are_listed_once_a_day() {
        assert_eq!(way(Some(&before(Some(0))), 100_000, 200, 23), Way::Filtered);
        assert_eq!(way(Some(&before(Some(0))), 100_000, 200, 24), Way::Full);
        assert_eq!(way(Some(&before(None)), 100_000, 200, 1), Way::Full);
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
