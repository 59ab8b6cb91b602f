//! The integrations: state, last sync, counts, and what is wrong with them.

use maud::{Markup, html};

use super::page::{Severity, WidgetContext, notice, pluralize, truncate};
use crate::status::{IntegrationState, IntegrationView, Summary};

/// The view. What needs a person comes first.
pub(crate) fn view(widget: &WidgetContext<'_>, views: &[IntegrationView]) -> Markup {
    if views.is_empty() {
        return notice(
            "No integration is connected yet. `make connect` connects a Falcon account to a tailnet.",
        );
    }
    let mut sorted: Vec<&IntegrationView> = views.iter().collect();
    sorted.sort_by_key(|one| (urgency(one), &one.id));
    html! {
        @if views.len() > 1 { (summary(&Summary::of(views))) }
        table.fps-stack {
            caption { "Integrations" }
            thead { tr {
                th scope="col" { "State" }
                th scope="col" { "Integration" }
                th scope="col" { "Last sync" }
                th scope="col" { "Last success" }
                th scope="col" { "Matched devices" }
                th.fps-wide scope="col" { "Next sync" }
                @if widget.buttons { th scope="col" { "Do" } }
            } }
            tbody { @for one in sorted { (row(widget, one)) } }
        }
    }
}

/// A mood, but that who was not looked at for long goes before who is well.
fn urgency(one: &IntegrationView) -> Severity {
    match Severity::of(one.state) {
        Severity::Ok if one.overdue => Severity::Failing,
        mood => mood,
    }
}

fn summary(summary: &Summary) -> Markup {
    let moods = [
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
            @for (number, mood, word) in moods {
                @if number > 0 { (mood.badge(format!("{number} {word}"))) }
            }
        }
    }
}

fn row(widget: &WidgetContext<'_>, one: &IntegrationView) -> Markup {
    let mood = Severity::of(one.state);
    let troubles = troubles(widget, one);
    let columns = if widget.buttons { "7" } else { "6" };
    let status = one.status.as_ref();
    html! {
        tr class=[(!troubles.is_empty()).then_some("fps-has")] {
            td {
                (mood.badge(one.state))
                @if one.overdue { " " (Severity::Failing.badge("overdue")) }
            }
            th.fps-any scope="row" {
                (one.id)
                @if let Some(settings) = &one.settings {
                    div class="fps-m fps-any" { "Falcon " (settings.cloud_id) " to tailnet " (settings.tailnet) }
                    div class="fps-m fps-any" { (settings.attribute_key) }
                }
            }
            td data-l="Last sync" {
                @match status {
                    Some(status) => { (widget.ago(status.last_sync)) div.fps-m { (status.outcome) } }
                    None => { "none yet" }
                }
            }
            td data-l="Last success" {
                @match status.and_then(|status| status.last_success) {
                    Some(success) => { (widget.ago(success)) div.fps-m { (widget.at(success)) } }
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
                @match one.next_sync {
                    Some(next) => { (widget.ago(next)) }
                    None => { "never" }
                }
                @if one.lease.is_some() { div.fps-m { "running now" } }
            }
            @if widget.buttons {
                td.fps-row { @if one.is_readable() { div.fps-b {
                    (widget.button("Sync now", "sync", &one.id, Some(&format!("Sync {} now?", one.id))))
                    (widget.button("Check", "check", &one.id, None))
                } } }
            }
        }
        @if !troubles.is_empty() {
            tr.fps-why { td.fps-row colspan=(columns) { @for (mood, trouble) in troubles {
                p class=(mood.class()) { span { (trouble) } }
            } } }
        }
    }
}

/// Renders the problem of an integration and the end of its pause.
fn troubles(widget: &WidgetContext<'_>, one: &IntegrationView) -> Vec<(Severity, Markup)> {
    let mut troubles = Vec::new();
    for unreadable in &one.unreadable {
        let what = if one.is_readable() {
            html! { "A part of its state cannot be read, and is dropped: " (truncate(unreadable)) }
        } else {
            html! { (truncate(unreadable)) }
        };
        troubles.push((Severity::Failing, what));
    }
    if let Some(error) = &one.settings_error {
        troubles.push((
            Severity::Failing,
            html! { "Its settings cannot be used: " (truncate(error)) },
        ));
    }
    if let Some(pause) = &one.pause {
        troubles.push((
            Severity::Paused,
            html! {
                "Paused until " (widget.at(pause.until)) " (" (pause.service) ", " (pluralize(count_of(pause.attempts), "refusal"))
                " since " (widget.at(pause.since)) "). " (truncate(&pause.error))
            },
        ));
    } else if let Some((status, error)) = one
        .status
        .as_ref()
        .and_then(|status| Some((status, status.error.as_ref()?)))
    {
        troubles.push((Severity::after(status.outcome), html! { (truncate(error)) }));
    }
    if let (IntegrationState::Removing, Some(removal)) = (one.state, &one.removal) {
        troubles.push((
            Severity::Off,
            html! { "Its removal was asked for " (widget.ago(removal.since)) " by " bdi { (truncate(&removal.actor)) } "." },
        ));
    }
    troubles
}

fn count_of(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
