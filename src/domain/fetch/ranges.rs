//! Divides the listing of scores into ranges that are listed concurrently.
//!
//! The pages of one listing are sequential, since each page names the next. So the scores of a large account are requested
//! by ranges, each of which is a listing. The last page of a range is not full; so the bounds are chosen by the previous
//! run's histogram such that the pages before them are nearly full, and the division costs hardly a request.
//!
//! A score that moves between two ranges during the listing is seen twice or not at all. If it is seen twice, the lower
//! value counts. If it is missing, it is looked up before any change rests on it, as in a single listing.

use crate::domain::inventory::histogram::ScoreHistogram;
use crate::domain::inventory::host::Score;

/// Maximum ranges, which are listed concurrently.
const MAX_RANGES: usize = 10;
/// Planned fill of a page: between two runs, some scores move into a range.
const PAGE_FILL_PERCENT: usize = 98;

/// A range of scores with inclusive bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The lowest score, if bounded.
    pub min: Option<Score>,
    /// The highest score, if bounded.
    pub max: Option<Score>,
}

/// Returns the ranges that start at 0 and at each bound. Without a bound, one range holds all scores. The bounds are sorted,
/// since the stored ones may have been edited.
pub fn ranges(bounds: &[Score]) -> Vec<Range> {
    let mut bounds: Vec<Score> = bounds.iter().copied().filter(|min| min.get() > 0).collect();
    bounds.sort();
    bounds.dedup();
    bounds.truncate(MAX_RANGES - 1);
    let mins = std::iter::once(None).chain(bounds.iter().copied().map(Some));
    let maxes = bounds.iter().map(|min| min.before()).chain([None]);
    let ranges = mins.zip(maxes).map(|(min, max)| Range { min, max });
    ranges.collect()
}

/// Returns ranges of equal width, for an account without a histogram.
pub fn even_ranges(count: usize) -> Vec<Range> {
    let width = (usize::from(Score::MAX) + 1).div_ceil(count.max(1));
    let lower_bounds = (0..=Score::MAX).step_by(width).skip(1);
    let bounds = lower_bounds.filter_map(|low| Score::new(low.into()));
    ranges(&bounds.collect::<Vec<_>>())
}

/// Splits the listing into up to 10 ranges of similar page counts, with at most 1/16 more pages than one listing needs.
/// Returns the lower bounds of the ranges except the first.
pub fn partition(scores: &ScoreHistogram, page: usize) -> Vec<Score> {
    let whole = scores.total().div_ceil(page);
    if whole < 3 {
        return Vec::new();
    }
    let allowed = whole + (whole / 16).max(1);
    (whole.div_ceil(MAX_RANGES)..whole)
        .map(|longest| fill_ranges(scores, longest, page))
        .find(|(lower_bounds, pages)| lower_bounds.len() < MAX_RANGES && *pages <= allowed)
        .map_or_else(Vec::new, |(lower_bounds, _)| lower_bounds)
}

/// Fills ranges of at most `longest` pages, one after the other. A score that more hosts have is a range of its own.
/// Returns the lowest score of each range except the first, and the pages of all ranges together.
fn fill_ranges(scores: &ScoreHistogram, longest: usize, page: usize) -> (Vec<Score>, usize) {
    let room = longest * page * PAGE_FILL_PERCENT / 100;
    let (mut lower_bounds, mut pages_before, mut in_current) = (Vec::new(), 0, 0);
    for (score, count) in scores.iter() {
        if in_current > 0 && in_current + count > room {
            lower_bounds.push(score);
            pages_before += in_current.div_ceil(page);
            in_current = 0;
        }
        in_current += count;
    }
    (lower_bounds, pages_before + in_current.div_ceil(page))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn score(value: i64) -> Score {
        Score::new(value).unwrap()
    }

    fn uniform_histogram(records: usize) -> ScoreHistogram {
        (0..records)
            .map(|n| (score(i64::try_from(n % 101).unwrap()), 1))
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
            let ranges = even_ranges(count);
            assert_eq!(ranges.len(), count);
            assert_eq!((ranges[0].min, ranges[count - 1].max), (None, None));
        }
        let four = even_ranges(4);
        assert_eq!(four[1].min, Some(score(26)));
        assert_eq!(four[1].max, Some(score(51)));
    }

    #[test]
    fn a_small_account_is_one_range() {
        assert_eq!(partition(&uniform_histogram(2_000), 1_000), []);
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
            let scores = uniform_histogram(records);
            let bounds = partition(&scores, 1_000);
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
        let scores = [(score(71), 9_000)].into_iter().collect();
        assert_eq!(partition(&scores, 1_000), []);
    }

    proptest! {
        /// Each score lies in exactly one range, for any stored bounds.
        #[test]
        fn each_score_lies_in_one_range(bounds in prop::collection::vec(0_i64..=100, 0..20)) {
            let bounds: Vec<Score> = bounds.into_iter().map(score).collect();
            let every = (0..=100).map(|value| (score(value), 1)).collect();
            let lengths = lengths(&every, &bounds);
            prop_assert!(lengths.len() <= MAX_RANGES);
            prop_assert!(lengths.iter().all(|length| *length > 0));
            prop_assert_eq!(lengths.iter().sum::<usize>(), 101);
        }

        /// A division never takes much more than a single listing would.
        #[test]
        fn a_division_costs_hardly_a_page(counts in prop::collection::vec((0_i64..=100, 1_usize..3_000), 0..60)) {
            let scores: ScoreHistogram = counts
                .iter()
                .map(|(value, count)| (score(*value), *count))
                .collect();
            let bounds = partition(&scores, 1_000);
            let taken: usize = lengths(&scores, &bounds).into_iter().map(|length| length.div_ceil(1_000)).sum();
            let whole = scores.total().div_ceil(1_000);
            prop_assert!(taken <= whole + (whole / 16).max(1));
        }
    }
}
