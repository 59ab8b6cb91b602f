//! Serial numbers: the only value that a Falcon host and a tailnet device share.

use std::fmt;

use smol_str::{SmolStr, StrExt as _};

use crate::text::is_unprintable;

/// A serial number in normal form: trimmed, in upper case, and not a vendor's placeholder.
///
/// Neither side normalizes: Falcon stores the text that the sensor read, and a Tailscale node reports the SMBIOS texts
/// trimmed but in their own case, placeholders included (tailscale#12566).
///
/// ```
/// use falcon_posture_sync::domain::inventory::serial::{InvalidSerial, Serial};
///
/// let serial = Serial::parse(" c02d91cnpv4m ").unwrap();
/// assert_eq!(serial.as_str(), "C02D91CNPV4M");
/// assert_eq!(Serial::parse("To Be Filled By O.E.M."), Err(InvalidSerial::Placeholder));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial(SmolStr);

/// The reason why a text is not a serial number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum InvalidSerial {
    /// White space only.
    Empty,
    /// A text that vendors or virtual machines ship in place of a serial.
    Placeholder,
    /// One repeated character.
    Repeated,
    /// Longer than [`Serial::MAX_CHARS`], or with characters that are invisible or change how others are displayed. No vendor
    /// prints such a serial.
    Malformed,
}

/// Placeholders in normal form, collected from public inventories of real fleets.
const PLACEHOLDERS: [&str; 25] = [
    "0123456789",
    "123456789",
    "1234567890",
    "BASE BOARD SERIAL NUMBER",
    "CHASSIS SERIAL NUMBER",
    "DEFAULT STRING",
    "DEFAULTSTRING",
    "INVALID",
    "N/A",
    "NA",
    "NONE",
    "NOT APPLICABLE",
    "NOT AVAILABLE",
    "NOT PRESENT",
    "NOT SPECIFIED",
    "NULL",
    "O.E.M.",
    "SERIAL NUMBER",
    "SERIALNUMBER",
    "SYSTEM SERIAL NUMBER",
    "TO BE FILLED BY O.E.M",
    "TO BE FILLED BY O.E.M.",
    "TO BE FILLED BY OEM",
    "UNKNOWN",
    "UNSPECIFIED",
];

impl Serial {
    /// Maximum length of a serial. Real ones have 7 to 60 characters; VMware's are the longest.
    pub const MAX_CHARS: usize = 128;

    /// Normalizes a text that either side reports.
    ///
    /// # Errors
    /// The reason why the text does not identify a machine.
    pub fn parse(text: &str) -> Result<Self, InvalidSerial> {
        let text = text.trim();
        let printed = text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if is_too_long(text) || (!printed && text.chars().any(is_unprintable)) {
            return Err(InvalidSerial::Malformed);
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
        let mut chars = normal.chars();
        let Some(first) = chars.next() else {
            return Err(InvalidSerial::Empty);
        };
        if chars.all(|c| c == first) {
            return Err(InvalidSerial::Repeated);
        }
        // A linear search: nearly all texts differ in length already.
        if PLACEHOLDERS.contains(&normal.as_str()) {
            return Err(InvalidSerial::Placeholder);
        }
        Ok(Self(normal))
    }

    /// Returns the normal form.
    pub fn as_str(&self) -> &str {
        &self.0
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
            Self::Placeholder => "a vendor's placeholder",
            Self::Repeated => "one repeated character",
            Self::Malformed => "too long, or with invisible characters",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::hostile::{assert_fit, cases, text};

    fn check(text: &str, expect: Result<&str, InvalidSerial>) {
        assert_eq!(
            Serial::parse(text).as_ref().map(Serial::as_str),
            expect.as_ref().copied(),
            "{text:?}"
        );
    }

    #[test]
    fn the_placeholder_list_is_sorted_and_normal() {
        assert!(PLACEHOLDERS.is_sorted(), "to be read and kept");
        assert!(PLACEHOLDERS.iter().all(|p| p.trim().to_uppercase() == **p));
    }

    #[test]
    fn serials_are_trimmed_and_folded() {
        check(" c02d91cnpv4m\t", Ok("C02D91CNPV4M"));
        check(
            "VMware-56 4d d1 1f 26 c9 31 7d-aa 2e 01 02 37 ac a0 16",
            Ok("VMWARE-56 4D D1 1F 26 C9 31 7D-AA 2E 01 02 37 AC A0 16"),
        );
    }

    #[test]
    fn placeholders_are_no_serials_in_any_case() {
        for text in [
            "To Be Filled By O.E.M.",
            " default string ",
            "none",
            "N/a",
            "System Serial Number",
        ] {
            check(text, Err(InvalidSerial::Placeholder));
        }
        check("   ", Err(InvalidSerial::Empty));
        for text in ["0", "00000000", "xxxx", "X", "........"] {
            check(text, Err(InvalidSerial::Repeated));
        }
    }

    #[test]
    fn hostile_texts_are_refused() {
        for odd in ["A\u{0}B", "A\u{202e}B", "A\u{200b}B", "A\u{e0041}B"] {
            check(odd, Err(InvalidSerial::Malformed));
        }
        check(&"ŉA".repeat(43), Err(InvalidSerial::Malformed));
        check(&"AB".repeat(5_000_000), Err(InvalidSerial::Malformed));
    }

    proptest! {
        #![proptest_config(cases(5_000))]

        /// A serial is short and visible, and parsing its normal form gives the same serial.
        #[test]
        fn the_normal_form_is_normal(text in prop_oneof![text(), "\\PC{2,140}"]) {
            if let Ok(serial) = Serial::parse(&text) {
                assert_fit(serial.as_str(), Serial::MAX_CHARS);
                prop_assert_eq!(Serial::parse(serial.as_str()), Ok(serial.clone()));
                prop_assert_eq!(Serial::parse(&text.to_uppercase()), Ok(serial));
            }
        }
    }

    #[test]
    fn folding_any_letter_twice_changes_nothing() {
        for letter in '\u{0}'..=char::MAX {
            if let Ok(serial) = Serial::parse(&format!("{letter}S1")) {
                assert_eq!(Serial::parse(serial.as_str()), Ok(serial));
            }
        }
    }
}
