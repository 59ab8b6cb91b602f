//! Checks the permissions of the credentials at Falcon and Tailscale.

use super::attribute::{self, AttributeCheck};
use super::{Check, CheckKind, CheckResult};
use crate::app::App;
use crate::domain::inventory::device::{Device, Devices, Identity};
use crate::domain::status::error_kind::ErrorKind;
use crate::falcon::Falcon;
use crate::secrets::{SecretError, Versioned};
use crate::settings::{IgnoredSerials, SecretName, Settings};
use crate::store::{Integration, StoreError};
use crate::text::error_chain;
use crate::upstream::error::UpstreamError;
use crate::upstream::retry::CallBudget;

pub(super) async fn check_falcon(
    app: &App,
    settings: &Settings,
    budget: &CallBudget,
    checks: &mut Vec<Check>,
) {
    let name = &settings.falcon_secret;
    let secret = app.secrets.falcon(name).await;
    let Some(credentials) = check_secret(checks, CheckKind::FalconSecret, name, secret) else {
        return;
    };
    let session = app.connect_falcon(settings, credentials, budget).await;
    let Some(falcon) = check_call(checks, CheckKind::FalconToken, session) else {
        return;
    };
    checks.push(check_cloud(settings, &falcon));
    let (hosts, scores) = futures::future::join(falcon.count_hosts(), falcon.count_scores()).await;
    let (hosts_scope, scores_scope) = (CheckKind::HostsScope, CheckKind::AssessmentsScope);
    checks.push(check_count(hosts_scope, hosts, "hosts are visible"));
    checks.push(check_count(scores_scope, scores, "assessments can be read"));
}

/// Compares the named cloud with the account's own, to which the named cloud may redirect.
fn check_cloud(settings: &Settings, falcon: &Falcon) -> Check {
    let (kind, named, found) = (CheckKind::FalconToken, &settings.cloud_id, &falcon.cloud);
    if named == found {
        let finding = format!("Falcon issued a token; the account is in {found}");
        return Check::passed(kind, finding);
    }
    Check::warning(
        kind,
        format!("Falcon issued a token, but the account is in {found}, not in {named}"),
        format!("set cloudId to {found}, which saves a redirect per run"),
    )
}

fn check_count(kind: CheckKind, count: Result<usize, UpstreamError>, what: &str) -> Check {
    match count {
        Ok(0) => Check::warning(
            kind,
            format!("no {what}"),
            "check in the Falcon console whether this is the right account",
        ),
        Ok(count) => Check::passed(kind, format!("{count} {what}")),
        Err(error) => Check::from_error(kind, &error),
    }
}

pub(super) async fn check_tailscale(
    app: &App,
    settings: &Settings,
    others: &[Integration],
    budget: &CallBudget,
    checks: &mut Vec<Check>,
) -> Result<(), StoreError> {
    let name = &settings.tailscale_secret;
    let secret = app.secrets.tailscale(name).await;
    let Some(credentials) = check_secret(checks, CheckKind::TailscaleSecret, name, secret) else {
        return Ok(());
    };
    let session = app.connect_tailscale(settings, credentials, budget).await;
    let Some(tailscale) = check_call(checks, CheckKind::TailscaleToken, session) else {
        return Ok(());
    };
    let (listing, collection, native) = futures::future::join3(
        tailscale.devices(),
        tailscale.identity_collection(),
        tailscale.has_falcon_integration(),
    )
    .await;
    let token = CheckKind::TailscaleToken;
    match &listing {
        // With an API key, the first read tells whether the key is valid.
        Err(error) if error.error_kind() == ErrorKind::Authentication => {
            checks.push(Check::from_error(token, error));
            return Ok(());
        }
        _ => checks.push(Check::passed(token, "Tailscale accepts the credential")),
    }
    let Some(devices) = check_call(checks, CheckKind::DeviceListing, listing) else {
        return Ok(());
    };
    checks.push(check_devices(&devices));
    checks.push(check_identity(
        &devices,
        &settings.ignored_serials,
        collection,
    ));
    let attribute = AttributeCheck {
        app,
        settings,
        others,
        tailscale: &tailscale,
        devices: &devices,
    };
    checks.push(attribute::check_writable(&attribute).await?);
    checks.push(check_native(native));
    checks.push(attribute::check_unshared(&attribute).await?);
    Ok(())
}

/// Adds the check of a secret. Returns the credential, or `None` if the check failed.
fn check_secret<T>(
    checks: &mut Vec<Check>,
    kind: CheckKind,
    name: &SecretName,
    fetched: Result<Versioned<T>, SecretError>,
) -> Option<T> {
    let failed = |error: SecretError| Check::failed(kind, error_chain(&error), error.remedy());
    let secret = fetched.map_err(|error| checks.push(failed(error))).ok()?;
    let finding = format!("the secret {name} is complete");
    checks.push(Check::passed(kind, finding));
    Some(secret.value)
}

/// Returns the value of a call. Adds a failed check and returns `None` if the call failed.
fn check_call<T>(
    checks: &mut Vec<Check>,
    kind: CheckKind,
    result: Result<T, UpstreamError>,
) -> Option<T> {
    let failed = |error| checks.push(Check::from_error(kind, &error));
    result.map_err(failed).ok()
}

fn own_devices(devices: &Devices) -> impl Iterator<Item = &Device> {
    devices.values().filter(|device| !device.is_external)
}

fn check_devices(devices: &Devices) -> Check {
    let (all, own) = (devices.len(), own_devices(devices).count());
    let kind = CheckKind::DeviceListing;
    if own == 0 {
        let remedy = "check whether the credential belongs to the right tailnet";
        return Check::warning(kind, "the tailnet has no devices of its own", remedy);
    }
    let finding = format!("{own} devices of its own, {} shared into it", all - own);
    Check::passed(kind, finding)
}

/// Uses the tailnet's setting if the credential may read it, otherwise the reports of the devices.
fn check_identity(
    devices: &Devices,
    ignored: &IgnoredSerials,
    collection: Result<Option<bool>, UpstreamError>,
) -> Check {
    let kind = CheckKind::IdentityCollection;
    let all = own_devices(devices).count();
    let with = own_devices(devices)
        .filter(|device| match &device.identity {
            Identity::Serials(_) => device.serials(ignored).next().is_some(),
            _ => false,
        })
        .count();
    let share = format!("{with} of {all} devices report a usable serial number");
    let remedy = "switch on Device Identity Collection in the tailnet's settings; on Linux also run \
                  `tailscale set --report-posture` on the devices";
    match collection.ok().flatten() {
        Some(false) => {
            let finding = format!("Device Identity Collection is off in the tailnet; {share}");
            Check::warning(kind, finding, remedy)
        }
        _ if with == 0 && all > 0 => Check::warning(kind, share, remedy),
        Some(true) => Check::passed(kind, format!("Device Identity Collection is on; {share}")),
        None => Check::passed(kind, share),
    }
}

fn check_native(native: Result<bool, UpstreamError>) -> Check {
    let kind = CheckKind::NativeIntegration;
    match native {
        Ok(false) => Check::passed(kind, "no native Falcon integration runs in the tailnet"),
        Ok(true) => Check::warning(
            kind,
            "Tailscale's own Falcon integration runs in the tailnet and writes falcon:ztaScore",
            "let access rules use one of the two keys, and switch the other integration off after the migration",
        ),
        Err(error) => {
            let finding = format!("could not be checked: {}", error_chain(&error));
            let remedy = "optional: add the scope feature_settings:read to the credential";
            Check::new(kind, CheckResult::Skipped, finding, Some(remedy.to_owned()))
        }
    }
}
