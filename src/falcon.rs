//! Falcon's API: hosts and Zero Trust Assessment scores. Every call only reads.
//!
//! A run lists all hosts and all scores (12 requests for 10,000 hosts instead of one look-up a device), or looks up the
//! hosts and scores of a few devices.

mod errors;
mod paging;
mod rate_limit;
mod scores;
#[cfg(test)]
mod tests;
mod token;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::{try_join, try_join_all};
use jiff::Timestamp;
use reqwest::{Method, Url};
use tracing::warn;

use crate::batch::batches;
use crate::domain::fetch::{HOSTS_PER_LOOKUP, HOSTS_PER_PAGE, SCORES_PER_LOOKUP};
use crate::domain::inventory::host::{Aid, Assessments, Hosts};
use crate::domain::status::error_kind::Service;
use crate::falcon::paging::{Collected, ListedRecord, ListingPage, PageCollector, Step};
use crate::falcon::rate_limit::RateLimiter;
use crate::falcon::wire::{HostRecord, ScoreRecord};
use crate::secrets::FalconCredentials;
use crate::settings::CloudId;
use crate::text::error_chain;
use crate::upstream::auth::{AccessToken, TokenCache};
use crate::upstream::client::{ApiClient, Response, endpoint};
use crate::upstream::error::{Operation, Progress, UpstreamError};
use crate::upstream::sessions::Session;

/// The first page of the host listing, which is complete in most accounts.
pub(crate) type FirstHosts = ListingPage<HostRecord>;
/// The first page of the score listing, with the lowest scores. It is complete in most accounts.
pub(crate) type FirstScores = ListingPage<ScoreRecord>;

const HOST_LISTING: Operation = Operation::new(Service::Falcon, "host listing", HOSTS_READ);
const HOST_LOOK_UP: Operation = Operation::new(Service::Falcon, "host lookup", HOSTS_READ);
const SCORE_LISTING: Operation = Operation::new(Service::Falcon, "score listing", ASSESSMENTS_READ);
const SCORE_LOOK_UP: Operation = Operation::new(Service::Falcon, "score lookup", ASSESSMENTS_READ);

const HOSTS_READ: &str = "Hosts: Read";
const ASSESSMENTS_READ: &str = "Zero Trust Assessment: Read";
const HOSTS: [&str; 4] = ["devices", "combined", "devices", "v1"];
const SCORES: [&str; 4] = ["zero-trust-assessment", "queries", "assessments", "v1"];
const ASSESSMENTS: [&str; 4] = ["zero-trust-assessment", "entities", "assessments", "v1"];

/// The requested fields of a host: 200 bytes a host instead of 3,700.
const FIELDS: &str = "device_id,serial_number,hostname,first_seen,last_seen,platform_name,status";
/// Maximum bytes of a filter: serials of virtual machines have 54 characters.
const MAX_FILTER_BYTES: usize = 10 << 10;
/// Maximum bytes of a response: a page of 10,000 hosts has some 2 MB, a look-up of 500 assessments 4 MB.
const MAX_RESPONSE_BYTES: usize = 32 << 20;

/// A session with the Falcon API.
#[derive(Debug)]
pub struct Falcon {
    client: ApiClient,
    /// The cloud of the account, which can differ from the named one.
    pub(crate) cloud: CloudId,
    base: Url,
    credentials: FalconCredentials,
    limiter: RateLimiter,
    token: Arc<TokenCache>,
    /// Listings that were a few records short of their total and are used nevertheless, by operation.
    short_listings: Mutex<BTreeMap<&'static str, Progress>>,
    /// True if the listing of hosts had some twice.
    are_hosts_repeated: AtomicBool,
}

/// The cloud of an account, and a token for it. Clones share the token.
#[derive(Clone, Debug)]
pub(crate) struct FalconSession {
    cloud: CloudId,
    base: Url,
    token: Arc<TokenCache>,
}

impl Session for FalconSession {
    fn is_usable(&self, now: Timestamp) -> bool {
        self.token.is_usable(now)
    }
}

/// A listing that comes in pages.
#[derive(Clone)]
struct Listing {
    operation: Operation,
    first_page: Url,
    /// The parameter that takes the cursor.
    cursor: &'static str,
}

impl Falcon {
    /// Signs in at the named cloud, or at the cloud that it redirects to.
    ///
    /// # Errors
    /// If the credentials are rejected, the account lives in an unknown cloud, or no response arrived.
    pub async fn sign_in(
        client: ApiClient,
        clouds: &BTreeMap<CloudId, Url>,
        cloud: &CloudId,
        credentials: FalconCredentials,
    ) -> Result<Self, UpstreamError> {
        let (cloud, base, token) = token::sign_in(&client, clouds, cloud, &credentials).await?;
        let session = FalconSession {
            cloud: cloud.clone(),
            base: base.clone(),
            token: Arc::new(TokenCache::new(token)),
        };
        Ok(Self::resume(client, session, credentials))
    }

