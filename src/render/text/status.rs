//! The status of the integrations as text.

use std::fmt::{self, Write};

use jiff::Timestamp;

use super::moment;
use crate::domain::status::Status;
use crate::domain::status::finding::Finding;
use crate::status::{IntegrationView, Summary};

/// Maximum examples of a finding: these fit a line.
const EXAMPLES: usize = 3;

/// The integrations one after the other, and where there are several, a line about all of them first.
pub fn status(views: &[IntegrationView], now: Timestamp) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut text, views, now);
    text
}

fn write(text: &mut String, views: &[IntegrationView], now: Timestamp) -> fmt::Result {
    match views {
        [] => writeln!(
            text,
            "No integration is connected. `make connect` connects one."
        )?,
        [_] => {}
        _ => writeln!(text, "{}\n", Summary::of(views))?,
    }
    for (position, view) in views.iter().enumerate() {
        if position > 0 {
            writeln!(text)?;
        }
        one(text, view, now)?;
    }
    Ok(())
}

fn one(text: &mut String, view: &IntegrationView, now: Timestamp) -> fmt::Result {
    let overdue = if view.overdue { ", overdue" } else { "" };
    writeln!(text, "{}: {}{overdue}", view.id, view.state)?;
    match (&view.settings, &view.settings_error) {
        (Some(settings), _) => line(
            text,
            "carries",
            &format!(
                "Falcon {} to tailnet {} as {}",
                settings.cloud_id, settings.tailnet, settings.attribute_key
            ),
        )?,
        (None, Some(error)) => line(text, "settings", error)?,
        (None, None) => {}
    }
    for unreadable in &view.unreadable {
        line(text, "unreadable", unreadable)?;
    }
    if !view.is_readable() {
        return line(text, "next sync", "never, until the item is mended");
    }
    match &view.status {
        Some(status) => runs(text, status, now)?,
        None => line(text, "last sync", "none yet")?,
    }
    if let Some(pause) = &view.pause {
        let why = format!(
            "until {}, since {}, refused {} by {}",
            moment(pause.until, now),
            moment(pause.since, now),
            times(pause.attempts),
            pause.service
        );
        line(text, "pause", &why)?;
    }
    if let Some(removal) = &view.removal {
        let asked = format!(
            "asked for {} by {}",
            moment(removal.since, now),
            removal.actor
        );
        line(text, "removal", &asked)?;
    }
    if let Some(lease) = &view.lease {
        line(text, "at work", &format!("run {}", lease.owner))?;
    }
    let next = view.next_sync.map_or_else(
        || "never, it is disabled".to_owned(),
        |next| moment(next, now),
    );
    line(text, "next sync", &next)?;
    let findings = view.status.iter().flat_map(|status| &status.findings);
    findings
        .into_iter()
        .try_for_each(|found| finding(text, found))
}

fn runs(text: &mut String, status: &Status, now: Timestamp) -> fmt::Result {
    let last = format!(
        "{}, {} in {} ms, run {}",
        moment(status.last_sync, now),
        status.outcome,
        status.duration_ms,
        status.run_id
    );
    line(text, "last sync", &last)?;
    if let Some(error) = &status.error {
        line(text, "error", error)?;
    }
    let success = status
        .last_success
        .map_or_else(|| "never".to_owned(), |success| moment(success, now));
    line(text, "last success", &success)?;
    if let Some(change) = &status.last_change {
        let changed = format!(
            "{}: {} written, {} removed, run {}",
            moment(change.at, now),
            change.written,
            change.removed,
            change.run_id
        );
        line(text, "last change", &changed)?;
    }
    let counts = format!(
        "{} Falcon hosts; {} devices with a serial, {} of them matched, {} with a score",
        status.provider_host_count,
        status.possible_matched_count,
        status.matched_count,
        status.score_counts.total()
    );
    line(text, "counts", &counts)?;
    match &status.crawl {
        Some(crawl) => line(
            text,
            "crawl",
            &format!("{}: {}", crawl.strategy, crawl.reason),
        ),
        None => Ok(()),
    }
}

fn finding(text: &mut String, finding: &Finding) -> fmt::Result {
    let shown = finding.examples.iter().take(EXAMPLES);
    let mut examples = shown.cloned().collect::<Vec<_>>().join("; ");
    if finding.count > EXAMPLES.min(finding.examples.len()) {
        examples.push_str("; …");
    }
    writeln!(
        text,
        "  ! {} {}: {examples}\n      {}",
        finding.count, finding.kind, finding.remedy
    )
}

fn line(text: &mut String, name: &str, value: &str) -> fmt::Result {
    writeln!(text, "  {name:<13} {value}")
}

fn times(count: u32) -> String {
    match count {
        1 => "once".to_owned(),
        count => format!("{count} times"),
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = [
            (self.ok, "ok"),
            (self.failing, "failing"),
            (self.paused, "paused"),
            (self.held, "held"),
            (self.new, "new"),
            (self.disabled, "disabled"),
            (self.removing, "removing"),
            (self.overdue, "overdue"),
        ]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, name)| format!("{count} {name}"))
        .collect();
        write!(
            f,
            "{} integrations: {}",
            self.integrations,
            parts.join(", ")
        )
    }
}
