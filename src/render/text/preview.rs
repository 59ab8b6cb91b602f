//! Renders previews as text: counts, then groups, then the denied devices.

use std::fmt::{self, Write};

use crate::domain::posture::preview::{DeniedDevice, Group, Preview, PreviewCounts};
use crate::preview::PreviewResponse;

/// Maximum devices, and maximum groups, in the text. The JSON has more.
const MAX_DEVICES: usize = 20;
const MAX_GROUPS: usize = 8;

/// Renders the response. Blank lines separate the postures.
pub(crate) fn preview(response: &PreviewResponse) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write_response(&mut text, response);
    text
}

fn write_response(text: &mut String, response: &PreviewResponse) -> fmt::Result {
    if let Some(error) = &response.error {
        return writeln!(text, "{error}");
    }
    if response.previews.is_empty() {
        let known = response.attribute_key.as_ref();
        let key = known.map_or("the attribute", |key| key.as_str());
        return writeln!(
            text,
            "No posture of the policy file mentions {key}. To try a threshold: MIN_SCORE=70."
        );
    }
    for (position, preview) in response.previews.iter().enumerate() {
        if position > 0 {
            writeln!(text)?;
        }
        write_preview(text, preview)?;
    }
    if let Some(held) = &response.held {
        writeln!(
            text,
            "\nRemovals wait, and their scores still count here: {held}"
        )?;
    }
    Ok(())
}

fn write_preview(text: &mut String, preview: &Preview) -> fmt::Result {
    let posture = &preview.posture;
    let conditions = posture.conditions.join(" and ");
    match &posture.name {
        Some(name) => writeln!(text, "{name}: {conditions}")?,
        None => writeln!(text, "{conditions}")?,
    }
    if !posture.used_in.is_empty() {
        writeln!(text, "  used in {}", posture.used_in.join(", "))?;
    } else if posture.name.is_some() {
        writeln!(text, "  not used in any rule")?;
    }
    for problem in &posture.problems {
        writeln!(text, "  ! {}: {}", problem.condition, problem.problem)?;
    }
    if !posture.not_evaluated.is_empty() {
        writeln!(
            text,
            "  not evaluated here, so fewer may pass: {}",
            posture.not_evaluated.join("; ")
        )?;
    }
    write_counts(text, &preview.counts)?;
    write_groups(text, "by operating system", &preview.by_os, 0)?;
    write_users(text, preview)?;
    write_denied(text, preview)?;
    let thresholds: Vec<String> = preview
        .thresholds
        .iter()
        .filter(|threshold| threshold.min_score.is_multiple_of(5))
        .map(|threshold| format!("{} {}", threshold.min_score, threshold.pass))
        .collect();
    writeln!(
        text,
        "  would pass with a line at   {}",
        thresholds.join(", ")
    )
}

fn write_counts(text: &mut String, counts: &PreviewCounts) -> fmt::Result {
    let lose = counts.below + counts.other_os + counts.no_score;
    writeln!(text, "  {:>6} pass", counts.pass)?;
    writeln!(text, "  {lose:>6} would lose access")?;
    for (count, why) in [
        (counts.below, "have a lower score"),
        (counts.other_os, "run another operating system"),
    ] {
        if count > 0 {
            writeln!(text, "    {count:>6} {why}")?;
        }
    }
    for (verdict, count) in &counts.no_score_verdicts {
        writeln!(
            text,
            "    {count:>6} have no score: {}",
            verdict.plural_reason()
        )?;
    }
    if counts.external > 0 {
        writeln!(
            text,
            "  {:>6} are shared in from other tailnets: postures do not restrict them",
            counts.external
        )?;
    }
    Ok(())
}

fn write_groups(text: &mut String, title: &str, groups: &[Group], omitted: usize) -> fmt::Result {
    let affected: Vec<&Group> = groups.iter().filter(|group| group.denied > 0).collect();
    if affected.is_empty() {
        return Ok(());
    }
    writeln!(text, "  {title}, devices that would lose access of all")?;
    for Group { name, pass, denied } in affected.iter().take(MAX_GROUPS) {
        let lose = denied;
        writeln!(text, "    {lose:>6} of {:<6} {name}", pass + lose)?;
    }
    match affected.len().saturating_sub(MAX_GROUPS) + omitted {
        0 => Ok(()),
        more => writeln!(text, "           and {more} more"),
    }
}

/// Writes the groups of owners, unless each owner has one denied device.
fn write_users(text: &mut String, preview: &Preview) -> fmt::Result {
    let affected = preview.by_user.iter().filter(|group| group.denied > 0);
    let count = affected.count() + preview.by_user_omitted;
    if count > MAX_GROUPS && preview.by_user[0].denied == 1 {
        return writeln!(text, "  {count} users would lose one device each");
    }
    write_groups(text, "by user", &preview.by_user, preview.by_user_omitted)
}

fn write_denied(text: &mut String, preview: &Preview) -> fmt::Result {
    if preview.denied.is_empty() {
        return Ok(());
    }
    writeln!(text, "  who would lose access")?;
    for device in preview.denied.iter().take(MAX_DEVICES) {
        let DeniedDevice {
            name,
            user,
            os,
            reason: because,
            ..
        } = device;
        writeln!(text, "    {name} ({user}, {os}): {because}")?;
    }
    match preview.denied.len().saturating_sub(MAX_DEVICES) + preview.denied_omitted {
        0 => Ok(()),
        more => writeln!(text, "    and {more} more (FORMAT=json names up to 500)"),
    }
}
