//! The pause after a refused credential: asking again every few minutes helps nobody, and locks API clients out.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::domain::status::error_kind::Service;

/// Hours until the next try, by the number of refusals in a row; the last one repeats.
const HOURS: [i64; 6] = [1, 2, 4, 8, 16, 24];

/// A pause of one integration, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pause {
    /// The first refusal of the row.
    pub since: Timestamp,
    /// The next try, unless something ends the pause before.
    pub until: Timestamp,
    /// Who refused.
    pub side: Service,
    /// What it said.
    pub error: String,
    /// The version of that side's secret, where it was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_version: Option<String>,
    /// Refusals in a row.
    pub attempts: u32,
}

/// What is known of the present, to judge a pause by.
#[derive(Clone, Copy, Debug)]
pub struct PauseContext<'a> {
    /// The time.
    pub now: Timestamp,
    /// The present version of the secret that the pause is about, if it could be found out.
    pub secret_version: Option<&'a str>,
    /// Whether the settings were changed since the run that met the refusal.
    pub config_changed: bool,
    /// Whether a person asks for a run in spite of it.
    pub force: bool,
}

impl Pause {
    /// Whether it still holds. Time, changed settings, a new secret version or `force` end it.
    pub fn holds(&self, present: PauseContext<'_>) -> bool {
        present.now < self.until
            && !present.config_changed
            && !present.force
            && !self.has_new_secret(present)
    }

    /// A version that cannot be found out is no new one.
    fn has_new_secret(&self, present: PauseContext<'_>) -> bool {
        present
            .secret_version
            .is_some_and(|version| self.secret_version.as_deref() != Some(version))
    }

    /// The pause after a refusal. The row of refusals goes on where the last pause ran out; it starts anew where
    /// something had been changed, and stays where a person forced a try.
    pub fn after(
        previous: Option<&Self>,
        side: Service,
        error: String,
        secret_version: Option<String>,
        present: PauseContext<'_>,
    ) -> Self {
        let row = previous.filter(|pause| {
            pause.side == side && !present.config_changed && pause.secret_version == secret_version
        });
        let (since, attempts, until) = match row {
            Some(pause) if present.now < pause.until => {
                (pause.since, pause.attempts, Some(pause.until))
            }
            Some(pause) => (pause.since, pause.attempts.saturating_add(1), None),
            None => (present.now, 1, None),
        };
        let index = usize::try_from(attempts.saturating_sub(1)).unwrap_or(usize::MAX);
        let hours = HOURS[index.min(HOURS.len() - 1)];
        Self {
            since,
            until: until.unwrap_or_else(|| {
                present
                    .now
                    .saturating_add(SignedDuration::from_hours(hours))
                    .unwrap_or(Timestamp::MAX)
            }),
            side,
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

    fn present(hours: i64) -> PauseContext<'static> {
        PauseContext {
            now: at(hours),
            secret_version: Some("v1"),
            config_changed: false,
            force: false,
        }
    }

    fn refuse(previous: Option<&Pause>, present: PauseContext<'_>) -> Pause {
        Pause::after(
            previous,
            Service::Falcon,
            "refused".to_owned(),
            Some("v1".to_owned()),
            present,
        )
    }

    #[test]
    fn pauses_grow_to_a_day() {
        let mut now = 0;
        let mut pause = refuse(None, present(0));
        let mut hours = Vec::new();
        for _ in 0..8 {
            let length = pause.until.as_second() / 3600 - now;
            hours.push(length);
            now += length;
            pause = refuse(Some(&pause), present(now));
        }
        assert_eq!(hours, [1, 2, 4, 8, 16, 24, 24, 24]);
        assert_eq!(pause.since, at(0));
    }

    #[test]
    fn time_change_or_force_end_it() {
        let pause = refuse(None, present(0));
        assert!(pause.holds(present(0)));
        assert!(!pause.holds(present(1)));
        assert!(!pause.holds(PauseContext {
            force: true,
            ..present(0)
        }));
        assert!(!pause.holds(PauseContext {
            config_changed: true,
            ..present(0)
        }));
        assert!(!pause.holds(PauseContext {
            secret_version: Some("v2"),
            ..present(0)
        }));
        assert!(pause.holds(PauseContext {
            secret_version: None,
            ..present(0)
        }));
    }

    #[test]
    fn a_forced_try_does_not_lengthen_it_and_a_new_secret_starts_anew() {
        let first = refuse(None, present(0));
        let second = refuse(Some(&first), present(1));
        let forced = refuse(
            Some(&second),
            PauseContext {
                force: true,
                ..present(2)
            },
        );
        assert_eq!((forced.attempts, forced.until), (2, second.until));
        let anew = Pause::after(
            Some(&second),
            Service::Falcon,
            "refused".to_owned(),
            Some("v2".to_owned()),
            present(2),
        );
        assert_eq!((anew.attempts, anew.since), (1, at(2)));
    }
}
