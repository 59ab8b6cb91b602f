//! The score listing, read in parts at the same time.
//!
//! Each page names the next one, so a single listing takes one request after the other, 1,000 scores each. If the
//! distribution of the scores is known, ranges ([`ranges`](crate::domain::fetch::ranges)) are read at the same time. If
//! not, each part is read from both ends until the two meet, which takes half the time for any distribution.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::future::{try_join, try_join_all};

use crate::domain::fetch::SCORES_PER_PAGE;
use crate::domain::fetch::ranges::{Range, even_ranges};
use crate::domain::inventory::host::{Aid, Assessment, Assessments};
use crate::falcon::paging::{ListedRecord, Step};
use crate::falcon::wire::ScoreRecord;
use crate::falcon::{Falcon, FirstScores, Listing, SCORE_LISTING, SCORES};
use crate::upstream::client::endpoint;
use crate::upstream::error::UpstreamError;

/// A filter is mandatory, and this one excludes nothing.
const EVERY_SCORE: &str = "score:>=0";
/// Pages per part of a listing whose distribution is unknown.
const PAGES_PER_PART: usize = 16;
/// Maximum parts, each read from both ends.
const MAX_PARTS: usize = 5;

/// The order of a listing. Falcon's default is ascending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Ascending,
    Descending,
}

impl Falcon {
    /// Lists all scores of the account. Some belong to sensors that are no visible hosts. The ranges together must cover
    /// all scores.
    ///
    /// # Errors
    /// If one of the listings cannot be read to its end. A partial listing is never returned.
    pub async fn scores(&self, ranges: &[Range]) -> Result<Assessments, UpstreamError> {
        let list = async |range: &Range| {
            let listing = self.score_listing(&range_filter(*range), SCORES_PER_PAGE);
            self.list::<ScoreRecord>(&listing, None).await
        };
        let parts = try_join_all(ranges.iter().map(list)).await?;
        Ok(merge_parts(parts))
    }

    pub(crate) async fn first_scores(&self) -> Result<FirstScores, UpstreamError> {
        let listing = self.score_listing(EVERY_SCORE, SCORES_PER_PAGE);
        self.page(&listing, None).await
    }

    /// Counts the scores, as the score listing announces. Some belong to sensors that are no visible hosts.
    pub(crate) async fn count_scores(&self) -> Result<usize, UpstreamError> {
        let listing = self.score_listing(EVERY_SCORE, 1);
        self.count::<ScoreRecord>(&listing).await
    }

    /// Lists all scores, starting after the first page. Fails as [`Falcon::scores`].
    pub(crate) async fn remaining_scores(
        &self,
        first: FirstScores,
    ) -> Result<Assessments, UpstreamError> {
        let parts = first.total.div_ceil(SCORES_PER_PAGE) / PAGES_PER_PART;
        let ranges = even_ranges(parts.clamp(1, MAX_PARTS));
        // The first page starts the lowest range.
        let firsts = std::iter::once(Some(first)).chain(std::iter::repeat_with(|| None));
        let scans = ranges
            .iter()
            .zip(firsts)
            .map(|(range, first)| self.scan_both_ends(*range, first));
        Ok(merge_parts(try_join_all(scans).await?))
    }

    /// Reads the scores of a range upwards (after the first page, if it is given) and downwards until the two meet.
    async fn scan_both_ends(
        &self,
        range: Range,
        first: Option<FirstScores>,
    ) -> Result<Assessments, UpstreamError> {
        let whole = self.score_listing(&range_filter(range), SCORES_PER_PAGE);
        let mut downwards = whole.clone();
        downwards
            .first_page
            .query_pairs_mut()
            .append_pair("sort", "score|desc");
        // The first page has no range, so its cursor continues a listing without a range.
        let upwards = match first {
            Some(_) => &self.score_listing(EVERY_SCORE, SCORES_PER_PAGE),
            None => &whole,
        };
        let scan = Mutex::default();
        try_join(
            self.scan_from(&scan, Order::Ascending, upwards, first),
            self.scan_from(&scan, Order::Descending, &downwards, None),
        )
        .await?;
        let scan = scan.into_inner().unwrap_or_else(PoisonError::into_inner);
        if !scan.is_complete(0) {
            // The pages came in another order than requested, or too many scores have moved.
            return self.list::<ScoreRecord>(&whole, None).await;
        }
        let entry = |(aid, (score, _))| (aid, score);
        Ok(scan.found.into_iter().map(entry).collect())
    }

