//! When a listing is at its end, and whether it was whole.
//!
//! Hosts and scores move while they are paged through, a cursor may be offered where nothing is left, and the page past
//! the end announces a total of 0 (all recorded). So the end is judged by records, and completeness by the smallest
//! total that a page with records announced.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::domain::inventory::host::Aid;
use crate::upstream::error::{Progress, UpstreamError};
use crate::upstream::operation::Operation;

/// A listed thing that belongs to a sensor.
pub(super) trait ListedRecord {
    /// What is kept of it.
    type Value;

    /// The thing by its sensor; nothing where the sensor's id is missing.
    fn entry(self) -> Option<(Aid, Self::Value)>;

    /// What counts when a sensor is listed twice.
    fn merge(known: &mut Self::Value, later: Self::Value);
}

/// A page of a listing. A `null` in the list is a record without an id.
#[derive(Debug)]
pub(super) struct ListingPage<R> {
    pub(super) records: Vec<Option<R>>,
    pub(super) total: usize,
    pub(super) next: Option<String>,
}

/// What to do after a page.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Ask for the page at this cursor.
    Next(String),
    /// There is no more.
    End,
    /// The page brought nothing new, or is one of too many, yet points to another one: going on might never end.
    Stuck,
}

/// No account has so many pages: a crawl of the largest that anybody spoke of has a few hundred.
const PAGES: usize = 5_000;

/// A crawl under way.
#[derive(Debug)]
pub(super) struct PageCollector<R: ListedRecord> {
    found: BTreeMap<Aid, R::Value>,
    pages: usize,
    /// Records, those that came twice and those without an id included.
    received: usize,
    unusable: usize,
    total: Option<usize>,
}

impl<R: ListedRecord> Default for PageCollector<R> {
    fn default() -> Self {
        Self {
            found: BTreeMap::new(),
            pages: 0,
            received: 0,
            unusable: 0,
            total: None,
        }
    }
}

impl<R: ListedRecord> PageCollector<R> {
    /// Takes a page in.
    pub(super) fn take(&mut self, page: ListingPage<R>) -> Step {
        if page.records.is_empty() {
            // Only the first page's total means anything when it is empty.
            self.total.get_or_insert(page.total);
            return Step::End;
        }
        // A total below the page's own records says nothing.
        if page.total >= page.records.len() {
            self.total = Some(self.total.map_or(page.total, |total| total.min(page.total)));
        }
        self.pages += 1;
        let known = self.found.len();
        for record in page.records {
            self.add(record);
        }
        match page.next {
            Some(next) if self.total.is_none_or(|total| self.found.len() < total) => {
                if self.found.len() == known || self.pages == PAGES {
                    Step::Stuck
                } else {
                    Step::Next(next)
                }
            }
            _ => Step::End,
        }
    }

    fn add(&mut self, record: Option<R>) {
        self.received += 1;
        let Some((aid, value)) = record.and_then(R::entry) else {
            self.unusable += 1;
            return;
        };
        match self.found.entry(aid) {
            Entry::Vacant(place) => {
                place.insert(value);
            }
            Entry::Occupied(mut known) => R::merge(known.get_mut(), value),
        }
    }

    /// Records without a usable id.
    pub(super) fn unusable(&self) -> usize {
        self.unusable
    }

    /// The records by sensor, if as many came as were announced.
    pub(super) fn finish(
        self,
        operation: Operation,
    ) -> Result<BTreeMap<Aid, R::Value>, UpstreamError> {
        if self.total.is_some_and(|total| self.received >= total) {
            Ok(self.found)
        } else {
            Err(self.incomplete(operation))
        }
    }

    /// The error that ended a crawl; where its time was up, with how far it had come.
    pub(super) fn interrupted(&self, mut error: UpstreamError) -> UpstreamError {
        if let (UpstreamError::Deadline { progress, .. }, Some(total)) = (&mut error, self.total) {
            let got = self.received;
            *progress = Some(Progress { got, total });
        }
        error
    }

    /// The error of a crawl that cannot go on.
    pub(super) fn incomplete(&self, operation: Operation) -> UpstreamError {
        operation.incomplete(self.received, self.total.unwrap_or(0))
    }
}
