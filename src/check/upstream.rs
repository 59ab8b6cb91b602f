//! Checks the permissions of the credentials at Falcon and Tailscale.

use super::attribute::{self, AttributeCheck};
use super::{Check, CheckKind, secret};
use crate::app::App;
use crate::domain::inventory::device::{Device, Devices, Identity};
use crate::domain::inventory::serial::Serial;
use crate::falcon::Falcon;
use crate::settings::Settings;
use crate::store::{Integration, StoreError};
use crate::text::error_chain;
use crate::upstream::error::UpstreamError;
use crate::upstream::retry::CallBudget;

/// The Falcon side.
pub(super) async fn falcon(world: &App, settings: &Settings, budget: &CallBudget) -> Vec<Check> {
    let name = &settings.falcon_secret;
    let (check, credentials) = secret(
        CheckKind::FalconSecret,
        name,
        world.secrets.falcon(name).await,
    );
    let mut checks = vec![check];
    let falcon = match credentials {
        Some(credentials) => world
            .falcon(settings, credentials, budget)
            .await
            .map_err(|error| Check::from_error(CheckKind::FalconToken, &error)),
        None => Err(not_tried(CheckKind::FalconToken)),
    };
    let falcon = match falcon {
        Ok(falcon) => falcon,
        Err(check) => {
            checks.push(check);
            checks.extend([CheckKind::HostsScope, CheckKind::AssessmentsScope].map(not_tried));
            return checks;
        }
    };
    checks.push(region(settings, &falcon));
    let (hosts, scores) = futures::future::join(falcon.probe_hosts(), falcon.probe_scores()).await;
    checks.push(count(CheckKind::HostsScope, hosts, "hosts are visible"));
    checks.push(count(
        CheckKind::AssessmentsScope,
        scores,
        "assessments are there",
    ));
    checks
}

/// A token is issued where the account lives; the cloud that was named only redirects there.
fn region(settings: &Settings, falcon: &Falcon) -> Check {
    let (named, found) = (&settings.cloud_id, falcon.cloud());
    if named == found {
        let text = format!("Falcon issued a token; the account lives in {found}");
        Check::passed(CheckKind::FalconToken, text)
    } else {
        let text =
            format!("Falcon issued a token, but the account lives in {found}, not in {named}");
        Check::warning(CheckKind::FalconToken, text).remedy(format!(
            "set cloudId to {found}, which saves a redirect each time"
        ))
    }
}

fn count(subject: CheckKind, counted: Result<usize, UpstreamError>, what: &str) -> Check {
    match counted {
        Ok(0) => Check::warning(subject, format!("no {what}"))
            .remedy("see in the Falcon console whether this is the right account"),
        Ok(count) => Check::passed(subject, format!("{count} {what}")),
        Err(error) => Check::from_error(subject, &error),
    }
}

/// The Tailscale side.
pub(super) async fn tailscale(
    world: &App,
    settings: &Settings,
    others: &[Integration],
    budget: &CallBudget,
) -> Result<Vec<Check>, StoreError> {
    let name = &settings.tailscale_secret;
    let (check, credentials) = secret(
        CheckKind::TailscaleSecret,
        name,
        world.secrets.tailscale(name).await,
    );
    let mut checks = vec![check];
    let tailscale = match credentials {
        Some(credentials) => world
            .tailscale(settings, credentials, budget)
            .await
            .map_err(|error| Check::from_error(CheckKind::TailscaleToken, &error)),
        None => Err(not_tried(CheckKind::TailscaleToken)),
    };
    let tailscale = match tailscale {
        Ok(tailscale) => tailscale,
        Err(check) => {
            checks.push(check);
            checks.push(not_tried(CheckKind::DeviceListing));
            checks.extend(OF_DEVICES.map(not_tried));
            return Ok(checks);
        }
    };
    let (devices, collected, native) = futures::future::join3(
        tailscale.devices(),
        tailscale.identity_collection(),
        tailscale.native_falcon(),
    )
    .await;
    let devices = match devices {
        Ok(devices) => devices,
        // With an API key, the first read is what tells whether it is good.
        Err(error) if error.is_refused() => {
            checks.push(Check::from_error(CheckKind::TailscaleToken, &error));
            checks.push(not_tried(CheckKind::DeviceListing));
            checks.extend(OF_DEVICES.map(not_tried));
            return Ok(checks);
        }
        Err(error) => {
            checks.push(token());
            checks.push(Check::from_error(CheckKind::DeviceListing, &error));
            checks.extend(OF_DEVICES.map(not_tried));
            return Ok(checks);
        }
    };
    checks.push(token());
    checks.push(listing(&devices));
    checks.push(identity(&devices, collected));
    let tailnet = AttributeCheck {
        world,
        settings,
        others,
        tailscale: &tailscale,
        devices: &devices,
    };
    checks.push(attribute::writable(&tailnet).await?);
    checks.push(native_beside(native));
    checks.push(attribute::not_shared(&tailnet).await?);
    Ok(checks)
}

