//! The Falcon side: `OAuth2` token, host listings and entities, Zero Trust Assessments.
//!
//! Shapes follow `CrowdStrike`'s published clients. Recordings of real traffic take precedence: 201
//! for a token, `errors: null`, no `powered_by` on assessments, 308 with an empty body for the
//! wrong cloud.

mod access;
mod envelope;
mod fql;
mod hosts;
mod model;
mod record;
mod routes;
mod state;
mod zta;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use serde_json::Value;

use crate::clock::{Clock, to_second};
use crate::generate::DataSet;
use crate::reply::{Call, Reply};
use crate::{NotFound, lock};

pub use model::{
    Account, CursorStyle, Host, LastPage, RetryAfterUnit, Settings, UnknownIds, ZtaCursorName,
};
use state::{State, Tenant};

/// The state of the Falcon side. Clones share it, so a hook can own a clone.
#[derive(Clone, Debug)]
pub struct Falcon {
    clock: Clock,
    state: Arc<Mutex<State>>,
}

impl Falcon {
    pub(crate) fn new(clock: Clock, regions: BTreeMap<String, String>) -> Self {
        Self {
            clock,
            state: Arc::new(Mutex::new(State::new(regions))),
        }
    }

    pub(crate) fn answer(&self, region: &str, call: &Call) -> Reply {
        routes::answer(&mut lock(&self.state), region, call, self.clock.now())
    }

    /// Adds an account, or changes an existing one and keeps its hosts and scores.
    pub fn put_account(&self, account: Account) {
        let now = self.clock.now();
        let mut state = lock(&self.state);
        match state.accounts.get_mut(&account.name) {
            Some(tenant) => tenant.account = account,
            None => drop(
                state
                    .accounts
                    .insert(account.name.clone(), Tenant::new(account, now)),
            ),
        }
    }

    /// Removes an account with its data and invalidates its tokens.
    pub fn remove_account(&self, name: &str) {
        let mut state = lock(&self.state);
        state.accounts.remove(name);
        state.tokens.retain(|_, token| token.account != name);
    }

    /// Returns the accounts by name.
    pub fn accounts(&self) -> BTreeMap<String, Account> {
        let state = lock(&self.state);
        state
            .accounts
            .iter()
            .map(|(name, tenant)| (name.clone(), tenant.account.clone()))
            .collect()
    }

    /// Replaces an account's hosts and scores.
    ///
    /// # Errors
    /// `NotFound` when no account has this name, as in every method that names an account.
    pub fn load(&self, account: &str, data: &DataSet) -> Result<(), NotFound> {
        let now = self.clock.now();
        self.tenant(account, |tenant| {
            let kept = tenant.account.clone();
            *tenant = Tenant::new(kept, now);
            tenant.hosts = data
                .hosts
                .iter()
                .map(|host| (host.device_id.clone(), host.clone()))
                .collect();
            tenant.scores.clone_from(&data.scores);
        })
    }

    /// Adds or replaces a host. A hidden one becomes visible.
    ///
    /// # Errors
    /// No such account.
    pub fn put_host(&self, account: &str, host: Host) -> Result<(), NotFound> {
        self.tenant(account, |tenant| {
            tenant.hidden.remove(&host.device_id);
            tenant.hosts.insert(host.device_id.clone(), host);
        })
    }

    /// Removes a host, hidden or not, and keeps its score. Returns the removed host.
    ///
    /// # Errors
    /// No such account.
    pub fn remove_host(&self, account: &str, aid: &str) -> Result<Option<Host>, NotFound> {
        self.tenant(account, |tenant| {
            tenant.hosts.remove(aid).or(tenant.hidden.remove(aid))
        })
    }

    /// Hides a host: the listings lose it, `devices-hidden` shows it. Returns whether the host
    /// existed.
    ///
    /// # Errors
    /// No such account.
    pub fn hide_host(&self, account: &str, aid: &str) -> Result<bool, NotFound> {
        self.tenant(account, |tenant| {
            let host = tenant.hosts.remove(aid);
            let found = host.is_some();
            tenant
                .hidden
                .extend(host.map(|host| (aid.to_owned(), host)));
            found
        })
    }

    /// Returns the visible hosts by device id.
    ///
    /// # Errors
    /// No such account.
    pub fn hosts(&self, account: &str) -> Result<Vec<Host>, NotFound> {
        self.tenant(account, |tenant| tenant.hosts.values().cloned().collect())
    }

    /// Lets the visible hosts report to Falcon at this time: their `last_seen` becomes this time. The hosts with an id in
    /// `except` stay silent.
    ///
    /// # Errors
    /// No such account.
    pub fn heartbeat(
        &self,
        account: &str,
        time: Timestamp,
        except: &BTreeSet<String>,
    ) -> Result<(), NotFound> {
        self.update_hosts(account, |host| {
            if !except.contains(&host.device_id) {
                host.last_seen = Some(to_second(time));
            }
        })
    }

    /// Changes the visible hosts. The ids must stay.
    ///
    /// # Errors
    /// No such account.
    pub fn update_hosts(
        &self,
        account: &str,
        change: impl FnMut(&mut Host),
    ) -> Result<(), NotFound> {
        self.tenant(account, |tenant| {
            tenant.hosts.values_mut().for_each(change);
        })
    }

    /// Sets a score to any JSON value. Hostile values (`-1`, `55.5`, `"80"`, `null`) are served
    /// unchanged. The host need not exist.
    ///
    /// # Errors
    /// No such account.
    pub fn set_score(
        &self,
        account: &str,
        aid: &str,
        score: impl Into<Value>,
    ) -> Result<(), NotFound> {
        let now = self.clock.now();
        let score = score.into();
        self.tenant(account, |tenant| tenant.set_score(aid, score, now))
    }

    /// Removes an assessment. Returns whether it existed.
    ///
    /// # Errors
    /// No such account.
    pub fn remove_score(&self, account: &str, aid: &str) -> Result<bool, NotFound> {
        self.tenant(account, |tenant| tenant.remove_score(aid))
    }

    /// Returns the scores by agent id.
    ///
    /// # Errors
    /// No such account.
    pub fn scores(&self, account: &str) -> Result<BTreeMap<String, Value>, NotFound> {
        self.tenant(account, |tenant| tenant.scores.clone())
    }

    /// Invalidates every token: the next call with one gets 401.
    pub fn expire_tokens(&self) {
        lock(&self.state).tokens.clear();
    }

    /// Invalidates every cursor, as after two minutes.
    pub fn expire_cursors(&self) {
        lock(&self.state).cursors.clear();
    }

    /// Returns the settings of the whole side.
    pub fn settings(&self) -> Settings {
        lock(&self.state).settings.clone()
    }

    /// Changes the settings.
    pub fn configure(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut lock(&self.state).settings);
    }

    /// Removes all accounts and tokens and restores the default settings.
    pub fn reset(&self) {
        let mut state = lock(&self.state);
        let regions = std::mem::take(&mut state.regions);
        *state = State::new(regions);
    }

    fn tenant<T>(
        &self,
        account: &str,
        use_it: impl FnOnce(&mut Tenant) -> T,
    ) -> Result<T, NotFound> {
        let mut state = lock(&self.state);
        let tenant = state.accounts.get_mut(account);
        tenant
            .map(use_it)
            .ok_or_else(|| NotFound(format!("Falcon account {account}")))
    }
}
