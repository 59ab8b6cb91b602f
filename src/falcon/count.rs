//! Counts hosts and scores, and so tests the scopes: the call of a listing with a page of one record.

use serde::de::DeserializeOwned;

use crate::falcon::paging::{ListedRecord, ListingPage};
use crate::falcon::scores::{EVERY_SCORE, score_listing};
use crate::falcon::wire::{self, HostRecord, ScoreRecord};
use crate::falcon::{Falcon, HOST_LISTING, Listing, host_listing};
use crate::upstream::error::UpstreamError;

impl Falcon {
    /// Counts the visible hosts, as the host listing announces. Hidden hosts are not counted.
    ///
    /// The request has the form of [`Falcon::hosts`], so its success means that the listing is allowed, too.
    ///
    /// # Errors
    /// As for any call; also if the announced number and the page contradict each other.
    pub(crate) async fn count_hosts(&self) -> Result<usize, UpstreamError> {
        let listing = host_listing(HOST_LISTING, 1, None);
        self.count::<HostRecord>(&listing).await
    }

    /// Counts the scores, as the score listing announces. Some belong to sensors that are no visible hosts.
    ///
    /// The request has the form of [`Falcon::scores`], so its success means that the listing is allowed, too.
    ///
    /// # Errors
    /// As for any call; also if the announced number and the page contradict each other.
    pub(crate) async fn count_scores(&self) -> Result<usize, UpstreamError> {
        self.count::<ScoreRecord>(&score_listing(EVERY_SCORE, 1))
            .await
    }

    async fn count<R: ListedRecord + DeserializeOwned>(
        &self,
        listing: &Listing<'_>,
    ) -> Result<usize, UpstreamError> {
        let url = listing.url(&self.base, None);
        let ListingPage { records, total, .. }: ListingPage<R> =
            self.get(listing.operation, &url, wire::page).await?;
        // A total below the page's records is wrong (a listing ignores it, too). An empty page must announce 0.
        if total < records.len() || (records.is_empty() && total > 0) {
            return Err(listing.operation.incomplete(records.len(), total));
        }
        Ok(total)
    }
}
