//! What an earlier run left open: it died, or the tables failed it, between Tailscale's yes and the record.

use std::collections::BTreeMap;

use futures::future::try_join_all;
use serde_json::Value;

use super::failure::Failure;
use super::observe::sign_in_tailscale;
use super::run::Run;
use crate::domain::pending::{is_made, run_of, unrecorded};
use crate::domain::plan::Change;
use crate::error::UpstreamError;
use crate::tailscale::Tailscale;

/// So many devices are asked at once. What they answer is recorded before the next ones are asked: where there is little
/// time, each run comes a little further.
const AT_ONCE: usize = 16;

/// Asks the devices that earlier runs were writing to what they hold, and records what was accepted, in the name of the
/// run that wrote it. Then the plan can rest on the records again.
pub(super) async fn settle(run: &Run<'_>) -> Result<(), Failure> {
    let (store, id) = (&run.world.store, &run.integration.id);
    let (mut tailscale, mut known) = (None, None);
    for (note, intents) in &run.integration.pending {
        let earlier = run_of(note);
        // The notes of one run are about different devices, so what is recorded by one leaves the others as they are.
        let records = match known.take() {
            Some((run, records)) if run == earlier => records,
            _ => store.records(id).await?,
        };
        for open in unrecorded(earlier, intents, &records).chunks(AT_ONCE) {
            let tailscale = match &tailscale {
                Some(signed_in) => signed_in,
                None => tailscale.insert(sign_in_tailscale(run, run.settings()?).await?),
            };
            let made = made(tailscale, open).await?;
            if !made.is_empty() {
                tracing::warn!(
                    integration = %id,
                    run_id = run.id(),
                    earlier_run_id = earlier,
                    changes = made.len(),
                    "recording what an earlier run wrote and could not record"
                );
                run.record_for(earlier, &made).await?;
            }
            let nodes = open.iter().map(|change| &change.node_id);
            store.strike_out(id, run.id(), note, nodes).await?;
        }
        store.strike_out_all(id, run.id(), note).await?;
        known = Some((earlier, records));
    }
    Ok(())
}

/// Those of the changes that Tailscale had accepted.
async fn made(tailscale: &Tailscale, open: &[Change]) -> Result<Vec<Change>, UpstreamError> {
    let asked = open
        .iter()
        .map(|change| tailscale.attributes(&change.node_id));
    let answers = try_join_all(asked).await?;
    let accepted = |(change, attributes): (&Change, Option<BTreeMap<String, Value>>)| {
        // With a device that is gone, its attribute is gone as well, which nobody needs to record.
        is_made(change, &attributes?).then(|| change.clone())
    };
    Ok(open.iter().zip(answers).filter_map(accepted).collect())
}
