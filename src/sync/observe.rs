//! What is there: credentials, hosts, scores, devices, and what was written before. Reads only.

use std::pin::pin;
use std::time::Duration;

use futures::future::{self, Either, select, try_join};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::time::timeout;

use super::Proposal;
use super::failure::SyncError;
use super::run::Run;
use super::settle::SkippedDevices;
use crate::domain::fetch::{FetchState, FetchStrategy, StrategyChoice};
use crate::domain::inventory::device::{Device, Devices, NodeId};
use crate::domain::inventory::host::{Assessments, FalconInventory, Hosts};
use crate::domain::matching::{MatchOutcome, Matches, matching, spellings};
use crate::domain::plan::guard::GuardInputs;
use crate::domain::plan::{NodeRecords, Unconfirmed};
use crate::domain::status::NativeIntegration;
use crate::domain::status::error_kind::Service;
use crate::falcon::{Falcon, FirstHostPage, FirstScores};
use crate::settings::Settings;
use crate::tailscale::Tailscale;
use crate::upstream::error::UpstreamError;

/// So many departed devices are looked up in one run, and so many at a time; the next run goes on.
const DEPARTED: usize = 100;
const AT_ONCE: usize = 8;
/// See [`beside`].
const GRACE: Duration = Duration::from_secs(1);

/// A complete observation.
#[derive(Debug)]
pub(super) struct Observation {
    pub(super) falcon: FalconInventory,
    pub(super) devices: Devices,
    pub(super) records: NodeRecords,
    pub(super) clients: Clients,
    /// How hosts and scores were fetched.
    pub(super) crawl: FetchState,
    /// Whether Tailscale's own integration runs beside, if that is known.
    pub(super) native: Option<NativeIntegration>,
    /// Devices that recovery could not ask, and that the plan leaves out.
    pub(super) skipped: SkippedDevices,
}

/// Both sides, with a token each.
#[derive(Debug)]
pub(super) struct Clients {
    /// The Falcon account.
    pub(super) falcon: Falcon,
    /// The tailnet.
    pub(super) tailscale: Tailscale,
}

/// What became of the doubts about a plan.
#[derive(Debug, Default)]
pub(super) struct Confirmation {
    /// The doubts that remain: what rests on them is not done in this run.
    pub(super) open: Unconfirmed,
    /// Why they remain, if something failed.
    pub(super) error: Option<UpstreamError>,
    /// Whether anything was looked up, so that there may be more to see.
    pub(super) looked: bool,
}

/// Fetches the credentials and trades each for a token. The versions of the secrets are noted for a pause.
async fn sign_in(run: &Run<'_>, settings: &Settings) -> Result<Clients, SyncError> {
    let world = run.world;
    let secrets = try_join(
        world.secrets.falcon(&settings.falcon_secret),
        world.secrets.tailscale(&settings.tailscale_secret),
    );
    // While the secrets are on their way, there is time to build it.
    let (secrets, _) = future::join(secrets, world.http(Service::Falcon)).await;
    let (falcon, tailscale) = secrets?;
    run.note_secrets(falcon.version, tailscale.version);
    let (falcon, tailscale) = try_join(
        world.falcon(settings, falcon.value, &run.budget),
        world.tailscale(settings, tailscale.value, &run.budget),
    )
    .await?;
    Ok(Clients { falcon, tailscale })
}

/// Likewise for Tailscale alone.
pub(super) async fn sign_in_tailscale(
    run: &Run<'_>,
    settings: &Settings,
) -> Result<Tailscale, SyncError> {
    let world = run.world;
    let secret = world.secrets.tailscale(&settings.tailscale_secret).await?;
    run.note_secrets(None, secret.version);
    Ok(world.tailscale(settings, secret.value, &run.budget).await?)
}

/// Everything there is to see. Whatever is missing or cut short fails the whole observation.
///
/// What can be asked of Falcon without knowing the devices is asked while they are listed; the rest follows.
pub(super) async fn observe(
    run: &Run<'_>,
    settings: &Settings,
    skipped: SkippedDevices,
) -> Result<Observation, SyncError> {
    let records = async { Ok::<_, SyncError>(run.world.store.records(&settings.id).await?) };
    let both = async {
        let clients = sign_in(run, settings).await?;
        // Boxed: so many things side by side make a large future.
        let begun = Box::pin(begin(run, &clients.falcon));
        let listings = try_join(begun, clients.tailscale.devices());
        let (listings, native) = beside(listings, run.native(&clients.tailscale)).await;
        let (begun, devices) = listings?;
        Ok((clients, begun, devices, native))
    };
    let (records, (clients, begun, devices, native)) = try_join(records, both).await?;
    let (falcon, crawl) = go_on(run, &clients.falcon, begun, &devices, &records).await?;
    Ok(Observation {
        falcon,
        devices,
        records,
        clients,
        crawl,
        native,
        skipped,
    })
}

