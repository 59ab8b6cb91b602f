//! Renders the histogram of the scores, and the number of devices that would pass a threshold.

use maud::{Markup, html};

use super::page::{notice, pluralize};
use crate::domain::inventory::histogram::ScoreHistogram;
use crate::domain::inventory::host::Score;
use crate::status::IntegrationView;

/// Scores in a column. The last column also counts the score 100.
const WIDTH: u8 = 5;
const COLUMN_COUNT: usize = 20;
/// Height of the picture in its own unit. The widget stretches the picture.
const HEIGHT: usize = 1_000;

/// The devices in a column, below the threshold and at or above it.
#[derive(Clone, Copy, Default)]
struct Column {
    below: usize,
    pass: usize,
}

/// Renders the scores of all integrations together.
pub(crate) fn view(views: &[IntegrationView], min_score: Option<Score>) -> Markup {
    let statuses = views.iter().filter_map(|view| view.status.as_ref());
    let possible = statuses.clone().map(|status| status.possible_matched_count);
    let counts = statuses.flat_map(|status| status.score_counts.iter());
    let scores: ScoreHistogram = counts.collect();
    let total = scores.total();
    if total == 0 {
        return notice("No device has a score yet.");
    }
    html! {
        div.fps-big {
            @match min_score {
                Some(min) => {
                    @let pass = scores.at_least(min);
                    div { b { (pass) } span.fps-key {} "pass at " (min) }
                    div { b { (total - pass) } span class="fps-key fps-key-low" {} "below" }
                }
                None => { div { b { (total) } "with a score" } }
            }
            div { b { (possible.sum::<usize>().saturating_sub(total)) } "without a score" }
        }
        (histogram(&scores, min_score))
    }
}

fn histogram(scores: &ScoreHistogram, min_score: Option<Score>) -> Markup {
    let mut columns = [Column::default(); COLUMN_COUNT];
    for (score, devices) in scores.iter() {
        let at = usize::from(score.get() / WIDTH).min(COLUMN_COUNT - 1);
        if min_score.is_some_and(|min| score < min) {
            columns[at].below += devices;
        } else {
            columns[at].pass += devices;
        }
    }
    let heights = columns.iter().map(|column| column.below + column.pass);
    let tallest = heights.max().unwrap_or(0).max(1);
    let devices = pluralize(scores.total(), "device");
    let label = format!("Scores of {devices}, in steps of {WIDTH}");
    html! {
        div.fps-h {
            @if let Some(min) = min_score {
                // On the side with more room.
                @let side = if min.get() > 50 {
                    format!("right:{}%", Score::MAX - min.get())
                } else {
                    format!("left:{min}%")
                };
                span.fps-at style=(side) { "threshold " (min) }
            }
            svg role="img" aria-label=(label) viewBox={ "0 0 1000 " (HEIGHT) } preserveAspectRatio="none" {
                title { (label) }
                @for (at, column) in columns.iter().enumerate() {
                    @if column.below + column.pass > 0 { (bar(at, *column, tallest)) }
                }
                @if let Some(min) = min_score {
                    @let x = usize::from(min.get()) * 10;
                    line.fps-truncate vector-effect="non-scaling-stroke" x1=(x) x2=(x) y1="0" y2=(HEIGHT) {}
                }
            }
            div class="fps-x fps-m" aria-hidden="true" {
                @for mark in [0, 25, 50, 75, 100] { span { (mark) } }
            }
        }
    }
}

/// In a column that the threshold divides, the devices below the threshold are at the bottom.
fn bar(at: usize, column: Column, tallest: usize) -> Markup {
    let first = at * usize::from(WIDTH);
    let last = if at + 1 == COLUMN_COUNT {
        usize::from(Score::MAX)
    } else {
        first + usize::from(WIDTH) - 1
    };
    // A single device among thousands stays visible.
    let height = |devices: usize| match devices {
        0 => 0,
        devices => (devices * HEIGHT / tallest).max(12),
    };
    let (below, pass) = (height(column.below), height(column.pass));
    let devices = pluralize(column.below + column.pass, "device");
    let x = at * 50 + 3;
    html! {
        g {
            title { (first) " to " (last) ": " (devices) }
            @if below > 0 { rect.fps-below x=(x) width="44" y=(HEIGHT.saturating_sub(below)) height=(below) {} }
            @if pass > 0 { rect.fps-pass x=(x) width="44" y=(HEIGHT.saturating_sub(below + pass)) height=(pass) {} }
        }
    }
}
