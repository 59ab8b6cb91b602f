//! What was changed.

use serde_json::{Value, json};

use super::HandlerError;
use crate::command::AuditFormat;
use crate::domain::audit::export::Entry;
use crate::store::Search;
use crate::world::World;

/// Audit records, newest first, and where the next page begins if there is more.
pub(super) async fn audit(
    world: &World,
    search: &Search,
    format: AuditFormat,
) -> Result<Value, HandlerError> {
    let page = world.store.search_audit(search).await?;
    let records = match format {
        AuditFormat::Stored => serde_json::to_value(page.records)?,
        AuditFormat::Tailscale => serde_json::to_value(
            page.records
                .into_iter()
                .map(Entry::from)
                .collect::<Vec<_>>(),
        )?,
    };
    let mut answer = json!({ "records": records });
    if let Some(next) = page.next {
        answer["next"] = next.into();
    }
    Ok(answer)
}
