//! Forecasts which devices would pass a posture, and which would lose access. Reads only.

use jiff::Timestamp;
use serde::Serialize;

use crate::app::{App, Invocation};
use crate::domain::inventory::host::Score;
use crate::domain::posture::Posture;
use crate::domain::posture::preview::{Preview, forecasts, preview_posture};
use crate::settings::{AttributeKey, IntegrationId};
use crate::store::StoreError;
use crate::sync::{Snapshot, SyncError, Unavailable, inspect};
use crate::tailscale::Policy;

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PreviewResponse {
    pub(crate) integration: IntegrationId,
    pub(crate) at: Timestamp,
    /// Absent if there is no snapshot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) attribute_key: Option<AttributeKey>,
    /// Why there is no snapshot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    /// Why removals of attributes are held. Their scores count in the previews.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) held: Option<String>,
    pub(crate) previews: Vec<Preview>,
}

/// The postures that a preview evaluates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PreviewTarget {
    /// A posture that requires at least this score.
    MinScore(Score),
    /// The postures of the tailnet's policy file that mention our attribute.
    Policy,
}

/// Previews a minimum score, or the postures of the policy file.
///
/// # Errors
/// DynamoDB failed, or the integration does not exist. The response holds every other failure.
pub(crate) async fn preview(
    app: &App,
    integration: &IntegrationId,
    target: PreviewTarget,
    invocation: &Invocation,
) -> Result<PreviewResponse, StoreError> {
    let include_policy = target == PreviewTarget::Policy;
    let inspection = inspect(app, integration, include_policy, invocation).await?;
    let mut response = PreviewResponse {
        integration: integration.clone(),
        at: inspection.at,
        attribute_key: None,
        error: None,
        held: None,
        previews: Vec::new(),
    };
    match inspection.snapshot {
        Ok(snapshot) => {
            response.previews = previews(&snapshot, target);
            response.held = snapshot.held.map(|held| held.why);
            response.attribute_key = Some(snapshot.settings.attribute_key);
        }
        Err(Unavailable::Failed(SyncError::Store(error))) => return Err(error),
        Err(unavailable) => response.error = Some(unavailable.message(integration)),
    }
    Ok(response)
}

fn previews(snapshot: &Snapshot, target: PreviewTarget) -> Vec<Preview> {
    let key = &snapshot.settings.attribute_key;
    let postures = match (target, &snapshot.policy) {
        (PreviewTarget::MinScore(score), _) => vec![Posture::from_min_score(key, score.get())],
        (PreviewTarget::Policy, Some(policy)) => postures(policy, key),
        (PreviewTarget::Policy, None) => Vec::new(),
    };
    let forecasts = forecasts(
        &snapshot.devices,
        &snapshot.matches,
        &snapshot.records,
        &snapshot.plan,
    );
    postures
        .into_iter()
        .map(|posture| preview_posture(&forecasts, posture))
        .collect()
}

fn postures(policy: &Policy, key: &AttributeKey) -> Vec<Posture> {
    let posture = |(name, conditions): (&String, &Vec<String>)| {
        let used_in = policy.used_in.get(name).cloned().unwrap_or_default();
        Posture::from_policy(key, name, conditions, used_in)
    };
    policy.postures.iter().filter_map(posture).collect()
}
