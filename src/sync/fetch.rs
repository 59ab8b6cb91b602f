//! Fetches Falcon's hosts and scores, by the strategy that costs the fewest requests.

use std::collections::BTreeSet;

use futures::future::try_join;

use super::run::Run;
use crate::domain::fetch::ranges::{Range, partition, ranges};
use crate::domain::fetch::{
    FetchState, FetchStrategy, LookupDemand, SCORES_PER_PAGE, StrategyChoice, choose_strategy,
    full_listing_is_cheapest,
};
use crate::domain::inventory::device::Devices;
use crate::domain::inventory::histogram::ScoreHistogram;
use crate::domain::inventory::host::{Aid, Assessments, FalconInventory, Hosts};
use crate::domain::matching::{matching_aids, serial_query_values};
use crate::domain::plan::NodeRecords;
use crate::falcon::{Falcon, FirstHosts, FirstScores};
use crate::upstream::error::UpstreamError;

/// Data fetched from Falcon before the devices are known.
pub(super) enum Prefetched {
    Everything(StrategyChoice, FalconInventory),
    Hosts(StrategyChoice, Hosts),
    HostCount(usize),
    /// The first pages of both listings, of an account without a fetch state.
    FirstPages(FirstHosts, FirstScores),
}

/// Fetches what the next step needs whatever the devices are.
pub(super) async fn prefetch(run: &Run<'_>, falcon: &Falcon) -> Result<Prefetched, UpstreamError> {
    let Some(choice) = expected_choice(run) else {
        let (hosts, scores) = try_join(falcon.first_hosts(), falcon.first_scores()).await?;
        let choice = full_listing_is_cheapest(previous_state(run), hosts.announced());
        return match choice {
            Some(choice) => {
                let inventory = fetch_remaining(run, falcon, hosts, scores).await?;
                Ok(Prefetched::Everything(choice, inventory))
            }
            None => Ok(Prefetched::FirstPages(hosts, scores)),
        };
    };
    Ok(match choice.strategy {
        FetchStrategy::Full => Prefetched::Everything(choice, fetch_all(run, falcon).await?),
        FetchStrategy::Hosts => Prefetched::Hosts(choice, falcon.hosts().await?),
        FetchStrategy::Filtered => Prefetched::HostCount(falcon.count_hosts().await?),
    })
}

/// Fetches the rest, now that the devices are known.
pub(super) async fn complete(
    run: &Run<'_>,
    falcon: &Falcon,
    prefetched: Prefetched,
    devices: &Devices,
    records: &NodeRecords,
) -> Result<(FalconInventory, FetchState), UpstreamError> {
    let (visible, first_pages) = match prefetched {
        Prefetched::Everything(choice, inventory) => {
            return Ok(listed_fully(run, choice, inventory));
        }
        Prefetched::Hosts(choice, hosts) => {
            // The tailnet may have grown so much that listing all scores costs less than looking them up.
            let current = choose(run, hosts.len(), devices, records);
            if current.strategy == FetchStrategy::Full {
                let scores = falcon.scores(&score_ranges(run)).await?;
                return Ok(listed_fully(run, current, inventory(run, hosts, scores)));
            }
            return fetch_scores_of_matches(run, falcon, choice, hosts, devices, records).await;
        }
        Prefetched::HostCount(hosts) => (hosts, None),
        Prefetched::FirstPages(hosts, scores) => (hosts.announced(), Some((hosts, scores))),
    };
    let choice = choose(run, visible, devices, records);
    match (choice.strategy, first_pages) {
        (FetchStrategy::Full, Some((hosts, scores))) => {
            let inventory = fetch_remaining(run, falcon, hosts, scores).await?;
            Ok(listed_fully(run, choice, inventory))
        }
        (FetchStrategy::Full, None) => {
            let inventory = fetch_all(run, falcon).await?;
            Ok(listed_fully(run, choice, inventory))
        }
        (FetchStrategy::Hosts, first_pages) => {
            let first_page = first_pages.map(|(hosts, _)| hosts);
            let hosts = falcon.remaining_hosts(first_page).await?;
            fetch_scores_of_matches(run, falcon, choice, hosts, devices, records).await
        }
        (FetchStrategy::Filtered, _) => {
            let inventory = fetch_by_serial(run, falcon, visible, devices, records).await?;
            Ok((inventory, next_state(run, choice, visible)))
        }
    }
}

/// Lists all hosts and scores.
async fn fetch_all(run: &Run<'_>, falcon: &Falcon) -> Result<FalconInventory, UpstreamError> {
    let ranges = score_ranges(run);
    let (hosts, scores) = try_join(falcon.hosts(), falcon.scores(&ranges)).await?;
    Ok(inventory(run, hosts, scores))
}

/// Lists all hosts and scores after the first page of each.
async fn fetch_remaining(
    run: &Run<'_>,
    falcon: &Falcon,
    first_hosts: FirstHosts,
    first_scores: FirstScores,
) -> Result<FalconInventory, UpstreamError> {
    let hosts = falcon.remaining_hosts(Some(first_hosts));
    let (hosts, scores) = try_join(hosts, falcon.remaining_scores(first_scores)).await?;
    Ok(inventory(run, hosts, scores))
}

