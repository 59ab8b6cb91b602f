//! Looks up what a plan would act upon only because the listings lack it, in rounds until nothing is open.

use std::collections::BTreeSet;

use futures::future::join;
use futures::{StreamExt, stream};

use super::decision::{Confirmation, Proposal};
use super::observe::Observation;
use super::run::Run;
use crate::domain::inventory::device::{Device, NodeId};
use crate::domain::inventory::host::{Assessments, Hosts};
use crate::domain::plan::confirm::Lookups;
use crate::falcon::Falcon;
use crate::settings::Settings;
use crate::tailscale::Tailscale;
use crate::text::error_chain;
use crate::upstream::error::UpstreamError;

/// Maximum devices that one run looks up. The next run goes on with the others.
const MAX_DEVICE_LOOKUPS: usize = 100;
const LOOKUP_CONCURRENCY: usize = 8;

/// After this many devices that did not respond no more are looked up: their retries would use up the run's time.
const MAX_UNANSWERED: usize = 16;

/// Maximum devices of a round whose serials are looked up only because their scores rise after a short listing. The rounds go on
/// as far as the run's time goes, and what a round has confirmed is written even if the next one fails.
const RISES_PER_ROUND: usize = 2_000;

/// Looks up the missing data and adds it to the observation. Returns the plan that follows from it.
pub(super) async fn missing_data(
    run: &Run<'_>,
    settings: &Settings,
    observation: &mut Observation,
    mut proposal: Proposal,
) -> (Proposal, Confirmation) {
    let mut confirmation = Confirmation::default();
    let mut done = Lookups::default();
    let mut devices_left = MAX_DEVICE_LOOKUPS;
    let previous = &run.previous;
    loop {
        let mut open = proposal.unconfirmed(settings, observation, &done);
        confirmation.unresolved = open.nodes;
        let mut round = open.lookups;
        let rises = beginning_at(open.rises.keys().cloned(), previous.next_rise.as_deref());
        confirmation.next_rise = rises.first().cloned();
        for node in rises.iter().take(RISES_PER_ROUND) {
            round
                .serials
                .extend(open.rises.remove(node).into_iter().flatten());
        }
        let mut nodes = beginning_at(round.devices, previous.next_lookup.as_deref());
        confirmation.next_lookup = nodes.get(devices_left).cloned();
        nodes.truncate(devices_left);
        devices_left -= nodes.len();
        round.devices = nodes.iter().cloned().collect();
        if !round.serials.is_empty() || !round.hosts.is_empty() {
            // Hosts that are found add scores to look up, which one request can return.
            round.scores.clear();
        }
        if round.is_empty() || confirmation.error.is_some() {
            return (proposal, confirmation);
        }
        tracing::info!(
            integration = %settings.id,
            run_id = run.id(),
            changes = confirmation.unresolved.len(),
            devices = nodes.len(),
            "looking up what the listings lack before it is believed to be gone"
        );
        let (falcon, devices) = join(
            look_up_hosts_and_scores(&observation.clients.falcon, &round),
            look_up_devices(&observation.clients.tailscale, &nodes),
        )
        .await;
        match falcon {
            Ok((hosts, scores)) => {
                observation.falcon.extend(run.clamp_times(hosts), scores);
                done.extend(Lookups {
                    devices: BTreeSet::new(),
                    ..round
                });
            }
            Err(error) => confirmation.error = Some(error),
        }
        let mut unreadable = Vec::new();
        for (node, device) in devices.answered {
            match device {
                Some(device) => {
                    observation.devices.insert(node.clone(), device);
                }
                // One of two answers is wrong. Only what neither has is gone.
                None if observation.devices.contains_key(&node) => {
                    let problem = "the listing has it, and its lookup does not";
                    unreadable.push((node.clone(), problem.to_owned()));
                }
                None => {}
            }
            done.devices.insert(node);
        }
        let failed = devices.unreadable.into_iter();
        unreadable.extend(failed.map(|(node, error)| (node, error_chain(&error))));
        for (node, problem) in unreadable {
            let record = observation.records.get(&node);
            let name = record.map_or("", |record| record.name.as_str());
            let problem = format!("{name} ({node}): {problem}");
            observation.unreadable.insert(node, problem);
        }
        if observation.unreadable.len() >= MAX_UNANSWERED {
            devices_left = 0;
        }
        confirmation.error = confirmation.error.or(devices.failure);
        proposal = Proposal::new(run, settings, observation);
    }
}

/// Returns the devices in the order of their ids, beginning where the last run stopped: those wait longest.
fn beginning_at(nodes: impl IntoIterator<Item = NodeId>, start: Option<&str>) -> Vec<NodeId> {
    let is_first = |node: &NodeId| start.is_none_or(|start| *node.0 >= *start);
    let (mut first, rest): (Vec<NodeId>, Vec<NodeId>) = nodes.into_iter().partition(is_first);
    first.extend(rest);
    first
}

async fn look_up_hosts_and_scores(
    falcon: &Falcon,
    round: &Lookups,
) -> Result<(Hosts, Assessments), UpstreamError> {
    let hosts = falcon.hosts_matching(&round.serials, &round.hosts).await?;
    let scores = falcon.scores_of(&round.scores).await?;
    Ok((hosts, scores))
}

/// The answers to lookups of devices.
#[derive(Default)]
pub(super) struct DeviceLookups {
    /// The devices that Tailscale answered for: `None` if the tailnet does not have it.
    pub(super) answered: Vec<(NodeId, Option<Device>)>,
    /// The devices whose lookup failed for a reason that can be their own.
    pub(super) unreadable: Vec<(NodeId, UpstreamError)>,
    /// The first failure that concerns all lookups.
    pub(super) failure: Option<UpstreamError>,
}

/// Asks Tailscale for devices by id. Call it after a listing has worked: then a rejected or failed lookup is one device's.
pub(super) async fn look_up_devices(tailscale: &Tailscale, nodes: &[NodeId]) -> DeviceLookups {
    let mut answers = stream::iter(nodes)
        .map(async |node| (node.clone(), tailscale.device(node).await))
        .buffer_unordered(LOOKUP_CONCURRENCY);
    let mut lookups = DeviceLookups::default();
    while let Some((node, answer)) = answers.next().await {
        match answer {
            Ok(device) => lookups.answered.push((node, device)),
            Err(error) if error.can_be_one_devices() => lookups.unreadable.push((node, error)),
            Err(error) => {
                lookups.failure.get_or_insert(error);
            }
        }
        if lookups.unreadable.len() >= MAX_UNANSWERED || lookups.failure.is_some() {
            break;
        }
    }
    lookups
}
