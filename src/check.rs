//! Whether an integration can work: everything that it needs, tried one by one. Reads only.

mod attribute;
mod upstream;

use serde::Serialize;

use crate::app::App;
use crate::secrets::{SecretError, Versioned};
use crate::settings::{IntegrationId, InvalidSettings, SecretName, Settings};
use crate::store::{Integration, StoreError};
use crate::text::error_chain;
use crate::upstream::error::UpstreamError;
use crate::upstream::retry::CallBudget;

/// What was tried, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was tried.
    pub check: CheckKind,
    /// Whose answer it rests on.
    pub side: Service,
    /// What came of it.
    pub result: CheckResult,
    /// What was found.
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// What is tried; stable names, in the order of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum CheckKind {
    /// The settings themselves.
    Settings,
    /// The Falcon secret can be read and holds what it should.
    FalconSecret,
    /// Falcon issues a token, in the cloud that is named.
    FalconToken,
    /// The API client may read hosts.
    HostsScope,
    /// The API client may read assessments.
    AssessmentsScope,
    /// The Tailscale secret can be read and holds what it should.
    TailscaleSecret,
    /// Tailscale issues a token.
    TailscaleToken,
    /// The tailnet's devices can be listed.
    DeviceListing,
    /// Devices report the serial numbers that are matched.
    IdentityCollection,
    /// The attribute can be written, as a number.
    Attribute,
    /// No native Falcon integration runs beside.
    NativeIntegration,
    /// No other integration writes the same attribute.
    SameAttribute,
}

/// Whose answer a check rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Service {
    /// CrowdStrike Falcon.
    Falcon,
    /// Tailscale.
    Tailscale,
    /// AWS Secrets Manager.
    Secrets,
    /// This deployment itself.
    Deployment,
}

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum CheckResult {
    /// As it should be.
    Passed,
    /// It works, but a person should know.
    Warning,
    /// It cannot work so.
    Failed,
    /// Not tried, since something that it needs had failed, or not to be found out.
    Skipped,
}

impl Check {
    /// Creates the failed check of a call that failed.
    fn from_error(subject: CheckKind, error: &UpstreamError) -> Self {
        Self::failed(subject, error_chain(error)).remedy(error.remedy())
    }

    fn new(check: CheckKind, result: CheckResult, found: impl Into<String>) -> Self {
        Self {
            check,
            side: check.side(),
            result,
            found: found.into(),
            remedy: None,
        }
    }

    fn passed(check: CheckKind, found: impl Into<String>) -> Self {
        Self::new(check, CheckResult::Passed, found)
    }

    fn warning(check: CheckKind, found: impl Into<String>) -> Self {
        Self::new(check, CheckResult::Warning, found)
    }

    fn failed(check: CheckKind, found: impl Into<String>) -> Self {
        Self::new(check, CheckResult::Failed, found)
    }

    fn skipped(check: CheckKind, found: impl Into<String>) -> Self {
        Self::new(check, CheckResult::Skipped, found)
    }

    fn remedy(self, remedy: impl Into<String>) -> Self {
        Self {
            remedy: Some(remedy.into()),
            ..self
        }
    }

    /// Of stored settings that cannot be used.
    pub fn settings(error: &InvalidSettings) -> Self {
        Self::failed(CheckKind::Settings, error.to_string())
            .remedy("correct the setting with `update`")
    }
}

/// Whether nothing failed.
pub fn passes(checks: &[Check]) -> bool {
    checks
        .iter()
        .all(|check| check.result != CheckResult::Failed)
}

/// What failed, as half a sentence.
pub fn failures(checks: &[Check]) -> String {
    let failed: Vec<String> = checks
        .iter()
        .filter(|check| check.result == CheckResult::Failed)
        .map(|check| match &check.remedy {
            Some(remedy) => format!("{}: {remedy}", check.found),
            None => check.found.clone(),
        })
        .collect();
    format!(
        "{} of {} checks failed: {}",
        failed.len(),
        checks.len(),
        failed.join("; ")
    )
}

/// The integration that surely writes the same attribute of the same devices.
pub fn collision<'a>(settings: &Settings, others: &'a [Integration]) -> Option<&'a IntegrationId> {
    others
        .iter()
        .filter_map(|other| other.settings.as_ref().ok())
        .find(|other| settings.collides_with(other))
        .map(|other| &other.id)
}

/// Tries everything that an integration needs, both sides at once, and goes on where something fails.
///
/// # Errors
/// Our own tables.
pub async fn check(
    world: &App,
    settings: &Settings,
    others: &[Integration],
    budget: &CallBudget,
) -> Result<Vec<Check>, StoreError> {
    let accepted = match world.config.accept(settings) {
        Err(error) => return Ok(vec![Check::settings(&error)]),
        Ok(()) => Check::passed(
            CheckKind::Settings,
            "the settings can work in this deployment",
        ),
    };
    let (falcon, tailscale) = futures::future::join(
        upstream::falcon(world, settings, budget),
        upstream::tailscale(world, settings, others, budget),
    )
    .await;
    let mut checks = vec![accepted];
    checks.extend(falcon);
    checks.extend(tailscale?);
    Ok(checks)
}

/// What a secret holds, or the check that failed.
fn secret<T>(
    subject: CheckKind,
    name: &SecretName,
    fetched: Result<Versioned<T>, SecretError>,
) -> (Check, Option<T>) {
    match fetched {
        Ok(secret) => (
            Check::passed(subject, format!("the secret {name} holds what it should")),
            Some(secret.value),
        ),
        Err(error) => (
            Check::failed(subject, error_chain(&error)).remedy(error.remedy()),
            None,
        ),
    }
}

impl CheckKind {
    /// Whose answer it rests on.
    fn side(self) -> Service {
        match self {
            Self::Settings | Self::SameAttribute => Service::Deployment,
            Self::FalconSecret | Self::TailscaleSecret => Service::Secrets,
            Self::FalconToken | Self::HostsScope | Self::AssessmentsScope => Service::Falcon,
            Self::TailscaleToken
            | Self::DeviceListing
            | Self::IdentityCollection
            | Self::Attribute
            | Self::NativeIntegration => Service::Tailscale,
        }
    }
}
