//! The end of scores: each expires in Tailscale unless a run renews it, so that the scores of a dead function do not count
//! for ever.

use jiff::{SignedDuration, Timestamp};

use crate::domain::inventory::record::NodeRecord;
use crate::settings::Settings;

/// Maximum time between the start of a run, from which the end is counted, and a write.
const MAX_RUN: SignedDuration = SignedDuration::from_mins(15);

/// How long the scores of a run last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    now: Timestamp,
    ttl: SignedDuration,
}

impl Lifetime {
    /// Returns the lifetime of the scores that a run writes which began at `now`.
    pub fn new(settings: &Settings, now: Timestamp) -> Self {
        Self::from_hours(settings.score_ttl_hours, now)
    }

    /// As [`Lifetime::new`], of so many hours.
    pub fn from_hours(hours: u16, now: Timestamp) -> Self {
        let ttl = SignedDuration::from_hours(hours.into());
        Self { now, ttl }
    }

    /// Returns the end of a score that is written now, in whole seconds.
    pub fn end(self) -> Timestamp {
        let end = self.now.saturating_add(self.ttl).unwrap_or(Timestamp::MAX);
        Timestamp::from_second(end.as_second()).unwrap_or(end)
    }

    /// Returns true if less than half of a life is left until `end`: runs renew scores much earlier, if they can.
    pub fn is_nearly_over(self, end: Timestamp) -> bool {
        end.duration_since(self.now) * 2 < self.ttl
    }

    /// Returns true if a recorded score is to be renewed: less than three quarters of its life are left, or it has no end or
    /// another than the settings give.
    pub fn needs_renewal(self, record: &NodeRecord) -> bool {
        let (Some(expiry), Some(written_at)) = (record.expiry, record.written_at) else {
            return true;
        };
        let life = expiry.duration_since(written_at);
        let is_as_set = life <= self.ttl && life >= self.ttl - MAX_RUN;
        let left = expiry.duration_since(self.now);
        !is_as_set || left * 4 < self.ttl * 3
    }
}
