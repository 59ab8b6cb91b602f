//! The simulators' time: the machine's, plus what a test has put it forward by.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::Timestamp;

/// One clock for both simulators, so that cursors, tokens and attribute expiries can be made to
/// lapse without waiting for them. Clones share the same time.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    ahead_ms: Arc<AtomicI64>,
}

impl Clock {
    /// The present time as both simulators see it.
    #[expect(
        clippy::disallowed_methods,
        reason = "the simulators' one door to the time"
    )]
    pub fn now(&self) -> Timestamp {
        let real = Timestamp::now();
        let ahead = self.ahead_ms.load(Ordering::Relaxed);
        Timestamp::from_millisecond(real.as_millisecond().saturating_add(ahead)).unwrap_or(real)
    }

    /// Puts the clock forward.
    pub fn advance(&self, by: Duration) {
        let ms = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.ahead_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// Back to the machine's time.
    pub fn reset(&self) {
        self.ahead_ms.store(0, Ordering::Relaxed);
    }
}

/// `2023-05-22T17:20:01Z`: the form of times in both APIs' records, to the second.
pub(crate) fn to_second(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second())
        .unwrap_or(time)
        .to_string()
}
