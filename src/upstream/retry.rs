//! Retries, and the budget that the calls of a run share: time, retries, and counters of requests.
//!
//! Only transient failures are retried.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder, Retryable};
use jiff::Timestamp;
use tracing::warn;

use crate::clock::{Clock, Deadline};
use crate::domain::status::error_kind::Service;
use crate::text::error_chain;
use crate::upstream::error::{Operation, UpstreamError, UpstreamErrorKind};

/// Limits of retries and of the time of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Maximum attempts of a call, including the first one.
    pub max_attempts: usize,
    /// The shortest first wait; each further wait is twice as long. Random jitter adds up to the same length again.
    pub initial_backoff: Duration,
    /// The longest wait without an advertised end, and the wait after a 429 without one. An advertised wait may be longer.
    pub max_backoff: Duration,
    /// Maximum retries of a run in all: if much fails, the cause is not a single call.
    pub max_retries_per_run: u32,
    /// Maximum time from a request to the last byte of its response. Recorded responses take about a second.
    pub request_timeout: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_attempts: 4,
            initial_backoff: Duration::from_millis(500),
            max_backoff: Duration::from_secs(20),
            max_retries_per_run: 60,
            request_timeout: Duration::from_mins(1),
        }
    }
}

impl RetryPolicy {
    fn backoff(self) -> impl BackoffBuilder {
        ExponentialBuilder::new()
            .with_min_delay(self.initial_backoff)
            // The jitter is added to the delay and may double it.
            .with_max_delay(self.max_backoff / 2)
            .with_max_times(self.max_attempts.saturating_sub(1))
            .with_jitter()
    }
}

/// State that the calls of a run share: the remaining time, the policy, and the counters. Clones share the counters.
#[derive(Clone, Debug)]
pub struct CallBudget {
    pub(crate) policy: RetryPolicy,
    pub(crate) clock: Clock,
    pub(crate) deadline: Deadline,
    /// Attempts without an answer. Their requests may have taken effect, or still take it.
    unanswered: Arc<AtomicU64>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    falcon: CallCounters,
    tailscale: CallCounters,
    /// Stays empty: the AWS SDK makes the calls to AWS.
    others: CallCounters,
    remaining_retries: AtomicU32,
    /// Remaining requests of Falcon's quota; -1 before the first response.
    quota_remaining: AtomicI64,
}

/// Counters of the requests to one service.
#[derive(Debug, Default)]
struct CallCounters {
    requests: AtomicU64,
    /// The requests that repeat a failed one.
    retries: AtomicU64,
}

impl CallBudget {
    /// Creates a budget from now until the deadline.
    pub fn new(policy: RetryPolicy, clock: Clock, deadline: Deadline) -> Self {
        Self {
            policy,
            clock,
            deadline,
            unanswered: Arc::default(),
            shared: Arc::new(Shared {
                remaining_retries: AtomicU32::new(policy.max_retries_per_run),
                quota_remaining: AtomicI64::new(-1),
                ..Shared::default()
            }),
        }
    }

    /// Returns a budget for a part of the run, until `end` at the latest, with its own number of unanswered attempts.
    pub(crate) fn part(&self, end: Timestamp) -> Self {
        Self {
            deadline: self.deadline.no_later_than(end),
            unanswered: Arc::default(),
            ..self.clone()
        }
    }

    /// Returns the number of attempts without an answer.
    pub(crate) fn unanswered(&self) -> u64 {
        self.unanswered.load(Ordering::Relaxed)
    }

    /// Returns the number of HTTP requests sent to a service, including retries.
    pub(crate) fn requests(&self, service: Service) -> u64 {
        self.counters(service).requests.load(Ordering::Relaxed)
    }

    pub(crate) fn retries(&self, service: Service) -> u64 {
        self.counters(service).retries.load(Ordering::Relaxed)
    }

    /// Returns the remaining requests of this minute's Falcon quota, by the latest response; `None` before the first.
    pub(crate) fn quota_remaining(&self) -> Option<u64> {
        u64::try_from(self.shared.quota_remaining.load(Ordering::Relaxed)).ok()
    }

    pub(crate) fn record_quota_remaining(&self, remaining: u64) {
        let remaining = i64::try_from(remaining).unwrap_or(i64::MAX);
        let stored = &self.shared.quota_remaining;
        stored.store(remaining, Ordering::Relaxed);
    }

    pub(crate) fn count_request(&self, service: Service) {
        let requests = &self.counters(service).requests;
        requests.fetch_add(1, Ordering::Relaxed);
    }

    fn counters(&self, service: Service) -> &CallCounters {
        match service {
            Service::Falcon => &self.shared.falcon,
            Service::Tailscale => &self.shared.tailscale,
            Service::SecretsManager | Service::Deployment => &self.shared.others,
        }
    }

    /// Returns the wait before the next attempt; `None` if the run has no time or no retry left for it.
    fn retry_delay(&self, error: &UpstreamError, proposed: Duration) -> Option<Duration> {
        let delay = match error.kind {
            // Callers that all return at the advertised second are limited again, so the jitter is added.
            UpstreamErrorKind::RateLimited { until: Some(until) } => {
                let wait = Duration::try_from(until.duration_since(self.clock.now()));
                proposed.saturating_add(wait.unwrap_or_default())
            }
            UpstreamErrorKind::RateLimited { until: None } => self.policy.max_backoff,
            _ => proposed,
        };
        (delay < self.deadline.remaining() && self.take_retry()).then_some(delay)
    }

