//! How the integrations are.

use serde_json::{Value, json};

use super::HandlerError;
use crate::command::Format;
use crate::integration::IntegrationId;
use crate::overview::{self, Summary, text};
use crate::world::World;

/// One integration, or all of them with their numbers.
pub(super) async fn status(
    world: &World,
    id: Option<&IntegrationId>,
    format: Format,
) -> Result<Value, HandlerError> {
    let now = world.clock.now();
    let mut overviews = overview::load_overviews(&world.store, &world.config, id, now).await?;
    if format == Format::Text {
        return Ok(text(&overviews, now).into());
    }
    match (id, overviews.pop()) {
        (Some(_), Some(one)) => Ok(serde_json::to_value(one)?),
        (_, last) => {
            overviews.extend(last);
            let overall = Summary::of(&overviews);
            Ok(json!({ "overall": overall, "integrations": overviews }))
        }
    }
}
