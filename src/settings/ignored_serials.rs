//! The user's own texts about serial numbers.

use std::collections::BTreeSet;
use std::ops::Bound;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use super::values::must_be;
use crate::text::{is_unprintable, letters_and_digits};

/// The texts that an integration's user judges otherwise than the rules by form (`domain::inventory::serial`).
///
/// Each entry is one of three:
/// - `text`: the text is no serial number.
/// - `text*`: no text that begins so is a serial number. At least four letters or digits stand before the `*`.
/// - `!text`: the text is a serial number, whatever its form and the other entries.
///
/// Only letters and digits are compared, in upper case, as the rules by form do: an entry need not repeat the spaces and
/// punctuation of the text, which inventories copy differently. An entry that repeats an earlier one in other dress is
/// dropped; the others keep their order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Vec<SmolStr>", try_from = "Vec<SerialEntry>")]
pub struct IgnoredSerials {
    /// The entries as they were sent.
    entries: Vec<SmolStr>,
    ignored: BTreeSet<SmolStr>,
    /// None of these begins with another one of them.
    ignored_beginnings: BTreeSet<SmolStr>,
    accepted: BTreeSet<SmolStr>,
}

/// The user's rule for a text that a host or device reports as its serial number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SerialRule {
    /// The text is no serial number.
    Ignore,
    /// The text is a serial number, whatever its form.
    Accept,
}

/// An entry of [`IgnoredSerials`].
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct SerialEntry {
    text: SmolStr,
    kind: SerialEntryKind,
    letters_and_digits: SmolStr,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum SerialEntryKind {
    Text,
    Beginning,
    Accepted,
}

impl IgnoredSerials {
    pub(crate) const MAX_ENTRIES: usize = 200;
    /// Maximum bytes of an entry without its mark; the maximum characters of a serial number. The entries are part of the
    /// integration's item, which holds 400 kB.
    pub(crate) const MAX_BYTES: usize = 128;
    /// A shorter beginning is that of many real serial numbers.
    const MIN_BEGINNING: usize = 4;

    /// Returns the entries.
    pub fn entries(&self) -> &[SmolStr] {
        &self.entries
    }

    /// Returns the rule for a text, given its letters and digits in upper case; none if no entry is about it.
    pub fn rule_for(&self, letters_and_digits: &str) -> Option<SerialRule> {
        if self.entries.is_empty() {
            return None;
        }
        if self.accepted.contains(letters_and_digits) {
            return Some(SerialRule::Accept);
        }
        let is_ignored = self.ignored.contains(letters_and_digits)
            || is_covered(&self.ignored_beginnings, letters_and_digits);
        is_ignored.then_some(SerialRule::Ignore)
    }

    fn add(&mut self, entry: SerialEntry) {
        self.entries.push(entry.text);
        let serial = entry.letters_and_digits;
        match entry.kind {
            SerialEntryKind::Text => {
                self.ignored.insert(serial);
            }
            SerialEntryKind::Accepted => {
                self.accepted.insert(serial);
            }
            SerialEntryKind::Beginning => {
                let beginnings = &mut self.ignored_beginnings;
                if !is_covered(beginnings, &serial) {
                    beginnings.retain(|longer| !longer.starts_with(serial.as_str()));
                    beginnings.insert(serial);
                }
            }
        }
    }
}

/// Returns whether a text begins with one of `beginnings`. As none of these begins with another one, only the last that sorts
/// before the text can be its beginning.
fn is_covered(beginnings: &BTreeSet<SmolStr>, text: &str) -> bool {
    let up_to_text = (Bound::Unbounded, Bound::Included(text));
    let last = beginnings.range::<str, _>(up_to_text).next_back();
    last.is_some_and(|beginning| text.starts_with(beginning.as_str()))
}

impl TryFrom<Vec<SerialEntry>> for IgnoredSerials {
    type Error = String;

    fn try_from(entries: Vec<SerialEntry>) -> Result<Self, Self::Error> {
        if entries.len() > Self::MAX_ENTRIES {
            return Err(format!(
                "must be at most {} texts; got {}. A \"*\" at the end of a text matches any ending",
                Self::MAX_ENTRIES,
                entries.len()
            ));
        }
        let mut serials = Self::default();
        let mut known = BTreeSet::new();
        for entry in entries {
            if known.insert((entry.kind, entry.letters_and_digits.clone())) {
                serials.add(entry);
            }
        }
        Ok(serials)
    }
}

impl From<IgnoredSerials> for Vec<SmolStr> {
    fn from(serials: IgnoredSerials) -> Self {
        serials.entries
    }
}

impl TryFrom<String> for SerialEntry {
    type Error = String;

    fn try_from(entry: String) -> Result<Self, Self::Error> {
        let (kind, text) = if let Some(text) = entry.strip_prefix('!') {
            (SerialEntryKind::Accepted, text)
        } else if let Some(text) = entry.strip_suffix('*') {
            (SerialEntryKind::Beginning, text)
        } else {
            (SerialEntryKind::Text, entry.as_str())
        };
        let letters_and_digits = letters_and_digits(text);
        let is_too_long = text.len() > IgnoredSerials::MAX_BYTES;
        let expect = if is_too_long || text.chars().any(is_unprintable) {
            "a printable serial number of up to 128 bytes"
        } else if text.contains('*') {
            if kind == SerialEntryKind::Accepted {
                "a whole serial number after \"!\", without \"*\""
            } else {
                "a text with \"*\" at its end only"
            }
        } else if letters_and_digits.is_empty() {
            "a text with a letter or digit: nothing else is compared"
        } else if kind == SerialEntryKind::Beginning
            && letters_and_digits.chars().count() < IgnoredSerials::MIN_BEGINNING
        {
            "a text with at least four letters or digits before \"*\""
        } else {
            return Ok(Self {
                kind,
                letters_and_digits: letters_and_digits.into(),
                text: entry.into(),
            });
        };
        Err(must_be(expect, &entry))
    }
}