/// What was asked of Falcon before the devices are known.
enum Prefetch {
    /// Everything.
    All(StrategyChoice, FalconInventory),
    /// All hosts.
    Hosts(StrategyChoice, Hosts),
    /// How many hosts there are.
    Count(usize),
    /// The first pages of both listings, of an account of which nothing was known.
    First(FirstHostPage, FirstScores),
}

async fn begin(run: &Run<'_>, falcon: &Falcon) -> Result<Prefetch, UpstreamError> {
    let Some(choice) = run.expected() else {
        let (hosts, scores) = try_join(falcon.first_hosts(), falcon.first_scores()).await?;
        return match run.lists_all(hosts.total()) {
            Some(choice) => {
                let account = rest(run, falcon, hosts, scores).await?;
                Ok(Prefetch::All(choice, account))
            }
            None => Ok(Prefetch::First(hosts, scores)),
        };
    };
    Ok(match choice.way {
        FetchStrategy::Full => Prefetch::All(choice, all(run, falcon).await?),
        FetchStrategy::Hosts => Prefetch::Hosts(choice, falcon.hosts().await?),
        FetchStrategy::Filtered => Prefetch::Count(falcon.probe_hosts().await?),
    })
}

async fn go_on(
    run: &Run<'_>,
    falcon: &Falcon,
    begun: Prefetch,
    devices: &Devices,
    records: &NodeRecords,
) -> Result<(FalconInventory, FetchState), UpstreamError> {
    let fully = |choice, account: FalconInventory| {
        let crawl = run.crawled_fully(choice, &account);
        Ok((account, crawl))
    };
    let (visible, first) = match begun {
        Prefetch::All(choice, account) => return fully(choice, account),
        Prefetch::Hosts(choice, hosts) => {
            // The tailnet may have grown beyond what look-ups are worth it for.
            let now = run.choose(hosts.len(), devices, records);
            if now.way == FetchStrategy::Full {
                let scores = falcon.scores(&run.score_ranges()).await?;
                return fully(now, run.full(hosts, scores));
            }
            return with_scores(run, falcon, choice, hosts, devices, records).await;
        }
        Prefetch::Count(hosts) => (hosts, None),
        Prefetch::First(hosts, scores) => (hosts.total(), Some((hosts, scores))),
    };
    let choice = run.choose(visible, devices, records);
    match (choice.way, first) {
        (FetchStrategy::Full, Some((hosts, scores))) => {
            fully(choice, rest(run, falcon, hosts, scores).await?)
        }
        (FetchStrategy::Full, None) => fully(choice, all(run, falcon).await?),
        (FetchStrategy::Hosts, first) => {
            let hosts = falcon.hosts_after(first.map(|(hosts, _)| hosts)).await?;
            with_scores(run, falcon, choice, hosts, devices, records).await
        }
        (FetchStrategy::Filtered, _) => {
            let account = filtered(run, falcon, visible, devices, records).await?;
            Ok((account, run.crawled(choice, visible)))
        }
    }
}

/// All hosts and scores of an account that was seen before.
async fn all(run: &Run<'_>, falcon: &Falcon) -> Result<FalconInventory, UpstreamError> {
    let ranges = run.score_ranges();
    let (hosts, scores) = try_join(falcon.hosts(), falcon.scores(&ranges)).await?;
    Ok(run.full(hosts, scores))
}

/// Likewise, of an account of which the first pages are here.
async fn rest(
    run: &Run<'_>,
    falcon: &Falcon,
    hosts: FirstHostPage,
    scores: FirstScores,
) -> Result<FalconInventory, UpstreamError> {
    let hosts = falcon.hosts_after(Some(hosts));
    let (hosts, scores) = try_join(hosts, falcon.scores_after(scores)).await?;
    Ok(run.full(hosts, scores))
}

/// All hosts, with the scores of those that match a device.
async fn with_scores(
    run: &Run<'_>,
    falcon: &Falcon,
    choice: StrategyChoice,
    hosts: Hosts,
    devices: &Devices,
    records: &NodeRecords,
) -> Result<(FalconInventory, FetchState), UpstreamError> {
    let mut account = run.full(hosts, Assessments::new());
    let matching = matching(account.hosts.values(), devices);
    account.extend(Hosts::new(), falcon.find_scores(&matching).await?);
    let crawl = run.listed(choice, account.visible, matching, records);
    Ok((account, crawl))
}

