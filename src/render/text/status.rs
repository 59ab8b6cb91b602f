//! The status of the integrations as text.

use jiff::Timestamp;

use super::{list_counts, time_with_age};
use crate::domain::status::Status;
use crate::domain::status::finding::Finding;
use crate::domain::status::scores_end::ScoresEnd;
use crate::status::{IntegrationView, Summary};

/// Maximum examples of a finding. Three fit a line.
const MAX_EXAMPLES: usize = 3;

/// Renders each integration, after a line about all of them if there are several.
pub(crate) fn status(views: &[IntegrationView], now: Timestamp) -> String {
    let blocks: Vec<String> = views.iter().map(|view| render(view, now)).collect();
    let body = blocks.join("\n");
    match views {
        [] => "No integration is connected. `make connect` connects one.".to_owned() + "\n",
        [_] => body,
        _ => format!("{}\n\n{body}", summary(&Summary::new(views))),
    }
}

fn render(view: &IntegrationView, now: Timestamp) -> String {
    let overdue = if view.is_overdue { ", overdue" } else { "" };
    let mut text = vec![format!("{}: {}{overdue}", view.id, view.state)];
    let lines = lines(view, now).into_iter();
    text.extend(lines.map(|(name, value)| format!("  {name:<13} {value}")));
    let findings = view.status.iter().flat_map(|status| &status.findings);
    text.extend(findings.map(finding));
    text.join("\n") + "\n"
}

/// Returns the lines about an integration, each with its name.
fn lines(view: &IntegrationView, now: Timestamp) -> Vec<(&'static str, String)> {
    let time = |time| time_with_age(time, now);
    let mut lines = Vec::new();
    if let Some(settings) = &view.settings {
        let carries = format!(
            "Falcon {} to tailnet {} as {}",
            settings.cloud_id, settings.tailnet, settings.attribute_key
        );
        lines.push(("carries", carries));
    } else if let Some(error) = &view.settings_error {
        lines.push(("settings", error.clone()));
    }
    let unreadable = view.unreadable.iter().cloned();
    lines.extend(unreadable.map(|part| ("unreadable", part)));
    if !view.is_readable() {
        lines.push(("next sync", "never, until the item is repaired".to_owned()));
        return lines;
    }
    match &view.status {
        Some(status) => add_latest_run(&mut lines, status, now),
        None => lines.push(("last sync", "none yet".to_owned())),
    }
    if let Some(pause) = &view.pause {
        let (until, since) = (time(pause.until), time(pause.since));
        let (times, service) = (times(pause.attempts), pause.service);
        let text = format!("until {until}, since {since}, rejected {times} by {service}");
        lines.push(("pause", text));
    }
    let ends = view.status.as_ref().and_then(|status| status.scores_end);
    if let Some(ScoresEnd { first, devices }) = ends {
        let first = time(first);
        let text = format!("from {first} on, {devices} devices, unless a run renews them");
        lines.push(("scores end", text));
    }
    if let Some(removal) = &view.removal {
        let since = time(removal.since);
        lines.push(("removal", format!("requested {since} by {}", removal.actor)));
    }
    if let Some(lease) = &view.lease {
        lines.push(("running", format!("run {}", lease.owner)));
    }
    let disabled = || "never, it is disabled".to_owned();
    lines.push(("next sync", view.next_sync.map_or_else(disabled, time)));
    lines
}

fn add_latest_run(lines: &mut Vec<(&'static str, String)>, status: &Status, now: Timestamp) {
    let time = |time| time_with_age(time, now);
    let (at, outcome, run_id) = (time(status.last_sync), status.outcome, &status.run_id);
    let millis = status.duration_ms;
    let last_sync = format!("{at}, {outcome} in {millis} ms, run {run_id}");
    lines.push(("last sync", last_sync));
    lines.extend(status.error.clone().map(|error| ("error", error)));
    let never = || "never".to_owned();
    lines.push(("last success", status.last_success.map_or_else(never, time)));
    if let Some(change) = &status.last_change {
        let (at, run_id) = (time(change.at), &change.run_id);
        let (written, removed) = (change.written, change.removed);
        let text = format!("{at}: {written} written, {removed} removed, run {run_id}");
        lines.push(("last change", text));
    }
    let without = match status.hosts_without_serial {
        None | Some(0) => String::new(),
        Some(hosts) => format!(" ({hosts} without a usable serial number)"),
    };
    let counts = format!(
        "{} Falcon hosts{without}; {} devices with a serial, {} of them matched, {} with a score",
        status.provider_host_count,
        status.possible_matched_count,
        status.matched_count,
        status.score_counts.total()
    );
    lines.push(("counts", counts));
    if let Some(crawl) = &status.crawl {
        lines.push(("crawl", format!("{}: {}", crawl.strategy, crawl.reason)));
    }
}

fn finding(finding: &Finding) -> String {
    let shown = finding.examples.iter().take(MAX_EXAMPLES);
    let mut examples = shown.cloned().collect::<Vec<_>>().join("; ");
    if finding.count > MAX_EXAMPLES.min(finding.examples.len()) {
        examples.push_str("; …");
    }
    format!(
        "  ! {} {}: {examples}\n      {}",
        finding.count, finding.kind, finding.remedy
    )
}

fn times(count: u32) -> String {
    match count {
        1 => "once".to_owned(),
        count => format!("{count} times"),
    }
}

fn summary(summary: &Summary) -> String {
    let states = list_counts([
        (summary.ok, "ok"),
        (summary.failing, "failing"),
        (summary.paused, "paused"),
        (summary.held, "held"),
        (summary.new, "new"),
        (summary.disabled, "disabled"),
        (summary.removing, "removing"),
        (summary.overdue, "overdue"),
    ]);
    format!("{} integrations: {states}", summary.integrations)
}
