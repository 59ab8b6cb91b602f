//! Renders the integrations: state, last sync, counts and problems.

use maud::{Markup, html};

use super::page::{Severity, WidgetContext, notice, pluralize, truncate, untrusted};
use crate::status::{IntegrationState, IntegrationView, Summary};

/// Renders the view. The most severe states come first.
pub(crate) fn view(widget: &WidgetContext<'_>, views: &[IntegrationView]) -> Markup {
    if views.is_empty() {
        return notice(
            "No integration is connected yet. `make connect` connects a Falcon account to a tailnet.",
        );
    }
    let mut sorted: Vec<&IntegrationView> = views.iter().collect();
    sorted.sort_by_key(|view| (urgency(view), &view.id));
    html! {
        @if views.len() > 1 { (summary(&Summary::new(views))) }
        table.fps-stack {
            caption { "Integrations" }
            thead { tr {
                th scope="col" { "State" }
                th scope="col" { "Integration" }
                th scope="col" { "Last sync" }
                th scope="col" { "Last success" }
                th scope="col" { "Matched devices" }
                th.fps-wide scope="col" { "Next sync" }
                @if widget.has_buttons { th scope="col" { "Do" } }
            } }
            tbody { @for view in sorted { (row(widget, view)) } }
        }
    }
}

/// Returns the sort key. Overdue integrations sort like failing ones.
fn urgency(view: &IntegrationView) -> Severity {
    match Severity::from_state(view.state) {
        Severity::Ok if view.is_overdue => Severity::Failing,
        severity => severity,
    }
}

fn summary(summary: &Summary) -> Markup {
    let severities = [
        (summary.failing, Severity::Failing, "failing"),
        (summary.paused, Severity::Paused, "paused"),
        (summary.held, Severity::Held, "held"),
        (summary.overdue, Severity::Failing, "overdue"),
        (summary.new, Severity::Off, "new"),
        (summary.disabled, Severity::Off, "disabled"),
        (summary.removing, Severity::Off, "being removed"),
        (summary.ok, Severity::Ok, "ok"),
    ];
    html! {
        div.fps-chips {
            span { (pluralize(summary.integrations, "integration")) }
            @for (number, severity, word) in severities {
                @if number > 0 { (severity.badge(format!("{number} {word}"))) }
            }
        }
    }
}

fn row(widget: &WidgetContext<'_>, view: &IntegrationView) -> Markup {
    let severity = Severity::from_state(view.state);
    let problems = problems(widget, view);
    let columns = if widget.has_buttons { "7" } else { "6" };
    let status = view.status.as_ref();
    html! {
        tr class=[(!problems.is_empty()).then_some("fps-has")] {
            td {
                (severity.badge(view.state))
                @if view.is_overdue { " " (Severity::Failing.badge("overdue")) }
            }
            th.fps-any scope="row" {
                (view.id)
                @if let Some(settings) = &view.settings {
                    div class="fps-m fps-any" { "Falcon " (settings.cloud_id) " to tailnet " (settings.tailnet) }
                    div class="fps-m fps-any" { (settings.attribute_key) }
                }
            }
            td data-l="Last sync" {
                @match status {
                    Some(status) => { (widget.relative_time(status.last_sync)) div.fps-m { (status.outcome) } }
                    None => { "none yet" }
                }
            }
            td data-l="Last success" {
                @match status.and_then(|status| status.last_success) {
                    Some(success) => { (widget.relative_time(success)) div.fps-m { (widget.local_time(success)) } }
                    None => { "never" }
                }
            }
            td.fps-n data-l="Matched devices" {
                @match status {
                    Some(status) => {
                        span.fps-t { (status.matched_count) " of " (status.possible_matched_count) }
                        div.fps-m { (pluralize(status.provider_host_count, "Falcon host")) }
                    }
                    None => { "unknown" }
                }
            }
            td.fps-wide {
                @match view.next_sync {
                    Some(next) => { (widget.relative_time(next)) }
                    None => { "never" }
                }
                @if view.lease.is_some() { div.fps-m { "running now" } }
            }
            @if widget.has_buttons {
                td.fps-row { @if view.is_readable() { div.fps-b {
                    (widget.button("Sync now", "sync", &view.id, Some(&format!("Sync {} now?", view.id))))
                    (widget.button("Check", "check", &view.id, None))
                } } }
            }
        }
        @if !problems.is_empty() {
            tr.fps-why { td.fps-row colspan=(columns) { @for (severity, problem) in problems {
                p class=(severity.class()) { span { (problem) } }
            } } }
        }
    }
}

/// Renders the problems of an integration, each with its severity.
fn problems(widget: &WidgetContext<'_>, view: &IntegrationView) -> Vec<(Severity, Markup)> {
    let mut problems = Vec::new();
    for unreadable in &view.unreadable {
        let text = if view.is_readable() {
            html! { "Dropped parts of its state that cannot be read: " (truncate(unreadable)) }
        } else {
            html! { (truncate(unreadable)) }
        };
        problems.push((Severity::Failing, text));
    }
    if let Some(error) = &view.settings_error {
        let text = html! { "Invalid settings: " (truncate(error)) };
        problems.push((Severity::Failing, text));
    }
    if let Some(pause) = &view.pause {
        let text = html! {
            "Paused until " (widget.local_time(pause.until)) " (" (pause.service) ", " (pluralize(pause.attempts, "refusal"))
            " since " (widget.local_time(pause.since)) "). " (truncate(&pause.error))
        };
        problems.push((Severity::Paused, text));
    } else if let Some(status) = &view.status
        && let Some(error) = &status.error
    {
        let severity = Severity::from_outcome(status.outcome);
        problems.push((severity, html! { (truncate(error)) }));
    }
    if let Some(end) = view.ending_scores {
        let text = html! {
            "The scores of " (pluralize(end.devices, "device")) " end from " (widget.local_time(end.first))
            " on, since no run renews them."
        };
        problems.push((Severity::Failing, text));
    }
    if let (IntegrationState::Removing, Some(removal)) = (view.state, &view.removal) {
        let text = html! { "Removal requested " (widget.relative_time(removal.since)) " by " (untrusted(&removal.actor)) "." };
        problems.push((Severity::Off, text));
    }
    problems
}
