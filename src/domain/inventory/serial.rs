//! Serial numbers: the only value that a Falcon host and a tailnet device share.

mod filler;
#[cfg(test)]
mod tests;

use std::fmt;

use smol_str::{SmolStr, StrExt as _};

use crate::settings::{IgnoredSerials, SerialRule};
use crate::text::{is_unprintable, letters_and_digits};

/// A printable text in normal form, as a serial number: trimmed, in upper case.
///
/// Neither side normalizes: Falcon stores the text that the sensor read, and a Tailscale node reports the SMBIOS texts
/// trimmed but in their own case. Both report fillers, too (tailscale#12566): texts that thousands of unrelated machines
/// have. [`Serial::parse`] accepts these, [`Serial::identify`] and [`Serial::judge`] do not.
///
/// ```
/// use falcon_posture_sync::domain::inventory::serial::{InvalidSerial, Serial};
/// use falcon_posture_sync::settings::IgnoredSerials;
///
/// let ignored = IgnoredSerials::default();
/// let serial = Serial::identify(" c02d91cnpv4m ", &ignored).unwrap();
/// assert_eq!(serial.as_str(), "C02D91CNPV4M");
///
/// let filler = Serial::parse("To Be Filled By O.E.M.").unwrap();
/// assert_eq!(filler.judge(&ignored), Err(InvalidSerial::Placeholder));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial(SmolStr);

/// The reason why a text identifies no machine. It reads after "is".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum InvalidSerial {
    /// White space only.
    Empty,
    /// Longer than [`Serial::MAX_CHARS`], or with characters that are invisible or change how others are displayed. No vendor
    /// prints such a serial.
    Malformed,
    /// Without a letter or digit.
    Punctuation,
    /// A text that vendors or virtual machines ship in place of a serial.
    Placeholder,
    /// The name of the SMBIOS field itself, whole or cut short.
    FieldName,
    /// A word or number that makers use for tests.
    TestValue,
    /// One repeated character.
    Repeated,
    /// Two characters in turn.
    Alternating,
    /// Digits that count up or down.
    Sequence,
    /// Matches an entry of the setting `ignoredSerials`.
    Ignored,
}

impl Serial {
    /// Maximum length of a serial. Real ones have 7 to 60 characters; VMware's are the longest.
    pub const MAX_CHARS: usize = 128;

    /// Normalizes a text that either side reports, whether it identifies a machine or not.
    ///
    /// # Errors
    /// [`InvalidSerial::Empty`] or [`InvalidSerial::Malformed`].
    pub fn parse(text: &str) -> Result<Self, InvalidSerial> {
        let text = text.trim();
        let printed = text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if is_too_long(text) || (!printed && text.chars().any(is_unprintable)) {
            return Err(InvalidSerial::Malformed);
        }
        if text.is_empty() {
            return Err(InvalidSerial::Empty);
        }
        let normal = if !printed {
            text.to_uppercase_smolstr()
        } else if text.bytes().any(|byte| byte.is_ascii_lowercase()) {
            text.to_ascii_uppercase_smolstr()
        } else {
            text.into()
        };
        // Some letters have two or three in upper case.
        if is_too_long(&normal) {
            return Err(InvalidSerial::Malformed);
        }
        Ok(Self(normal))
    }

    /// Normalizes a text that identifies a machine.
    ///
    /// # Errors
    /// The reason why the text identifies no machine.
    pub fn identify(text: &str, ignored: &IgnoredSerials) -> Result<Self, InvalidSerial> {
        let serial = Self::parse(text)?;
        serial.judge(ignored)?;
        Ok(serial)
    }

    /// Judges whether the serial identifies a machine: by the user's `ignored` texts, else by its form (`filler`). Both
    /// compare letters and digits alone.
    ///
    /// # Errors
    /// The reason why the serial identifies no machine.
    pub fn judge(&self, ignored: &IgnoredSerials) -> Result<(), InvalidSerial> {
        let text = letters_and_digits(&self.0);
        let reason = match ignored.rule_for(&text) {
            Some(SerialRule::Accept) => None,
            Some(SerialRule::Ignore) => Some(InvalidSerial::Ignored),
            None => filler::reason(&text),
        };
        reason.map_or(Ok(()), Err)
    }

    /// Returns the normal form.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the spellings of a reported text that a lookup asks Falcon for: as reported, in upper and in lower case. Falcon's
    /// filter compares a list of values by case, and Falcon stores what the sensor read. Returns none for an invalid text.
    ///
    /// ```
    /// use falcon_posture_sync::domain::inventory::serial::Serial;
    /// use falcon_posture_sync::settings::IgnoredSerials;
    ///
    /// let ignored = IgnoredSerials::default();
    /// let spellings: Vec<String> = Serial::spellings(" 5cG1111aaa ", &ignored).collect();
    /// assert_eq!(spellings, ["5cG1111aaa", "5CG1111AAA", "5cg1111aaa"]);
    /// assert_eq!(Serial::spellings("None", &ignored).count(), 0);
    /// ```
    pub fn spellings(
        reported: &str,
        ignored: &IgnoredSerials,
    ) -> impl Iterator<Item = String> + use<> {
        let spellings = Self::identify(reported, ignored).ok().map(|serial| {
            let lower = serial.as_str().to_lowercase();
            [reported.trim().to_owned(), serial.to_string(), lower]
        });
        spellings.into_iter().flatten()
    }
}

fn is_too_long(text: &str) -> bool {
    text.len() > Serial::MAX_CHARS && text.chars().nth(Serial::MAX_CHARS).is_some()
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for InvalidSerial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "empty",
            Self::Malformed => "too long, or with invisible characters",
            Self::Punctuation => "without a letter or digit",
            Self::Placeholder => "a vendor's placeholder",
            Self::FieldName => "the name of the field, not its value",
            Self::TestValue => "a maker's test value",
            Self::Repeated => "one repeated character",
            Self::Alternating => "two characters in turn",
            Self::Sequence => "a counting sequence of digits",
            Self::Ignored => "in ignoredSerials",
        })
    }
}
