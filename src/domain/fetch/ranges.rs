//! How the listing of scores is divided into ranges that are walked side by side.
//!
//! A listing's pages come one after the other, since each names the next. So a large account's scores are asked for by
//! ranges, each of which is a listing of its own. A range ends in a page that is not full; so the bounds lie where the
//! pages before them are nearly full, by the distribution that the last run saw, and a division costs hardly a request.
//!
//! A score that moves from one range to another during the walk is seen twice, and the lower value counts, or not at all,
//! and is then looked up before anything rests on it, as a score that moves within a single listing is.

use crate::domain::inventory::histogram::ScoreHistogram;
use crate::domain::inventory::host::Score;

/// So many ranges are walked at once.
const MOST: usize = 10;

/// A page is planned to be filled by so many hundredths: between two runs, some scores move into a range.
const FILLED: usize = 98;

/// A part of the scores, from one to another, both included. Without a bound it is open there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The lowest score in it.
    pub min: Option<Score>,
    /// The highest score in it.
    pub max: Option<Score>,
}

/// The ranges between bounds, each of which is the lowest score of a range. No bound gives the one range of everything.
/// Bounds that are not in order are put in order: they may have been stored by anybody.
pub fn ranges(bounds: &[Score]) -> Vec<Range> {
    let mut bounds: Vec<Score> = bounds.iter().copied().filter(|min| min.get() > 0).collect();
    bounds.sort();
    bounds.dedup();
    bounds.truncate(MOST - 1);
    let mins = std::iter::once(None).chain(bounds.iter().copied().map(Some));
    let maxes = bounds.iter().map(|min| min.before()).chain([None]);
    mins.zip(maxes)
        .map(|(min, max)| Range { min, max })
        .collect()
}

/// So many ranges of the same width, for an account whose distribution is not known.
pub fn evenly(count: usize) -> Vec<Range> {
    let width = (usize::from(Score::MAX) + 1).div_ceil(count.max(1));
    let lows = (0..=Score::MAX).step_by(width).skip(1);
    let bounds: Vec<Score> = lows.filter_map(|low| Score::new(low.into())).collect();
    ranges(&bounds)
}

/// The bounds for a listing of scores that are distributed so, by pages of so many: the longest range is as short as can
/// be while all ranges together take hardly more pages than a single one would.
pub fn divide(scores: &ScoreHistogram, page: usize) -> Vec<Score> {
    let whole = pages(scores.total(), page);
    if whole < 3 {
        return Vec::new();
    }
    let allowed = whole + (whole / 16).max(1);
    (whole.div_ceil(MOST)..whole)
        .map(|longest| by_length(scores, longest, page))
        .find(|cut| cut.lows.len() < MOST && cut.pages <= allowed)
        .map_or_else(Vec::new, |cut| cut.lows)
}

struct Partition {
    /// The lowest score of each range but the first.
    lows: Vec<Score>,
    /// What they take together.
    pages: usize,
}

/// Ranges of at most so many pages, filled one after the other. A single score that more hosts have is a range by itself.
fn by_length(scores: &ScoreHistogram, longest: usize, page: usize) -> Partition {
    let room = longest * page * FILLED / 100;
    let (mut lows, mut pages_before, mut held) = (Vec::new(), 0, 0);
    for (score, count) in scores.iter() {
        if held > 0 && held + count > room {
            lows.push(score);
            pages_before += pages(held, page);
            held = 0;
        }
        held += count;
    }
    Partition {
        lows,
        pages: pages_before + pages(held, page),
    }
}

fn pages(records: usize, page: usize) -> usize {
    records.div_ceil(page)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn score(value: i64) -> Score {
        Score::new(value).unwrap()
    }

    fn evenly(records: usize) -> ScoreHistogram {
        (0..records)
            .map(|n| score(i64::try_from(n % 101).unwrap()))
            .collect()
    }

    /// How many of the scores lie in each range.
    fn lengths(scores: &ScoreHistogram, bounds: &[Score]) -> Vec<usize> {
        ranges(bounds)
            .iter()
            .map(|range| {
                scores
                    .iter()
                    .filter(|(score, _)| {
                        range.min.is_none_or(|min| *score >= min)
                            && range.max.is_none_or(|max| *score <= max)
                    })
                    .map(|(_, count)| count)
                    .sum()
            })
            .collect()
    }

    #[test]
    fn an_unknown_account_is_divided_by_width() {
        for count in 1..=8 {
            let ranges = super::evenly(count);
            assert_eq!(ranges.len(), count);
            assert_eq!((ranges[0].min, ranges[count - 1].max), (None, None));
        }
        let four = super::evenly(4);
        assert_eq!(four[1].min, Some(score(26)));
        assert_eq!(four[1].max, Some(score(51)));
    }

    #[test]
    fn a_small_account_is_one_range() {
        assert_eq!(divide(&evenly(2_000), 1_000), []);
        assert_eq!(
            ranges(&[]),
            [Range {
                min: None,
                max: None
            }]
        );
    }

    #[test]
    fn a_large_account_is_divided_at_nearly_full_pages() {
        for (records, longest, most) in [(10_000, 3, 11), (100_000, 11, 106)] {
            let scores = evenly(records);
            let bounds = divide(&scores, 1_000);
            let pages: Vec<usize> = lengths(&scores, &bounds)
                .into_iter()
                .map(|length| length.div_ceil(1_000))
                .collect();
            assert!(pages.iter().all(|pages| *pages <= longest), "{pages:?}");
            assert!(pages.iter().sum::<usize>() <= most, "{pages:?}");
        }
    }

    #[test]
    fn one_score_of_all_cannot_be_divided() {
        let scores = vec![score(71); 9_000].into_iter().collect();
        assert_eq!(divide(&scores, 1_000), []);
    }

    proptest! {
        /// Whatever is stored as bounds, each score lies in exactly one range.
        #[test]
        fn each_score_lies_in_one_range(bounds in prop::collection::vec(0_i64..=100, 0..20)) {
            let bounds: Vec<Score> = bounds.into_iter().map(score).collect();
            let every = (0..=100).map(score).collect();
            let lengths = lengths(&every, &bounds);
            prop_assert!(lengths.len() <= MOST);
            prop_assert!(lengths.iter().all(|length| *length > 0));
            prop_assert_eq!(lengths.iter().sum::<usize>(), 101);
        }

        /// A division never takes much more than a single listing would.
        #[test]
        fn a_division_costs_hardly_a_page(counts in prop::collection::vec((0_i64..=100, 1_usize..3_000), 0..60)) {
            let scores: ScoreHistogram = counts
                .iter()
                .flat_map(|(value, count)| std::iter::repeat_n(score(*value), *count))
                .collect();
            let bounds = divide(&scores, 1_000);
            let taken: usize = lengths(&scores, &bounds).into_iter().map(|length| length.div_ceil(1_000)).sum();
            let whole = scores.total().div_ceil(1_000);
            prop_assert!(taken <= whole + (whole / 16).max(1));
        }
    }
}