    fn take_retry(&self) -> bool {
        let take = |remaining: u32| remaining.checked_sub(1);
        self.shared
            .remaining_retries
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .is_ok()
    }

    /// Makes a call. Repeats it while it fails transiently, attempts are left, and the next one is within the budget's
    /// time. Each retry is logged once. The error is that of the last attempt.
    pub(crate) async fn retry<T, F>(
        &self,
        operation: Operation,
        call: impl FnMut() -> F,
    ) -> Result<T, UpstreamError>
    where
        F: Future<Output = Result<T, UpstreamError>>,
    {
        let mut attempt = 1_u32;
        call.retry(self.policy.backoff())
            .when(|error| {
                if error.is_unanswered() {
                    self.unanswered.fetch_add(1, Ordering::Relaxed);
                }
                error.error_kind().is_transient()
            })
            .adjust(|error, proposed| self.retry_delay(error, proposed?))
            .notify(|error, delay| {
                warn!(
                    side = %operation.service,
                    operation = operation.name,
                    attempt,
                    wait_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
                    error = error_chain(error),
                    "a call failed and is made again",
                );
                attempt += 1;
                let retries = &self.counters(operation.service).retries;
                retries.fetch_add(1, Ordering::Relaxed);
            })
            .await
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::Cell;

    use jiff::{SignedDuration, Timestamp};

    use super::*;
    use crate::upstream::client::{ApiClient, HttpClient};

    /// Returns a budget with waits of a millisecond, and one minute on a fixed clock.
    pub(crate) fn budget() -> CallBudget {
        let clock = Clock::fixed_at(Timestamp::from_second(1_800_000_000).unwrap());
        let deadline = Deadline::new(
            clock.clone(),
            Timestamp::from_second(1_800_000_060).unwrap(),
        );
        let policy = RetryPolicy {
            max_attempts: 4,
            initial_backoff: Duration::from_millis(1),
            max_backoff: Duration::from_millis(4),
            max_retries_per_run: 10,
            ..RetryPolicy::default()
        };
        CallBudget::new(policy, clock, deadline)
    }

    /// Returns a client with that budget.
    pub(crate) fn client() -> ApiClient {
        ApiClient::new(HttpClient::new().unwrap(), budget())
    }

    const PROBE: Operation = Operation::new(Service::Falcon, "a probe", "");

    /// Makes a call that fails `failures` times with `error`. Returns the number of attempts and the result.
    async fn attempts(
        budget: &CallBudget,
        failures: usize,
        error: impl Fn() -> UpstreamError,
    ) -> (usize, Result<(), UpstreamError>) {
        let count = Cell::new(0);
        let result = budget
            .retry(PROBE, || {
                count.set(count.get() + 1);
                let failed = count.get() <= failures;
                std::future::ready(if failed { Err(error()) } else { Ok(()) })
            })
            .await;
        (count.get(), result)
    }

    #[tokio::test]
    async fn transient_failures_are_tried_four_times() {
        let (count, result) = attempts(&budget(), 3, || PROBE.server_error(503)).await;
        assert_eq!(count, 4);
        assert!(result.is_ok());
        let (count, result) = attempts(&budget(), 9, || PROBE.server_error(503)).await;
        assert_eq!(count, 4);
        assert!(matches!(
            result.unwrap_err().kind,
            UpstreamErrorKind::Unavailable { status: Some(503) }
        ));
    }

    #[tokio::test]
    async fn other_failures_are_not_retried() {
        let (count, _) = attempts(&budget(), 9, || PROBE.rejected(400, String::new())).await;
        assert_eq!(count, 1);
        let (count, _) = attempts(&budget(), 9, || PROBE.unauthorized(401, "")).await;
        assert_eq!(count, 1);
    }

    #[tokio::test]
    async fn an_advertised_wait_before_the_deadline_is_waited() {
        let budget = budget();
        let until = budget.clock.now() + SignedDuration::from_millis(30);
        let started = tokio::time::Instant::now();
        let (count, result) = attempts(&budget, 1, || PROBE.rate_limited(Some(until))).await;
        assert_eq!(count, 2);
        assert!(result.is_ok());
        assert!(started.elapsed() >= Duration::from_millis(30));
    }

    #[tokio::test]
    async fn an_advertised_wait_past_the_deadline_fails_at_once() {
        let budget = budget();
        let until = budget.clock.now() + SignedDuration::from_secs(61);
        let (count, result) = attempts(&budget, 9, || PROBE.rate_limited(Some(until))).await;
        assert_eq!(count, 1);
        assert!(matches!(
            result.unwrap_err().kind,
            UpstreamErrorKind::RateLimited { until: Some(_) }
        ));
    }

    #[tokio::test]
    async fn the_retries_of_a_run_are_limited() {
        let budget = budget();
        let mut count = Vec::new();
        for _ in 0..5 {
            count.push(attempts(&budget, 9, || PROBE.server_error(503)).await.0);
        }
        assert_eq!(count, [4, 4, 4, 2, 1], "ten retries in all");
    }
}
