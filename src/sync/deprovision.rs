//! The last run of an integration: removes what it wrote. It calls Tailscale only.

use super::apply;
use super::confirm::get_devices;
use super::error::SyncError;
use super::recover;
use super::report::Report;
use super::run::Run;
use crate::domain::inventory::device::NodeId;
use crate::domain::plan::deprovision::{Attributes, Removal, plan_deprovisioning};

/// Removes or keeps the integration's attributes, as the removal says. The next run does what is left.
pub(super) async fn deprovision(run: &Run<'_>, removal: &Removal) -> Report {
    let report = match removal.attributes {
        Attributes::Delete => remove_attributes(run).await,
        Attributes::Keep => keep_attributes(run).await,
    };
    report.unwrap_or_else(Report::failed).of_removal()
}

async fn remove_attributes(run: &Run<'_>) -> Result<Report, SyncError> {
    let skipped = recover::unrecorded_writes(run).await?;
    let records = run.app.store.node_records(&run.integration.id).await?;
    if records.is_empty() {
        return Ok(Report::nothing_to_remove().with_skipped_devices(&skipped));
    }
    let tailscale = run.connect_tailscale().await?;
    let mut devices = tailscale.devices().await?;
    let missing = records.keys().filter(|node| !devices.contains_key(*node));
    let found = get_devices(&tailscale, missing).await?;
    devices.extend(found);
    let plan = plan_deprovisioning(&records, &devices).without_devices(&skipped);
    let applied = apply::apply(run, &plan, &tailscale.writer()).await;
    Ok(Report::from_deprovisioning(&plan, applied).with_skipped_devices(&skipped))
}

async fn keep_attributes(run: &Run<'_>) -> Result<Report, SyncError> {
    let (store, id) = (&run.app.store, &run.integration.id);
    let nodes: Vec<NodeId> = store.node_records(id).await?.into_keys().collect();
    store.delete_node_records(id, &nodes).await?;
    Ok(Report::nothing_to_remove())
}
