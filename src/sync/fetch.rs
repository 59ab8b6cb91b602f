//! Fetches Falcon's hosts and scores, by the strategy that costs the fewest requests.

use std::collections::BTreeSet;

use futures::future::try_join;

use super::run::Run;
use crate::domain::fetch::ranges::{Range, partition, ranges};
use crate::domain::fetch::unmatched::devices_without_host;
use crate::domain::fetch::{
    FetchState, FetchStrategy, LookupDemand, SCORES_PER_PAGE, SPELLINGS_PER_SERIAL, StrategyChoice,
    choose_strategy, full_listing_is_cheapest,
};
use crate::domain::inventory::device::Devices;
use crate::domain::inventory::histogram::ScoreHistogram;
use crate::domain::inventory::host::{Aid, Assessments, FalconInventory, Hosts};
use crate::domain::inventory::record::NodeRecords;
use crate::domain::matching::{matching_aids, serial_query_values};
use crate::falcon::{Falcon, FirstHosts, FirstScores};
use crate::settings::IgnoredSerials;
use crate::text::error_chain;
use crate::upstream::error::UpstreamError;

/// Data fetched from Falcon before the devices are known.
pub(super) enum Prefetched {
    Everything(Fetched),
    Hosts(StrategyChoice, Hosts),
    HostCount(usize),
    /// Of an account without a fetch state.
    FirstPages(FirstPages),
}

/// The first pages of both listings.
type FirstPages = (FirstHosts, FirstScores);

/// The data fetched from Falcon, and the state for the next run.
type Fetched = (FalconInventory, FetchState);

/// Fetches what the next step needs whatever the devices are.
pub(super) async fn prefetch(run: &Run<'_>, falcon: &Falcon) -> Result<Prefetched, UpstreamError> {
    let Some(choice) = expected_choice(run) else {
        let first_pages = try_join(falcon.first_hosts(), falcon.first_scores()).await?;
        return Ok(match full_listing_is_cheapest(first_pages.0.announced()) {
            Some(choice) => {
                Prefetched::Everything(fetch_all(run, falcon, choice, Some(first_pages)).await?)
            }
            None => Prefetched::FirstPages(first_pages),
        });
    };
    Ok(match choice.strategy {
        FetchStrategy::Full => Prefetched::Everything(fetch_all(run, falcon, choice, None).await?),
        FetchStrategy::Hosts => Prefetched::Hosts(choice, falcon.hosts().await?),
        FetchStrategy::Filtered => Prefetched::HostCount(falcon.count_hosts().await?),
    })
}

/// The tailnet's side, which tells the hosts that a run needs.
#[derive(Clone, Copy)]
pub(super) struct Needs<'a> {
    pub(super) devices: &'a Devices,
    pub(super) records: &'a NodeRecords,
    pub(super) ignored: &'a IgnoredSerials,
}

/// Fetches the rest, now that the devices are known.
pub(super) async fn complete(
    run: &Run<'_>,
    falcon: &Falcon,
    prefetched: Prefetched,
    needs: Needs<'_>,
) -> Result<Fetched, UpstreamError> {
    let choose = |hosts: usize| {
        let demand = LookupDemand {
            spellings: serial_query_values(needs.devices, needs.ignored).len(),
            aids: matched_aids(run, needs.records).len(),
        };
        choose_strategy(previous_state(run), hosts, demand, run.started)
    };
    let (visible, first_pages) = match prefetched {
        Prefetched::Everything(fetched) => return Ok(fetched),
        Prefetched::Hosts(choice, hosts) => {
            // The tailnet may have grown so much that listing all scores costs less than looking them up.
            let current = choose(hosts.len());
            if current.strategy == FetchStrategy::Full {
                let scores = falcon.scores(&score_ranges(run)).await?;
                return Ok(listed_fully(run, current, hosts, scores));
            }
            return fetch_scores_of_matches(run, falcon, choice, hosts, needs).await;
        }
        Prefetched::HostCount(hosts) => (hosts, None),
        Prefetched::FirstPages(first_pages) => (first_pages.0.announced(), Some(first_pages)),
    };
    let choice = choose(visible);
    match choice.strategy {
        FetchStrategy::Full => fetch_all(run, falcon, choice, first_pages).await,
        FetchStrategy::Hosts => {
            let first_page = first_pages.map(|(hosts, _)| hosts);
            let hosts = falcon.remaining_hosts(first_page).await?;
            fetch_scores_of_matches(run, falcon, choice, hosts, needs).await
        }
        FetchStrategy::Filtered => {
            let looked_up = look_up(run, falcon, choice, visible, needs);
            match looked_up.await {
                Err(error) if is_refused(&error) => {
                    let choice = choice_after_refusal(run, &error);
                    fetch_all(run, falcon, choice, first_pages).await
                }
                Err(error) => Err(error),
                Ok(LookedUp::Complete(fetched)) => Ok(fetched),
                Ok(LookedUp::Unmatched(found, choice)) => {
                    let first_page = first_pages.map(|(hosts, _)| hosts);
                    let mut hosts = falcon.remaining_hosts(first_page).await?;
                    hosts.extend(found);
                    fetch_scores_of_matches(run, falcon, choice, hosts, needs).await
                }
            }
        }
    }
}

