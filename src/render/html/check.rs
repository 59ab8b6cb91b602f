//! Renders the results of a check.

use maud::{Markup, html};

use super::page::{Mood, cut};
use crate::check::{Check, Outcome, Subject, failures, passes};
use crate::settings::IntegrationId;

/// The answer to the button.
pub(crate) fn view(integration: &IntegrationId, checks: &[Check]) -> Markup {
    html! {
        div.fps-chips {
            @if passes(checks) {
                (Mood::Ok.badge(format!("{integration} can work")))
            } @else {
                (Mood::Failing.badge(format!("{integration} cannot work")))
            }
        }
        ul { @for check in checks {
            li.fps-item {
                h3 { (mood(check.result).badge(word(check.result))) span { (subject(check.check)) } }
                p { (cut(&check.found)) }
                @if let Some(remedy) = &check.remedy { p.fps-m { (cut(remedy)) } }
            }
        } }
        @if !passes(checks) { p.fps-m { "In short: " (cut(&failures(checks))) } }
    }
}

fn mood(outcome: Outcome) -> Mood {
    match outcome {
        Outcome::Passed => Mood::Ok,
        Outcome::Warning => Mood::Held,
        Outcome::Failed => Mood::Failing,
        Outcome::Skipped => Mood::Off,
    }
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "passed",
        Outcome::Warning => "warning",
        Outcome::Failed => "failed",
        Outcome::Skipped => "skipped",
    }
}

fn subject(subject: Subject) -> &'static str {
    match subject {
        Subject::Settings => "Settings",
        Subject::FalconSecret => "Falcon secret",
        Subject::FalconToken => "Falcon token",
        Subject::HostsScope => "Scope to read hosts",
        Subject::AssessmentsScope => "Scope to read assessments",
        Subject::TailscaleSecret => "Tailscale secret",
        Subject::TailscaleToken => "Tailscale token",
        Subject::DeviceListing => "Listing of devices",
        Subject::IdentityCollection => "Device identity collection",
        Subject::Attribute => "Writing of the attribute",
        Subject::NativeIntegration => "Native Falcon integration",
        Subject::SameAttribute => "Same attribute elsewhere",
    }
}
