//! The score listing, read in parts at the same time.
//!
//! Each page names the next one, so a single listing takes one request after the other, 1,000 scores each. If the
//! distribution of the scores is known, ranges ([`ranges`](crate::domain::fetch::ranges)) are read at the same time. If
//! not, each part is read from both ends until the two meet, which takes half the time for any distribution.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::future::{try_join, try_join_all};

use super::paging::{ListingPage, Step};
use super::wire::{self, ScoreRecord};
use super::{Falcon, Listing, SCORE_LISTING, SCORES, SCORES_PER_PAGE};
use crate::domain::fetch::ranges::{Range, even_ranges};
use crate::domain::inventory::host::{Aid, Assessment, Assessments};
use crate::falcon::paging::ListedRecord;
use crate::upstream::error::UpstreamError;

/// A filter is mandatory, and this one excludes nothing.
pub(super) const EVERY_SCORE: &str = "score:>=0";

/// Pages per part of a listing whose distribution is unknown.
const PAGES_PER_PART: usize = 16;
/// Maximum parts, each read from both ends.
const MAX_PARTS: usize = 5;

/// The first page of the score listing, with the lowest scores. It is complete in most accounts.
#[derive(Debug)]
pub(crate) struct FirstScores(ListingPage<ScoreRecord>);

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
            let filter = range_filter(*range);
            self.list::<ScoreRecord>(&score_listing(&filter, SCORES_PER_PAGE), None)
                .await
        };
        let parts = try_join_all(ranges.iter().map(list)).await?;
        Ok(merge_parts(parts))
    }

    /// Reads the first page of the score listing.
    pub(crate) async fn first_scores(&self) -> Result<FirstScores, UpstreamError> {
        let url = score_listing(EVERY_SCORE, SCORES_PER_PAGE).url(&self.base, None);
        self.get(SCORE_LISTING, &url, wire::page)
            .await
            .map(FirstScores)
    }

    /// Lists all scores, starting after the first page. Fails as [`Falcon::scores`].
    pub(crate) async fn remaining_scores(
        &self,
        FirstScores(first): FirstScores,
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
        first: Option<ListingPage<ScoreRecord>>,
    ) -> Result<Assessments, UpstreamError> {
        let filter = range_filter(range);
        // The first page has no range, so its cursor continues a listing without a range.
        let upward_filter = if first.is_some() {
            EVERY_SCORE
        } else {
            &filter
        };
        let upwards = score_listing(upward_filter, SCORES_PER_PAGE);
        let downwards = Listing {
            query: vec![("filter", &filter), ("sort", "score|desc")],
            ..score_listing(&filter, SCORES_PER_PAGE)
        };
        let scan = TwoEndedScan::default();
        let first_step = first.map(|first| scan.add_page(Order::Ascending, first));
        try_join(
            self.scan_from(&scan, Order::Ascending, &upwards, first_step),
            self.scan_from(&scan, Order::Descending, &downwards, None),
        )
        .await?;
        match scan.finish() {
            Some(scores) => Ok(scores),
            // The pages came in another order than requested, or too many scores have moved.
            None => {
                self.list::<ScoreRecord>(&score_listing(&filter, SCORES_PER_PAGE), None)
                    .await
            }
        }
    }

    async fn scan_from(
        &self,
        scan: &TwoEndedScan,
        order: Order,
        listing: &Listing<'_>,
        first_step: Option<Step>,
    ) -> Result<(), UpstreamError> {
        let mut cursor = match first_step {
            None => None,
            Some(Step::Next(next)) => Some(next),
            Some(Step::End | Step::NoProgress) => return Ok(()),
        };
        while scan.try_start() {
            let url = listing.url(&self.base, cursor.as_deref());
            let result = self.get(listing.operation, &url, wire::page).await;
            scan.finish_request();
            match result {
                Ok(page) => match scan.add_page(order, page) {
                    Step::Next(next) => cursor = Some(next),
                    Step::End | Step::NoProgress => break,
                },
                // The cursor has expired. `TwoEndedScan::finish` finds the missing scores.
                Err(error) if error.is_rejected_with(404) && cursor.is_some() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A listing that is read from both ends.
#[derive(Default)]
struct TwoEndedScan(Mutex<ScanState>);

#[derive(Default)]
struct ScanState {
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

impl TwoEndedScan {
    fn state(&self) -> MutexGuard<'_, ScanState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a request, and returns `true`, if scores are missing that no request in flight will bring.
    fn try_start(&self) -> bool {
        let mut state = self.state();
        let is_needed = !state.is_complete(state.in_flight * SCORES_PER_PAGE);
        state.in_flight += usize::from(is_needed);
        is_needed
    }

    fn finish_request(&self) {
        self.state().in_flight -= 1;
    }

    fn add_page(&self, order: Order, page: ListingPage<ScoreRecord>) -> Step {
        self.state().add_page(order, page)
    }

    /// Returns the scores if they are complete.
    fn finish(self) -> Option<Assessments> {
        let state = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        let entry = |(aid, (score, _))| (aid, score);
        state
            .is_complete(0)
            .then(|| state.found.into_iter().map(entry).collect())
    }
}

impl ScanState {
    fn add_page(&mut self, order: Order, page: ListingPage<ScoreRecord>) -> Step {
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

pub(super) fn score_listing(filter: &str, limit: usize) -> Listing<'_> {
    Listing {
        operation: SCORE_LISTING,
        path: SCORES,
        limit,
        query: vec![("filter", filter)],
        cursor: "after",
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
