//! The only source of the current time.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// The system clock, or a fixed time that a test moves.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<AtomicI64>>);

impl Clock {
    /// Returns the system clock.
    pub fn system() -> Self {
        Self(None)
    }

    /// Returns a clock that shows `time` until [`Clock::advance`] moves it. Clones share the time.
    pub fn fixed_at(time: Timestamp) -> Self {
        Self(Some(Arc::new(AtomicI64::new(time.as_millisecond()))))
    }

    /// Returns the current time in whole milliseconds, so that a stored time equals the one that is read back.
    pub fn now(&self) -> Timestamp {
        let now = match &self.0 {
            Some(millis) => millis.load(Ordering::SeqCst),
            None => system_now().as_millisecond(),
        };
        Timestamp::from_millisecond(now).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// Moves a fixed clock. The system clock stays unchanged.
    pub fn advance(&self, by: Duration) {
        if let Some(millis) = &self.0 {
            let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
            millis.fetch_add(by, Ordering::SeqCst);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the door")]
fn system_now() -> Timestamp {
    Timestamp::now()
}

/// The time by which a run must be done, recorded and released.
#[derive(Clone, Debug)]
pub struct Deadline {
    clock: Clock,
    at: Timestamp,
}

impl Deadline {
    /// Sets a deadline on this clock.
    pub fn new(clock: Clock, at: Timestamp) -> Self {
        Self { clock, at }
    }

    /// Returns the time until the deadline; zero once it has passed.
    pub(crate) fn remaining(&self) -> Duration {
        Duration::try_from(self.at.duration_since(self.clock.now())).unwrap_or(Duration::ZERO)
    }

    /// Returns the earlier one of this deadline and `end`.
    #[must_use]
    pub(crate) fn no_later_than(&self, end: Timestamp) -> Self {
        Self::new(self.clock.clone(), self.at.min(end))
    }

    /// Returns an earlier deadline, for work that must leave time for what follows it.
    #[must_use]
    pub(crate) fn minus(&self, reserve: Duration) -> Self {
        let reserve = SignedDuration::try_from(reserve).unwrap_or(SignedDuration::MAX);
        let at = self.at.saturating_sub(reserve).unwrap_or(Timestamp::MIN);
        Self::new(self.clock.clone(), at)
    }
}

/// Formats as RFC 3339 in UTC with milliseconds, always 24 characters. The texts sort like the times.
pub fn rfc3339(time: Timestamp) -> String {
    format!("{time:.3}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_sort_as_text() {
        let texts: Vec<String> = [0_i64, 1_000, 1_001, 1_763_800_000_120]
            .iter()
            .map(|ms| rfc3339(Timestamp::from_millisecond(*ms).unwrap()))
            .collect();
        assert!(texts.is_sorted());
        assert_eq!(texts[3], "2025-11-22T08:26:40.120Z");
    }

    #[test]
    fn a_passed_deadline_leaves_no_time() {
        let clock = Clock::fixed_at(Timestamp::UNIX_EPOCH);
        let deadline = Deadline::new(clock.clone(), Timestamp::from_second(10).unwrap());
        assert_eq!(deadline.remaining(), Duration::from_secs(10));
        assert_eq!(
            deadline.minus(Duration::from_secs(4)).remaining(),
            Duration::from_secs(6)
        );
        clock.advance(Duration::from_secs(11));
        assert_eq!(deadline.remaining(), Duration::ZERO);
    }
}
