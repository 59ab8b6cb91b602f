//! The state behind the Falcon routes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use super::model::{Account, Host, Settings};

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) settings: Settings,
    pub(crate) accounts: BTreeMap<String, Tenant>,
    /// Tokens of all regions by access token, since a client can send a token to any region.
    pub(crate) tokens: BTreeMap<String, Token>,
    pub(crate) cursors: Cursors,
    /// Base URL by region, for the servers that run.
    pub(crate) regions: BTreeMap<String, String>,
    pub(crate) token_budget: Budget,
    pub(crate) anonymous_budget: Budget,
    serial: u64,
}

impl State {
    pub(crate) fn new(regions: BTreeMap<String, String>) -> Self {
        Self {
            regions,
            ..Self::default()
        }
    }

    /// Returns an unused number, for traces and tokens.
    pub(crate) fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) account: String,
    pub(crate) region: String,
    pub(crate) expires: Timestamp,
}

/// An account's data.
#[derive(Debug)]
pub(crate) struct Tenant {
    pub(crate) account: Account,
    pub(crate) hosts: BTreeMap<String, Host>,
    pub(crate) hidden: BTreeMap<String, Host>,
    pub(crate) scores: BTreeMap<String, Value>,
    /// Time of the last change of a score. A score unchanged since loading has the time `loaded`.
    pub(crate) assessed: BTreeMap<String, Timestamp>,
    pub(crate) loaded: Timestamp,
    pub(crate) budget: Budget,
    /// The latest assessment listings, until a score changes: 100 pages of 1,000 would otherwise
    /// sort 100,000 scores 100 times.
    pub(crate) listings: VecDeque<Listing>,
}

#[derive(Clone, Debug)]
pub(crate) struct Listing {
    pub(crate) filter: String,
    pub(crate) descending: bool,
    pub(crate) aids: Arc<Vec<String>>,
}

impl Tenant {
    pub(crate) fn new(account: Account, now: Timestamp) -> Self {
        Self {
            account,
            hosts: BTreeMap::new(),
            hidden: BTreeMap::new(),
            scores: BTreeMap::new(),
            assessed: BTreeMap::new(),
            loaded: now,
            budget: Budget::default(),
            listings: VecDeque::new(),
        }
    }

    pub(crate) fn set_score(&mut self, aid: &str, score: Value, now: Timestamp) {
        self.scores.insert(aid.to_owned(), score);
        self.assessed.insert(aid.to_owned(), now);
        self.listings.clear();
    }

    pub(crate) fn remove_score(&mut self, aid: &str) -> bool {
        self.listings.clear();
        self.assessed.remove(aid);
        self.scores.remove(aid).is_some()
    }

    pub(crate) fn cid(&self) -> &str {
        self.account
            .member_cid
            .as_deref()
            .unwrap_or(&self.account.cid)
    }

    /// Returns a host's record, hidden or not.
    pub(crate) fn host(&self, aid: &str) -> Option<&Host> {
        self.hosts.get(aid).or_else(|| self.hidden.get(aid))
    }
}

/// A sliding window of one minute.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    hits_ms: VecDeque<i64>,
}

/// A budget's response to a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowance {
    pub(crate) limit: u32,
    pub(crate) remaining: u32,
    /// Time until which requests are rejected (epoch milliseconds).
    pub(crate) retry_ms: Option<i64>,
}

impl Budget {
    /// Counts a request unless the budget is used up.
    pub(crate) fn take(&mut self, limit: u32, now: Timestamp) -> Allowance {
        const WINDOW_MS: i64 = 60_000;
        let now_ms = now.as_millisecond();
        while self
            .hits_ms
            .front()
            .is_some_and(|hit| hit + WINDOW_MS <= now_ms)
        {
            self.hits_ms.pop_front();
        }
        let used = u32::try_from(self.hits_ms.len()).unwrap_or(u32::MAX);
        if used >= limit {
            let retry_ms = self.hits_ms.front().copied().unwrap_or(now_ms) + WINDOW_MS;
            return Allowance {
                limit,
                remaining: 0,
                retry_ms: Some(retry_ms),
            };
        }
        self.hits_ms.push_back(now_ms);
        Allowance {
            limit,
            remaining: limit - used - 1,
            retry_ms: None,
        }
    }
}

/// The issued cursors. A cursor belongs to an account, an endpoint and its parameters.
#[derive(Debug, Default)]
pub(crate) struct Cursors {
    cursors: BTreeMap<String, Cursor>,
    issued: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Cursor {
    pub(crate) account: String,
    /// The endpoint and the parameters that a request must repeat.
    pub(crate) query: String,
    pub(crate) position: Position,
    pub(crate) expires: Timestamp,
}

#[derive(Clone, Debug)]
pub(crate) enum Position {
    /// After this entry (its sort key, its id).
    After(String, String),
    /// At this index in the present order.
    Index(usize),
}

impl Cursors {
    pub(crate) fn issue(&mut self, cursor: Cursor, now: Timestamp) -> String {
        self.cursors.retain(|_, cursor| cursor.expires > now);
        self.issued += 1;
        // long and opaque, like the recorded cursors (about 250 characters)
        let name = format!("{:016x}", self.issued.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let name = format!("DnF1ZXJ5VGhlbkZldGNo{}", name.repeat(14));
        self.cursors.insert(name.clone(), cursor);
        name
    }

    pub(crate) fn find(
        &self,
        name: &str,
        account: &str,
        query: &str,
        now: Timestamp,
    ) -> Option<&Cursor> {
        self.cursors.get(name).filter(|cursor| {
            cursor.account == account && cursor.query == query && cursor.expires > now
        })
    }

    pub(crate) fn clear(&mut self) {
        self.cursors.clear();
    }
}
