//! The last run of an integration: removes what it wrote. It calls Tailscale only.

use std::collections::BTreeSet;

use super::apply;
use super::confirm::look_up_devices;
use super::error::SyncError;
use super::recover;
use super::report::Report;
use super::run::Run;
use crate::domain::inventory::device::NodeId;
use crate::domain::plan::deprovision::{Attributes, Removal, plan_deprovisioning};
use crate::store::StoredNodes;

/// Removes or keeps the integration's attributes, as the removal says. The next run does what is left.
pub(super) async fn deprovision(run: &Run<'_>, removal: &Removal) -> Report {
    let report = match removal.attributes {
        Attributes::Delete => remove_attributes(run).await,
        Attributes::Keep => keep_attributes(run).await,
    };
    report.unwrap_or_else(Report::failed).of_removal()
}

async fn remove_attributes(run: &Run<'_>) -> Result<Report, SyncError> {
    let mut unreadable = recover::unrecorded_writes(run).await?;
    let nodes = run.app.store.nodes(&run.integration.id).await?;
    let records = nodes.records;
    unreadable.extend(nodes.unreadable);
    if records.is_empty() {
        return Ok(Report::nothing_to_remove().with_unreadable_devices(&unreadable));
    }
    let tailscale = run.connect_tailscale().await?;
    let mut devices = tailscale.devices().await?;
    let missing: Vec<NodeId> = records
        .keys()
        .filter(|node| !devices.contains_key(*node))
        .cloned()
        .collect();
    let lookups = look_up_devices(&tailscale, &missing).await;
    if let Some(error) = lookups.failure {
        return Err(error.into());
    }
    let answered: BTreeSet<&NodeId> = lookups.answered.iter().map(|(node, _)| node).collect();
    for node in missing.iter().filter(|node| !answered.contains(node)) {
        unreadable.insert(node.clone(), format!("{node}: could not be looked up"));
    }
    let found = lookups
        .answered
        .into_iter()
        .filter_map(|(_, device)| device);
    devices.extend(found.map(|device| (device.node_id.clone(), device)));
    let plan = plan_deprovisioning(&records, &devices).without_devices(unreadable.keys());
    let applied = apply::apply(run, &plan, &tailscale.writer()).await;
    Ok(Report::from_deprovisioning(&plan, applied).with_unreadable_devices(&unreadable))
}

async fn keep_attributes(run: &Run<'_>) -> Result<Report, SyncError> {
    let (store, id) = (&run.app.store, &run.integration.id);
    let StoredNodes {
        records,
        unreadable,
    } = store.nodes(id).await?;
    let nodes: Vec<NodeId> = records.into_keys().chain(unreadable.into_keys()).collect();
    store.delete_node_records(id, &nodes).await?;
    Ok(Report::nothing_to_remove())
}
