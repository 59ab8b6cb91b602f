//! The pause after a rejected credential: a retry every few minutes could lock the API client out.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::domain::status::error_kind::Service;

/// Hours until the next attempt, by the number of consecutive rejections. The last one repeats.
const BACKOFF_HOURS: [i64; 6] = [1, 2, 4, 8, 16, 24];

/// A pause of one integration, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pause {
    /// The first of the consecutive rejections.
    pub since: Timestamp,
    /// The next attempt, unless something ends the pause earlier.
    pub until: Timestamp,
    /// The service that rejected the credential.
    #[serde(rename = "side")]
    pub service: Service,
    /// The message of the latest rejection.
    pub error: String,
    /// The version of the service's secret, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_version: Option<String>,
    /// The number of consecutive rejections.
    pub attempts: u32,
}

/// The present, as far as it decides about a pause.
#[derive(Clone, Copy, Debug)]
pub struct PauseContext {
    /// The present time.
    pub now: Timestamp,
    /// True if the settings were changed since the rejection.
    pub is_config_changed: bool,
    /// True if a person requests a run in spite of the pause.
    pub is_forced: bool,
}

impl Pause {
    /// Returns whether the pause is active. Time, changed settings, a new secret version or a forced run end it. An unknown
    /// version is no new one.
    pub(crate) fn is_active(&self, context: PauseContext, secret_version: Option<&str>) -> bool {
        context.now < self.until
            && !context.is_config_changed
            && !context.is_forced
            && (secret_version.is_none() || secret_version == self.secret_version.as_deref())
    }

    /// Returns the pause after a rejection. A rejection after the end of the previous pause makes a longer pause. The first
    /// one after changed settings or a new secret starts with an hour. A forced run does not change the pause.
    ///
    /// ```
    /// use falcon_posture_sync::domain::status::error_kind::Service;
    /// use falcon_posture_sync::domain::status::pause::{Pause, PauseContext};
    ///
    /// let reject = |previous: Option<&Pause>, now| {
    ///     let context = PauseContext {
    ///         now,
    ///         is_config_changed: false,
    ///         is_forced: false,
    ///     };
    ///     let version = Some("v1".to_owned());
    ///     Pause::next(previous, Service::Falcon, "invalid client".to_owned(), version, context)
    /// };
    /// let first = reject(None, "2026-01-15T12:00:00Z".parse()?);
    /// assert_eq!(first.until.to_string(), "2026-01-15T13:00:00Z");
    /// let second = reject(Some(&first), first.until);
    /// assert_eq!(second.until.to_string(), "2026-01-15T15:00:00Z");
    /// assert_eq!((second.since, second.attempts), (first.since, 2));
    /// # Ok::<(), jiff::Error>(())
    /// ```
    pub fn next(
        previous: Option<&Self>,
        service: Service,
        error: String,
        secret_version: Option<String>,
        context: PauseContext,
    ) -> Self {
        let extended = previous.filter(|pause| {
            pause.service == service
                && !context.is_config_changed
                && pause.secret_version == secret_version
        });
        let (since, attempts) = match extended {
            Some(pause) if context.now < pause.until => {
                return Self {
                    error,
                    ..pause.clone()
                };
            }
            Some(pause) => (pause.since, pause.attempts.saturating_add(1)),
            None => (context.now, 1),
        };
        let index = usize::try_from(attempts.saturating_sub(1)).unwrap_or(usize::MAX);
        let hours = BACKOFF_HOURS[index.min(BACKOFF_HOURS.len() - 1)];
        let until = context
            .now
            .saturating_add(SignedDuration::from_hours(hours));
        Self {
            since,
            until: until.unwrap_or(Timestamp::MAX),
            service,
            error,
            secret_version,
            attempts,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_second(hours * 3600).unwrap()
    }

    fn context(hours: i64) -> PauseContext {
        PauseContext {
            now: at(hours),
            is_config_changed: false,
            is_forced: false,
        }
    }

    fn reject(previous: Option<&Pause>, context: PauseContext) -> Pause {
        Pause::next(
            previous,
            Service::Falcon,
            "rejected".to_owned(),
            Some("v1".to_owned()),
            context,
        )
    }

    #[test]
    fn pauses_grow_to_a_day() {
        let mut now = 0;
        let mut pause = reject(None, context(0));
        let mut hours = Vec::new();
        for _ in 0..8 {
            let length = pause.until.as_second() / 3600 - now;
            hours.push(length);
            now += length;
            pause = reject(Some(&pause), context(now));
        }
        assert_eq!(hours, [1, 2, 4, 8, 16, 24, 24, 24]);
        assert_eq!(pause.since, at(0));
    }

    #[test]
    fn time_a_change_or_force_ends_a_pause() {
        let pause = reject(None, context(0));
        assert!(pause.is_active(context(0), Some("v1")));
        assert!(!pause.is_active(context(1), Some("v1")));
        let forced = PauseContext {
            is_forced: true,
            ..context(0)
        };
        assert!(!pause.is_active(forced, Some("v1")));
        let changed = PauseContext {
            is_config_changed: true,
            ..context(0)
        };
        assert!(!pause.is_active(changed, Some("v1")));
        assert!(!pause.is_active(context(0), Some("v2")));
        assert!(pause.is_active(context(0), None));
    }

    #[test]
    fn a_forced_run_does_not_lengthen_a_pause_and_a_new_secret_starts_with_an_hour() {
        let first = reject(None, context(0));
        let second = reject(Some(&first), context(1));
        let forced = reject(
            Some(&second),
            PauseContext {
                is_forced: true,
                ..context(2)
            },
        );
        assert_eq!((forced.attempts, forced.until), (2, second.until));
        let restarted = Pause::next(
            Some(&second),
            Service::Falcon,
            "rejected".to_owned(),
            Some("v2".to_owned()),
            context(2),
        );
        assert_eq!((restarted.attempts, restarted.since), (1, at(2)));
    }
}