    /// Goes on with a session that was signed in with the same credentials. Makes no call.
    pub(crate) fn resume(
        client: ApiClient,
        session: FalconSession,
        credentials: FalconCredentials,
    ) -> Self {
        let FalconSession { cloud, base, token } = session;
        Self {
            cloud,
            base,
            credentials,
            short_listings: Mutex::default(),
            are_hosts_repeated: AtomicBool::new(false),
            limiter: RateLimiter::new(client.budget.clone()),
            token,
            client,
        }
    }

    pub(crate) fn session(&self) -> FalconSession {
        FalconSession {
            cloud: self.cloud.clone(),
            base: self.base.clone(),
            token: Arc::clone(&self.token),
        }
    }

    /// Returns the listings that were a few records short of their total, by operation.
    pub(crate) fn short_listings(&self) -> MutexGuard<'_, BTreeMap<&'static str, Progress>> {
        let listings = self.short_listings.lock();
        listings.unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns true if the listing of hosts had fewer distinct ones than its total: any host may be missing.
    pub(crate) fn lacks_hosts(&self) -> bool {
        let is_short = self.short_listings().contains_key(HOST_LISTING.name);
        is_short || self.are_hosts_repeated.load(Ordering::Relaxed)
    }

    /// Lists all visible hosts of the account. Hidden hosts are not included.
    ///
    /// # Errors
    /// If the listing cannot be read to its end. A partial listing is never returned.
    pub async fn hosts(&self) -> Result<Hosts, UpstreamError> {
        self.remaining_hosts(None).await
    }

    pub(crate) async fn first_hosts(&self) -> Result<FirstHosts, UpstreamError> {
        self.page(&self.all_hosts(), None).await
    }

    /// Lists all hosts, starting after the first page if it is given. Fails as [`Falcon::hosts`].
    pub(crate) async fn remaining_hosts(
        &self,
        first: Option<FirstHosts>,
    ) -> Result<Hosts, UpstreamError> {
        self.list(&self.all_hosts(), first).await
    }

    /// Counts the visible hosts, as the host listing announces. Hidden hosts are not counted.
    pub(crate) async fn count_hosts(&self) -> Result<usize, UpstreamError> {
        let listing = host_listing(&self.base, HOST_LISTING, 1, None);
        self.count::<HostRecord>(&listing).await
    }

    fn all_hosts(&self) -> Listing {
        host_listing(&self.base, HOST_LISTING, HOSTS_PER_PAGE, None)
    }

    /// Finds the visible hosts with one of these serials or aids.
    ///
    /// The values stand in a filter expression, and some come from devices. A serial with a character that serials do not
    /// have (a quote, a backslash, a star) is left out, and so is an invalid aid. A list of values is compared by case, so the
    /// caller gives each spelling. An incomplete look-up is an error.
    pub(crate) async fn hosts_matching(
        &self,
        serials: &BTreeSet<String>,
        aids: &BTreeSet<Aid>,
    ) -> Result<Hosts, UpstreamError> {
        let filterable = serials.iter().filter(|serial| is_filterable(serial));
        let serials: Vec<String> = filterable.cloned().collect();
        let aids = valid_aids(aids);
        let look_up = async |field: &str, values: &[String]| {
            let filter = format!("{field}:['{}']", values.join("','"));
            let listing = host_listing(&self.base, HOST_LOOK_UP, HOSTS_PER_PAGE, Some(&filter));
            self.list::<HostRecord>(&listing, None).await
        };
        let by_serial = filter_chunks(&serials).map(|serials| look_up("serial_number", serials));
        let by_aid = filter_chunks(&aids).map(|aids| look_up("device_id", aids));
        let (by_serial, by_aid) = try_join(try_join_all(by_serial), try_join_all(by_aid)).await?;
        Ok(by_serial.into_iter().chain(by_aid).flatten().collect())
    }

    /// Gets the assessments of these hosts. A host without an assessment is missing in the result.
    pub(crate) async fn scores_of(
        &self,
        aids: &BTreeSet<Aid>,
    ) -> Result<Assessments, UpstreamError> {
        let look_up = async |ids: &[String]| {
            let mut url = endpoint(&self.base, ASSESSMENTS);
            url.query_pairs_mut()
                .extend_pairs(ids.iter().map(|id| ("ids", id)));
            self.get(SCORE_LOOK_UP, &url, wire::assessments).await
        };
        let ids = valid_aids(aids);
        let chunks = try_join_all(ids.chunks(SCORES_PER_LOOKUP).map(look_up)).await?;
        let mut assessments: Assessments = chunks.into_iter().flatten().collect();
        assessments.retain(|aid, _| aids.contains(aid));
        Ok(assessments)
    }

    /// Reads a listing to its end. An incomplete listing is read once more from the start: a cursor may have expired, and
    /// records move between pages. If it then is short by the same few records, Falcon counts what it does not list.
    async fn list<R: ListedRecord>(
        &self,
        listing: &Listing,
        first: Option<ListingPage<R>>,
    ) -> Result<BTreeMap<Aid, R::Value>, UpstreamError> {
        let operation = listing.operation;
        let complete = |records, has_repeats| {
            if has_repeats && operation == HOST_LISTING {
                self.are_hosts_repeated.store(true, Ordering::Relaxed);
            }
            Ok(records)
        };
        let first = match self.list_once::<R>(listing, first).await? {
            Collected::Complete {
                records,
                has_repeats,
            } => return complete(records, has_repeats),
            Collected::Short(first) => first,
        };
        let error = first.error(operation);
        warn!(
            error = error_chain(&error),
            "a listing was incomplete and is read again"
        );
        match self.list_once::<R>(listing, None).await? {
            Collected::Complete {
                records,
                has_repeats,
            } => complete(records, has_repeats),
            // A lookup answers for each of its values: what it lacks counts as absent.
            Collected::Short(second)
                if operation != HOST_LOOK_UP && second.is_as_short_as(&first) =>
            {
                self.short_listings()
                    .insert(operation.name, second.progress);
                Ok(second.records)
            }
            Collected::Short(second) => Err(second.error(operation)),
        }
    }

    async fn list_once<R: ListedRecord>(
        &self,
        listing: &Listing,
        mut first: Option<ListingPage<R>>,
    ) -> Result<Collected<R>, UpstreamError> {
        let mut collector = PageCollector::<R>::default();
        let mut cursor: Option<String> = None;
        loop {
            let result = match first.take() {
                Some(first) => Ok(first),
                None => self.page(listing, cursor.as_deref()).await,
            };
            let page = match result {
                // The sibling services reject an expired cursor with 404 (elastic/integrations#14670).
                Err(error) if error.is_rejected_with(404) && cursor.is_some() => {
                    return Ok(collector.cut_off());
                }
                Err(error) => return Err(collector.with_progress(error)),
                Ok(page) => page,
            };
            match collector.add_page(page) {
                Step::Next(next) => cursor = Some(next),
                Step::NoProgress => return Ok(collector.cut_off()),
                Step::End => break,
            }
        }
        Ok(collector.finish(listing.operation))
    }

    /// Returns the number of records that a listing announces. Its success means that the whole listing is allowed, too.
    /// Fails also if the announced number and the page contradict each other.
    async fn count<R: ListedRecord>(&self, listing: &Listing) -> Result<usize, UpstreamError> {
        let ListingPage { records, total, .. } = self.page::<R>(listing, None).await?;
        // A total below the page's records is wrong (a listing ignores it, too). An empty page must announce 0.
        if total < records.len() || (records.is_empty() && total > 0) {
            return Err(listing.operation.incomplete(records.len(), total));
        }
        Ok(total)
    }

    /// Reads the page at a cursor, or the first one.
    async fn page<R: ListedRecord>(
        &self,
        listing: &Listing,
        cursor: Option<&str>,
    ) -> Result<ListingPage<R>, UpstreamError> {
        let url = listing.url(cursor);
        self.get(listing.operation, &url, wire::page).await
    }

    async fn get<T>(
        &self,
        operation: Operation,
        url: &Url,
        read: fn(Operation, &Response) -> Result<T, UpstreamError>,
    ) -> Result<T, UpstreamError> {
        let mint = || token::mint(&self.client, &self.base, &self.credentials);
        let attempt = |token: AccessToken| async move {
            let permit = self.limiter.acquire().await;
            let request = token.authorize(self.client.request(Method::GET, url.clone()));
            let response = self
                .client
                .send(request, operation, MAX_RESPONSE_BYTES)
                .await?;
            drop(permit);
            if let Some((limit, remaining)) = errors::quota(&response) {
                self.limiter.record_quota(limit, remaining);
            }
            read(operation, &response)
        };
        self.token
            .with_token(&self.client, operation, mint, attempt)
            .await
    }
}

impl Listing {
    fn url(&self, cursor: Option<&str>) -> Url {
        let mut url = self.first_page.clone();
        url.query_pairs_mut()
            .extend_pairs(cursor.map(|cursor| (self.cursor, cursor)));
        url
    }
}

fn host_listing(base: &Url, operation: Operation, limit: usize, filter: Option<&str>) -> Listing {
    let mut first_page = endpoint(base, HOSTS);
    first_page
        .query_pairs_mut()
        .append_pair("limit", &limit.to_string())
        .append_pair("fields", FIELDS)
        .extend_pairs(filter.map(|filter| ("filter", filter)));
    Listing {
        operation,
        first_page,
        // The offset is the `next` of the previous page.
        cursor: "offset",
    }
}

/// Splits values into chunks that fit into one filter each. A single value is sent whatever its length.
fn filter_chunks(values: &[String]) -> impl Iterator<Item = &[String]> {
    let quoted = |value: &String| value.len() + "','".len();
    batches(values, HOSTS_PER_LOOKUP, MAX_FILTER_BYTES, quoted)
}

/// Returns true if a serial can stand between the quotes of a filter without changing its meaning.
fn is_filterable(serial: &str) -> bool {
    !serial.is_empty()
        && serial
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b" ._/-:#+()".contains(&b))
}

/// Returns the aids in the form that Falcon gives them.
fn valid_aids(aids: &BTreeSet<Aid>) -> Vec<String> {
    aids.iter()
        .filter(|aid| aid.is_hex())
        .map(Aid::to_string)
        .collect()
}