    async fn scan_from(
        &self,
        scan: &Mutex<TwoEndedScan>,
        order: Order,
        listing: &Listing,
        first: Option<FirstScores>,
    ) -> Result<(), UpstreamError> {
        let mut step = first.map(|first| lock(scan).add_page(order, first));
        loop {
            let cursor = match step {
                None => None,
                Some(Step::Next(next)) => Some(next),
                Some(Step::End | Step::NoProgress) => return Ok(()),
            };
            if !lock(scan).try_start() {
                return Ok(());
            }
            let result = self.page(listing, cursor.as_deref()).await;
            lock(scan).in_flight -= 1;
            step = match result {
                Ok(page) => Some(lock(scan).add_page(order, page)),
                // The cursor has expired. `TwoEndedScan::is_complete` finds the missing scores.
                Err(error) if error.is_rejected_with(404) && cursor.is_some() => return Ok(()),
                Err(error) => return Err(error),
            };
        }
    }

    fn score_listing(&self, filter: &str, limit: usize) -> Listing {
        let mut first_page = endpoint(&self.base, SCORES);
        first_page
            .query_pairs_mut()
            .append_pair("limit", &limit.to_string())
            .append_pair("filter", filter);
        Listing {
            operation: SCORE_LISTING,
            first_page,
            cursor: "after",
        }
    }
}

/// A listing that is read from both ends.
#[derive(Default)]
struct TwoEndedScan {
    /// The end that found a score first tells whether the score is found again because it moved.
    found: BTreeMap<Aid, (Assessment, Order)>,
    total: Option<usize>,
    /// Scores that one end found twice: for each of them another score has moved past that end unseen.
    duplicates: usize,
    /// Records without a usable aid, by the end that found them.
    unusable: [usize; 2],
    /// Number of requests.
    in_flight: usize,
}

fn lock(scan: &Mutex<TwoEndedScan>) -> MutexGuard<'_, TwoEndedScan> {
    scan.lock().unwrap_or_else(PoisonError::into_inner)
}

impl TwoEndedScan {
    /// Starts a request, and returns `true`, if scores are missing that no request in flight will bring.
    fn try_start(&mut self) -> bool {
        let is_needed = !self.is_complete(self.in_flight * SCORES_PER_PAGE);
        self.in_flight += usize::from(is_needed);
        is_needed
    }

    fn add_page(&mut self, order: Order, page: FirstScores) -> Step {
        if page.records.is_empty() {
            // The total of an empty page only counts if the page is the first one.
            self.total.get_or_insert(page.total);
            return Step::End;
        }
        if page.total >= page.records.len() {
            self.total = Some(self.total.map_or(page.total, |total| total.min(page.total)));
        }
        let known = self.found.len();
        for record in page.records {
            let Some((aid, score)) = record.and_then(ScoreRecord::into_entry) else {
                self.unusable[order as usize] += 1;
                continue;
            };
            match self.found.entry(aid) {
                Entry::Vacant(entry) => {
                    entry.insert((score, order));
                }
                Entry::Occupied(mut entry) => {
                    let (known_score, first_order) = entry.get_mut();
                    self.duplicates += usize::from(*first_order == order);
                    ScoreRecord::merge(known_score, score);
                }
            }
        }
        match page.next {
            Some(_) if self.found.len() == known => Step::NoProgress,
            Some(next) => Step::Next(next),
            None => Step::End,
        }
    }

    /// Returns whether the scores are complete together with `expected` further ones.
    fn is_complete(&self, expected: usize) -> bool {
        let unusable = self.unusable.into_iter().max().unwrap_or(0);
        let received = self.found.len() + self.duplicates + unusable;
        self.total.is_some_and(|total| received + expected >= total)
    }
}

/// Returns the filter of a range, in the forms of the API's own description.
fn range_filter(range: Range) -> String {
    match (range.min, range.max) {
        (None, None) => EVERY_SCORE.to_owned(),
        (None, Some(max)) => format!("score:<={max}"),
        (Some(min), None) => format!("score:>={min}"),
        (Some(min), Some(max)) => format!("score:>={min}+score:<={max}"),
    }
}

/// Merges the parts. A score that moved between ranges is in two parts, and the lower one counts.
fn merge_parts(parts: Vec<Assessments>) -> Assessments {
    let mut all: Vec<(Aid, Assessment)> = parts.into_iter().flatten().collect();
    // Each part is sorted, so this takes little time.
    all.sort_by(|(left, _), (right, _)| left.cmp(right));
    all.dedup_by(|(later, score), (aid, known)| {
        let is_duplicate = later == aid;
        if is_duplicate {
            ScoreRecord::merge(known, score.clone());
        }
        is_duplicate
    });
    all.into_iter().collect()
}
