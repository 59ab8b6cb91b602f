//! The simulators' time: that of a test, or the machine's time plus an offset.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;

/// One clock for both simulators. Tests move it forward to expire cursors, tokens and attributes
/// without waiting. Clones share the same time.
#[derive(Clone, Default)]
pub struct Clock {
    ahead_ms: Arc<AtomicI64>,
    /// Shows the time instead of the machine's clock.
    source: Arc<RwLock<Option<Source>>>,
}

type Source = Box<dyn Fn() -> Timestamp + Send + Sync>;

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Clock").field(&self.now()).finish()
    }
}

impl Clock {
    /// Returns the present time of both simulators.
    #[expect(
        clippy::disallowed_methods,
        reason = "the simulators' one door to the time"
    )]
    pub fn now(&self) -> Timestamp {
        let source = self.source.read().unwrap_or_else(PoisonError::into_inner);
        let real = source
            .as_ref()
            .map_or_else(Timestamp::now, |source| source());
        let ahead = self.ahead_ms.load(Ordering::Relaxed);
        Timestamp::from_millisecond(real.as_millisecond().saturating_add(ahead)).unwrap_or(real)
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        let ms = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.ahead_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// Shows the time of this clock instead of the machine's.
    pub fn follow(&self, source: impl Fn() -> Timestamp + Send + Sync + 'static) {
        *self.source.write().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(source));
    }

    /// Removes the offset.
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
