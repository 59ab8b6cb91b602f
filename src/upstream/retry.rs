//! Which calls are made again, after what wait, and the share of a run that calls may take.
//!
//! A run's clients share one [`CallBudget`]: its time, its tries, and the count of its requests. Only failures that are
//! transient by their own variant are tried again; everything else is an answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder, Retryable};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Semaphore, SemaphorePermit};
use tracing::warn;

use crate::clock::{Clock, Deadline};
use crate::domain::status::error_kind::Service;
use crate::text::error_chain;
use crate::upstream::error::UpstreamError;

use crate::upstream::operation::Operation;

/// How often a call is made, and the waits between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How often a call is made at most, the first time included.
    pub attempts: usize,
    /// The shortest first wait; each further one is twice as long. Up to as much again is added at random.
    pub first_wait: Duration,
    /// The longest wait that we choose ourselves, and the one after a 429 that does not say until when. An advertised
    /// wait may be longer.
    pub longest_wait: Duration,
    /// How many repeated calls a run makes in all: where much fails, it is not the single call.
    pub repeats: u32,
    /// From a request to the last byte of its answer. Recorded answers take about a second.
    pub patience: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 4,
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(20),
            repeats: 60,
            patience: Duration::from_mins(1),
        }
    }
}

impl RetryPolicy {
    fn waits(self) -> impl BackoffBuilder {
        ExponentialBuilder::new()
            .with_min_delay(self.first_wait)
            // The jitter comes on top, and may double it.
            .with_max_delay(self.longest_wait / 2)
            .with_max_times(self.attempts.saturating_sub(1))
            .with_jitter()
    }
}

/// State that the calls of a run share: the remaining time, the policy, and the counters. Clones share the counters.
#[derive(Clone, Debug)]
pub struct CallBudget {
    policy: RetryPolicy,
    clock: Clock,
    deadline: Deadline,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    falcon: CallCounters,
    tailscale: CallCounters,
    repeats_left: AtomicU32,
    /// Remaining share of Falcon's quota, in thousandths, from its latest response.
    quota_left: AtomicU32,
    /// Remaining requests of Falcon's quota; -1 before the first response.
    quota_remaining: AtomicI64,
    /// The Falcon requests that may be under way.
    turns: Semaphore,
}

/// Counters of the requests to one service.
#[derive(Debug, Default)]
struct CallCounters {
    requests: AtomicU64,
    /// Those of the requests that repeat a failed one.
    retries: AtomicU64,
}

impl CallBudget {
    /// A budget from now until the deadline.
    pub fn new(policy: RetryPolicy, clock: Clock, deadline: Deadline) -> Self {
        Self {
            policy,
            clock,
            deadline,
            shared: Arc::new(Shared {
                falcon: CallCounters::default(),
                tailscale: CallCounters::default(),
                repeats_left: AtomicU32::new(policy.repeats),
                quota_left: AtomicU32::new(1000),
                quota_remaining: AtomicI64::new(-1),
                turns: Semaphore::new(FALCON_AT_ONCE as usize),
            }),
        }
    }

    /// How many HTTP requests were sent to a side so far, repeated ones included.
    pub fn requests(&self, side: Service) -> u64 {
        self.counts(side)
            .map_or(0, |counts| counts.requests.load(Ordering::Relaxed))
    }

    /// How many of them repeated a failed one.
    pub fn retries(&self, side: Service) -> u64 {
        self.counts(side)
            .map_or(0, |counts| counts.retries.load(Ordering::Relaxed))
    }

    /// How many requests Falcon's latest answer said are left of this minute's quota; none before the first answer.
    pub fn quota_remaining(&self) -> Option<u64> {
        u64::try_from(self.shared.quota_remaining.load(Ordering::Relaxed)).ok()
    }

    /// The present moment on the run's clock.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Returns the remaining time of the run.
    pub(crate) fn left(&self) -> Duration {
        self.deadline.left()
    }

