//! The simulators' time: the machine's time plus an offset that a test sets.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::Timestamp;

/// One clock for both simulators. Tests move it forward to expire cursors, tokens and attributes
/// without waiting. Clones share the same time.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    ahead_ms: Arc<AtomicI64>,
}

impl Clock {
    /// Returns the present time of both simulators.
    #[expect(
        clippy::disallowed_methods,
        reason = "the simulators' one door to the time"
    )]
    pub fn now(&self) -> Timestamp {
        let real = Timestamp::now();
        let ahead = self.ahead_ms.load(Ordering::Relaxed);
        Timestamp::from_millisecond(real.as_millisecond().saturating_add(ahead)).unwrap_or(real)
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        let ms = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.ahead_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// Returns to the machine's time.
    pub fn reset(&self) {
        self.ahead_ms.store(0, Ordering::Relaxed);
    }
}

/// Formats a time to the second, as in both APIs' records: `2023-05-22T17:20:01Z`.
pub(crate) fn to_second(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second())
        .unwrap_or(time)
        .to_string()
}
