//! Shares Falcon's rate limit with the customer's other tools.
//!
//! The quota is the account's, not this client's. As it falls, fewer requests run at once and each is delayed.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::upstream::retry::CallBudget;

/// Maximum Falcon requests in flight while the quota is high.
const MAX_CONCURRENCY: u32 = 12;

/// Limits the Falcon requests of a session by the account's remaining quota.
#[derive(Debug)]
pub(super) struct RateLimiter {
    budget: CallBudget,
    /// Remaining share of the quota, in thousandths, from the latest response.
    remaining_permille: AtomicU32,
    permits: Semaphore,
}

impl RateLimiter {
    pub(super) fn new(budget: CallBudget) -> Self {
        Self {
            budget,
            remaining_permille: AtomicU32::new(1000),
            permits: Semaphore::new(MAX_CONCURRENCY as usize),
        }
    }

    /// Acquires the permit for one request, and waits while the quota is low.
    pub(super) async fn acquire(&self) -> Option<SemaphorePermit<'_>> {
        let permits = permits_for(self.remaining_permille.load(Ordering::Relaxed));
        // The semaphore is never closed, so acquiring does not fail.
        let permit = self.permits.acquire_many(permits).await.ok();
        let delay = throttle_delay(self.remaining_permille.load(Ordering::Relaxed));
        if !delay.is_zero() {
            tokio::time::sleep(delay.min(self.budget.deadline.remaining())).await;
        }
        permit
    }

    pub(super) fn record_quota(&self, limit: u64, remaining: u64) {
        let permille = remaining.saturating_mul(1000).checked_div(limit);
        if let Some(Ok(permille)) = permille.map(u32::try_from) {
            self.remaining_permille.store(permille, Ordering::Relaxed);
            self.budget.record_quota_remaining(remaining);
        }
    }
}

/// Returns the permits that one request takes. Below half of the quota two requests run at once, below a quarter one. The
/// largest listing takes a fiftieth of a minute's quota.
fn permits_for(remaining_permille: u32) -> u32 {
    match remaining_permille {
        0..250 => MAX_CONCURRENCY,
        250..500 => MAX_CONCURRENCY / 2,
        _ => 1,
    }
}

/// Returns the delay of a request: up to five requests a second below a tenth of the quota, one below a hundredth.
fn throttle_delay(remaining_permille: u32) -> Duration {
    Duration::from_millis(match remaining_permille {
        0..10 => 1000,
        10..100 => 200,
        _ => 0,
    })
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::upstream::retry::tests::budget;

    #[tokio::test]
    async fn fewer_requests_run_at_once_as_the_quota_falls() {
        let limiter = RateLimiter::new(budget());
        let mut in_flight = Vec::new();
        for remaining in [6000, 3000, 2999, 1500, 1499] {
            limiter.record_quota(6000, remaining);
            let mut permits = Vec::new();
            while let Some(Some(permit)) = limiter.acquire().now_or_never() {
                permits.push(permit);
            }
            in_flight.push(permits.len());
        }
        assert_eq!(in_flight, [12, 12, 2, 2, 1]);
    }

    #[test]
    fn a_low_quota_delays_each_request() {
        let limiter = RateLimiter::new(budget());
        let mut delays = Vec::new();
        for remaining in [6000, 600, 599, 60, 59, 0, 5999] {
            limiter.record_quota(6000, remaining);
            let permille = limiter.remaining_permille.load(Ordering::Relaxed);
            delays.push(throttle_delay(permille).as_millis());
        }
        assert_eq!(delays, [0, 0, 200, 200, 1000, 1000, 0]);
        limiter.record_quota(0, 1);
    }
}
