//! Whether Tailscale's own Falcon integration runs beside ours: good to know, and no reason to fail or to wait.

use super::Run;
use crate::domain::status::NativeIntegration;
use crate::tailscale::Tailscale;
use crate::text::error_chain;

/// The scopes that let a credential see the tailnet's integrations.
const SEEING: [&str; 4] = [
    "feature_settings:read",
    "feature_settings",
    "all:read",
    "all",
];

impl Run<'_> {
    /// What is known of it: remembered for an hour, and asked only with a credential that surely may.
    pub(in crate::sync) async fn native(&self, tailscale: &Tailscale) -> Option<NativeIntegration> {
        let status = self.integration.status.as_ref();
        let known = status.and_then(|status| status.native_integration);
        if known.is_some_and(|native| native.is_fresh(self.started)) {
            return known;
        }
        let scopes = tailscale.scopes()?;
        if !SEEING.iter().any(|scope| scopes.contains(*scope)) {
            return None;
        }
        match tailscale.native_falcon().await {
            Ok(present) => Some(NativeIntegration {
                asked: self.started,
                present,
            }),
            Err(error) => {
                tracing::debug!(
                    error = error_chain(&error),
                    "whether Tailscale's own integration runs beside could not be found out"
                );
                known.filter(|native| native.is_worth_telling(self.started))
            }
        }
    }
}
