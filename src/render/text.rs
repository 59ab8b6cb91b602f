//! Renders answers as text: lines of at most 100 characters, except for names.

mod explain;
mod preview;
mod status;

use jiff::Timestamp;

use crate::domain::inventory::host::Score;

pub(crate) use explain::explain;
pub(crate) use preview::preview;
pub(crate) use status::status;

/// Formats the score of a device or host: `score 71` or `no score`.
pub(crate) fn score_or_none(score: Option<Score>) -> String {
    match score {
        Some(score) => format!("score {score}"),
        None => "no score".to_owned(),
    }
}

/// Lists the counts above zero, each with its word: `3 ok, 1 failing`.
pub(crate) fn list_counts<const N: usize>(counts: [(usize, &str); N]) -> String {
    let above_zero = counts.into_iter().filter(|(count, _)| *count > 0);
    let parts = above_zero.map(|(count, word)| format!("{count} {word}"));
    parts.collect::<Vec<_>>().join(", ")
}

/// Formats a time with its age: `2026-11-22T09:30:00Z (4 min ago)`.
pub(crate) fn time_with_age(time: Timestamp, now: Timestamp) -> String {
    format!("{time:.0} ({})", age(time, now))
}

/// Formats the time since or until `time`, in the unit that fits its size.
pub(crate) fn age(time: Timestamp, now: Timestamp) -> String {
    let seconds = time.as_second() - now.as_second();
    let length = match seconds.unsigned_abs() {
        0..60 => return "now".to_owned(),
        seconds @ 60..7200 => format!("{} min", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    };
    if seconds < 0 {
        format!("{length} ago")
    } else {
        format!("in {length}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distance_is_in_the_unit_of_its_size() {
        let now = Timestamp::from_second(1_763_800_000).unwrap();
        let age_of = |seconds: i64| {
            let time = Timestamp::from_second(1_763_800_000 + seconds).unwrap();
            age(time, now)
        };
        for (seconds, expect) in [
            (0, "now"),
            (-59, "now"),
            (-60, "1 min ago"),
            (840, "in 14 min"),
            (-7199, "119 min ago"),
            (7200, "in 2 h"),
            (-86_400, "24 h ago"),
            (-172_800, "2 days ago"),
        ] {
            assert_eq!(age_of(seconds), expect);
        }
    }
}
