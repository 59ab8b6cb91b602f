//! Serial numbers: the only thing a Falcon host and a tailnet device have in common.

use std::fmt;

use smol_str::{SmolStr, StrExt as _};

use crate::text::is_unprintable;

/// A serial number in its normal form: trimmed, upper case, and not one of the texts that vendors ship instead of one.
///
/// Neither side normalises: Falcon stores what the sensor read, and a Tailscale node reports the SMBIOS texts trimmed
/// but in their own case, placeholders included (tailscale#12566).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial(SmolStr);

/// Why a text is no serial number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NoSerial {
    /// Nothing but white space.
    Empty,
    /// A text that vendors or virtual machines put where a serial belongs.
    Placeholder,
    /// One character, repeated.
    Repeated,
    /// Longer than [`Serial::MAX_CHARS`], or with characters that do not show, or that change how others show: no
    /// vendor prints such a serial.
    Malformed,
}

/// Texts that are no serial numbers, in normal form. Collected from public inventories of real fleets.
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
    /// The longest text taken for a serial. Real ones have 7 to 60 characters (VMware's are the long ones).
    pub const MAX_CHARS: usize = 128;

    /// Normalises a text as reported by either side.
    ///
    /// # Errors
    /// Says why the text identifies no machine.
    pub fn parse(text: &str) -> Result<Self, NoSerial> {
        let text = text.trim();
        let printed = text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if is_too_long(text) || (!printed && text.chars().any(is_unprintable)) {
            return Err(NoSerial::Malformed);
        }
        let normal = if !printed {
            text.to_uppercase_smolstr()
        } else if text.bytes().any(|byte| byte.is_ascii_lowercase()) {
            text.to_ascii_uppercase_smolstr()
        } else {
            text.into()
        };
        // Some letters become two or three.
        if is_too_long(&normal) {
            return Err(NoSerial::Malformed);
        }
        let mut chars = normal.chars();
        let Some(first) = chars.next() else {
            return Err(NoSerial::Empty);
        };
        if chars.all(|c| c == first) {
            return Err(NoSerial::Repeated);
        }
        // Nearly all differ in length already: that is faster than a search.
        if PLACEHOLDERS.contains(&normal.as_str()) {
            return Err(NoSerial::Placeholder);
        }
        Ok(Self(normal))
    }

    /// The normal form.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The normal form, to be kept.
    pub fn text(&self) -> &SmolStr {
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

impl fmt::Display for NoSerial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "empty",
            Self::Placeholder => "a vendor's placeholder",
            Self::Repeated => "one repeated character",
            Self::Malformed => "too long, or with characters that do not show",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::hostile::{assert_fit, cases, text};

    fn check(text: &str, expect: Result<&str, NoSerial>) {
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
            check(text, Err(NoSerial::Placeholder));
        }
        check("   ", Err(NoSerial::Empty));
        for text in ["0", "00000000", "xxxx", "X", "........"] {
            check(text, Err(NoSerial::Repeated));
        }
    }

    #[test]
    fn hostile_texts_are_refused() {
        for odd in ["A\u{0}B", "A\u{202e}B", "A\u{200b}B", "A\u{e0041}B"] {
            check(odd, Err(NoSerial::Malformed));
        }
        check(&"ŉA".repeat(43), Err(NoSerial::Malformed));
        check(&"AB".repeat(5_000_000), Err(NoSerial::Malformed));
    }

    proptest! {
        #![proptest_config(cases(5_000))]

        /// A serial is what its normal form is a serial of: short, visible, and the same when it is read again.
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
