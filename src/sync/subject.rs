//! A look at a few devices, which asks Falcon for their hosts only.
//!
//! The tailnet and the records are read whole, so that everything that depends on other devices of the tailnet (shared serials,
//! names) is decided as in a run. Only Falcon's side is partial: the hosts with a serial of the devices or of a device that
//! shares one with them, and the hosts that the records of these devices name. So the plan is made for the devices of the look
//! alone; for all others the observation says nothing.
//!
//! A look is given up, and everything is observed instead, where other hosts have a say:
//! - The sensor of a connected device is silent. Whether Falcon's clock is doubted depends on all devices.
//! - The plan would take a score away. Whether that is held depends on all removals and on the whole observation.
//! - Falcon refuses the lookups.
//!
//! A device or serial without a host leads to the listing of all hosts: no filter finds each spelling, and a host of the same
//! name may tell the cause.

use std::collections::BTreeSet;

use smol_str::SmolStr;

use super::fetch::{Needs, inventory, is_refused, previous_state};
use super::run::Run;
use crate::domain::fetch::unmatched::devices_without_host;
use crate::domain::fetch::{FetchState, are_few_lookups_cheaper};
use crate::domain::inventory::device::{Device, Devices, NodeId};
use crate::domain::inventory::host::{Aid, FalconInventory, Host};
use crate::domain::inventory::record::NodeRecords;
use crate::domain::inventory::serial::Serial;
use crate::falcon::Falcon;
use crate::settings::IgnoredSerials;
use crate::upstream::error::UpstreamError;

/// The devices that a look is about.
#[derive(Debug, Default)]
pub(crate) struct Subject {
    /// Devices of the tailnet.
    pub(crate) nodes: BTreeSet<NodeId>,
    /// A serial that no device reports, for the hosts that have it.
    pub(crate) serial: Option<Serial>,
}

/// Returns true if a look at a few devices takes fewer requests by lookups than by listings.
pub(super) fn is_cheaper(run: &Run<'_>) -> bool {
    are_few_lookups_cheaper(previous_state(run), run.started)
}

/// Looks up what Falcon has of the subject. Returns `None` if that does not suffice.
pub(super) async fn look_up(
    run: &Run<'_>,
    falcon: &Falcon,
    needs: Needs<'_>,
    subject: &Subject,
) -> Result<Option<FalconInventory>, UpstreamError> {
    let Needs {
        devices,
        records,
        ignored,
    } = needs;
    let related = related_devices(devices, &subject.nodes, ignored);
    let texts = related.iter().flat_map(|device| device.identity.serials());
    let spellings: BTreeSet<String> = texts
        .map(SmolStr::as_str)
        .chain(subject.serial.iter().map(Serial::as_str))
        .flat_map(|text| Serial::spellings(text, ignored))
        .collect();
    let aids = sensors(previous_state(run), records, &related);
    let mut hosts = match falcon.hosts_matching(&spellings, &aids).await {
        Err(error) if is_refused(&error) => return Ok(None),
        hosts => hosts?,
    };
    let own = subject.nodes.iter();
    let own = own.filter_map(|node| devices.get_key_value(node));
    let unmatched = devices_without_host(&hosts, own, ignored);
    if unmatched.iter().any(|node| records.contains_key(*node)) {
        return Ok(None);
    }
    let lacks = |serial: &Serial| {
        hosts
            .values()
            .all(|host| host.serial.as_ref() != Some(serial))
    };
    if !unmatched.is_empty() || subject.serial.as_ref().is_some_and(lacks) {
        hosts.extend(falcon.hosts().await?);
    }
    let wanted: BTreeSet<Serial> = spellings
        .iter()
        .filter_map(|text| Serial::parse(text).ok())
        .collect();
    let is_wanted = |host: &&Host| {
        let serial = host.serial.as_ref();
        serial.is_some_and(|serial| wanted.contains(serial))
    };
    let matching = hosts.values().filter(is_wanted);
    let matching = matching.map(|host| host.aid.clone()).collect();
    let scores = match falcon.scores_of(&matching).await {
        Err(error) if is_refused(&error) => return Ok(None),
        scores => scores?,
    };
    Ok(Some(inventory(run, hosts, scores)))
}

/// Returns the devices of the look, and those that share a serial with one of them.
fn related_devices<'a>(
    devices: &'a Devices,
    nodes: &BTreeSet<NodeId>,
    ignored: &IgnoredSerials,
) -> Vec<&'a Device> {
    let serials = |device: &Device| -> BTreeSet<Serial> { device.serials(ignored).collect() };
    let named = nodes.iter().filter_map(|node| devices.get(node));
    let shared: BTreeSet<Serial> = named.flat_map(serials).collect();
    let is_related =
        |device: &&Device| nodes.contains(&device.node_id) || !serials(device).is_disjoint(&shared);
    devices.values().filter(is_related).collect()
}

/// Returns the sensors to ask for by id: those that decided the devices' scores until now, and those that the runs track.
fn sensors(
    previous: Option<&FetchState>,
    records: &NodeRecords,
    related: &[&Device],
) -> BTreeSet<Aid> {
    if related.is_empty() {
        return BTreeSet::new();
    }
    let records = related
        .iter()
        .filter_map(|device| records.get(&device.node_id));
    let tracked = previous.into_iter().flat_map(|state| &state.tracked_aids);
    let aids = records.map(|record| &record.aid).chain(tracked);
    aids.cloned().collect()
}
