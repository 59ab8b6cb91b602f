//! Bounds on a run of the bench, as ratios and counts.

use std::fmt;
use std::time::Duration;

use crate::cases::{Case, FEW, Sync};
use crate::number;
use crate::price::Usage;
use crate::stage::{Measured, Pace};
use crate::starts::Starts;

/// Changes in a batch: each change has two DynamoDB items, and a transaction has a hundred.
const CHUNK: u64 = 50;

/// All measurements.
#[derive(Debug)]
pub(crate) struct Results {
    /// The syncs, in order.
    pub(crate) syncs: Vec<(Case, Sync, Measured)>,
    /// The cold start.
    pub(crate) starts: Option<Starts>,
    /// Size of the deployment zip in bytes.
    pub(crate) zip_bytes: u64,
    /// Configured memory.
    pub(crate) memory_mb: u32,
    /// Response times of the servers.
    pub(crate) pace: Pace,
}

impl Results {
    /// Returns the resources that one run of this kind uses. The price of every later run includes a cold start.
    pub(crate) fn usage(&self, measured: &Measured, sync: Sync) -> Usage {
        let starts = self.starts.as_ref();
        let start_cpu = if sync == Sync::First {
            // The measured time includes the start.
            Duration::ZERO
        } else {
            starts.map_or(Duration::ZERO, |starts| starts.function_cpu)
        };
        Usage {
            start: starts.map_or(measured.start, |starts| starts.function),
            wall: measured.wall,
            cpu: measured.cpu + start_cpu,
            memory_mb: self.memory_mb,
            reads: measured.aws.reads,
            writes: measured.aws.writes,
            secret_calls: measured.aws.calls_of("secrets "),
            events: measured.aws.events,
            log_lines: measured.log_lines,
            log_bytes: measured.log_bytes,
        }
    }

    /// Returns the ratio of a sync's time to its floor.
    pub(crate) fn of_floor(&self, measured: &Measured) -> f64 {
        let floor = measured.chain.time(self.pace.apis, self.pace.aws);
        measured.wall.as_secs_f64() / floor.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    fn of(&self, name: &str, sync: Sync) -> Option<&Measured> {
        let mut found = self
            .syncs
            .iter()
            .filter(|(case, kind, _)| case.name == name && *kind == sync);
        found.next().map(|(_, _, measured)| measured)
    }

    /// Returns a figure's maximum over all syncs that have it.
    fn worst(&self, figure: impl Fn(Case, Sync, &Measured) -> Option<f64>) -> Option<f64> {
        let figures = self.syncs.iter();
        figures
            .filter_map(|(case, sync, measured)| figure(*case, *sync, measured))
            .reduce(f64::max)
    }
}

/// A bound and the measured value.
#[derive(Clone, Debug)]
pub(crate) struct Bound {
    what: String,
    most: f64,
    measured: Option<f64>,
    decimals: usize,
}

impl Bound {
    /// Returns whether the bound holds; `None` if it was not measured.
    pub(crate) fn holds(&self) -> Option<bool> {
        self.measured.map(|measured| measured <= self.most)
    }
}

impl fmt::Display for Bound {
    /// A row of a table.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = self.decimals;
        write!(f, "| {} | {:.decimals$} | ", self.what, self.most)?;
        match self.measured {
            Some(measured) => write!(f, "{measured:.decimals$}")?,
            None => f.write_str("–")?,
        }
        f.write_str(match self.holds() {
            Some(true) => " | yes |",
            Some(false) => " | **no** |",
            None => " | not measured |",
        })
    }
}

fn bound(what: impl Into<String>, most: f64, measured: Option<f64>, decimals: usize) -> Bound {
    Bound {
        what: what.into(),
        most,
        measured,
        decimals,
    }
}

/// Returns all bounds, in the order of the table.
pub(crate) fn bounds(results: &Results) -> Vec<Bound> {
    let mut bounds = requests(results);
    bounds.extend(times(results));
    bounds.extend(starts(results));
    let price = results.of("2k", Sync::Changed);
    bounds.push(bound(
        "USD a month for 1,000 devices, each run with 1 % changed",
        0.25,
        price.map(|measured| results.usage(measured, Sync::Changed).month().total()),
        3,
    ));
    bounds
}

