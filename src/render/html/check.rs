//! Renders the results of a check.

use maud::{Markup, html};

use super::page::{Severity, truncate};
use crate::check::{Check, CheckKind, CheckResult, describe_failures, passes};
use crate::settings::IntegrationId;

/// The answer to the button.
pub(crate) fn view(integration: &IntegrationId, checks: &[Check]) -> Markup {
    html! {
        div.fps-chips {
            @if passes(checks) {
                (Severity::Ok.badge(format!("{integration} can work")))
            } @else {
                (Severity::Failing.badge(format!("{integration} cannot work")))
            }
        }
        ul { @for check in checks {
            li.fps-item {
                h3 { (mood(check.result).badge(word(check.result))) span { (subject(check.kind)) } }
                p { (truncate(&check.finding)) }
                @if let Some(remedy) = &check.remedy { p.fps-m { (truncate(remedy)) } }
            }
        } }
        @if !passes(checks) { p.fps-m { "In short: " (truncate(&describe_failures(checks))) } }
    }
}

fn mood(outcome: CheckResult) -> Severity {
    match outcome {
        CheckResult::Passed => Severity::Ok,
        CheckResult::Warning => Severity::Held,
        CheckResult::Failed => Severity::Failing,
        CheckResult::Skipped => Severity::Off,
    }
}

fn word(outcome: CheckResult) -> &'static str {
    match outcome {
        CheckResult::Passed => "passed",
        CheckResult::Warning => "warning",
        CheckResult::Failed => "failed",
        CheckResult::Skipped => "skipped",
    }
}

fn subject(subject: CheckKind) -> &'static str {
    match subject {
        CheckKind::Settings => "Settings",
        CheckKind::FalconSecret => "Falcon secret",
        CheckKind::FalconToken => "Falcon token",
        CheckKind::HostsScope => "Scope to read hosts",
        CheckKind::AssessmentsScope => "Scope to read assessments",
        CheckKind::TailscaleSecret => "Tailscale secret",
        CheckKind::TailscaleToken => "Tailscale token",
        CheckKind::DeviceListing => "Listing of devices",
        CheckKind::IdentityCollection => "Device identity collection",
        CheckKind::Attribute => "Writing of the attribute",
        CheckKind::NativeIntegration => "Native Falcon integration",
        CheckKind::SameAttribute => "Same attribute elsewhere",
    }
}
