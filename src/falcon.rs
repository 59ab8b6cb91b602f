//! Falcon's API: hosts and Zero Trust Assessment scores. All of it reads.
//!
//! A run lists all hosts and all scores, two listings instead of one look-up a device (12 requests for 10,000 hosts), or
//! looks up what a few devices need. What a listing lacks is looked up directly before it is believed to be gone.

mod errors;
mod paging;
mod probe;
mod scores;
#[cfg(test)]
mod tests;
mod token;
mod wire;

use std::collections::{BTreeMap, BTreeSet};

use futures::future::{try_join, try_join_all};
use reqwest::{Method, Url};
use serde::de::DeserializeOwned;
use tracing::warn;

use crate::domain::inventory::host::{Aid, Assessments, Hosts};
use crate::domain::status::error_kind::Service;
use crate::falcon::paging::{ListedRecord, ListingPage, PageCollector, Step};
use crate::falcon::wire::HostRecord;
use crate::secrets::FalconCredentials;
use crate::settings::CloudId;
use crate::text::error_chain;
use crate::upstream::auth::{AccessToken, TokenCache, TokenOutcome};
use crate::upstream::client::{HttpClient, Response, endpoint};
use crate::upstream::error::UpstreamError;
use crate::upstream::operation::Operation;
use crate::upstream::retry::CallBudget;

pub use crate::falcon::scores::FirstScores;

const HOST_LISTING: Operation = operation("the host listing", HOSTS_READ);
const HOST_LOOK_UP: Operation = operation("the host look-up", HOSTS_READ);
const SCORE_LISTING: Operation = operation("the score listing", ASSESSMENTS_READ);
const SCORE_LOOK_UP: Operation = operation("the score look-up", ASSESSMENTS_READ);

const HOSTS_READ: &str = "Hosts: Read";
const ASSESSMENTS_READ: &str = "Zero Trust Assessment: Read";

const HOSTS: [&str; 4] = ["devices", "combined", "devices", "v1"];
const SCORES: [&str; 4] = ["zero-trust-assessment", "queries", "assessments", "v1"];
const ASSESSMENTS: [&str; 4] = ["zero-trust-assessment", "entities", "assessments", "v1"];

/// The fields of a host that are asked for: 200 bytes a host instead of 3,700.
const FIELDS: &str = "device_id,serial_number,hostname,last_seen";
/// The API's largest page of hosts; the default is 100.
pub const HOSTS_A_PAGE: usize = 10_000;
/// The API's largest page of scores; the default is 100.
pub const SCORES_A_PAGE: usize = 1_000;
/// Values in a filter: so many serials are in `CrowdStrike`'s own sample (falconpy, `serial_search.py`).
pub const HOSTS_A_LOOK_UP: usize = 250;
/// Ids in a look-up of scores. The API takes 1,000; psfalcon sends 500, which makes a URL of 18 kB.
pub const SCORES_A_LOOK_UP: usize = 500;
/// A filter is no longer than this: serials of virtual machines have 54 characters.
const FILTER_BYTES: usize = 10 << 10;
/// A page of 10,000 hosts has some 2 MB, a look-up of 500 assessments 4 MB.
const PAGE_CAP: usize = 32 << 20;

const fn operation(name: &'static str, scope: &'static str) -> Operation {
    Operation {
        side: Service::Falcon,
        name,
        scope,
    }
}

/// A session with the Falcon API.
#[derive(Debug)]
pub struct Falcon {
    http: HttpClient,
    cloud: CloudId,
    base: Url,
    credentials: FalconCredentials,
    budget: CallBudget,
    bearer: TokenCache,
}

/// A listing that comes in pages.
struct Listing<'a> {
    operation: Operation,
    path: [&'a str; 4],
    limit: usize,
    query: Vec<(&'a str, &'a str)>,
    /// The parameter that takes the cursor.
    cursor: &'a str,
}

impl Falcon {
    /// Signs in, at the cloud named or at the one that it redirects to.
    ///
    /// # Errors
    /// When the credentials are refused, the cloud is the wrong one and the right one unknown, or no answer came.
    pub async fn sign_in(
        http: HttpClient,
        clouds: &BTreeMap<CloudId, Url>,
        cloud: &CloudId,
        credentials: FalconCredentials,
        budget: CallBudget,
    ) -> Result<Self, UpstreamError> {
        let signed_in = token::sign_in(&http, clouds, cloud, &credentials, &budget).await?;
        Ok(Self {
            http,
            cloud: signed_in.cloud,
            base: signed_in.base,
            credentials,
            budget,
            bearer: TokenCache::holding(signed_in.token),
        })
    }

