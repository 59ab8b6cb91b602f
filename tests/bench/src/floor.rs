//! Computes a sync's floor: the fewest requests, and the longest chain of calls that cannot overlap.
//!
//! A call joins the chain if it needs the response of another call:
//!
//! 1. The settings name the secrets (DynamoDB), and the secrets buy tokens (Secrets Manager).
//! 2. A token precedes all calls of its side. Both sides' tokens can be requested concurrently.
//! 3. The next calls depend on the strategy for hosts and scores:
//!    - **All**: a page of hosts (10,000) holds the cursor of the next, and so does a page of scores (1,000). Scores can
//!      be requested in ranges down to one score, so only the pages of one score form a chain. The tailnet's listing
//!      has one page. The longest chain counts, which is that of the hosts.
//!    - **By serial**: the tailnet's listing names the serials. The hosts found by serial name the sensors whose scores
//!      are looked up. All look-ups of a kind can run concurrently.
//!    - **Hosts**: as for all, then a look-up of the matching hosts' scores.
//! 4. Each write takes three calls: the journal (DynamoDB), Tailscale, the record of accepted changes (DynamoDB). All
//!    batches can run concurrently.
//! 5. The status is the last write (DynamoDB).
//!
//! The lease, the node records and the events overlap with these calls. The function's own work counts as zero, so no
//! sync reaches its floor.

use std::fmt;
use std::time::Duration;

use crate::number;

/// Maximum hosts of a Falcon page.
const HOSTS_A_PAGE: u64 = 10_000;
/// Maximum scores of a Falcon page.
const SCORES_A_PAGE: u64 = 1_000;
/// Maximum serials or sensors in one filter.
const VALUES_A_LOOK_UP: u64 = 250;
/// Falcon's filter minds case, so a serial is asked for in upper and in lower case.
const SPELLINGS: u64 = 2;
/// Maximum ids in one look-up of assessments.
const IDS_A_LOOK_UP: u64 = 1_000;

/// Strategy for reading hosts and scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// All hosts and all scores of the account.
    All,
    /// The hosts with the tailnet's serials, and the scores of these hosts.
    BySerial,
    /// All hosts, and the scores of the matching hosts.
    Hosts,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::All => "all",
            Self::BySerial => "by serial",
            Self::Hosts => "hosts",
        })
    }
}

/// Amounts that a sync reads and writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    /// Hosts of the account, all assessed.
    pub(crate) hosts: u64,
    /// Hosts that share the most frequent score.
    pub(crate) most_of_one_score: u64,
    /// Devices of the tailnet, each with one serial and one host.
    pub(crate) devices: u64,
    /// Devices whose attribute changes.
    pub(crate) changes: u64,
    /// True if the account is unknown before the sync.
    pub(crate) first: bool,
}

/// A chain of calls, each waiting for the previous one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    /// Calls to Falcon and Tailscale.
    pub(crate) apis: u64,
    /// Calls to AWS.
    pub(crate) aws: u64,
}

impl Chain {
    /// Returns the time of the chain, with these response times.
    pub(crate) fn time(self, api: Duration, aws: Duration) -> Duration {
        api.mul_f64(number(self.apis)) + aws.mul_f64(number(self.aws))
    }
}

impl Work {
    /// Returns the fewest Falcon requests: a token, and full pages.
    ///
    /// By serial, the hosts are counted too. For an unknown account, the choice of a strategy needs the first pages
    /// of both listings. Later syncs ask for the serials and for the sensors that matched.
    pub(crate) fn fewest_falcon_requests(&self, way: Way) -> u64 {
        let hosts = self.hosts.div_ceil(HOSTS_A_PAGE);
        let look_up = self.devices.div_ceil(IDS_A_LOOK_UP);
        1 + match way {
            Way::All => hosts + self.hosts.div_ceil(SCORES_A_PAGE),
            Way::Hosts => hosts + look_up,
            Way::BySerial => {
                let sensors = self.devices.div_ceil(VALUES_A_LOOK_UP);
                let serials = (SPELLINGS * self.devices).div_ceil(VALUES_A_LOOK_UP);
                let beforehand = if self.first { 2 } else { 1 + sensors };
                beforehand + serials + look_up
            }
        }
    }

    /// Returns the longest chain, as the module documentation describes it.
    pub(crate) fn chain(&self, way: Way) -> Chain {
        const TOKEN: u64 = 1;
        const SETTINGS_SECRET_STATUS: u64 = 3;
        let read = match way {
            Way::All => self
                .hosts
                .div_ceil(HOSTS_A_PAGE)
                .max(self.most_of_one_score.div_ceil(SCORES_A_PAGE))
                .max(1),
            // The listing of the tailnet, the hosts, the scores.
            Way::BySerial => 3,
            Way::Hosts => self.hosts.div_ceil(HOSTS_A_PAGE) + 1,
        };
        // A patch, with a journal write before it and a record after it.
        let (patch, note_and_record) = if self.changes > 0 { (1, 2) } else { (0, 0) };
        Chain {
            apis: TOKEN + read + patch,
            aws: SETTINGS_SECRET_STATUS + note_and_record,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(hosts: u64, devices: u64, changes: u64) -> Work {
        Work {
            hosts,
            most_of_one_score: hosts.div_ceil(100),
            devices,
            changes,
            first: false,
        }
    }

    #[test]
    fn the_fewest_requests_are_those_of_full_pages() {
        for (hosts, requests) in [
            (100, 3),
            (1_000, 3),
            (10_000, 12),
            (10_001, 1 + 2 + 11),
            (100_000, 111),
        ] {
            let work = work(hosts, 50, 0);
            assert_eq!(work.fewest_falcon_requests(Way::All), requests, "{hosts}");
        }
        assert_eq!(
            work(100_000, 200, 0).fewest_falcon_requests(Way::BySerial),
            6
        );
        assert_eq!(
            work(100_000, 1_001, 0).fewest_falcon_requests(Way::BySerial),
            1 + 1 + 5 + 9 + 2
        );
    }

    #[test]
    fn the_hosts_are_the_longest_chain_of_a_whole_account() {
        let chain = |hosts, changes| work(hosts, 50, changes).chain(Way::All);
        assert_eq!(chain(100, 0), Chain { apis: 2, aws: 3 });
        assert_eq!(chain(100_000, 0), Chain { apis: 11, aws: 3 });
        assert_eq!(chain(100_000, 1), Chain { apis: 12, aws: 5 });
    }

    #[test]
    fn equal_scores_cannot_be_told_apart() {
        let work = Work {
            most_of_one_score: 50_000,
            ..work(100_000, 50, 0)
        };
        assert_eq!(work.chain(Way::All).apis, 51);
    }

    #[test]
    fn look_ups_follow_the_listing() {
        let chain = work(100_000, 200, 2).chain(Way::BySerial);
        assert_eq!(chain, Chain { apis: 5, aws: 5 });
        let time = chain.time(Duration::from_millis(100), Duration::from_millis(10));
        assert_eq!(time, Duration::from_millis(550));
    }
}
