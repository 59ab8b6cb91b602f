//! What is there: credentials, hosts, scores, devices, and what was written before. Reads only.

use futures::{StreamExt, TryStreamExt, stream};

use super::failure::Failure;
use super::run::Run;
use crate::domain::device::{Device, Devices, NodeId};
use crate::domain::guard::Ground;
use crate::domain::host::{Account, Scores};
use crate::domain::join::join;
use crate::domain::plan::{Doubts, Records, doubts, plan};
use crate::error::UpstreamError;
use crate::falcon::Falcon;
use crate::integration::Settings;
use crate::tailscale::Tailscale;

/// So many departed devices are looked up in one run, and so many at a time; the next run goes on.
const DEPARTED: usize = 100;
const AT_ONCE: usize = 8;

/// A complete observation.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) falcon: Account,
    pub(super) devices: Devices,
    pub(super) records: Records,
    pub(super) clients: SignIn,
}

/// Both sides, with a token each.
#[derive(Debug)]
pub(super) struct SignIn {
    /// The Falcon account.
    pub(super) falcon: Falcon,
    /// The tailnet.
    pub(super) tailscale: Tailscale,
}

/// What became of the doubts about a plan.
#[derive(Debug, Default)]
pub(super) struct Confirmed {
    /// The doubts that remain: what rests on them is not done in this run.
    pub(super) open: Doubts,
    /// Why they remain, if something failed.
    pub(super) error: Option<UpstreamError>,
}

/// Fetches the credentials and trades each for a token. The versions of the secrets are noted for a pause.
async fn sign_in(run: &Run<'_>, settings: &Settings) -> Result<SignIn, Failure> {
    let world = run.world;
    let (falcon, tailscale) = futures::future::try_join(
        world.secrets.falcon(&settings.falcon_secret),
        world.secrets.tailscale(&settings.tailscale_secret),
    )
    .await?;
    run.note_secrets(falcon.version, tailscale.version);
    let (falcon, tailscale) = futures::future::try_join(
        world.falcon(settings, falcon.value, &run.budget),
        world.tailscale(settings, tailscale.value, &run.budget),
    )
    .await?;
    Ok(SignIn { falcon, tailscale })
}

/// Likewise for Tailscale alone.
pub(super) async fn sign_in_tailscale(
    run: &Run<'_>,
    settings: &Settings,
) -> Result<Tailscale, Failure> {
    let world = run.world;
    let secret = world.secrets.tailscale(&settings.tailscale_secret).await?;
    run.note_secrets(None, secret.version);
    Ok(world.tailscale(settings, secret.value, &run.budget).await?)
}

/// Everything there is to see, side by side. Whatever is missing or cut short fails the whole observation.
pub(super) async fn observe(run: &Run<'_>, settings: &Settings) -> Result<Seen, Failure> {
    let records = async { Ok::<_, Failure>(run.world.store.records(&settings.id).await?) };
    let both = async {
        let clients = sign_in(run, settings).await?;
        let (hosts, scores, devices) = futures::future::try_join3(
            clients.falcon.hosts(),
            clients.falcon.scores(),
            clients.tailscale.devices(),
        )
        .await?;
        let mut falcon = Account::default();
        falcon.extend(run.seen(hosts), scores);
        Ok((clients, falcon, devices))
    };
    let (records, (clients, falcon, devices)) = futures::future::try_join(records, both).await?;
    Ok(Seen {
        falcon,
        devices,
        records,
        clients,
    })
}

/// Looks directly for what a plan would act upon because it was not seen, and adds what it finds to the observation.
pub(super) async fn confirm(run: &Run<'_>, settings: &Settings, seen: &mut Seen) -> Confirmed {
    let first = seen.doubts(run, settings);
    if first.is_empty() {
        return Confirmed::default();
    }
    tracing::info!(
        integration = %settings.id,
        run_id = run.id(),
        changes = first.changes.len(),
        departed = first.departed.len(),
        "looking up what the listings lack before it is believed to be gone"
    );
    match look_up(run, settings, seen, &first).await {
        Ok(()) => Confirmed {
            open: Doubts {
                departed: first.departed.into_iter().skip(DEPARTED).collect(),
                ..Doubts::default()
            },
            error: None,
        },
        Err(error) => Confirmed {
            // What was found so far may have raised other doubts: those are open, too.
            open: first.and(seen.doubts(run, settings)),
            error: Some(error),
        },
    }
}

async fn look_up(
    run: &Run<'_>,
    settings: &Settings,
    seen: &mut Seen,
    first: &Doubts,
) -> Result<(), UpstreamError> {
    let SignIn { falcon, tailscale } = &seen.clients;
    let departed = look_for(tailscale, first.departed.iter().take(DEPARTED));
    let hosts = falcon.find_hosts(&first.serials, &first.hosts);
    let (hosts, devices) = futures::future::try_join(hosts, departed).await?;
    seen.falcon.extend(run.seen(hosts), Scores::new());
    seen.devices.extend(devices);
    // Asked again: a host that was found, or a device, brings sensors whose scores are to be looked up.
    let mut sensors = seen.doubts(run, settings).scores;
    sensors.extend(first.scores.iter().cloned());
    let scores = seen.clients.falcon.find_scores(&sensors).await?;
    seen.falcon.extend([], scores);
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

impl Seen {
    /// What a plan rests on, for the guard.
    pub(super) fn ground(&self) -> Ground<'_> {
        let present = |node: &&NodeId| self.devices.contains_key(*node);
        Ground {
            falcon: &self.falcon,
            records: self.records.len(),
            present: self.records.keys().filter(present).count(),
        }
    }

    fn doubts(&self, run: &Run<'_>, settings: &Settings) -> Doubts {
        let joined = join(&self.falcon, &self.devices, run.seen_since(settings));
        let plan = plan(
            &joined,
            &self.devices,
            &self.records,
            &settings.attribute_key,
            settings.on_missing,
        );
        doubts(&plan, &joined, &self.devices)
    }
}
