//! The score listing, in parts that are walked side by side.
//!
//! A page names the one that follows it, so a single listing takes a request for 1,000 scores one after the other. Where
//! the distribution of the scores is known, it is walked in ranges ([`ranges`](crate::domain::fetch::ranges)). Where nothing is
//! known, each part is walked from both of its ends until they meet, which takes half the time at whatever distribution.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::future::{try_join, try_join_all};

use super::paging::{ListingPage, Step};
use super::wire::{self, ScoreRecord};
use super::{Falcon, Listing, SCORE_LISTING, SCORES, SCORES_A_PAGE};
use crate::domain::fetch::ranges::{Range, even_ranges};
use crate::domain::inventory::host::{Aid, Assessment, Assessments};
use crate::falcon::paging::ListedRecord;
use crate::upstream::error::UpstreamError;

/// A filter is mandatory, and this one excludes nothing.
pub(super) const EVERY_SCORE: &str = "score:>=0";

/// An account of so many pages is divided once more, whatever its distribution.
const PAGES_A_PART: usize = 16;
/// Into so many parts at most, with two ends each.
const PARTS: usize = 5;

/// The first page of the score listing, which is all of it in most accounts: the lowest scores.
#[derive(Debug)]
pub struct FirstScores(ListingPage<ScoreRecord>);

/// In which order a listing is walked; Falcon's own is the ascending one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Ascending,
    Descending,
}

impl Falcon {
    /// All scores of the account, some of them of sensors that are no visible hosts. The ranges, which together are all
    /// scores, are walked side by side.
    ///
    /// # Errors
    /// When one of the listings could not be read to its end; a part of it is never returned.
    pub async fn scores(&self, ranges: &[Range]) -> Result<Assessments, UpstreamError> {
        let walk = async |range: &Range| {
            let filter = filter(*range);
            self.crawl::<ScoreRecord>(&scores(&filter, SCORES_A_PAGE), None)
                .await
        };
        let walks = try_join_all(ranges.iter().map(walk)).await?;
        Ok(merged(walks))
    }

    /// The first page of the score listing.
    ///
    /// # Errors
    /// As for any call.
    pub async fn first_scores(&self) -> Result<FirstScores, UpstreamError> {
        let url = scores(EVERY_SCORE, SCORES_A_PAGE).url(&self.base, None);
        self.get(SCORE_LISTING, &url, wire::page)
            .await
            .map(FirstScores)
    }

    /// Likewise all scores, going on after the first page.
    ///
    /// # Errors
    /// See [`Falcon::scores`].
    pub async fn scores_after(&self, first: FirstScores) -> Result<Assessments, UpstreamError> {
        let FirstScores(first) = first;
        let parts = first.total.div_ceil(SCORES_A_PAGE) / PAGES_A_PART;
        let ranges = even_ranges(parts.clamp(1, PARTS));
        // The first page is where the lowest of them begins.
        let firsts = std::iter::once(Some(first)).chain(std::iter::repeat_with(|| None));
        let walks = ranges
            .iter()
            .zip(firsts)
            .map(|(range, first)| self.both_ends(*range, first));
        let walks = try_join_all(walks).await?;
        Ok(merged(walks))
    }

    /// The scores of a range, read upwards (after the first page, if it is here) and downwards until the two meet.
    async fn both_ends(
        &self,
        range: Range,
        first: Option<ListingPage<ScoreRecord>>,
    ) -> Result<Assessments, UpstreamError> {
        let filter = filter(range);
        // The first page of everything goes on as a listing of everything.
        let upwards = if first.is_some() {
            EVERY_SCORE
        } else {
            &filter
        };
        let upwards = scores(upwards, SCORES_A_PAGE);
        let downwards = Listing {
            query: vec![("filter", &filter), ("sort", "score|desc")],
            ..scores(&filter, SCORES_A_PAGE)
        };
        let walk = TwoEndedScan::default();
        let begun = first.map(|first| walk.take(Order::Ascending, first));
        try_join(
            self.one_end(&walk, Order::Ascending, &upwards, begun),
            self.one_end(&walk, Order::Descending, &downwards, None),
        )
        .await?;
        match walk.finish() {
            Some(scores) => Ok(scores),
            // Not in the order that they were asked for, or too many have moved.
            None => {
                self.crawl::<ScoreRecord>(&scores(&filter, SCORES_A_PAGE), None)
                    .await
            }
        }
    }

