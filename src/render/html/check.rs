//! Renders the results of a check.

use maud::{Markup, html};

use super::page::{Severity, truncate};
use crate::check::{Check, CheckKind, CheckResult, describe_failures, passes};
use crate::settings::IntegrationId;

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
                h3 { (badge(check.result)) span { (check_name(check.kind)) } }
                p { (truncate(&check.finding)) }
                @if let Some(remedy) = &check.remedy { p.fps-m { (truncate(remedy)) } }
            }
        } }
        @if !passes(checks) { p.fps-m { "In short: " (truncate(&describe_failures(checks))) } }
    }
}

fn badge(result: CheckResult) -> Markup {
    match result {
        CheckResult::Passed => Severity::Ok.badge("passed"),
        CheckResult::Warning => Severity::Held.badge("warning"),
        CheckResult::Failed => Severity::Failing.badge("failed"),
        CheckResult::Skipped => Severity::Off.badge("skipped"),
    }
}

fn check_name(kind: CheckKind) -> &'static str {
    match kind {
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