    pub(crate) fn count(&self, side: Service) {
        if let Some(counts) = self.counts(side) {
            counts.requests.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn count_retry(&self, side: Service) {
        if let Some(counts) = self.counts(side) {
            counts.retries.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn counts(&self, side: Service) -> Option<&CallCounters> {
        match side {
            Service::Falcon => Some(&self.shared.falcon),
            Service::Tailscale => Some(&self.shared.tailscale),
            // Its calls are the AWS SDK's.
            Service::Secrets => None,
        }
    }

    /// Takes note of what Falcon says is left of the quota that all of the customer's tools share.
    pub(crate) fn note_quota(&self, limit: u64, remaining: u64) {
        let left = remaining
            .saturating_mul(1000)
            .checked_div(limit)
            .and_then(|left| u32::try_from(left).ok());
        if let Some(left) = left {
            self.shared.quota_left.store(left, Ordering::Relaxed);
            let remaining = i64::try_from(remaining).unwrap_or(i64::MAX);
            self.shared
                .quota_remaining
                .store(remaining, Ordering::Relaxed);
        }
    }

    /// The right to have one Falcon request under way. As the quota dwindles, fewer are at the same time, and each waits
    /// a little: the rest is left to the customer's other tools.
    pub(crate) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        let share = share(self.shared.quota_left.load(Ordering::Relaxed));
        // It is never closed, so there is always a permit in the end.
        let turn = self.shared.turns.acquire_many(share).await.ok();
        let wait = courtesy(self.shared.quota_left.load(Ordering::Relaxed));
        if !wait.is_zero() {
            tokio::time::sleep(wait.min(self.left())).await;
        }
        turn
    }

    /// How long a call may take.
    pub(crate) fn patience(&self) -> Duration {
        self.policy.patience
    }

    /// The wait before the next try; none where the run would not live to see it.
    fn wait(&self, error: &UpstreamError, proposed: Duration) -> Option<Duration> {
        let wait = match error {
            // Callers that all come back at the advertised second are limited again, so the jitter comes on top.
            UpstreamError::RateLimited {
                until: Some(until), ..
            } => proposed.saturating_add(positive(until.duration_since(self.now()))),
            UpstreamError::RateLimited { until: None, .. } => self.policy.longest_wait,
            _ => proposed,
        };
        (wait < self.left() && self.may_repeat()).then_some(wait)
    }

    fn may_repeat(&self) -> bool {
        let left = &self.shared.repeats_left;
        left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            left.checked_sub(1)
        })
        .is_ok()
    }
}

fn positive(duration: SignedDuration) -> Duration {
    Duration::try_from(duration).unwrap_or(Duration::ZERO)
}

/// How many Falcon requests are under way at most, as long as there is quota enough.
const FALCON_AT_ONCE: u32 = 12;

/// How much of [`FALCON_AT_ONCE`] one request takes: below half of the quota two are under way, below a quarter one. The
/// largest listing takes a fiftieth of a minute's quota.
fn share(quota_left: u32) -> u32 {
    match quota_left {
        0..250 => FALCON_AT_ONCE,
        250..500 => FALCON_AT_ONCE / 2,
        _ => 1,
    }
}

/// Below a tenth of the quota: up to five requests a second. Below a hundredth: one.
fn courtesy(quota_left: u32) -> Duration {
    Duration::from_millis(match quota_left {
        0..10 => 1000,
        10..100 => 200,
        _ => 0,
    })
}

/// Makes a call, and makes it again while it fails transiently, tries are left, and the next one lies within the
/// budget's time. Each repetition is logged once.
///
/// # Errors
/// The last try's error.
pub async fn retry<T, F>(
    budget: &CallBudget,
    operation: Operation,
    call: impl FnMut() -> F,
) -> Result<T, UpstreamError>
where
    F: Future<Output = Result<T, UpstreamError>>,
{
    let mut attempt = 1_u32;
    call.retry(budget.policy.waits())
        .when(UpstreamError::is_transient)
        .adjust(|error, proposed| budget.wait(error, proposed?))
        .notify(|error, wait| {
            warn!(
                side = %operation.side,
                operation = operation.name,
                attempt,
                wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
                error = error_chain(error),
                "a call failed and is made again",
            );
            attempt += 1;
            budget.count_retry(operation.side);
        })
        .await
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::Cell;

    use futures::FutureExt;

    use super::*;

    /// Waits of a millisecond, and a minute on a clock that stands.
    pub(crate) fn budget() -> CallBudget {
        let clock = Clock::standing_at(Timestamp::from_second(1_800_000_000).unwrap());
        let deadline = Deadline::new(
            clock.clone(),
            Timestamp::from_second(1_800_000_060).unwrap(),
        );
        let policy = RetryPolicy {
            attempts: 4,
            first_wait: Duration::from_millis(1),
            longest_wait: Duration::from_millis(4),
            repeats: 10,
            ..RetryPolicy::default()
        };
        CallBudget::new(policy, clock, deadline)
    }

    const PROBE: Operation = Operation {
        side: Service::Falcon,
        name: "a probe",
        scope: "",
    };

    /// How often a call that fails with `error` so many times is made, and what comes of it.
    async fn attempts(
        budget: &CallBudget,
        failures: usize,
        error: impl Fn() -> UpstreamError,
    ) -> (usize, Result<(), UpstreamError>) {
        let made = Cell::new(0);
        let made = &made;
        let result = retry(budget, PROBE, || {
            made.set(made.get() + 1);
            let failed = made.get() <= failures;
            std::future::ready(if failed { Err(error()) } else { Ok(()) })
        })
        .await;
        (made.get(), result)
    }

    #[tokio::test]
    async fn what_is_transient_is_tried_four_times() {
        let (made, result) = attempts(&budget(), 3, || PROBE.failing(503)).await;
        assert_eq!(made, 4);
        assert!(result.is_ok());
        let (made, result) = attempts(&budget(), 9, || PROBE.failing(503)).await;
        assert_eq!(made, 4);
        assert!(matches!(
            result,
            Err(UpstreamError::Unavailable {
                status: Some(503),
                ..
            })
        ));
    }

    #[tokio::test]
    async fn an_answer_is_not_asked_for_again() {
        let (made, _) = attempts(&budget(), 9, || PROBE.rejected(400, String::new())).await;
        assert_eq!(made, 1);
        let (made, _) = attempts(&budget(), 9, || PROBE.refused(401, "")).await;
        assert_eq!(made, 1);
    }

    #[tokio::test]
    async fn an_advertised_wait_within_the_time_is_waited() {
        let budget = budget();
        let until = budget.now() + SignedDuration::from_millis(30);
        let started = tokio::time::Instant::now();
        let (made, result) = attempts(&budget, 1, || PROBE.rate_limited(Some(until))).await;
        assert_eq!(made, 2);
        assert!(result.is_ok());
        assert!(started.elapsed() >= Duration::from_millis(30));
    }

    #[tokio::test]
    async fn an_advertised_wait_past_the_deadline_ends_it_at_once() {
        let budget = budget();
        let until = budget.now() + SignedDuration::from_secs(61);
        let (made, result) = attempts(&budget, 9, || PROBE.rate_limited(Some(until))).await;
        assert_eq!(made, 1);
        assert!(matches!(
            result,
            Err(UpstreamError::RateLimited { until: Some(_), .. })
        ));
    }

    #[tokio::test]
    async fn a_run_repeats_so_many_calls_and_no_more() {
        let budget = budget();
        let mut made = Vec::new();
        for _ in 0..5 {
            made.push(attempts(&budget, 9, || PROBE.failing(503)).await.0);
        }
        assert_eq!(made, [4, 4, 4, 2, 1], "ten repetitions in all");
    }

    #[tokio::test]
    async fn fewer_requests_are_under_way_as_the_quota_dwindles() {
        let budget = budget();
        let mut at_once = Vec::new();
        for remaining in [6000, 3000, 2999, 1500, 1499] {
            budget.note_quota(6000, remaining);
            let mut turns = Vec::new();
            while let Some(Some(turn)) = budget.turn().now_or_never() {
                turns.push(turn);
            }
            at_once.push(turns.len());
        }
        assert_eq!(at_once, [12, 12, 2, 2, 1]);
    }

    #[test]
    fn a_dwindling_quota_slows_us_down() {
        let budget = budget();
        let mut waits = Vec::new();
        for remaining in [6000, 600, 599, 60, 59, 0, 5999] {
            budget.note_quota(6000, remaining);
            waits.push(courtesy(budget.shared.quota_left.load(Ordering::Relaxed)).as_millis());
        }
        assert_eq!(waits, [0, 0, 200, 200, 1000, 1000, 0]);
        budget.note_quota(0, 1);
    }
}
