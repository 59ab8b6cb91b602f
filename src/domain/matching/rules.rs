//! The limits of an integration by which hosts count, at one time.

use jiff::{SignedDuration, Timestamp};

use crate::domain::inventory::device::{Device, Presence};
use crate::domain::inventory::host::{Host, Hosts};
use crate::domain::inventory::serial::Serial;
use crate::settings::{IgnoredSerials, OnContained, OnSharedSerial, Settings};

/// Of several hosts with one serial, those seen within this time of the most recently seen one are live.
pub(crate) const LIVE_WINDOW: SignedDuration = SignedDuration::from_hours(24);

/// A connected device whose sensor was not seen for this time has a silent sensor.
const SILENT_AFTER: SignedDuration = SignedDuration::from_hours(24);

/// A score rises only on the word of a host that was seen at most this long before the device was.
const WITNESS_WINDOW: SignedDuration = SignedDuration::from_hours(24);

/// The rules about hosts: settings of the integration, and the time of the run.
#[derive(Clone, Debug)]
pub struct MatchRules {
    /// The time of the run.
    pub now: Timestamp,
    /// `maxHostAgeDays`: hosts last seen longer ago do not count.
    pub max_age_days: Option<u16>,
    /// `maxSilenceHours`: for a connected device, hosts last seen longer ago do not count.
    pub max_silence_hours: Option<u16>,
    /// Texts that are no serials, and texts that are.
    pub ignored_serials: IgnoredSerials,
    /// The effect of a serial that several machines share.
    pub on_shared_serial: OnSharedSerial,
    /// The effect of a host that is isolated from the network.
    pub on_contained: OnContained,
}

impl MatchRules {
    /// Creates the rules of an integration that sets none of them.
    pub fn with_defaults(now: Timestamp) -> Self {
        Self {
            now,
            max_age_days: Some(30),
            max_silence_hours: Some(168),
            ignored_serials: IgnoredSerials::default(),
            on_shared_serial: OnSharedSerial::default(),
            on_contained: OnContained::default(),
        }
    }

    /// Takes the rules from the settings.
    pub fn new(settings: &Settings, now: Timestamp) -> Self {
        Self {
            now,
            max_age_days: settings.max_host_age_days,
            max_silence_hours: settings.max_silence_hours,
            ignored_serials: settings.ignored_serials.clone(),
            on_shared_serial: settings.on_shared_serial,
            on_contained: settings.on_contained,
        }
    }

    /// Returns the time before which hosts are too old, if there is a limit.
    pub(crate) fn oldest(&self) -> Option<Timestamp> {
        let age = SignedDuration::from_hours(24 * i64::from(self.max_age_days?));
        Some(self.before(age))
    }

    /// Returns whether a host is within the age limit.
    pub(crate) fn is_recent(&self, host: &Host) -> bool {
        self.oldest()
            .is_none_or(|limit| host.last_seen >= Some(limit))
    }

    /// Returns whether a sensor that was last seen at this time is silent for longer than the limit allows.
    pub(crate) fn exceeds_silence(&self, last_seen: Option<Timestamp>) -> bool {
        let hours = self.max_silence_hours.map(i64::from);
        hours.is_some_and(|hours| last_seen < Some(self.before(SignedDuration::from_hours(hours))))
    }

    /// Returns whether a sensor that was last seen at this time is silent.
    pub(crate) fn is_silent(&self, last_seen: Option<Timestamp>) -> bool {
        last_seen < Some(self.before(SILENT_AFTER))
    }

    /// Returns whether a host was seen recently enough to raise the score of a device, or to set its first one.
    pub(crate) fn is_witness(&self, host: &Host, device: &Device) -> bool {
        let seen = match device.presence {
            Presence::Away {
                last_seen: Some(seen),
            } => seen.min(self.now),
            Presence::Away { last_seen: None } | Presence::Connected => self.now,
        };
        let earliest = seen.saturating_sub(WITNESS_WINDOW);
        host.last_seen >= Some(earliest.unwrap_or(Timestamp::MIN))
    }

    /// Returns whether a text that Falcon reports identifies a machine.
    pub(crate) fn is_usable(&self, serial: Option<&Serial>) -> bool {
        serial.is_some_and(|serial| serial.judge(&self.ignored_serials).is_ok())
    }

    /// Counts the hosts without a serial that identifies a machine.
    pub(crate) fn count_unusable(&self, hosts: &Hosts) -> usize {
        let unusable = hosts.values();
        unusable
            .filter(|host| !self.is_usable(host.serial.as_ref()))
            .count()
    }

    fn before(&self, age: SignedDuration) -> Timestamp {
        self.now.saturating_sub(age).unwrap_or(Timestamp::MIN)
    }
}
