//! The one door to the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// Where the time comes from: the system, or a hand that a test moves.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<AtomicI64>>);

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self(None)
    }

    /// A clock that stands still until [`Clock::advance`] moves it. Clones show the same time.
    pub fn standing_at(time: Timestamp) -> Self {
        Self(Some(Arc::new(AtomicI64::new(time.as_millisecond()))))
    }

    /// The present moment, to the millisecond: what is stored compares equal to what was read.
    pub fn now(&self) -> Timestamp {
        let millis = match &self.0 {
            Some(hand) => hand.load(Ordering::SeqCst),
            None => system_now().as_millisecond(),
        };
        Timestamp::from_millisecond(millis).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// Moves a standing clock. The system's clock is not ours to move: nothing happens.
    pub fn advance(&self, by: Duration) {
        if let Some(hand) = &self.0 {
            let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
            hand.fetch_add(by, Ordering::SeqCst);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the door")]
fn system_now() -> Timestamp {
    Timestamp::now()
}

/// The moment by which a run must be done, recorded and released.
#[derive(Clone, Debug)]
pub struct Deadline {
    clock: Clock,
    at: Timestamp,
}

impl Deadline {
    /// A deadline on this clock.
    pub fn new(clock: Clock, at: Timestamp) -> Self {
        Self { clock, at }
    }

    /// The moment itself.
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// What is left until then; zero when it has passed.
    pub fn left(&self) -> Duration {
        Duration::try_from(self.at.duration_since(self.clock.now())).unwrap_or(Duration::ZERO)
    }

    /// The same clock, with the end moved forward by `reserve`: for work that must leave time for what follows it.
    #[must_use]
    pub fn less(&self, reserve: Duration) -> Self {
        let reserve = SignedDuration::try_from(reserve).unwrap_or(SignedDuration::MAX);
        Self {
            clock: self.clock.clone(),
            at: self.at.saturating_sub(reserve).unwrap_or(Timestamp::MIN),
        }
    }
}

/// RFC 3339 in UTC with milliseconds, always 24 characters: as text it sorts like the time it tells.
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
    fn a_deadline_that_passed_leaves_nothing() {
        let clock = Clock::standing_at(Timestamp::UNIX_EPOCH);
        let deadline = Deadline::new(clock.clone(), Timestamp::from_second(10).unwrap());
        assert_eq!(deadline.left(), Duration::from_secs(10));
        assert_eq!(
            deadline.less(Duration::from_secs(4)).left(),
            Duration::from_secs(6)
        );
        clock.advance(Duration::from_secs(11));
        assert_eq!(deadline.left(), Duration::ZERO);
    }
}
