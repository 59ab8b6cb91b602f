//! Forecasts which devices would pass a posture, and which would lose access. Reads only.

use jiff::Timestamp;
use serde::Serialize;

use crate::app::{App, Invocation};
use crate::domain::inventory::host::Score;
use crate::domain::plan::absence;
use crate::domain::posture::Posture;
use crate::domain::posture::preview::{Preview, forecasts, preview_posture};
use crate::settings::{AttributeKey, IntegrationId};
use crate::store::StoreError;
use crate::sync::inspect;

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
    /// Which attributes wait for the second look. Their scores count in the previews.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) waiting: Option<String>,
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
    let snapshot = inspect(app, integration, include_policy, invocation).await?;
    let mut response = PreviewResponse {
        integration: integration.clone(),
        at: app.clock.now(),
        attribute_key: None,
        error: None,
        held: None,
        waiting: None,
        previews: Vec::new(),
    };
    match snapshot {
        Ok(snapshot) => {
            let key = &snapshot.settings.attribute_key;
            let postures = match target {
                PreviewTarget::MinScore(score) => vec![Posture::from_min_score(key, score.get())],
                PreviewTarget::Policy => snapshot.postures.clone(),
            };
            let forecasts = forecasts(&snapshot);
            let preview = |posture| preview_posture(&forecasts, posture);
            response.previews = postures.into_iter().map(preview).collect();
            response.waiting = absence::summary(&snapshot.waiting);
            response.held = snapshot.held.map(|held| held.why);
            response.attribute_key = Some(snapshot.settings.attribute_key);
        }
        Err(unavailable) => response.error = Some(unavailable.message(integration)),
    }
    Ok(response)
}
