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
    all.sort_by_key(|(view, finding)| (severity_of(finding.kind), finding.kind, &view.id));
    let several = views.len() > 1;
    html! {
        ul { @for (view, finding) in all.iter().take(MAX_FINDINGS) {
            li.fps-item {
                h3 {
                    (severity_of(finding.kind).badge(format!("{} {}", finding.count, title(finding.kind))))
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

fn severity_of(kind: FindingKind) -> Severity {
    match kind {
        FindingKind::LostIdentity
        | FindingKind::RefusedWrites
        | FindingKind::SkippedDevices
        | FindingKind::UnreadableState => Severity::Failing,
        FindingKind::SuspiciousObservation | FindingKind::HeldRemovals => Severity::Held,
        _ => Severity::Off,
    }
}

fn title(kind: FindingKind) -> &'static str {
    match kind {
        FindingKind::LostIdentity => "lost their identity",
        FindingKind::SuspiciousObservation => "implausible observation",
        FindingKind::NoIdentity => "without a posture identity",
        FindingKind::Unmatched => "without a Falcon host",
        FindingKind::Unassessed => "not assessed",
        FindingKind::StaleHosts => "with stale hosts only",
        FindingKind::PlaceholderSerials => "with an invalid serial number",
        FindingKind::SharedSerials => "serials shared by live hosts",
        FindingKind::InvalidScores => "invalid scores",
        FindingKind::UnreadableState => "of its state unreadable and dropped",
        FindingKind::SkippedDevices => "left out, since Tailscale did not say what they hold",
        FindingKind::RefusedWrites => "rejected writes",
        FindingKind::HeldRemovals => "held removals",
        FindingKind::NativeIntegration => "native Falcon integration in the same tailnet",
    }
}
