//! Why a device has its score, or none.

use serde_json::Value;

use super::HandlerError;
use crate::command::Format;
use crate::explain;
use crate::integration::IntegrationId;
use crate::world::{Invocation, World};

/// Explains the devices that a person means.
pub(super) async fn explain(
    world: &World,
    integration: &IntegrationId,
    device: &str,
    format: Format,
    invocation: &Invocation,
) -> Result<Value, HandlerError> {
    // Boxed, like a run: it looks at as much.
    let answer = Box::pin(explain::explain(world, integration, device, invocation)).await?;
    Ok(match format {
        Format::Json => serde_json::to_value(answer)?,
        Format::Text => explain::text(&answer).into(),
    })
}