    async fn one_end(
        &self,
        walk: &TwoEndedScan,
        order: Order,
        listing: &Listing<'_>,
        begun: Option<Step>,
    ) -> Result<(), UpstreamError> {
        let mut cursor = match begun {
            None => None,
            Some(Step::Next(next)) => Some(next),
            Some(Step::End | Step::Stuck) => return Ok(()),
        };
        while walk.sets_out() {
            let url = listing.url(&self.base, cursor.as_deref());
            let page = self.get(listing.operation, &url, wire::page).await;
            walk.is_back();
            match page {
                Ok(page) => match walk.take(order, page) {
                    Step::Next(next) => cursor = Some(next),
                    Step::End | Step::Stuck => break,
                },
                // A cursor that has expired: what is missing will be missed.
                Err(UpstreamError::Rejected { status: 404, .. }) if cursor.is_some() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A listing that is walked from both ends.
#[derive(Default)]
struct TwoEndedScan(Mutex<ScanState>);

#[derive(Default)]
struct ScanState {
    /// By which end a score was first seen tells whether it was seen again because it moved.
    found: BTreeMap<Aid, (Assessment, Order)>,
    total: Option<usize>,
    /// Scores that one end has seen twice: for each of them another one has moved out of its sight.
    moved: usize,
    /// Records without a usable sensor id that each end has seen.
    unusable: [usize; 2],
    /// Requests that are under way.
    away: usize,
}

impl TwoEndedScan {
    fn state(&self) -> MutexGuard<'_, ScanState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is a page to ask for, beside those that the other end has asked for. Where there is, it counts as
    /// under way.
    fn sets_out(&self) -> bool {
        let mut state = self.state();
        let wanted = !state.is_whole(state.away * SCORES_A_PAGE);
        state.away += usize::from(wanted);
        wanted
    }

    fn is_back(&self) {
        self.state().away -= 1;
    }

    fn take(&self, order: Order, page: ListingPage<ScoreRecord>) -> Step {
        self.state().take(order, page)
    }

    /// The scores, if all are here.
    fn finish(self) -> Option<Assessments> {
        let state = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        let scores = |(aid, (score, _))| (aid, score);
        state
            .is_whole(0)
            .then(|| state.found.into_iter().map(scores).collect())
    }
}

impl ScanState {
    fn take(&mut self, order: Order, page: ListingPage<ScoreRecord>) -> Step {
        if page.records.is_empty() {
            // Only the first page's total means anything when it is empty.
            self.total.get_or_insert(page.total);
            return Step::End;
        }
        if page.total >= page.records.len() {
            self.total = Some(self.total.map_or(page.total, |total| total.min(page.total)));
        }
        let known = self.found.len();
        for record in page.records {
            let Some((aid, score)) = record.and_then(ScoreRecord::entry) else {
                self.unusable[order as usize] += 1;
                continue;
            };
            match self.found.entry(aid) {
                Entry::Vacant(place) => {
                    place.insert((score, order));
                }
                Entry::Occupied(mut known) => {
                    let (known, first) = known.get_mut();
                    self.moved += usize::from(*first == order);
                    ScoreRecord::merge(known, score);
                }
            }
        }
        match page.next {
            Some(_) if self.found.len() == known => Step::Stuck,
            Some(next) => Step::Next(next),
            None => Step::End,
        }
    }

    /// Whether all scores are here, together with so many that are on their way.
    fn is_whole(&self, more: usize) -> bool {
        let unusable = self.unusable.into_iter().max().unwrap_or(0);
        let here = self.found.len() + self.moved + unusable;
        self.total.is_some_and(|total| here + more >= total)
    }
}

pub(super) fn scores(filter: &str, limit: usize) -> Listing<'_> {
    Listing {
        operation: SCORE_LISTING,
        path: SCORES,
        limit,
        query: vec![("filter", filter)],
        cursor: "after",
    }
}

/// The filter of a range, in the forms of the API's own description.
fn filter(range: Range) -> String {
    match (range.min, range.max) {
        (None, None) => EVERY_SCORE.to_owned(),
        (None, Some(max)) => format!("score:<={max}"),
        (Some(min), None) => format!("score:>={min}"),
        (Some(min), Some(max)) => format!("score:>={min}+score:<={max}"),
    }
}

/// The scores of all walks. One that moved from one range to another is in two of them, and the lower one counts.
fn merged(walks: Vec<Assessments>) -> Assessments {
    let mut all: Vec<(Aid, Assessment)> = walks.into_iter().flatten().collect();
    // Each walk's are in order, so there is little to sort.
    all.sort_by(|(one, _), (other, _)| one.cmp(other));
    all.dedup_by(|(later, score), (aid, known)| {
        let again = later == aid;
        if again {
            ScoreRecord::merge(known, score.clone());
        }
        again
    });
    all.into_iter().collect()
}
