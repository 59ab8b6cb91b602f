//! Checks whether an integration can work, one requirement after the other. Reads only.

mod attribute;
mod upstream;

use serde::Serialize;

use crate::app::App;
use crate::domain::status::error_kind::Service;
use crate::settings::{FieldError, IntegrationId, Settings};
use crate::store::{Integration, StoreError};
use crate::text::error_chain;
use crate::upstream::error::UpstreamError;
use crate::upstream::retry::CallBudget;

/// One check, with its result and the remedy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    #[serde(rename = "check")]
    pub(crate) kind: CheckKind,
    /// The service whose response decides the result.
    #[serde(rename = "side")]
    pub(crate) service: Service,
    pub(crate) result: CheckResult,
    #[serde(rename = "found")]
    pub(crate) finding: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) remedy: Option<String>,
}

/// The kinds of checks, by stable names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum CheckKind {
    Settings,
    /// The Falcon secret can be read and holds a usable credential.
    FalconSecret,
    /// Falcon issues a token, in the named cloud.
    FalconToken,
    HostsScope,
    AssessmentsScope,
    /// The Tailscale secret can be read and holds a usable credential.
    TailscaleSecret,
    /// Tailscale issues a token.
    TailscaleToken,
    DeviceListing,
    /// Devices report serial numbers.
    IdentityCollection,
    /// The attribute can be written, as a number.
    Attribute,
    /// Tailscale's own Falcon integration does not run in the tailnet.
    NativeIntegration,
    /// No other integration writes the same attribute.
    SameAttribute,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum CheckResult {
    Passed,
    /// The integration works, but somebody should read the finding.
    Warning,
    /// The integration cannot work.
    Failed,
    /// Not tried because an earlier check failed, or the answer is not available.
    Skipped,
}

impl Check {
    fn new(
        kind: CheckKind,
        result: CheckResult,
        finding: impl Into<String>,
        remedy: Option<String>,
    ) -> Self {
        Self {
            kind,
            service: kind.service(),
            result,
            finding: finding.into(),
            remedy,
        }
    }

    fn passed(kind: CheckKind, finding: impl Into<String>) -> Self {
        Self::new(kind, CheckResult::Passed, finding, None)
    }

    fn warning(kind: CheckKind, finding: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(kind, CheckResult::Warning, finding, Some(remedy.into()))
    }

    fn failed(kind: CheckKind, finding: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(kind, CheckResult::Failed, finding, Some(remedy.into()))
    }

    fn from_error(kind: CheckKind, error: &UpstreamError) -> Self {
        Self::failed(kind, error_chain(error), error.remedy())
    }

    /// Creates the failed check of invalid stored settings.
    pub(crate) fn from_invalid_settings(error: &FieldError) -> Self {
        let remedy = "correct the setting with `update`";
        Self::failed(CheckKind::Settings, error.to_string(), remedy)
    }
}

pub(crate) fn passes(checks: &[Check]) -> bool {
    let mut results = checks.iter().map(|check| check.result);
    results.all(|result| result != CheckResult::Failed)
}

/// Describes the failed checks, as half a sentence.
pub(crate) fn describe_failures(checks: &[Check]) -> String {
    let failed: Vec<String> = checks
        .iter()
        .filter(|check| check.result == CheckResult::Failed)
        .map(|check| match &check.remedy {
            Some(remedy) => format!("{}: {remedy}", check.finding),
            None => check.finding.clone(),
        })
        .collect();
    format!(
        "{} of {} checks failed: {}",
        failed.len(),
        checks.len(),
        failed.join("; ")
    )
}

/// Checks everything that an integration needs. Both services are checked at the same time, and a failure of one does not
/// end the other.
pub(crate) async fn check(
    app: &App,
    settings: &Settings,
    others: &[Integration],
    budget: &CallBudget,
) -> Result<Vec<Check>, StoreError> {
    if let Err(error) = app.config.validate(settings) {
        return Ok(vec![Check::from_invalid_settings(&error)]);
    }
    let (mut falcon, mut tailscale) = (Vec::new(), Vec::new());
    let ((), result) = futures::future::join(
        upstream::check_falcon(app, settings, budget, &mut falcon),
        upstream::check_tailscale(app, settings, others, budget, &mut tailscale),
    )
    .await;
    result?;
    let mut done = vec![check_settings(settings)];
    done.extend(falcon.into_iter().chain(tailscale));
    let check = |kind| {
        let finding = "skipped, since an earlier check failed";
        let done = done.iter().find(|check| check.kind == kind).cloned();
        done.unwrap_or_else(|| Check::new(kind, CheckResult::Skipped, finding, None))
    };
    Ok(CheckKind::ALL.map(check).into())
}

fn check_settings(settings: &Settings) -> Check {
    let kind = CheckKind::Settings;
    let tailnet = settings.tailnet.as_str();
    if tailnet.to_lowercase().ends_with(".ts.net") {
        let finding = format!("the tailnet {tailnet} ends in .ts.net, which is the name for DNS");
        let remedy = "set `tailnet` to `-`, the credential's own, or to the name in the admin console under Settings, General";
        return Check::warning(kind, finding, remedy);
    }
    Check::passed(kind, "the settings are valid in this deployment")
}

/// Checks a stored integration. Settings that do not decode are a failed check; an integration that does not exist is an
/// error.
pub(crate) async fn check_stored(
    app: &App,
    id: &IntegrationId,
    budget: &CallBudget,
) -> Result<Vec<Check>, StoreError> {
    let others = app.store.integrations().await?.readable;
    match &app.store.integration(id).await?.settings {
        // Boxed: the future of a check is large.
        Ok(settings) => Box::pin(check(app, settings, &others, budget)).await,
        Err(error) => Ok(vec![Check::from_invalid_settings(error)]),
    }
}

impl CheckKind {
    /// All checks in the order of the response.
    const ALL: [Self; 12] = [
        Self::Settings,
        Self::FalconSecret,
        Self::FalconToken,
        Self::HostsScope,
        Self::AssessmentsScope,
        Self::TailscaleSecret,
        Self::TailscaleToken,
        Self::DeviceListing,
        Self::IdentityCollection,
        Self::Attribute,
        Self::NativeIntegration,
        Self::SameAttribute,
    ];

    fn service(self) -> Service {
        match self {
            Self::Settings | Self::SameAttribute => Service::Deployment,
            Self::FalconSecret | Self::TailscaleSecret => Service::SecretsManager,
            Self::FalconToken | Self::HostsScope | Self::AssessmentsScope => Service::Falcon,
            Self::TailscaleToken
            | Self::DeviceListing
            | Self::IdentityCollection
            | Self::Attribute
            | Self::NativeIntegration => Service::Tailscale,
        }
    }
}
