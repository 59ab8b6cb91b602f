//! The last run of an integration: removes what it wrote. It calls Tailscale only.

use std::collections::BTreeSet;

use super::apply;
use super::confirm::look_up_devices;
use super::error::SyncError;
use super::recover::{self, Recovery};
use super::report::Report;
use super::run::Run;
use crate::domain::inventory::device::NodeId;
use crate::domain::inventory::record::{NodeRecords, take_expired};
use crate::domain::plan::deprovision::{Attributes, Removal, plan_deprovisioning};
use crate::store::{MAX_SETTLED, Settlement, StoredNodes};
use crate::text::error_chain;

/// Removes or keeps the integration's attributes, as the removal says. The next run does what is left.
pub(super) async fn deprovision(run: &Run<'_>, removal: &Removal) -> Report {
    let report = match removal.attributes {
        Attributes::Delete => remove_attributes(run).await,
        Attributes::Keep => keep_attributes(run).await,
    };
    report.unwrap_or_else(Report::failed).of_removal()
}

async fn remove_attributes(run: &Run<'_>) -> Result<Report, SyncError> {
    let Recovery {
        mut unreadable,
        mut unsettled,
        ..
    } = recover::unrecorded_writes(run, false).await?.complete()?;
    let nodes = run.app.store.nodes(&run.integration.id).await?;
    let mut records = nodes.records;
    let expired = take_expired(&mut records, run.started);
    unreadable.extend(nodes.unreadable);
    if records.is_empty() && expired.is_empty() {
        return Ok(Report::nothing_to_remove().with_open_devices(&unreadable, &unsettled));
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
    let open = unreadable.keys().chain(unsettled.keys());
    let plan = plan_deprovisioning(&records, &expired, &devices).without_devices(open);
    let mut applied = apply::apply(run, &plan, &tailscale.writer()).await;
    unsettled.append(&mut applied.unsettled);
    Ok(Report::from_deprovisioning(&plan, applied).with_open_devices(&unreadable, &unsettled))
}

async fn keep_attributes(run: &Run<'_>) -> Result<Report, SyncError> {
    let (store, id) = (&run.app.store, &run.integration.id);
    let recovery = recover::unrecorded_writes(run, true).await?;
    if let Some(error) = recovery.failure {
        tracing::warn!(
            integration = %id,
            run_id = run.id(),
            error = error_chain(&error),
            "the devices of the journal cannot be asked; what they hold is recorded as unknown"
        );
    }
    let StoredNodes {
        records,
        unreadable,
    } = store.nodes(id).await?;
    if !run.integration.pending.is_empty() {
        record_unknown(run, &records).await?;
    }
    let nodes: Vec<NodeId> = records.into_keys().chain(unreadable.into_keys()).collect();
    store.delete_node_records(id, &nodes).await?;
    Ok(Report::nothing_to_remove())
}

/// Records what is left of the journal as unknown, and empties it. An integration ends only with an empty journal.
async fn record_unknown(run: &Run<'_>, records: &NodeRecords) -> Result<(), SyncError> {
    let integration = run.app.store.integration(&run.integration.id).await?;
    for (key, entry) in &integration.pending {
        for changes in entry.unrecorded(records).chunks(MAX_SETTLED) {
            let settlement = Settlement {
                unknown: changes.to_vec(),
                nodes: changes.iter().map(|one| one.node_id.clone()).collect(),
                ..Settlement::default()
            };
            run.settle((key, entry), &settlement, false).await?;
        }
        run.settle((key, entry), &Settlement::default(), true)
            .await?;
    }
    Ok(())
}