/// Looks up the scores of the listed hosts that match a device.
async fn fetch_scores_of_matches(
    run: &Run<'_>,
    falcon: &Falcon,
    choice: StrategyChoice,
    hosts: Hosts,
    devices: &Devices,
    records: &NodeRecords,
) -> Result<(FalconInventory, FetchState), UpstreamError> {
    let mut inventory = inventory(run, hosts, Assessments::new());
    let mut matching = matching_aids(inventory.hosts.values(), devices);
    let scores = falcon.scores_of(&matching).await?;
    inventory.extend(Hosts::new(), scores);
    for record in records.values() {
        matching.remove(&record.aid);
    }
    let state = next_state(run, choice, inventory.visible);
    Ok((inventory, state.with_listing(run.started, matching)))
}

/// Looks up the hosts that have a serial of one of the devices or matched before, and their scores.
async fn fetch_by_serial(
    run: &Run<'_>,
    falcon: &Falcon,
    visible: usize,
    devices: &Devices,
    records: &NodeRecords,
) -> Result<FalconInventory, UpstreamError> {
    let serials = serial_query_values(devices.values());
    let hosts = falcon
        .hosts_matching(&serials, &matched_aids(run, records))
        .await?;
    let mut inventory = FalconInventory {
        visible,
        ..FalconInventory::default()
    };
    inventory.extend(run.clamp_last_seen(hosts), Assessments::new());
    let aids = inventory.hosts.keys().cloned().collect();
    inventory.extend(Hosts::new(), falcon.scores_of(&aids).await?);
    Ok(inventory)
}

fn inventory(run: &Run<'_>, hosts: Hosts, scores: Assessments) -> FalconInventory {
    let mut inventory = FalconInventory::default();
    inventory.extend(run.clamp_last_seen(hosts), scores);
    inventory
}

/// Returns the fetch state of the previous run. Other settings may mean another account, so a changed version has none.
fn previous_state<'a>(run: &'a Run<'_>) -> Option<&'a FetchState> {
    let status = run.integration.status.as_ref();
    status
        .filter(|status| status.config_version == run.integration.config_version)
        .and_then(|status| status.crawl.as_ref())
}

/// Returns the strategy that the previous run's numbers suggest, if there are any.
fn expected_choice(run: &Run<'_>) -> Option<StrategyChoice> {
    let status = run.integration.status.as_ref()?;
    let state = previous_state(run)?;
    let demand = LookupDemand {
        serials: status.possible_matched_count,
        aids: status.score_counts.total() + state.tracked_aids.len(),
    };
    let (hosts, now) = (state.hosts, run.started);
    Some(choose_strategy(Some(state), hosts, demand, now))
}

fn choose(run: &Run<'_>, hosts: usize, devices: &Devices, records: &NodeRecords) -> StrategyChoice {
    let demand = LookupDemand {
        serials: serial_query_values(devices.values()).len(),
        aids: matched_aids(run, records).len(),
    };
    choose_strategy(previous_state(run), hosts, demand, run.started)
}

/// Returns the sensors that matched before.
fn matched_aids(run: &Run<'_>, records: &NodeRecords) -> BTreeSet<Aid> {
    let recorded = records.values().map(|record| &record.aid);
    let tracked = previous_state(run)
        .into_iter()
        .flat_map(|state| &state.tracked_aids);
    recorded.chain(tracked).cloned().collect()
}

/// Returns the ranges of scores that are listed concurrently.
fn score_ranges(run: &Run<'_>) -> Vec<Range> {
    ranges(previous_state(run).map_or(&[], |state| &state.score_bounds))
}

fn listed_fully(
    run: &Run<'_>,
    choice: StrategyChoice,
    inventory: FalconInventory,
) -> (FalconInventory, FetchState) {
    let histogram = ScoreHistogram::from_assessments(&inventory.scores);
    let state = FetchState {
        scores: Some(inventory.scores.len()),
        score_bounds: partition(&histogram, SCORES_PER_PAGE),
        last_full_listing: Some(run.started),
        tracked_aids: BTreeSet::new(),
        ..next_state(run, choice, inventory.visible)
    };
    (inventory, state)
}

/// Returns the fetch state of a run that learned only the number of hosts.
fn next_state(run: &Run<'_>, choice: StrategyChoice, hosts: usize) -> FetchState {
    let StrategyChoice { strategy, reason } = choice;
    let previous = previous_state(run);
    FetchState {
        strategy,
        reason,
        hosts,
        scores: previous.and_then(|state| state.scores),
        score_bounds: previous.map_or_else(Vec::new, |state| state.score_bounds.clone()),
        last_full_listing: previous.and_then(|state| state.last_full_listing),
        tracked_aids: previous.map_or_else(BTreeSet::new, |state| state.tracked_aids.clone()),
    }
}