    /// The cloud that the account lives in, which need not be the one that was named.
    pub fn cloud(&self) -> &CloudId {
        &self.cloud
    }

    /// All visible hosts of the account. Hidden ones are not among them.
    ///
    /// # Errors
    /// When the listing could not be read to its end; a part of it is never returned.
    pub async fn hosts(&self) -> Result<Hosts, UpstreamError> {
        self.hosts_after(None).await
    }

    /// The first page of the host listing, which tells how many there are, and is all of it in most accounts.
    ///
    /// # Errors
    /// As for any call.
    pub async fn first_hosts(&self) -> Result<FirstHostPage, UpstreamError> {
        let url = all_hosts().url(&self.base, None);
        self.get(HOST_LISTING, &url, wire::page)
            .await
            .map(FirstHostPage)
    }

    /// Likewise all hosts, going on after the first page.
    ///
    /// # Errors
    /// See [`Falcon::hosts`].
    pub async fn hosts_after(&self, first: Option<FirstHostPage>) -> Result<Hosts, UpstreamError> {
        let first = first.map(|FirstHostPage(page)| page);
        self.crawl(&all_hosts(), first).await
    }

    /// The visible hosts with one of these serial numbers or sensors.
    ///
    /// A serial with a character that serials do not have (a quote, a backslash, a star) is left out, as is a sensor id
    /// that is none: the values stand in a filter expression, and some come from devices. Whether Falcon compares
    /// serials with regard to case is not documented.
    ///
    /// # Errors
    /// When a look-up failed or was not whole.
    pub async fn find_hosts(
        &self,
        serials: &BTreeSet<String>,
        aids: &BTreeSet<Aid>,
    ) -> Result<Hosts, UpstreamError> {
        let serials: Vec<&str> = serials
            .iter()
            .map(String::as_str)
            .filter(|serial| is_filterable(serial))
            .collect();
        let aids = usable(aids);
        let aids: Vec<&str> = aids.iter().map(String::as_str).collect();
        let look_up = async |field: &str, values: &[&str]| {
            let filter = format!("{field}:['{}']", values.join("','"));
            let listing = hosts(HOST_LOOK_UP, HOSTS_A_PAGE, Some(&filter));
            self.crawl::<HostRecord>(&listing, None).await
        };
        let by_serial = filters(&serials).map(|serials| look_up("serial_number", serials));
        let by_aid = filters(&aids).map(|aids| look_up("device_id", aids));
        let (by_serial, by_aid) = try_join(try_join_all(by_serial), try_join_all(by_aid)).await?;
        Ok(by_serial.into_iter().chain(by_aid).flatten().collect())
    }

    /// The assessments of these sensors. One that is not in the answer has none.
    ///
    /// # Errors
    /// When a look-up failed.
    pub async fn find_scores(&self, aids: &BTreeSet<Aid>) -> Result<Assessments, UpstreamError> {
        let look_up = async |ids: &[String]| {
            let mut url = endpoint(&self.base, ASSESSMENTS);
            url.query_pairs_mut()
                .extend_pairs(ids.iter().map(|id| ("ids", id)));
            self.get(SCORE_LOOK_UP, &url, wire::assessments).await
        };
        let usable = usable(aids);
        let look_ups = usable.chunks(SCORES_A_LOOK_UP).map(look_up);
        let found = try_join_all(look_ups).await?;
        let mut found: Assessments = found.into_iter().flatten().collect();
        found.retain(|aid, _| aids.contains(aid));
        Ok(found)
    }

    /// Reads a listing to its end. One that was not whole is started anew once: a cursor may have expired, and records
    /// move while they are paged through.
    async fn crawl<R: ListedRecord + DeserializeOwned>(
        &self,
        listing: &Listing<'_>,
        first: Option<ListingPage<R>>,
    ) -> Result<BTreeMap<Aid, R::Value>, UpstreamError> {
        match self.crawl_once::<R>(listing, first).await {
            Err(error @ UpstreamError::Incomplete { .. }) => {
                warn!(
                    error = error_chain(&error),
                    "a listing was not whole and is read again"
                );
                self.crawl_once::<R>(listing, None).await
            }
            done => done,
        }
    }