/// Returns whether Falcon refused a lookup in a way that a listing may not meet: its form or its size. A server that cannot
/// handle the filter answers with 5xx, also when asked again.
pub(super) fn is_refused(error: &UpstreamError) -> bool {
    !error.error_kind().pauses() && matches!(error.status(), Some(400 | 413 | 414 | 500..))
}

/// Returns the choice to list everything because a lookup was refused.
fn choice_after_refusal(run: &Run<'_>, error: &UpstreamError) -> StrategyChoice {
    tracing::warn!(
        integration = %run.integration.id,
        run_id = run.id(),
        error = error_chain(error),
        "Falcon refused a lookup; all hosts and scores are listed instead"
    );
    StrategyChoice::for_refusal(run.started)
}

/// The result of lookups by serial.
enum LookedUp {
    Complete(Fetched),
    /// Devices are unmatched for the first time: the hosts that were found, and the choice to list all.
    Unmatched(Hosts, StrategyChoice),
}

/// Looks up the hosts of the devices, and their scores. `visible` is the number of the account's hosts.
async fn look_up(
    run: &Run<'_>,
    falcon: &Falcon,
    choice: StrategyChoice,
    visible: usize,
    needs: Needs<'_>,
) -> Result<LookedUp, UpstreamError> {
    let Needs {
        devices,
        records,
        ignored,
    } = needs;
    let serials = serial_query_values(devices, ignored);
    let matched = matched_aids(run, records);
    let hosts = falcon.hosts_matching(&serials, &matched).await?;
    let unmatched = devices_without_host(&hosts, devices, ignored);
    let new = FetchState::newly_unmatched(previous_state(run), &unmatched);
    if new > 0 {
        return Ok(LookedUp::Unmatched(
            hosts,
            StrategyChoice::for_unmatched(new),
        ));
    }
    let aids = hosts.keys().cloned().collect();
    let scores = falcon.scores_of(&aids).await?;
    let mut inventory = inventory(run, hosts, scores);
    inventory.visible = inventory.visible.max(visible);
    let state = next_state(run, choice, visible);
    Ok(LookedUp::Complete((inventory, state)))
}

/// Lists all hosts and scores, starting after the first page of each if they are given.
async fn fetch_all(
    run: &Run<'_>,
    falcon: &Falcon,
    choice: StrategyChoice,
    first_pages: Option<FirstPages>,
) -> Result<Fetched, UpstreamError> {
    let (hosts, scores) = if let Some((hosts, scores)) = first_pages {
        let hosts = falcon.remaining_hosts(Some(hosts));
        try_join(hosts, falcon.remaining_scores(scores)).await?
    } else {
        let ranges = score_ranges(run);
        try_join(falcon.hosts(), falcon.scores(&ranges)).await?
    };
    Ok(listed_fully(run, choice, hosts, scores))
}

/// Looks up the scores of the listed hosts that match a device.
async fn fetch_scores_of_matches(
    run: &Run<'_>,
    falcon: &Falcon,
    choice: StrategyChoice,
    hosts: Hosts,
    needs: Needs<'_>,
) -> Result<Fetched, UpstreamError> {
    let mut matching = matching_aids(&hosts, needs.devices, needs.ignored);
    let scores = match falcon.scores_of(&matching).await {
        Err(error) if is_refused(&error) => {
            let choice = choice_after_refusal(run, &error);
            let scores = falcon.scores(&score_ranges(run)).await?;
            return Ok(listed_fully(run, choice, hosts, scores));
        }
        scores => scores?,
    };
    let inventory = inventory(run, hosts, scores);
    for record in needs.records.values() {
        matching.remove(&record.aid);
    }
    let state = next_state(run, choice, inventory.visible);
    Ok((inventory, state.with_listing(run.started, matching)))
}

pub(super) fn inventory(run: &Run<'_>, hosts: Hosts, scores: Assessments) -> FalconInventory {
    let mut inventory = FalconInventory::default();
    inventory.extend(run.clamp_times(hosts), scores);
    inventory
}

/// Returns the fetch state of the previous run. Other settings may mean another account, so a changed version has none.
pub(super) fn previous_state<'a>(run: &'a Run<'_>) -> Option<&'a FetchState> {
    let is_current = run.previous.config_version == run.integration.config_version;
    run.previous.crawl.as_ref().filter(|_| is_current)
}

/// Returns the strategy that the previous run's numbers suggest, if there are any.
fn expected_choice(run: &Run<'_>) -> Option<StrategyChoice> {
    let state = previous_state(run)?;
    let demand = LookupDemand {
        spellings: run.previous.possible_matched_count * SPELLINGS_PER_SERIAL,
        aids: run.previous.score_counts.total() + state.tracked_aids.len(),
    };
    let (hosts, now) = (state.hosts, run.started);
    Some(choose_strategy(Some(state), hosts, demand, now))
}

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
    hosts: Hosts,
    scores: Assessments,
) -> Fetched {
    let inventory = inventory(run, hosts, scores);
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
    FetchState {
        strategy: choice.strategy,
        reason: choice.reason,
        lookups_refused_at: choice.refused_at,
        hosts,
        ..previous_state(run).cloned().unwrap_or_default()
    }
}
