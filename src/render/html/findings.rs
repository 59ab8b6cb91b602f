//! Renders the findings of the latest runs, with examples and remedies.

use maud::{Markup, html};

use super::page::{Severity, WidgetContext, notice, truncate, untrusted};
use crate::domain::status::finding::{Finding, FindingKind};
use crate::status::IntegrationView;

/// Maximum findings in the view. More would be the same findings of many integrations.
const MAX_FINDINGS: usize = 60;

/// Renders the view. The most severe findings come first.
pub(crate) fn view(widget: &WidgetContext<'_>, views: &[IntegrationView]) -> Markup {
    let mut all: Vec<(&IntegrationView, &Finding)> = Vec::new();
    for view in views {
        let findings = view.status.iter().flat_map(|status| &status.findings);
        all.extend(findings.map(|finding| (view, finding)));
    }
    if all.is_empty() {
        let synced = views.iter().any(|view| view.status.is_some());
        return notice(if synced {
            "The latest syncs have no findings."
        } else {
            "Nothing was synced yet."
        });
    }
    all.sort_by_key(|(view, finding)| (describe(finding.kind).0, finding.kind, &view.id));
    let several = views.len() > 1;
    html! {
        ul { @for (view, finding) in all.iter().take(MAX_FINDINGS) {
            @let (severity, title) = describe(finding.kind);
            li.fps-item {
                h3 {
                    (severity.badge(format!("{} {title}", finding.count)))
                    @if several { span { (view.id) } }
                    @if let Some(status) = &view.status { span.fps-m { (widget.relative_time(status.last_sync)) } }
                }
                ul.fps-eg {
                    @for example in &finding.examples { li { (untrusted(example)) } }
                    @if finding.count > finding.examples.len() {
                        li { "and " (finding.count - finding.examples.len()) " more" }
                    }
                }
                p.fps-m { (truncate(&finding.remedy)) }
            }
        } }
        @if all.len() > MAX_FINDINGS { p.fps-m { "and " (all.len() - MAX_FINDINGS) " more" } }
    }
}

/// Returns the severity of a finding, and its title after the count.
fn describe(kind: FindingKind) -> (Severity, &'static str) {
    use Severity::{Failing, Held, Off};
    match kind {
        FindingKind::LostIdentity => (Failing, "lost their identity"),
        FindingKind::SuspiciousObservation => (Held, "implausible observation"),
        FindingKind::NoIdentity => (Off, "without a posture identity"),
        FindingKind::Unmatched => (Off, "without a Falcon host"),
        FindingKind::Unassessed => (Off, "not assessed"),
        FindingKind::StaleHosts => (Off, "with stale hosts only"),
        FindingKind::PlaceholderSerials => (Off, "with an invalid serial number"),
        FindingKind::SilentSensors => (Failing, "connected, and with a silent sensor"),
        FindingKind::OtherPlatform => (Off, "with a host of another operating system"),
        FindingKind::Contained => (Failing, "isolated from the network"),
        FindingKind::ChangedSerials => (Off, "hosts with another serial than before"),
        FindingKind::SharedSerials => (Off, "serials shared by several machines"),
        FindingKind::InvalidScores => (Off, "invalid scores"),
        FindingKind::UnsettledWrites => (Off, "writes that may still take effect"),
        FindingKind::UnreadableState => (Failing, "of its state unreadable and dropped"),
        FindingKind::UnreadableDevices => (Failing, "left out, since they could not be read"),
        FindingKind::UnconfirmedDevices => (Off, "not looked up yet"),
        FindingKind::ShortListing => (Off, "counted and not listed by Falcon"),
        FindingKind::ScoresFell => (Failing, "scores fell at once"),
        FindingKind::RefusedWrites => (Failing, "rejected writes"),
        FindingKind::WaitingRemovals => (Off, "absent, with a removal that waits"),
        FindingKind::HeldRemovals => (Held, "held removals"),
        FindingKind::NativeIntegration => (Off, "native Falcon integration in the same tailnet"),
    }
}
