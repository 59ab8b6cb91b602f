//! Falcon hosts and the scores of their assessments.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smol_str::SmolStr;

use crate::domain::inventory::platform::Platform;
use crate::domain::inventory::serial::Serial;

/// Falcon's id of an installed sensor (`device_id` of a host, `aid` of an assessment). A reinstalled machine gets a new one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Aid(AidRepr);

/// A number where possible: a run holds and compares some hundred thousand ids.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum AidRepr {
    /// 32 hexadecimal digits in lower case.
    Hex(u128),
    /// Any other text, such as one from an edited record.
    Text(Box<str>),
}

impl Aid {
    const HEX_DIGITS: usize = 32;

    /// Returns true if the id has the form of Falcon's ids.
    pub fn is_hex(&self) -> bool {
        matches!(self.0, AidRepr::Hex(_))
    }
}

/// The value of each byte as a hexadecimal digit, or [`NO_DIGIT`]. A table, since a run parses some hundred thousand ids.
const DIGIT_VALUES: [u8; 256] = {
    let mut values = [NO_DIGIT; 256];
    let mut digit = 0;
    while digit < 16 {
        values[b"0123456789abcdef"[digit as usize] as usize] = digit;
        digit += 1;
    }
    values
};
/// A bit that no digit has.
const NO_DIGIT: u8 = 1 << 4;

fn parse_hex(text: &str) -> Option<u128> {
    let parse_half = |digits: &[u8]| {
        digits
            .iter()
            .fold((0, 0), |(number, bits): (u64, u8), byte| {
                let digit = DIGIT_VALUES[usize::from(*byte)];
                (number << 4 | u64::from(digit), bits | digit)
            })
    };
    let text: &[u8; Aid::HEX_DIGITS] = text.as_bytes().try_into().ok()?;
    // In halves, since machines calculate with 64 bits.
    let (high, low) = text.split_at(Aid::HEX_DIGITS / 2);
    let ((high, high_bits), (low, low_bits)) = (parse_half(high), parse_half(low));
    ((high_bits | low_bits) & NO_DIGIT == 0).then(|| u128::from(high) << 64 | u128::from(low))
}

impl From<&str> for Aid {
    /// Keeps the case: Falcon uses lower case throughout.
    fn from(text: &str) -> Self {
        Self(parse_hex(text).map_or_else(|| AidRepr::Text(text.into()), AidRepr::Hex))
    }
}

impl fmt::Display for Aid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            AidRepr::Hex(number) => write!(f, "{number:032x}"),
            AidRepr::Text(text) => f.write_str(text),
        }
    }
}

impl fmt::Debug for Aid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Aid({:?})", self.to_string())
    }
}

impl Serialize for Aid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Aid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self::from(text.as_str()))
    }
}

/// A visible host of the Falcon account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The key of its score.
    pub aid: Aid,
    /// The valid serial number, if it has one.
    pub serial: Option<Serial>,
    /// The reported name, sanitized and truncated.
    pub hostname: Option<SmolStr>,
    /// The sensor's first contact with the cloud. Some records lack it.
    pub first_seen: Option<Timestamp>,
    /// The sensor's last contact with the cloud. Some records lack it.
    pub last_seen: Option<Timestamp>,
    /// The platform of the sensor.
    pub platform: Platform,
    /// True if the host is isolated from the network, or about to be, or about to be released.
    pub is_contained: bool,
}

impl Host {
    /// Limits both times to the present, and the first contact to the last: a time in the future would make the other hosts of
    /// a serial look superseded.
    pub(crate) fn clamp_times(&mut self, now: Timestamp) {
        self.last_seen = self.last_seen.map(|seen| seen.min(now));
        let end = self.last_seen.unwrap_or(now);
        self.first_seen = self.first_seen.map(|seen| seen.min(end));
    }
}

/// Hosts by aid.
pub type Hosts = BTreeMap<Aid, Host>;

/// An overall Zero Trust Assessment score: a whole number from 0 (worst) to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "i64")]
pub struct Score(u8);

impl Score {
    /// The best score.
    pub const MAX: u8 = 100;

    /// Accepts 0 to 100.
    ///
    /// ```
    /// use falcon_posture_sync::domain::inventory::host::Score;
    ///
    /// assert_eq!(Score::new(71).map(Score::get), Some(71));
    /// assert_eq!(Score::new(101), None);
    /// ```
    pub fn new(value: i64) -> Option<Self> {
        u8::try_from(value)
            .ok()
            .filter(|v| *v <= Self::MAX)
            .map(Self)
    }

    /// Accepts a whole number from 0 to 100.
    pub fn from_f64(value: f64) -> Option<Self> {
        let is_score = (0.0..=f64::from(Self::MAX)).contains(&value) && value.fract() == 0.0;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a whole number from 0 to 100 fits"
        )]
        is_score.then_some(value as i64).and_then(Self::new)
    }

    /// Returns the next lower score, if there is one.
    pub fn before(self) -> Option<Self> {
        self.0.checked_sub(1).map(Self)
    }

    /// Returns the value of the posture attribute.
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl TryFrom<i64> for Score {
    type Error = &'static str;

    fn try_from(value: i64) -> Result<Self, Self::Error> {
        Self::new(value).ok_or("must be an integer from 0 to 100")
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Assessments by aid. A sensor without an assessment has no entry.
pub type Assessments = BTreeMap<Aid, Assessment>;

/// The assessment of one sensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Assessment {
    /// A valid score.
    Score(Score),
    /// A score that is not a whole number from 0 to 100, as truncated text. It counts as not assessed and is reported.
    Invalid(String),
}

impl Assessment {
    /// Returns the valid score, if there is one.
    pub fn score(&self) -> Option<Score> {
        match self {
            Self::Score(score) => Some(*score),
            Self::Invalid(_) => None,
        }
    }
}

/// The hosts and assessments that a run fetched from Falcon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FalconInventory {
    /// Visible hosts of the account.
    pub visible: usize,
    /// All visible hosts, or those that were looked up.
    pub hosts: Hosts,
    /// Assessments of the hosts, and possibly of hidden ones.
    pub scores: Assessments,
    /// True if the listing of hosts has fewer distinct hosts than its total, so that any host may be missing.
    pub is_short: bool,
}

impl FalconInventory {
    /// Adds the results of a listing or a lookup. They replace older values of the same sensor.
    pub fn extend(&mut self, mut hosts: Hosts, mut scores: Assessments) {
        self.hosts.append(&mut hosts);
        self.scores.append(&mut scores);
        self.visible = self.visible.max(self.hosts.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_told_as_it_came_and_ordered_as_text() {
        let texts = [
            "",
            "0",
            "00000000000000000000000000000000",
            "4a027b0c95404062be4148c989dcf4c1",
            "4A027B0C95404062BE4148C989DCF4C1",
            "+a027b0c95404062be4148c989dcf4c1",
            "ffffffffffffffffffffffffffffffff",
            "4a027b0c95404062be4148c989dcf4c12",
        ];
        for text in texts {
            let aid = Aid::from(text);
            assert_eq!(aid.to_string(), text);
            let json = serde_json::to_string(&aid).unwrap();
            assert_eq!(serde_json::from_str::<Aid>(&json).unwrap(), aid);
        }
        let mut usual = [texts[6], texts[3], texts[2]].map(Aid::from);
        assert!(usual.iter().all(Aid::is_hex));
        usual.sort();
        assert_eq!(usual, [texts[2], texts[3], texts[6]].map(Aid::from));
    }
}