fn requests(results: &Results) -> Vec<Bound> {
    let unchanged = |figure: fn(&Measured) -> u64| {
        results
            .worst(|_, sync, measured| (sync == Sync::Unchanged).then(|| number(figure(measured))))
    };
    vec![
        bound(
            "Falcon requests, as a multiple of the fewest for the way taken",
            1.1,
            results.worst(|_, _, measured| {
                let fewest = measured.work.fewest_falcon_requests(measured.way);
                Some(number(measured.requests("falcon ")) / number(fewest))
            }),
            2,
        ),
        bound(
            "Falcon requests for 200 devices and 100,000 hosts, but for the daily listing",
            8.0,
            results.worst(|case, sync, measured| {
                let usual = case.name == FEW && sync != Sync::Daily;
                usual.then(|| number(measured.requests("falcon ")))
            }),
            0,
        ),
        bound(
            "Tailscale listings in a sync",
            1.0,
            results.worst(|_, _, measured| Some(number(measured.requests(LISTING)))),
            0,
        ),
        bound(
            format!("Tailscale patches more than one for {CHUNK} changes"),
            0.0,
            results.worst(|_, _, measured| {
                let fewest = measured.work.changes.div_ceil(CHUNK);
                Some(number(patches(measured).saturating_sub(fewest)))
            }),
            0,
        ),
        bound("Unchanged: writes to Tailscale", 0.0, unchanged(patches), 0),
        bound(
            "Unchanged: writes to DynamoDB (the lease, and the status)",
            2.0,
            unchanged(dynamodb_writes),
            0,
        ),
        bound(
            "Unchanged: events",
            0.0,
            unchanged(|measured| measured.aws.events),
            0,
        ),
    ]
}

/// The route of device listing.
pub(crate) const LISTING: &str = "tailscale GET /api/v2/tailnet/{tailnet}/devices";

fn patches(measured: &Measured) -> u64 {
    measured.requests("tailscale PATCH") + measured.requests("tailscale POST /api/v2/device/")
}

/// Returns the number of DynamoDB calls that write.
pub(crate) fn dynamodb_writes(measured: &Measured) -> u64 {
    [
        "UpdateItem",
        "PutItem",
        "DeleteItem",
        "TransactWriteItems",
        "BatchWriteItem",
    ]
    .iter()
    .map(|operation| measured.aws.calls_of(&format!("dynamodb {operation}")))
    .sum()
}

fn times(results: &Results) -> Vec<Bound> {
    let of_floor = |name, sync| {
        results
            .of(name, sync)
            .map(|measured| results.of_floor(measured))
    };
    let mut bounds = vec![
        bound(
            "100,000 hosts, unchanged: time, as a multiple of the floor",
            2.0,
            of_floor("100k", Sync::Unchanged),
            2,
        ),
        // The embedded DynamoDB works on the same cores, for longer than the sync takes.
        bound(
            "100,000 hosts, first: time, as a multiple of the floor",
            3.5,
            of_floor("100k", Sync::First),
            2,
        ),
        bound(
            "1,000 hosts, the slowest of three: time, as a multiple of the floor",
            1.5,
            results
                .worst(|case, _, measured| (case.name == "1k").then(|| results.of_floor(measured))),
            2,
        ),
    ];
    for sync in [Sync::First, Sync::Unchanged] {
        let pair = results.of("10k", sync).zip(results.of("100k", sync));
        bounds.push(bound(
            format!("From 10,000 to 100,000 hosts, {sync}: time grows so many times"),
            10.0,
            pair.map(|(small, large)| large.wall.as_secs_f64() / small.wall.as_secs_f64()),
            2,
        ));
        bounds.push(bound(
            format!("From 10,000 to 100,000 hosts, {sync}: memory grows so many times"),
            10.0,
            pair.map(|(small, large)| number(large.peak_kib) / number(small.peak_kib)),
            2,
        ));
    }
    bounds.push(bound(
        "100,000 hosts, first: MB of memory at peak",
        128.0,
        results
            .of("100k", Sync::First)
            .map(|measured| number(measured.peak_kib) * 1024.0 / 1e6),
        0,
    ));
    bounds
}

fn starts(results: &Results) -> Vec<Bound> {
    let figure = |figure: fn(&Starts) -> f64| results.starts.as_ref().map(figure);
    vec![
        bound(
            "Cold start, as a multiple of a function's that does nothing",
            4.0,
            figure(|starts| starts.function.as_secs_f64() / starts.idle.as_secs_f64()),
            2,
        ),
        bound(
            "Start and first TLS handshake: ms of CPU time",
            20.0,
            figure(|starts| starts.to_handshake_cpu.as_secs_f64() * 1e3),
            1,
        ),
        bound(
            "MB of the zip",
            4.5,
            Some(number(results.zip_bytes) / 1e6),
            2,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_that_was_not_measured_neither_holds_nor_fails() {
        let row = |measured| bound("so much", 2.0, measured, 1);
        assert_eq!(row(Some(2.0)).holds(), Some(true));
        assert_eq!(row(Some(2.1)).holds(), Some(false));
        assert_eq!(row(None).holds(), None);
        assert_eq!(
            row(Some(2.1)).to_string(),
            "| so much | 2.0 | 2.1 | **no** |"
        );
        assert_eq!(
            row(None).to_string(),
            "| so much | 2.0 | – | not measured |"
        );
    }
}