fn token() -> Check {
    Check::passed(
        CheckKind::TailscaleToken,
        "Tailscale accepts the credential",
    )
}

/// Returns the checks that need the device listing.
const OF_DEVICES: [CheckKind; 4] = [
    CheckKind::IdentityCollection,
    CheckKind::Attribute,
    CheckKind::NativeIntegration,
    CheckKind::SameAttribute,
];

fn not_tried(subject: CheckKind) -> Check {
    let found = "not tried, since what it needs has failed";
    Check::skipped(subject, found)
}

fn own(devices: &Devices) -> impl Iterator<Item = &Device> {
    devices.values().filter(|device| !device.is_external)
}

fn listing(devices: &Devices) -> Check {
    let (all, own) = (devices.len(), own(devices).count());
    let subject = CheckKind::DeviceListing;
    if own == 0 {
        return Check::warning(subject, "the tailnet has no devices of its own")
            .remedy("see whether the credential belongs to the right tailnet");
    }
    let found = format!("{own} devices of its own, {} shared into it", all - own);
    Check::passed(subject, found)
}

/// By the tailnet's own switch where the credential may read it, otherwise by what the devices report.
fn identity(devices: &Devices, collected: Result<Option<bool>, UpstreamError>) -> Check {
    let subject = CheckKind::IdentityCollection;
    let all = own(devices).count();
    let with = own(devices)
        .filter(|device| match &device.identity {
            Identity::Serials(texts) => texts.iter().any(|text| Serial::parse(text).is_ok()),
            _ => false,
        })
        .count();
    let share = format!("{with} of {all} devices report a usable serial number");
    let remedy = "switch on Device Identity Collection in the tailnet's settings; on Linux also run \
                  `tailscale set --report-posture` on the devices";
    match collected.ok().flatten() {
        Some(false) => Check::warning(
            subject,
            format!("Device Identity Collection is off in the tailnet; {share}"),
        )
        .remedy(remedy),
        _ if with == 0 && all > 0 => Check::warning(subject, share).remedy(remedy),
        Some(true) => Check::passed(
            subject,
            format!("Device Identity Collection is on; {share}"),
        ),
        None => Check::passed(subject, share),
    }
}

fn native_beside(native: Result<bool, UpstreamError>) -> Check {
    let subject = CheckKind::NativeIntegration;
    match native {
        Ok(false) => Check::passed(
            subject,
            "no native Falcon integration runs in the tailnet",
        ),
        Ok(true) => Check::warning(
            subject,
            "Tailscale's own Falcon integration runs in the tailnet and writes falcon:ztaScore",
        )
        .remedy("let access rules ask for one of the two keys, and switch the other off when you are done moving"),
        Err(error) => Check::skipped(
            subject,
            format!("not to be found out: {}", error_chain(&error)),
        )
        .remedy("optional: add the scope feature_settings:read to the credential"),
    }
}
