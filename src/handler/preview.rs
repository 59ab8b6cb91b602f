//! Who would pass a posture, and who would lose access.

use serde_json::Value;

use super::HandlerError;
use crate::command::Format;
use crate::integration::IntegrationId;
use crate::preview::{self, PreviewTarget};
use crate::world::{Invocation, World};

/// Previews a threshold, or the postures of the policy file.
pub(super) async fn preview(
    world: &World,
    integration: &IntegrationId,
    target: PreviewTarget,
    format: Format,
    invocation: &Invocation,
) -> Result<Value, HandlerError> {
    // Boxed, like a run: it looks at as much.
    let answer = Box::pin(preview::answer(world, integration, target, invocation)).await?;
    Ok(match format {
        Format::Json => serde_json::to_value(answer)?,
        Format::Text => preview::text(&answer).into(),
    })
}
