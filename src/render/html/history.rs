//! The latest syncs: the last day as a strip, and a table.

use std::cmp::Reverse;

use jiff::{SignedDuration, Timestamp};
use maud::{Markup, html};

use super::page::{Severity, WidgetContext, notice, pluralize};
use crate::domain::status::RunOutcome;
use crate::domain::status::history::RunStreak;
use crate::status::IntegrationView;

/// Maximum rows.
const ROWS: usize = 30;

/// Maximum integrations with a strip.
const STRIPS: usize = 6;

/// The strip shows so much time, in so many steps.
const DAY: SignedDuration = SignedDuration::from_hours(24);
const STEPS: i64 = 1_440;

/// The view.
pub(crate) fn view(widget: &WidgetContext<'_>, views: &[IntegrationView]) -> Markup {
    let of = |one| stretches(one).iter().map(move |stretch| (one, stretch));
    let mut rows: Vec<(&IntegrationView, &RunStreak)> = views.iter().flat_map(of).collect();
    if rows.is_empty() {
        return notice("Nothing was synced yet.");
    }
    rows.sort_by_key(|(_, stretch)| Reverse(stretch.until));
    let several = views.len() > 1;
    // Of many, those that have or had trouble.
    let mut strips: Vec<&IntegrationView> = views
        .iter()
        .filter(|one| !stretches(one).is_empty())
        .collect();
    strips.sort_by_key(|one| {
        let worst = stretches(one)
            .iter()
            .map(|stretch| Severity::after(stretch.outcome))
            .min();
        (Severity::of(one.state), worst, &one.id)
    });
    html! {
        @for one in strips.iter().take(STRIPS) {
            div.fps-strip {
                div.fps-m { (one.id) ", the last 24 hours" }
                (strip(widget.now, one))
            }
        }
        table.fps-stack {
            caption { "Latest syncs" }
            thead { tr {
                th scope="col" { "When" }
                @if several { th scope="col" { "Integration" } }
                th scope="col" { "Outcome" }
                th scope="col" { "Changed" }
                th.fps-wide scope="col" { "Took" }
            } }
            tbody { @for (one, stretch) in rows.iter().take(ROWS) {
                tr {
                    td { (when(widget, stretch)) }
                    @if several { th scope="row" { (one.id) } }
                    td {
                        (Severity::after(stretch.outcome).badge(stretch.outcome))
                        @if let Some(kind) = stretch.error_kind { div.fps-m { (kind) } }
                    }
                    td.fps-n { (changed(stretch)) }
                    td class="fps-wide fps-n" { (duration(stretch.duration_ms)) }
                }
            } }
        }
        @if rows.len() > ROWS { p.fps-m { "and " (rows.len() - ROWS) " earlier ones" } }
    }
}

fn stretches(one: &IntegrationView) -> &[RunStreak] {
    one.status.as_ref().map_or(&[], |status| &status.history)
}

fn when(widget: &WidgetContext<'_>, stretch: &RunStreak) -> Markup {
    html! {
        (widget.at(stretch.until))
        div.fps-m {
            @if stretch.runs > 1 {
                (stretch.runs) " runs since " (widget.at(stretch.since))
            } @else {
                (widget.ago(stretch.until))
            }
        }
    }
}

fn changed(stretch: &RunStreak) -> String {
    let parts = [
        (stretch.written, "written"),
        (stretch.removed, "removed"),
        (stretch.failed, "refused"),
    ];
    let told: Vec<String> = parts
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, word)| format!("{number} {word}"))
        .collect();
    if told.is_empty() {
        "nothing".to_owned()
    } else {
        told.join(", ")
    }
}

fn duration(millis: u64) -> String {
    match millis {
        0..1_000 => format!("{millis} ms"),
        1_000..60_000 => format!("{}.{} s", millis / 1_000, millis % 1_000 / 100),
        _ => format!("{} min {} s", millis / 60_000, millis / 1_000 % 60),
    }
}

/// A rectangle for each row of runs: low where nothing changed, half where something did, whole where something is wrong.
fn strip(now: Timestamp, one: &IntegrationView) -> Markup {
    let start = now.saturating_sub(DAY).unwrap_or(now);
    let step = |time: Timestamp| (time.duration_since(start).as_mins()).clamp(0, STEPS);
    let recent: Vec<&RunStreak> = stretches(one)
        .iter()
        .filter(|stretch| stretch.until > start)
        .collect();
    let runs: u32 = recent.iter().map(|stretch| stretch.runs).sum();
    let bad: Vec<String> = [RunOutcome::Failed, RunOutcome::Paused, RunOutcome::Held]
        .into_iter()
        .map(|outcome| (outcome, of_outcome(&recent, outcome)))
        .filter(|(_, runs)| *runs > 0)
        .map(|(outcome, runs)| format!(", {runs} {outcome}"))
        .collect();
    let label = format!(
        "{} of {} in the last 24 hours{}",
        pluralize(usize::try_from(runs).unwrap_or(usize::MAX), "run"),
        one.id,
        bad.concat()
    );
    html! {
        svg role="img" aria-label=(label) viewBox={ "0 0 " (STEPS) " 24" } preserveAspectRatio="none" {
            title { (label) }
            @for stretch in recent.iter().rev() {
                @let mood = Severity::after(stretch.outcome);
                @let height = match stretch.outcome {
                    RunOutcome::Unchanged | RunOutcome::Planned | RunOutcome::Skipped => 6,
                    RunOutcome::Synced => 14,
                    RunOutcome::Failed | RunOutcome::Paused | RunOutcome::Held => 24,
                };
                @let from = step(stretch.since).min(STEPS - 10);
                @let width = (step(stretch.until) - from).max(10);
                rect class=(mood.class()) x=(from) width=(width) y=(24 - height) height=(height) {
                    title { (stretch.outcome) ", " (stretch.runs) " runs" }
                }
            }
        }
    }
}

fn of_outcome(stretches: &[&RunStreak], outcome: RunOutcome) -> u32 {
    let of = stretches
        .iter()
        .filter(|stretch| stretch.outcome == outcome);
    of.map(|stretch| stretch.runs).sum()
}
