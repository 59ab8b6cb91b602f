//! What a run knows of the Falcon account before it looks, and what it leaves for the next one.

use super::Run;
use crate::domain::crawl::{Choice, Crawl, Need, Pages, Way, choose};
use crate::domain::device::Devices;
use crate::domain::host::{Account, Host, Scores};
use crate::domain::join::spellings;
use crate::domain::plan::Records;
use crate::domain::ranges::{Range, divide, ranges};
use crate::domain::scores::Distribution;
use crate::error::UpstreamError;
use crate::falcon::{
    Falcon, FirstHosts, HOSTS_A_LOOK_UP, HOSTS_A_PAGE, SCORES_A_LOOK_UP, SCORES_A_PAGE,
};

const PAGES: Pages = Pages {
    hosts: HOSTS_A_PAGE,
    scores: SCORES_A_PAGE,
    hosts_by_value: HOSTS_A_LOOK_UP,
    scores_by_id: SCORES_A_LOOK_UP,
};

/// How many hosts there are: by the first page of the listing, or by a page of a single one.
pub(in crate::sync) enum HostCount {
    First(FirstHosts),
    Number(usize),
}

impl HostCount {
    pub(in crate::sync) fn total(&self) -> usize {
        match self {
            Self::First(page) => page.total(),
            Self::Number(number) => *number,
        }
    }

    /// The first page, for the listing to go on after.
    pub(in crate::sync) fn first(self) -> Option<FirstHosts> {
        match self {
            Self::First(page) => Some(page),
            Self::Number(_) => None,
        }
    }
}

impl Run<'_> {
    /// What the run before learned, if it was by the same settings: others may mean another account.
    fn crawl_before(&self) -> Option<&Crawl> {
        let status = self.integration.status.as_ref();
        status
            .filter(|status| status.config_version == self.integration.config_version)
            .and_then(|status| status.crawl.as_ref())
    }

    /// Whether all hosts are going to be listed, by what the run before saw.
    pub(in crate::sync) fn expects_full_crawl(&self) -> bool {
        let status = self.integration.status.as_ref();
        self.crawl_before()
            .zip(status)
            .is_some_and(|(crawl, status)| {
                let need = Need {
                    serials: status.possible_matched_count,
                    aids: status.score_counts.total(),
                };
                self.choice(crawl.hosts, need).way == Way::Full
            })
    }

    /// The way to take, now that the devices are known.
    pub(in crate::sync) fn choose(
        &self,
        hosts: usize,
        devices: &Devices,
        records: &Records,
    ) -> Choice {
        let need = Need {
            serials: spellings(devices.values()).len(),
            aids: records.len(),
        };
        self.choice(hosts, need)
    }

    fn choice(&self, hosts: usize, need: Need) -> Choice {
        choose(self.crawl_before(), hosts, need, PAGES, self.started)
    }

    /// How many hosts the account has. Where nothing is known of it, the page that tells is the listing's first one.
    pub(in crate::sync) async fn count_hosts(
        &self,
        falcon: &Falcon,
    ) -> Result<HostCount, UpstreamError> {
        match self.crawl_before() {
            None => falcon.first_hosts().await.map(HostCount::First),
            Some(_) => falcon.probe_hosts().await.map(HostCount::Number),
        }
    }

    /// The ranges of scores that are walked side by side.
    pub(in crate::sync) fn score_ranges(&self) -> Vec<Range> {
        ranges(self.crawl_before().map_or(&[], |crawl| &crawl.score_bounds))
    }

    /// The account by its listings.
    pub(in crate::sync) fn full(&self, hosts: Vec<Host>, scores: Scores) -> Account {
        let mut account = Account::default();
        account.extend(self.seen(hosts), scores);
        account
    }

    pub(in crate::sync) fn crawled_fully(&self, why: String, falcon: &Account) -> Crawl {
        let scores = Distribution::of_account(&falcon.scores);
        Crawl {
            way: Way::Full,
            why,
            hosts: falcon.visible,
            scores: Some(falcon.scores.len()),
            score_bounds: divide(&scores, SCORES_A_PAGE),
            last_full: Some(self.started),
        }
    }

    pub(in crate::sync) fn crawled_by_serial(&self, why: String, hosts: usize) -> Crawl {
        let before = self.crawl_before();
        Crawl {
            way: Way::Filtered,
            why,
            hosts,
            scores: before.and_then(|crawl| crawl.scores),
            score_bounds: before.map_or_else(Vec::new, |crawl| crawl.score_bounds.clone()),
            last_full: before.and_then(|crawl| crawl.last_full),
        }
    }
}
