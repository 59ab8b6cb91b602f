//! Renders the latest syncs: a strip of the last day for each integration, and a table.

use std::cmp::Reverse;

use jiff::{SignedDuration, Timestamp};
use maud::{Markup, html};

use super::page::{Severity, WidgetContext, notice, pluralize};
use crate::domain::status::RunOutcome;
use crate::domain::status::history::RunStreak;
use crate::render::text::list_counts;
use crate::status::IntegrationView;

const MAX_ROWS: usize = 30;
const MAX_STRIPS: usize = 6;
/// The time that a strip shows.
const STRIP_MINUTES: i64 = 24 * 60;

pub(crate) fn view(widget: &WidgetContext<'_>, views: &[IntegrationView]) -> Markup {
    let rows_of = |view| streaks(view).iter().map(move |streak| (view, streak));
    let mut rows: Vec<(&IntegrationView, &RunStreak)> = views.iter().flat_map(rows_of).collect();
    if rows.is_empty() {
        return notice("Nothing was synced yet.");
    }
    rows.sort_by_key(|(_, streak)| Reverse(streak.until));
    let several = views.len() > 1;
    // The integrations with the most severe states and outcomes come first.
    let synced = views.iter().filter(|view| !streaks(view).is_empty());
    let mut strips: Vec<&IntegrationView> = synced.collect();
    strips.sort_by_key(|view| {
        let outcomes = streaks(view).iter().map(|streak| streak.outcome);
        let worst = outcomes.map(Severity::from_outcome).min();
        (Severity::from_state(view.state), worst, &view.id)
    });
    html! {
        @for view in strips.iter().take(MAX_STRIPS) {
            div.fps-strip {
                div.fps-m { (view.id) ", the last 24 hours" }
                (strip(widget.now, view))
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
            tbody { @for (view, streak) in rows.iter().take(MAX_ROWS) {
                tr {
                    td { (when(widget, streak)) }
                    @if several { th scope="row" { (view.id) } }
                    td {
                        (Severity::from_outcome(streak.outcome).badge(streak.outcome))
                        @if let Some(kind) = streak.error_kind { div.fps-m { (kind) } }
                    }
                    td.fps-n { (changed(streak)) }
                    td class="fps-wide fps-n" { (duration(streak.duration_ms)) }
                }
            } }
        }
        @if rows.len() > MAX_ROWS { p.fps-m { "and " (rows.len() - MAX_ROWS) " earlier ones" } }
    }
}

fn streaks(view: &IntegrationView) -> &[RunStreak] {
    view.status.as_ref().map_or(&[], |status| &status.history)
}

fn when(widget: &WidgetContext<'_>, streak: &RunStreak) -> Markup {
    html! {
        (widget.local_time(streak.until))
        div.fps-m {
            @if streak.runs > 1 {
                (streak.runs) " runs since " (widget.local_time(streak.since))
            } @else {
                (widget.relative_time(streak.until))
            }
        }
    }
}

fn changed(streak: &RunStreak) -> String {
    let counts = list_counts([
        (streak.written, "written"),
        (streak.removed, "removed"),
        (streak.failed, "refused"),
    ]);
    if counts.is_empty() {
        "nothing".to_owned()
    } else {
        counts
    }
}

fn duration(millis: u64) -> String {
    match millis {
        0..1_000 => format!("{millis} ms"),
        1_000..60_000 => format!("{}.{} s", millis / 1_000, millis % 1_000 / 100),
        _ => format!("{} min {} s", millis / 60_000, millis / 1_000 % 60),
    }
}

/// Renders a rectangle for each streak of runs: low without changes, half as high with changes, full after a failure.
fn strip(now: Timestamp, view: &IntegrationView) -> Markup {
    let strip_time = SignedDuration::from_mins(STRIP_MINUTES);
    let start = now.saturating_sub(strip_time).unwrap_or(now);
    let minute_of =
        |time: Timestamp| (time.duration_since(start).as_mins()).clamp(0, STRIP_MINUTES);
    let recent = streaks(view).iter().filter(|streak| streak.until > start);
    let recent: Vec<&RunStreak> = recent.collect();
    let runs: u32 = recent.iter().map(|streak| streak.runs).sum();
    let runs_with = |outcome| {
        let matching = recent.iter().filter(|streak| streak.outcome == outcome);
        matching.map(|streak| streak.runs).sum::<u32>()
    };
    let bad: Vec<String> = [RunOutcome::Failed, RunOutcome::Paused, RunOutcome::Held]
        .into_iter()
        .map(|outcome| (outcome, runs_with(outcome)))
        .filter(|(_, runs)| *runs > 0)
        .map(|(outcome, runs)| format!(", {runs} {outcome}"))
        .collect();
    let (runs, id) = (pluralize(runs, "run"), &view.id);
    let label = format!("{runs} of {id} in the last 24 hours{}", bad.concat());
    html! {
        svg role="img" aria-label=(label) viewBox={ "0 0 " (STRIP_MINUTES) " 24" } preserveAspectRatio="none" {
            title { (label) }
            @for streak in recent.iter().rev() {
                @let severity = Severity::from_outcome(streak.outcome);
                @let height = match streak.outcome {
                    RunOutcome::Unchanged | RunOutcome::Planned | RunOutcome::Skipped => 6,
                    RunOutcome::Synced => 14,
                    RunOutcome::Failed | RunOutcome::Paused | RunOutcome::Held => 24,
                };
                @let from = minute_of(streak.since).min(STRIP_MINUTES - 10);
                @let width = (minute_of(streak.until) - from).max(10);
                rect class=(severity.class()) x=(from) width=(width) y=(24 - height) height=(height) {
                    title { (streak.outcome) ", " (streak.runs) " runs" }
                }
            }
        }
    }
}
