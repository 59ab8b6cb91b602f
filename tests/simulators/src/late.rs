//! Requests that are still on their way after their client has given up.

use std::fmt;
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::http::HeaderMap;

use crate::exchange::Endpoint;
use crate::falcon::Falcon;
use crate::lock;
use crate::matching::{RequestInfo, Side};
use crate::reply::{Call, Reply};
use crate::tailscale::Tailscale;

/// Requests that take effect later, in the order of their arrival. Clones share them.
#[derive(Clone)]
pub struct LateRequests {
    requests: Arc<Mutex<Vec<(Endpoint, Call)>>>,
    falcon: Falcon,
    tailscale: Tailscale,
}

impl fmt::Debug for LateRequests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let requests = lock(&self.requests).len();
        f.debug_struct("LateRequests")
            .field("requests", &requests)
            .finish_non_exhaustive()
    }
}

impl LateRequests {
    pub(crate) fn new(falcon: Falcon, tailscale: Tailscale) -> Self {
        Self {
            requests: Arc::default(),
            falcon,
            tailscale,
        }
    }

    pub(crate) fn push(&self, endpoint: Endpoint, call: Call) {
        lock(&self.requests).push((endpoint, call));
    }

    /// Adds a request to Tailscale, which a relay in front of the simulators has held back.
    pub fn add(&self, method: &str, path: &str, headers: HeaderMap, body: Bytes) {
        let seen = RequestInfo {
            side: Side::Tailscale,
            region: None,
            method: method.to_owned(),
            path: path.to_owned(),
            query: String::new(),
        };
        let call = Call {
            seen,
            headers,
            body,
        };
        self.push(Endpoint::Tailscale, call);
    }

    /// Returns the number of requests.
    pub fn len(&self) -> usize {
        lock(&self.requests).len()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lets all requests take effect, like any request that arrives now.
    pub fn release(&self) {
        let requests = std::mem::take(&mut *lock(&self.requests));
        for (endpoint, call) in requests {
            self.answer(&endpoint, &call);
        }
    }

    /// Drops all requests: they never take effect.
    pub fn clear(&self) {
        lock(&self.requests).clear();
    }

    pub(crate) fn answer(&self, endpoint: &Endpoint, call: &Call) -> Reply {
        match endpoint {
            Endpoint::Falcon { region } => self.falcon.answer(region, call),
            Endpoint::Tailscale => self.tailscale.answer(call),
        }
    }
}
