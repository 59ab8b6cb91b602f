//! The last run of an integration: takes away what it wrote. It needs Tailscale only.

use std::collections::BTreeSet;

use super::apply;
use super::failure::SyncError;
use super::observe::{look_for, sign_in_tailscale};
use super::report::Report;
use super::run::Run;
use super::settle::settle;
use crate::domain::inventory::device::NodeId;
use crate::domain::plan::deprovision::{Attributes, Removal, take_away};

/// Carries a removal out, as far as it comes; the next run goes on.
pub(super) async fn carry_out(run: &Run<'_>, removal: &Removal) -> Report {
    let done = match removal.attributes {
        Attributes::Delete => delete(run).await,
        Attributes::Keep => keep(run).await,
    };
    done.unwrap_or_else(Report::failed).of_removal()
}

async fn delete(run: &Run<'_>) -> Result<Report, SyncError> {
    let skipped = settle(run).await?;
    let records = run.world.store.records(&run.integration.id).await?;
    if records.is_empty() {
        return Ok(Report::taken_away(0).with_skipped_devices(&skipped));
    }
    let settings = run.settings()?;
    let tailscale = sign_in_tailscale(run, settings).await?;
    let mut devices = tailscale.devices().await?;
    let missing: BTreeSet<NodeId> = records
        .keys()
        .filter(|node| !devices.contains_key(*node))
        .cloned()
        .collect();
    devices.extend(look_for(&tailscale, missing.iter()).await?);
    let plan = take_away(&records, &devices).without_devices(&skipped);
    let applied = apply::apply(run, &plan, &tailscale.writer()).await;
    Ok(Report::after(&plan, applied).with_skipped_devices(&skipped))
}

async fn keep(run: &Run<'_>) -> Result<Report, SyncError> {
    let id = &run.integration.id;
    let nodes: Vec<NodeId> = run.world.store.records(id).await?.into_keys().collect();
    run.world.store.forget(id, &nodes).await?;
    Ok(Report::taken_away(0))
}
