//! The request for a sync.

use crate::settings::IntegrationId;

/// A request for a sync of one integration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncRequest {
    /// The integration to sync.
    pub integration: IntegrationId,
    /// Sync although the integration is paused or disabled.
    pub force: bool,
    /// Return the plan and write nothing.
    pub dry_run: bool,
    /// How many of the held removals to let pass, the longest absent first.
    pub allow_mass_removal: usize,
    /// The origin of the request.
    pub trigger: Trigger,
}

/// The origin of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// A person, by a command.
    Manual,
    /// The schedule or an event. The integration may have been removed since, which is not an error.
    Automatic,
}

impl SyncRequest {
    /// Creates the request of the schedule or of an event, without any option.
    pub fn automatic(integration: IntegrationId) -> Self {
        Self {
            integration,
            force: false,
            dry_run: false,
            allow_mass_removal: 0,
            trigger: Trigger::Automatic,
        }
    }
}
