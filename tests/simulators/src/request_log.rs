//! The request log of the simulators: one line per request, counters per route, peak concurrency.
//!
//! It never holds bodies or `Authorization`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use serde::Serialize;
use tokio::time::Instant;

use crate::lock;
use crate::matching::{RequestInfo, Side};

/// More lines than any test reads. The limit bounds the memory of a demo that runs for days.
const MAX_ENTRIES: usize = 100_000;

/// One request.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// Position in the log, from 1.
    pub seq: u64,
    /// Time of arrival, by the simulators' clock.
    pub time: Timestamp,
    /// The service of the request.
    pub side: Side,
    /// The Falcon region of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// `GET`, `POST`, …
    pub method: String,
    /// The path as sent.
    pub path: String,
    /// The query as sent.
    pub query: String,
    /// The status of the response; `None` while in flight and after a connection reset.
    pub status: Option<u16>,
    /// Bytes of the response body as sent (after gzip).
    pub bytes_out: usize,
    /// Start of the request, in milliseconds since the simulators started.
    pub started_ms: u64,
    /// End of the request in the same unit; `None` while in flight.
    pub ended_ms: Option<u64>,
    /// Name of the applied fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// Traffic of one route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// Number of requests, answered or not.
    pub requests: u64,
    /// Bytes of the response bodies as sent (after gzip).
    pub bytes_out: u64,
}

/// The request log of both sides. Clones share it.
#[derive(Clone, Debug)]
pub struct RequestLog {
    epoch: Instant,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    entries: VecDeque<Entry>,
    last_seq: u64,
    routes: BTreeMap<String, Traffic>,
    in_flight: BTreeMap<Side, u64>,
    peak: BTreeMap<Side, u64>,
}

impl Default for RequestLog {
    fn default() -> Self {
        Self {
            epoch: Instant::now(),
            inner: Arc::default(),
        }
    }
}

impl RequestLog {
    /// Returns all requests since the start or the last `clear`, in order of arrival.
    pub fn entries(&self) -> Vec<Entry> {
        lock(&self.inner).entries.iter().cloned().collect()
    }

    /// Returns the requests of one side, in order of arrival.
    pub fn of(&self, side: Side) -> Vec<Entry> {
        lock(&self.inner)
            .entries
            .iter()
            .filter(|entry| entry.side == side)
            .cloned()
            .collect()
    }

    /// Returns the number of requests of each route, by `"falcon GET
    /// /devices/combined/devices/v1"`. Ids in Tailscale's paths are folded
    /// (`/api/v2/device/{id}/attributes/{key}`).
    pub fn routes(&self) -> BTreeMap<String, u64> {
        self.traffic()
            .into_iter()
            .map(|(route, traffic)| (route, traffic.requests))
            .collect()
    }

    /// Returns the requests and the bytes of each route, by the same names.
    pub fn traffic(&self) -> BTreeMap<String, Traffic> {
        lock(&self.inner).routes.clone()
    }

    /// Returns the maximum number of a side's requests in flight.
    pub fn peak(&self, side: Side) -> u64 {
        lock(&self.inner).peak.get(&side).copied().unwrap_or(0)
    }

    /// Removes all entries and peaks. Requests in flight stay counted as in flight.
    pub fn clear(&self) {
        let mut inner = lock(&self.inner);
        inner.entries.clear();
        inner.routes.clear();
        inner.peak.clear();
    }

    pub(crate) fn begin(&self, seen: &RequestInfo, time: Timestamp) -> Pending {
        let started_ms = self.elapsed_ms();
        let mut guard = lock(&self.inner);
        let inner = &mut *guard;
        inner.last_seq += 1;
        let seq = inner.last_seq;
        let route = route_label(seen);
        inner.routes.entry(route.clone()).or_default().requests += 1;
        let in_flight = inner.in_flight.entry(seen.side).or_default();
        *in_flight += 1;
        let peak = inner.peak.entry(seen.side).or_default();
        *peak = (*peak).max(*in_flight);
        if inner.entries.len() == MAX_ENTRIES {
            inner.entries.pop_front();
        }
        inner.entries.push_back(Entry {
            seq,
            time,
            side: seen.side,
            region: seen.region.clone(),
            method: seen.method.clone(),
            path: seen.path.clone(),
            query: seen.query.clone(),
            status: None,
            bytes_out: 0,
            started_ms,
            ended_ms: None,
            fault: None,
        });
        Pending {
            log: self.clone(),
            seq,
            side: seen.side,
            route,
        }
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// A request in flight. Dropping it completes its line, so the log includes requests of clients
/// that gave up.
#[derive(Debug)]
pub(crate) struct Pending {
    log: RequestLog,
    seq: u64,
    side: Side,
    route: String,
}

impl Pending {
    pub(crate) fn fault(&self, name: &str) {
        self.edit(|entry| entry.fault = Some(name.to_owned()));
    }

    pub(crate) fn answered(&self, status: u16, bytes: usize) {
        self.edit(|entry| {
            entry.status = Some(status);
            entry.bytes_out = bytes;
        });
        let mut inner = lock(&self.log.inner);
        // a cleared log lacks this route
        if let Some(traffic) = inner.routes.get_mut(&self.route) {
            traffic.bytes_out += u64::try_from(bytes).unwrap_or(u64::MAX);
        }
    }

    fn edit(&self, change: impl FnOnce(&mut Entry)) {
        let mut inner = lock(&self.log.inner);
        // entries are in order of `seq`, without gaps; a cleared log has no entry to edit
        let Some(first) = inner.entries.front().map(|entry| entry.seq) else {
            return;
        };
        let index = self
            .seq
            .checked_sub(first)
            .and_then(|index| usize::try_from(index).ok());
        if let Some(entry) = index.and_then(|index| inner.entries.get_mut(index)) {
            change(entry);
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let ended_ms = self.log.elapsed_ms();
        self.edit(|entry| entry.ended_ms = Some(ended_ms));
        if let Some(in_flight) = lock(&self.log.inner).in_flight.get_mut(&self.side) {
            *in_flight = in_flight.saturating_sub(1);
        }
    }
}

fn route_label(seen: &RequestInfo) -> String {
    let mut path = String::new();
    let mut previous = "";
    for segment in seen.path.split('/').skip(1) {
        path.push('/');
        path.push_str(match (seen.side, previous) {
            (Side::Tailscale, "device" | "integrations") => "{id}",
            (Side::Tailscale, "tailnet") => "{tailnet}",
            (Side::Tailscale, "attributes") => "{key}",
            (Side::Tailscale | Side::Falcon, _) => segment,
        });
        previous = segment;
    }
    let side = match seen.side {
        Side::Falcon => "falcon",
        Side::Tailscale => "tailscale",
    };
    format!("{side} {} {path}", seen.method)
}
