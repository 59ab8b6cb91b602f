//! Whether a listing can be read, and how much is in it: the listing's own call with a page of one record.

use serde::de::DeserializeOwned;

use crate::falcon::paging::{ListedRecord, ListingPage};
use crate::falcon::scores::{EVERY_SCORE, scores};
use crate::falcon::wire::{self, HostRecord, ScoreRecord};
use crate::falcon::{Falcon, HOST_LISTING, Listing, hosts};
use crate::upstream::error::UpstreamError;

/// Records in the page.
const ONE: usize = 1;

impl Falcon {
    /// How many visible hosts the account has, as the host listing announces. Hidden ones are not counted.
    ///
    /// It is one request of the form that [`Falcon::hosts`] makes, so where it is answered that one is allowed too.
    ///
    /// # Errors
    /// [`UpstreamError::MissingScope`] without `Hosts: Read`; [`UpstreamError::Incomplete`] where the announced number
    /// and the page contradict each other; or as for any call.
    pub async fn probe_hosts(&self) -> Result<usize, UpstreamError> {
        let listing = hosts(HOST_LISTING, ONE, None);
        self.probe::<HostRecord>(&listing).await
    }

    /// How many scores the account has, as the score listing announces; some are of sensors that are no visible hosts.
    ///
    /// It is one request of the form that [`Falcon::scores`] makes, so where it is answered that one is allowed too.
    ///
    /// # Errors
    /// [`UpstreamError::MissingScope`] without `Zero Trust Assessment: Read`; [`UpstreamError::Incomplete`] where the
    /// announced number and the page contradict each other; or as for any call.
    pub async fn probe_scores(&self) -> Result<usize, UpstreamError> {
        self.probe::<ScoreRecord>(&scores(EVERY_SCORE, ONE)).await
    }

    async fn probe<R: ListedRecord + DeserializeOwned>(
        &self,
        listing: &Listing<'_>,
    ) -> Result<usize, UpstreamError> {
        let url = listing.url(&self.base, None);
        let ListingPage { records, total, .. }: ListingPage<R> =
            self.get(listing.operation, &url, wire::page).await?;
        // Below the page's own records it says nothing (a crawl does not believe it either), and an empty page is right
        // only where there is nothing.
        if total < records.len() || (records.is_empty() && total > 0) {
            return Err(listing.operation.incomplete(records.len(), total));
        }
        Ok(total)
    }
}
