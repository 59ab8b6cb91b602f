//! Who would pass a posture, and who would lose access: what `preview` answers. Reads only.

use jiff::Timestamp;
use serde::Serialize;

use crate::app::{App, Invocation};
use crate::domain::inventory::host::Score;
use crate::domain::posture::Posture;
use crate::domain::posture::preview::{Preview, preview, subjects};
use crate::settings::{AttributeKey, IntegrationId};
use crate::store::StoreError;
use crate::sync::{Snapshot, SyncError, Unavailable, inspect};
use crate::tailscale::Policy;

/// The answer to whoever asks what a posture would do.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PreviewResponse {
    /// The integration.
    pub integration: IntegrationId,
    /// When it was looked at.
    pub at: Timestamp,
    /// The attribute, where the settings can be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attribute_key: Option<AttributeKey>,
    /// Why nothing could be looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Why removals of attributes wait, if they do: their scores count here as long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<String>,
    /// The effect of each posture.
    pub previews: Vec<Preview>,
}

/// The postures that a preview evaluates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PreviewTarget {
    /// A posture that requires at least this score.
    MinScore(Score),
    /// The postures of the tailnet's policy file that mention our attribute.
    Policy,
}

/// Previews a threshold, or the postures of the policy file.
///
/// # Errors
/// Only for faults of our own, and for an integration that does not exist. What keeps it from looking is in the answer.
pub async fn answer(
    world: &App,
    integration: &IntegrationId,
    target: PreviewTarget,
    invocation: &Invocation,
) -> Result<PreviewResponse, StoreError> {
    let include_policy = target == PreviewTarget::Policy;
    let look = inspect(world, integration, include_policy, invocation).await?;
    let mut answer = PreviewResponse {
        integration: integration.clone(),
        at: look.at,
        attribute_key: None,
        error: None,
        held: None,
        previews: Vec::new(),
    };
    match look.snapshot {
        Ok(sight) => {
            answer.previews = previews(&sight, target);
            answer.held = sight.held.map(|held| held.why);
            answer.attribute_key = Some(sight.settings.attribute_key);
        }
        Err(Unavailable::Failed(SyncError::Store(fault))) => return Err(fault),
        Err(blind) => answer.error = Some(blind.message(integration)),
    }
    Ok(answer)
}

fn previews(sight: &Snapshot, target: PreviewTarget) -> Vec<Preview> {
    let key = &sight.settings.attribute_key;
    let postures = match (target, &sight.policy) {
        (PreviewTarget::MinScore(score), _) => vec![Posture::at_least(key, score.get())],
        (PreviewTarget::Policy, Some(policy)) => postures(policy, key),
        (PreviewTarget::Policy, None) => Vec::new(),
    };
    let subjects = subjects(&sight.devices, &sight.matches, &sight.records, &sight.plan);
    postures
        .iter()
        .map(|posture| preview(&subjects, posture, key))
        .collect()
}

fn postures(policy: &Policy, key: &AttributeKey) -> Vec<Posture> {
    let posture = |(name, written): (&String, &Vec<String>)| {
        let used_in = policy.used_in.get(name).cloned().unwrap_or_default();
        Posture::of_policy(key, name, written, used_in)
    };
    policy.postures.iter().filter_map(posture).collect()
}
