//! Recovers writes that an earlier run made in Tailscale, or may have made, and could not record in DynamoDB.

use std::collections::BTreeMap;

use futures::future::join_all;

use super::failure::SyncError;
use super::observe::sign_in_tailscale;
use super::run::Run;
use crate::domain::inventory::device::NodeId;
use crate::domain::plan::Change;
use crate::domain::plan::journal::{is_made, run_of, unrecorded};
use crate::domain::status::error_kind::ErrorKind;
use crate::tailscale::Tailscale;
use crate::text::error_chain;
use crate::upstream::error::UpstreamError;

/// Devices that are asked at once. Their answers are recorded before the next ones are asked: where there is little time,
/// each run comes a little further.
const AT_ONCE: usize = 16;

/// After this many devices without an answer no more are asked. Otherwise an outage of Tailscale would use up the run's
/// time and retries here, and the run would end before the device listing tells that it is one.
const MAX_UNANSWERED: usize = 16;

/// Devices that could not be asked what they hold, each with its name and the reason. Their journal entries stay, and the
/// run leaves them out: what it planned for them would rest on a record that may be wrong.
pub(super) type SkippedDevices = BTreeMap<NodeId, String>;

/// Asks the devices in the journal of earlier runs what they hold, and records what was accepted, in the name of the run
/// that wrote it. Then the plan can rest on the records again, but for the devices that are returned.
///
/// # Errors
/// A failure that is not one device's own: a refused credential, a rate limit, the deadline, DynamoDB.
pub(super) async fn settle(run: &Run<'_>) -> Result<SkippedDevices, SyncError> {
    let (store, id) = (&run.world.store, &run.integration.id);
    let (mut tailscale, mut known) = (None, None);
    let mut skipped = SkippedDevices::new();
    for (note, intents) in &run.integration.pending {
        let earlier = run_of(note);
        // The notes of one run are about different devices, so what is recorded by one leaves the others as they are.
        let records = match known.take() {
            Some((run, records)) if run == earlier => records,
            _ => store.records(id).await?,
        };
        let open = unrecorded(earlier, intents, &records);
        for changes in open.chunks(AT_ONCE) {
            if skipped.len() >= MAX_UNANSWERED {
                skipped.extend(changes.iter().map(not_asked));
                continue;
            }
            let tailscale = match &tailscale {
                Some(signed_in) => signed_in,
                None => tailscale.insert(sign_in_tailscale(run, run.settings()?).await?),
            };
            let answers = ask(tailscale, changes).await;
            if !answers.made.is_empty() {
                tracing::warn!(
                    integration = %id,
                    run_id = run.id(),
                    earlier_run_id = earlier,
                    changes = answers.made.len(),
                    "recording what an earlier run wrote and could not record"
                );
                run.record_for(earlier, &answers.made).await?;
            }
            if !answers.settled.is_empty() {
                let nodes = answers.settled.iter();
                store.strike_out(id, run.id(), note, nodes).await?;
            }
            skipped.extend(answers.skipped);
            if let Some(error) = answers.failure {
                return Err(error.into());
            }
        }
        if !open
            .iter()
            .any(|change| skipped.contains_key(&change.node_id))
        {
            store.strike_out_all(id, run.id(), note).await?;
        }
        known = Some((earlier, records));
    }
    if !skipped.is_empty() {
        tracing::warn!(
            integration = %id,
            run_id = run.id(),
            devices = skipped.len(),
            "skipping devices that Tailscale could not be asked about"
        );
    }
    Ok(skipped)
}

/// The answers of some devices.
#[derive(Default)]
struct Answers {
    /// The changes that Tailscale had accepted.
    made: Vec<Change>,
    /// Devices that answered, or are gone.
    settled: Vec<NodeId>,
    /// Devices that did not answer for a reason of their own.
    skipped: SkippedDevices,
    /// The first failure that is not one device's own.
    failure: Option<UpstreamError>,
}

async fn ask(tailscale: &Tailscale, changes: &[Change]) -> Answers {
    let asked = changes
        .iter()
        .map(|change| tailscale.attributes(&change.node_id));
    let mut answers = Answers::default();
    for (change, attributes) in changes.iter().zip(join_all(asked).await) {
        let node = change.node_id.clone();
        match attributes {
            Ok(Some(attributes)) => {
                if is_made(change, &attributes) {
                    answers.made.push(change.clone());
                }
                answers.settled.push(node);
            }
            // With a device that is gone, its attribute is gone as well, which nobody needs to record.
            Ok(None) => answers.settled.push(node),
            Err(error) if is_devices_own(&error) => {
                let example = format!("{} ({node}): {}", change.name, error_chain(&error));
                answers.skipped.insert(node, example);
            }
            Err(error) => {
                answers.failure.get_or_insert(error);
            }
        }
    }
    answers
}

/// True for failures that can be one device's own. An outage looks the same; then the device listing fails, too.
fn is_devices_own(error: &UpstreamError) -> bool {
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Protocol)
}

fn not_asked(change: &Change) -> (NodeId, String) {
    let Change { node_id, name, .. } = change;
    let example =
        format!("{name} ({node_id}): not asked, since {MAX_UNANSWERED} others gave no answer");
    (node_id.clone(), example)
}
