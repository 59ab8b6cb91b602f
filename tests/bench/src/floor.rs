//! The least that a sync can take: the fewest requests, and the longest chain of calls that cannot overlap.
//!
//! The chain is made of what one call must know from another:
//!
//! 1. The settings name the secrets (DynamoDB), and the secrets are what tokens are traded for (Secrets Manager).
//! 2. A token comes before all calls of its side. The two sides' tokens can be asked for at once.
//! 3. Then, by the way that hosts and scores are read:
//!    - **All of them**: a page of hosts (10,000) holds the cursor of the next. So does a page of scores (1,000); but
//!      scores can be asked for in ranges, down to one score, whose pages are what is left of a chain. The listing of
//!      the tailnet has one page. The longest of the three counts, which is that of the hosts.
//!    - **By serial**: the listing of the tailnet names the serials, the hosts found by these name the sensors whose
//!      scores are looked up. All look-ups of a kind can be made at once.
//!    - **Hosts**: as for all of them, and the scores of those that match are looked up.
//! 4. What is to be written is noted before it is written (DynamoDB), Tailscale is asked to write it, and what it
//!    accepted is recorded (DynamoDB). All chunks can be under way at once.
//! 5. The status is written last (DynamoDB).
//!
//! The lease, the node records and the events are read and written beside these. The function's own work counts as
//! nothing, so a floor is never reached.

use std::fmt;
use std::time::Duration;

use crate::number;

/// Falcon's largest page of hosts.
const HOSTS_A_PAGE: u64 = 10_000;
/// Its largest page of scores.
const SCORES_A_PAGE: u64 = 1_000;
/// The serials or sensors that one filter may name.
const VALUES_A_LOOK_UP: u64 = 250;
/// The ids that one look-up of assessments may name.
const IDS_A_LOOK_UP: u64 = 1_000;

/// How hosts and scores are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// All hosts and all scores of the account.
    All,
    /// The hosts with the tailnet's serials, and the scores of these.
    BySerial,
    /// All hosts, and the scores of those that match.
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

/// What there is to read and to write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    /// Hosts of the account; as many are assessed.
    pub(crate) hosts: u64,
    /// Hosts of the most frequent score.
    pub(crate) most_of_one_score: u64,
    /// Devices of the tailnet, each with one serial and one host.
    pub(crate) devices: u64,
    /// Devices whose attribute changes.
    pub(crate) changes: u64,
    /// Nothing is known of the account beforehand.
    pub(crate) first: bool,
}

/// A chain of calls, each of which waits for the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    /// Calls to Falcon and Tailscale.
    pub(crate) apis: u64,
    /// Calls to AWS.
    pub(crate) aws: u64,
}

impl Chain {
    /// How long it takes, if each answer takes so long.
    pub(crate) fn time(self, api: Duration, aws: Duration) -> Duration {
        api.mul_f64(number(self.apis)) + aws.mul_f64(number(self.aws))
    }
}

impl Work {
    /// The fewest Falcon requests: a token, and full pages.
    ///
    /// By serial, the hosts are counted, too. Of an account of which nothing is known, the first pages of both listings
    /// are what the choice is made by; from then on, the sensors that matched are asked for beside the serials.
    pub(crate) fn fewest_falcon_requests(&self, way: Way) -> u64 {
        let hosts = self.hosts.div_ceil(HOSTS_A_PAGE);
        let look_up = self.devices.div_ceil(IDS_A_LOOK_UP);
        1 + match way {
            Way::All => hosts + self.hosts.div_ceil(SCORES_A_PAGE),
            Way::Hosts => hosts + look_up,
            Way::BySerial => {
                let values = self.devices.div_ceil(VALUES_A_LOOK_UP);
                let beforehand = if self.first { 2 } else { 1 + values };
                beforehand + values + look_up
            }
        }
    }

    /// The longest chain; see the head of this file.
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
        // A patch; a note before it and a record after it.
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
            5
        );
        assert_eq!(
            work(100_000, 1_001, 0).fewest_falcon_requests(Way::BySerial),
            1 + 1 + 5 + 5 + 2
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
