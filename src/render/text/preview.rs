//! The preview as a person reads it at a terminal: how many, then who and why.

use std::fmt::{self, Write};

use crate::domain::explain::explanation::Verdict;
use crate::domain::posture::preview::{DeniedDevice, Group, Preview, PreviewCounts};
use crate::preview::PreviewResponse;

/// Maximum devices, and maximum groups, in the text. The JSON has more.
const DEVICES: usize = 20;
const GROUPS: usize = 8;

/// The answer, to read.
pub fn preview(answer: &PreviewResponse) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut text, answer);
    text
}

fn write(text: &mut String, answer: &PreviewResponse) -> fmt::Result {
    if let Some(error) = &answer.error {
        return writeln!(text, "{error}");
    }
    if answer.previews.is_empty() {
        let key = answer.attribute_key.as_ref();
        let key = key.map_or("the attribute", |key| key.as_str());
        return writeln!(
            text,
            "No posture of the policy file mentions {key}. To try a threshold: MIN_SCORE=70."
        );
    }
    for (position, preview) in answer.previews.iter().enumerate() {
        if position > 0 {
            writeln!(text)?;
        }
        one(text, preview)?;
    }
    if let Some(held) = &answer.held {
        writeln!(
            text,
            "\nRemovals wait, and their scores still count here: {held}"
        )?;
    }
    Ok(())
}

fn one(text: &mut String, preview: &Preview) -> fmt::Result {
    let conditions = preview.conditions.join(" and ");
    match &preview.posture {
        Some(name) => writeln!(text, "{name}: {conditions}")?,
        None => writeln!(text, "{conditions}")?,
    }
    if !preview.used_in.is_empty() {
        writeln!(text, "  used in {}", preview.used_in.join(", "))?;
    } else if preview.posture.is_some() {
        writeln!(text, "  not used in any rule")?;
    }
    for problem in &preview.problems {
        writeln!(text, "  ! {}: {}", problem.condition, problem.problem)?;
    }
    if !preview.not_evaluated.is_empty() {
        writeln!(
            text,
            "  not evaluated here, so fewer may pass: {}",
            preview.not_evaluated.join("; ")
        )?;
    }
    counts(text, &preview.counts)?;
    groups(text, "by operating system", &preview.by_os, 0)?;
    users(text, preview)?;
    losers(text, preview)?;
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

fn counts(text: &mut String, counts: &PreviewCounts) -> fmt::Result {
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
    for (verdict, count) in &counts.no_score_because {
        writeln!(text, "    {count:>6} have no score: {}", because(*verdict))?;
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

fn because(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Scored => "their change waits to be confirmed",
        Verdict::Unassessed => "their Falcon host has no assessment",
        Verdict::Stale => "their Falcon host was not seen for too long",
        Verdict::Unmatched => "no Falcon host has their serial number",
        Verdict::NoSerial => "they report no usable serial number",
        Verdict::NoIdentity => "they report no posture identity",
        Verdict::External => "they are shared in",
    }
}

fn groups(text: &mut String, title: &str, groups: &[Group], omitted: usize) -> fmt::Result {
    let losing: Vec<&Group> = groups.iter().filter(|group| group.lose > 0).collect();
    if losing.is_empty() {
        return Ok(());
    }
    writeln!(text, "  {title}, devices that would lose access of all")?;
    for Group { name, pass, lose } in losing.iter().take(GROUPS) {
        writeln!(text, "    {lose:>6} of {:<6} {name}", pass + lose)?;
    }
    match losing.len().saturating_sub(GROUPS) + omitted {
        0 => Ok(()),
        more => writeln!(text, "           and {more} more"),
    }
}

/// Owners with one device each are no groups.
fn users(text: &mut String, preview: &Preview) -> fmt::Result {
    let losing = preview.by_user.iter().filter(|group| group.lose > 0);
    let count = losing.count() + preview.by_user_omitted;
    if count > GROUPS && preview.by_user[0].lose == 1 {
        return writeln!(text, "  {count} users would lose one device each");
    }
    groups(text, "by user", &preview.by_user, preview.by_user_omitted)
}

fn losers(text: &mut String, preview: &Preview) -> fmt::Result {
    if preview.lose.is_empty() {
        return Ok(());
    }
    writeln!(text, "  who would lose access")?;
    for loser in preview.lose.iter().take(DEVICES) {
        let DeniedDevice {
            name,
            user,
            os,
            because,
            ..
        } = loser;
        writeln!(text, "    {name} ({user}, {os}): {because}")?;
    }
    match preview.lose.len().saturating_sub(DEVICES) + preview.lose_omitted {
        0 => Ok(()),
        more => writeln!(text, "    and {more} more (FORMAT=json names up to 500)"),
    }
}
