//! What a run knows of the Falcon account before it looks, and what it leaves for the next one.

use std::collections::BTreeSet;

use super::Run;
use crate::domain::fetch::ranges::{Range, divide, ranges};
use crate::domain::fetch::{
    FetchState, LookupDemand, PageSizes, StrategyChoice, always_full, choose,
};
use crate::domain::inventory::device::Devices;
use crate::domain::inventory::histogram::ScoreHistogram;
use crate::domain::inventory::host::{Aid, Assessments, FalconInventory, Hosts};
use crate::domain::matching::spellings;
use crate::domain::plan::NodeRecords;
use crate::falcon::{HOSTS_A_LOOK_UP, HOSTS_A_PAGE, SCORES_A_LOOK_UP, SCORES_A_PAGE};

const PAGES: PageSizes = PageSizes {
    hosts: HOSTS_A_PAGE,
    scores: SCORES_A_PAGE,
    hosts_by_value: HOSTS_A_LOOK_UP,
    scores_by_id: SCORES_A_LOOK_UP,
};

impl Run<'_> {
    /// What the run before learned, if it was by the same settings: others may mean another account.
    fn crawl_before(&self) -> Option<&FetchState> {
        let status = self.integration.status.as_ref();
        status
            .filter(|status| status.config_version == self.integration.config_version)
            .and_then(|status| status.crawl.as_ref())
    }

    /// The way that this run takes by what the run before saw; none where nothing is known of the account.
    pub(in crate::sync) fn expected(&self) -> Option<StrategyChoice> {
        let status = self.integration.status.as_ref()?;
        let crawl = self.crawl_before()?;
        let need = LookupDemand {
            serials: status.possible_matched_count,
            aids: status.score_counts.total() + crawl.beside.len(),
        };
        Some(self.choice(crawl.hosts, need))
    }

    /// The choice for an account of so many hosts, where it is to list all, whatever the devices need.
    pub(in crate::sync) fn lists_all(&self, hosts: usize) -> Option<StrategyChoice> {
        always_full(self.crawl_before(), hosts, PAGES)
    }

    /// The way to take, now that the devices are known.
    pub(in crate::sync) fn choose(
        &self,
        hosts: usize,
        devices: &Devices,
        records: &NodeRecords,
    ) -> StrategyChoice {
        let need = LookupDemand {
            serials: spellings(devices.values()).len(),
            aids: self.known(records).len(),
        };
        self.choice(hosts, need)
    }

    /// The sensors that matched before.
    pub(in crate::sync) fn known(&self, records: &NodeRecords) -> BTreeSet<Aid> {
        let deciding = records.values().map(|written| &written.aid);
        let beside = self
            .crawl_before()
            .into_iter()
            .flat_map(|crawl| &crawl.beside);
        deciding.chain(beside).cloned().collect()
    }

    fn choice(&self, hosts: usize, need: LookupDemand) -> StrategyChoice {
        choose(self.crawl_before(), hosts, need, PAGES, self.started)
    }

    /// The ranges of scores that are walked side by side.
    pub(in crate::sync) fn score_ranges(&self) -> Vec<Range> {
        ranges(self.crawl_before().map_or(&[], |crawl| &crawl.score_bounds))
    }

    /// The account by its listings.
    pub(in crate::sync) fn full(&self, hosts: Hosts, scores: Assessments) -> FalconInventory {
        let mut account = FalconInventory::default();
        account.extend(self.seen(hosts), scores);
        account
    }

    pub(in crate::sync) fn crawled_fully(
        &self,
        choice: StrategyChoice,
        falcon: &FalconInventory,
    ) -> FetchState {
        let scores = ScoreHistogram::of_account(&falcon.scores);
        FetchState {
            scores: Some(falcon.scores.len()),
            score_bounds: divide(&scores, SCORES_A_PAGE),
            last_full: Some(self.started),
            beside: BTreeSet::new(),
            ..self.crawled(choice, falcon.visible)
        }
    }

    /// A crawl that learned nothing beyond how many hosts there are.
    pub(in crate::sync) fn crawled(&self, choice: StrategyChoice, hosts: usize) -> FetchState {
        let before = self.crawl_before();
        FetchState {
            way: choice.way,
            why: choice.why,
            hosts,
            scores: before.and_then(|crawl| crawl.scores),
            score_bounds: before.map_or_else(Vec::new, |crawl| crawl.score_bounds.clone()),
            last_full: before.and_then(|crawl| crawl.last_full),
            beside: before.map_or_else(BTreeSet::new, |crawl| crawl.beside.clone()),
        }
    }

    /// A listing of all hosts, in which these match a device.
    pub(in crate::sync) fn listed(
        &self,
        choice: StrategyChoice,
        hosts: usize,
        matching: BTreeSet<Aid>,
        records: &NodeRecords,
    ) -> FetchState {
        let mut beside = matching;
        for written in records.values() {
            beside.remove(&written.aid);
        }
        self.crawled(choice, hosts)
            .with_listing(self.started, beside)
    }
}