/// Something that matters, and something that is only good to know: it is given up a second after the other is done.
async fn beside<T, N>(
    matters: impl Future<Output = T>,
    good_to_know: impl Future<Output = Option<N>>,
) -> (T, Option<N>) {
    match select(pin!(matters), pin!(good_to_know)).await {
        Either::Left((done, rest)) => (done, timeout(GRACE, rest).await.ok().flatten()),
        Either::Right((known, rest)) => (rest.await, known),
    }
}

/// The hosts that have a serial of one of the devices, or matched before, and their scores.
async fn filtered(
    run: &Run<'_>,
    falcon: &Falcon,
    visible: usize,
    devices: &Devices,
    records: &NodeRecords,
) -> Result<FalconInventory, UpstreamError> {
    let serials = spellings(devices.values());
    let hosts = falcon.find_hosts(&serials, &run.known(records)).await?;
    let mut account = FalconInventory {
        visible,
        ..FalconInventory::default()
    };
    account.extend(run.seen(hosts), Assessments::new());
    let aids = account.hosts.keys().cloned().collect();
    account.extend(Hosts::new(), falcon.find_scores(&aids).await?);
    Ok(account)
}

/// Looks directly for what a plan would act upon because it was not seen, and adds what it finds to the observation.
pub(super) async fn confirm(
    run: &Run<'_>,
    settings: &Settings,
    seen: &mut Observation,
    judged: &Proposal,
) -> Confirmation {
    let first = judged.doubts(seen);
    if first.is_empty() {
        return Confirmation::default();
    }
    tracing::info!(
        integration = %settings.id,
        run_id = run.id(),
        changes = first.changes.len(),
        departed = first.departed.len(),
        "looking up what the listings lack before it is believed to be gone"
    );
    match look_up(run, settings, seen, &first).await {
        Ok(()) => Confirmation {
            open: Unconfirmed {
                departed: first.departed.into_iter().skip(DEPARTED).collect(),
                ..Unconfirmed::default()
            },
            error: None,
            looked: true,
        },
        Err(error) => Confirmation {
            // What was found so far may have raised other doubts: those are open, too.
            open: first.and(Proposal::new(run, settings, seen).doubts(seen)),
            error: Some(error),
            looked: true,
        },
    }
}

async fn look_up(
    run: &Run<'_>,
    settings: &Settings,
    seen: &mut Observation,
    first: &Unconfirmed,
) -> Result<(), UpstreamError> {
    let Clients { falcon, tailscale } = &seen.clients;
    let departed = look_for(tailscale, first.departed.iter().take(DEPARTED));
    let hosts = falcon.find_hosts(&first.serials, &first.hosts);
    let (hosts, devices) = try_join(hosts, departed).await?;
    seen.falcon.extend(run.seen(hosts), Assessments::new());
    seen.devices.extend(devices);
    // Asked again: a host that was found, or a device, brings sensors whose scores are to be looked up.
    let mut sensors = Proposal::new(run, settings, seen).doubts(seen).scores;
    sensors.extend(first.scores.iter().cloned());
    let scores = seen.clients.falcon.find_scores(&sensors).await?;
    seen.falcon.extend(Hosts::new(), scores);
    Ok(())
}

/// Looks directly for devices that the listing lacks: those of them that are there after all.
pub(super) async fn look_for(
    tailscale: &Tailscale,
    nodes: impl Iterator<Item = &NodeId>,
) -> Result<Devices, UpstreamError> {
    let found: Vec<Option<Device>> = stream::iter(nodes)
        .map(|node| tailscale.device(node))
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    let devices = found.into_iter().flatten();
    Ok(devices
        .map(|device| (device.node_id.clone(), device))
        .collect())
}

impl Observation {
    /// The facts that the guard judges a plan by.
    pub(super) fn ground(&self, joined: &Matches) -> GuardInputs<'_> {
        let present = |node: &&NodeId| self.devices.contains_key(*node);
        let matched = |node: &&NodeId| {
            joined
                .outcomes
                .get(*node)
                .is_some_and(MatchOutcome::has_host)
        };
        GuardInputs {
            falcon: &self.falcon,
            records: self.records.len(),
            present: self.records.keys().filter(present).count(),
            matched: self.records.keys().filter(matched).count(),
        }
    }
}
