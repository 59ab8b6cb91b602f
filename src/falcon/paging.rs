//! Collects the pages of a listing and decides where it ends and whether it is complete.
//!
//! Recorded traffic: hosts and scores move between pages, a last page can have a cursor, and the page past the end
//! announces a total of 0. So records decide about the end. The smallest total of a page with records decides about
//! completeness.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde::de::DeserializeOwned;
use tracing::warn;

use crate::domain::inventory::host::Aid;
use crate::upstream::error::{Operation, Progress, UpstreamError, UpstreamErrorKind};

/// A record of a listing, keyed by aid.
pub(super) trait ListedRecord: DeserializeOwned {
    type Value;

    /// Returns the aid and the value; `None` without a usable aid.
    fn into_entry(self) -> Option<(Aid, Self::Value)>;

    /// Merges a second record of the same aid into the known one.
    fn merge(known: &mut Self::Value, later: Self::Value);
}

/// A page of a listing. A `null` in the list is a record without an id.
#[derive(Debug)]
pub(crate) struct ListingPage<R> {
    pub(super) records: Vec<Option<R>>,
    pub(super) total: usize,
    pub(super) next: Option<String>,
}

impl<R> ListingPage<R> {
    /// Returns the announced number of records in the account.
    pub(crate) fn announced(&self) -> usize {
        self.total.max(self.records.len())
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Next(String),
    End,
    /// The page points to another one but has no new record, or the listing has too many pages. It might never end.
    NoProgress,
}

/// Maximum pages of a listing. The largest known account has a few hundred.
const MAX_PAGES: usize = 5_000;

/// The records of the pages so far.
#[derive(Debug)]
pub(super) struct PageCollector<R: ListedRecord> {
    found: BTreeMap<Aid, R::Value>,
    pages: usize,
    /// Number of records, including duplicates and records without an aid.
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
    pub(super) fn add_page(&mut self, page: ListingPage<R>) -> Step {
        if page.records.is_empty() {
            // The total of an empty page only counts if the page is the first one.
            self.total.get_or_insert(page.total);
            return Step::End;
        }
        // A total below the number of the page's records is wrong.
        if page.total >= page.records.len() {
            self.total = Some(self.total.map_or(page.total, |total| total.min(page.total)));
        }
        self.pages += 1;
        let known = self.found.len();
        self.received += page.records.len();
        for record in page.records {
            let Some((aid, value)) = record.and_then(R::into_entry) else {
                self.unusable += 1;
                continue;
            };
            match self.found.entry(aid) {
                Entry::Vacant(entry) => {
                    entry.insert(value);
                }
                Entry::Occupied(mut entry) => R::merge(entry.get_mut(), value),
            }
        }
        let found = self.found.len();
        match page.next {
            None => Step::End,
            Some(_) if self.total.is_some_and(|total| found >= total) => Step::End,
            Some(_) if found == known || self.pages == MAX_PAGES => Step::NoProgress,
            Some(next) => Step::Next(next),
        }
    }

    /// Returns the records of a listing that is at its end.
    pub(super) fn finish(self, operation: Operation) -> Collected<R> {
        if self.unusable > 0 {
            warn!(
                operation = operation.name,
                records = self.unusable,
                "records without a sensor id were skipped"
            );
        }
        if self.total.is_some_and(|total| self.received >= total) {
            Collected::Complete {
                has_repeats: self.total > Some(self.found.len()),
                records: self.found,
            }
        } else {
            Collected::Short(self.into_short(true))
        }
    }

    /// Returns the records of a listing that cannot be continued.
    pub(super) fn cut_off(self) -> Collected<R> {
        Collected::Short(self.into_short(false))
    }

    fn into_short(self, is_at_end: bool) -> ShortListing<R> {
        ShortListing {
            progress: self.progress(),
            records: self.found,
            is_at_end,
        }
    }

    fn progress(&self) -> Progress {
        Progress {
            got: self.received,
            total: self.total.unwrap_or(0),
        }
    }

    /// Adds the progress of the listing to an exceeded deadline.
    pub(super) fn with_progress(&self, mut error: UpstreamError) -> UpstreamError {
        if let (UpstreamErrorKind::Deadline { progress }, Some(_)) = (&mut error.kind, self.total) {
            *progress = Some(self.progress());
        }
        error
    }
}

/// The records of a listing, by aid.
pub(super) enum Collected<R: ListedRecord> {
    /// As many as were announced.
    Complete {
        records: BTreeMap<Aid, R::Value>,
        /// True if some came twice, so that others may be missing.
        has_repeats: bool,
    },
    /// Fewer.
    Short(ShortListing<R>),
}

/// A listing with fewer records than were announced.
pub(super) struct ShortListing<R: ListedRecord> {
    pub(super) records: BTreeMap<Aid, R::Value>,
    pub(super) progress: Progress,
    /// False if the listing was cut off.
    is_at_end: bool,
}

/// Maximum records that a listing may lack and still be used. They are also at most a tenth of the total.
const MAX_MISSING: usize = 10;

impl<R: ListedRecord> ShortListing<R> {
    /// Returns whether both listings came to their end and lack the same few records.
    pub(super) fn is_as_short_as(&self, other: &Self) -> bool {
        let Progress { total, .. } = self.progress;
        let missing = self.missing();
        let are_few = missing <= MAX_MISSING && missing * 10 <= total;
        self.is_at_end && other.is_at_end && are_few && missing == other.missing()
    }

    fn missing(&self) -> usize {
        self.progress.total.saturating_sub(self.progress.got)
    }

    pub(super) fn error(&self, operation: Operation) -> UpstreamError {
        operation.incomplete(self.progress.got, self.progress.total)
    }
}