    async fn crawl_once<R: ListedRecord + DeserializeOwned>(
        &self,
        listing: &Listing<'_>,
        mut first: Option<ListingPage<R>>,
    ) -> Result<BTreeMap<Aid, R::Value>, UpstreamError> {
        let mut crawl = PageCollector::<R>::default();
        let mut cursor: Option<String> = None;
        loop {
            let page = if let Some(first) = first.take() {
                Ok(first)
            } else {
                let url = listing.url(&self.base, cursor.as_deref());
                self.get(listing.operation, &url, wire::page).await
            };
            let page = match page {
                // The sibling services say so when a cursor has expired (elastic/integrations#14670).
                Err(UpstreamError::Rejected { status: 404, .. }) if cursor.is_some() => {
                    return Err(crawl.incomplete(listing.operation));
                }
                Err(error) => return Err(crawl.interrupted(error)),
                Ok(page) => page,
            };
            match crawl.take(page) {
                Step::Next(next) => cursor = Some(next),
                Step::Stuck => return Err(crawl.incomplete(listing.operation)),
                Step::End => break,
            }
        }
        if crawl.unusable() > 0 {
            let (operation, records) = (listing.operation.name, crawl.unusable());
            warn!(
                operation,
                records, "records without a sensor id were skipped"
            );
        }
        crawl.finish(listing.operation)
    }

    async fn get<T>(
        &self,
        operation: Operation,
        url: &Url,
        read: fn(Operation, &Response) -> Result<T, UpstreamError>,
    ) -> Result<T, UpstreamError> {
        let mint = || token::mint(&self.http, &self.base, &self.credentials, &self.budget);
        let attempt = |token| self.attempt(operation, url, token, read);
        self.bearer
            .call(&self.budget, operation, mint, attempt)
            .await
    }

    async fn attempt<T>(
        &self,
        operation: Operation,
        url: &Url,
        token: AccessToken,
        read: fn(Operation, &Response) -> Result<T, UpstreamError>,
    ) -> Result<TokenOutcome<T>, UpstreamError> {
        let turn = self.budget.turn().await;
        let request = token.authorize(self.http.request(Method::GET, url.clone()));
        let reply = self
            .http
            .send(request, operation, PAGE_CAP, &self.budget)
            .await?;
        drop(turn);
        if let Some((limit, remaining)) = errors::quota(&reply) {
            self.budget.note_quota(limit, remaining);
        }
        if let Some(error) = errors::token_rejected(operation, &reply) {
            return Ok(TokenOutcome::BadBearer(error));
        }
        read(operation, &reply).map(TokenOutcome::Good)
    }
}

impl Listing<'_> {
    fn url(&self, base: &Url, cursor: Option<&str>) -> Url {
        let mut url = endpoint(base, self.path);
        url.query_pairs_mut()
            .append_pair("limit", &self.limit.to_string())
            .extend_pairs(&self.query)
            .extend_pairs(cursor.map(|cursor| (self.cursor, cursor)));
        url
    }
}

/// The first page of the host listing.
#[derive(Debug)]
pub struct FirstHostPage(ListingPage<HostRecord>);

impl FirstHostPage {
    /// How many visible hosts the account has, as the page announces.
    pub fn total(&self) -> usize {
        self.0.total.max(self.0.records.len())
    }
}

fn all_hosts() -> Listing<'static> {
    hosts(HOST_LISTING, HOSTS_A_PAGE, None)
}

fn hosts(operation: Operation, limit: usize, filter: Option<&str>) -> Listing<'_> {
    let mut query = vec![("fields", FIELDS)];
    query.extend(filter.map(|filter| ("filter", filter)));
    Listing {
        operation,
        path: HOSTS,
        limit,
        query,
        // What is sent as the offset is the previous page's `next`.
        cursor: "offset",
    }
}

/// Values in parts that fit into a filter each.
fn filters<'a, 'v>(values: &'a [&'v str]) -> impl Iterator<Item = &'a [&'v str]> {
    let mut rest = values;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |value: &&&str| {
            bytes += value.len() + "','".len();
            bytes <= FILTER_BYTES
        };
        let count = rest.iter().take(HOSTS_A_LOOK_UP).take_while(fits).count();
        // A single one is sent, however long.
        let (part, others) = rest.split_at(count.max(1).min(rest.len()));
        rest = others;
        (!part.is_empty()).then_some(part)
    })
}

/// Whether a serial can stand in a filter between quotes and mean itself.
fn is_filterable(serial: &str) -> bool {
    !serial.is_empty()
        && serial
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b" ._/-:#+()".contains(&b))
}

/// The ids that can be a sensor's.
fn usable(aids: &BTreeSet<Aid>) -> Vec<String> {
    let usual = aids.iter().filter(|aid| aid.is_hex());
    usual.map(Aid::to_string).collect()
}
