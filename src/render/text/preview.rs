//! Renders previews as text: counts, then groups, then the denied devices.

use crate::domain::posture::preview::{Group, Preview, PreviewCounts};
use crate::preview::PreviewResponse;
use crate::settings::AttributeKey;

/// Maximum devices, and maximum groups, in the text. The JSON has more.
const MAX_DEVICES: usize = 20;
const MAX_GROUPS: usize = 8;

/// Renders the response. Blank lines separate the postures.
pub(crate) fn preview(response: &PreviewResponse) -> String {
    let mut lines = Vec::new();
    if let Some(error) = &response.error {
        lines.push(error.clone());
    } else if response.previews.is_empty() {
        let key = response.attribute_key.as_ref();
        let key = key.map_or("the attribute", AttributeKey::as_str);
        lines.push(format!(
            "No posture of the policy file mentions {key}. To try a threshold: MIN_SCORE=70."
        ));
    } else {
        for preview in &response.previews {
            if !lines.is_empty() {
                lines.push(String::new());
            }
            add_preview(&mut lines, preview);
        }
        let waiting = response.waiting.as_ref();
        lines.extend(waiting.map(|waiting| format!("\nTheir scores still count here: {waiting}.")));
        let held = response.held.as_ref();
        lines.extend(
            held.map(|held| format!("\nRemovals wait, and their scores still count here: {held}")),
        );
    }
    lines.join("\n") + "\n"
}

fn add_preview(lines: &mut Vec<String>, preview: &Preview) {
    let posture = &preview.posture;
    let conditions = posture.conditions.join(" and ");
    lines.push(match &posture.name {
        Some(name) => format!("{name}: {conditions}"),
        None => conditions,
    });
    if !posture.used_in.is_empty() {
        lines.push(format!("  used in {}", posture.used_in.join(", ")));
    } else if posture.name.is_some() {
        lines.push("  not used in any rule".to_owned());
    }
    for problem in &posture.problems {
        lines.push(format!("  ! {}: {}", problem.condition, problem.problem));
    }
    if !posture.not_evaluated.is_empty() {
        lines.push(format!(
            "  not evaluated here, so fewer may pass: {}",
            posture.not_evaluated.join("; ")
        ));
    }
    add_counts(lines, &preview.counts);
    add_groups(lines, "by operating system", &preview.by_os, 0);
    add_users(lines, preview);
    add_denied(lines, preview);
    let thresholds = preview.thresholds.iter();
    let thresholds: Vec<String> = thresholds
        .filter(|threshold| threshold.min_score.is_multiple_of(5))
        .map(|threshold| format!("{} {}", threshold.min_score, threshold.pass))
        .collect();
    lines.push(format!(
        "  would pass with a line at   {}",
        thresholds.join(", ")
    ));
}

fn add_counts(lines: &mut Vec<String>, counts: &PreviewCounts) {
    let lose = counts.below + counts.other_os + counts.no_score;
    lines.push(format!("  {:>6} pass", counts.pass));
    lines.push(format!("  {lose:>6} would lose access"));
    for (count, why) in [
        (counts.below, "have a lower score"),
        (counts.other_os, "run another operating system"),
    ] {
        if count > 0 {
            lines.push(format!("    {count:>6} {why}"));
        }
    }
    for (verdict, count) in &counts.no_score_verdicts {
        let why = verdict.plural_reason();
        lines.push(format!("    {count:>6} have no score: {why}"));
    }
    if counts.external > 0 {
        lines.push(format!(
            "  {:>6} are shared in from other tailnets: postures do not restrict them",
            counts.external
        ));
    }
}

fn add_groups(lines: &mut Vec<String>, title: &str, groups: &[Group], omitted: usize) {
    let affected: Vec<&Group> = groups.iter().filter(|group| group.denied > 0).collect();
    if affected.is_empty() {
        return;
    }
    lines.push(format!("  {title}, devices that would lose access of all"));
    for Group { name, pass, denied } in affected.iter().take(MAX_GROUPS) {
        lines.push(format!("    {denied:>6} of {:<6} {name}", pass + denied));
    }
    let more = affected.len().saturating_sub(MAX_GROUPS) + omitted;
    if more > 0 {
        lines.push(format!("           and {more} more"));
    }
}

/// Adds the groups of owners, unless each owner has one denied device.
fn add_users(lines: &mut Vec<String>, preview: &Preview) {
    let affected = preview.by_user.iter().filter(|group| group.denied > 0);
    let count = affected.count() + preview.by_user_omitted;
    if count > MAX_GROUPS && preview.by_user[0].denied == 1 {
        lines.push(format!("  {count} users would lose one device each"));
    } else {
        add_groups(lines, "by user", &preview.by_user, preview.by_user_omitted);
    }
}

fn add_denied(lines: &mut Vec<String>, preview: &Preview) {
    if preview.denied.is_empty() {
        return;
    }
    lines.push("  who would lose access".to_owned());
    for device in preview.denied.iter().take(MAX_DEVICES) {
        lines.push(format!(
            "    {} ({}, {}): {}",
            device.name, device.user, device.os, device.reason
        ));
    }
    let more = preview.denied.len().saturating_sub(MAX_DEVICES) + preview.denied_omitted;
    if more > 0 {
        lines.push(format!("    and {more} more (FORMAT=json names up to 500)"));
    }
}
