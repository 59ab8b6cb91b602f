//! What is kept of the Falcon side: hosts, and the scores of their assessments.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smol_str::SmolStr;

use crate::domain::inventory::serial::Serial;

/// Falcon's id of an installed sensor (`device_id` of a host, `aid` of an assessment). A machine that was installed
/// anew has a new one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Aid(AidRepr);

/// A run holds some hundred thousand of them, and looks for them all the time: what has the usual form is a number.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum AidRepr {
    /// 32 hexadecimal digits, in lower case.
    Usual(u128),
    /// Anything else that somebody has stored, or may one day send.
    Other(Box<str>),
}

impl Aid {
    /// Digits of an id in its usual form.
    const DIGITS: usize = 32;

    /// Whether it has the form that sensors' ids have.
    pub fn is_usual(&self) -> bool {
        matches!(self.0, AidRepr::Usual(_))
    }
}

/// What each byte is as a digit; [`NO_DIGIT`] where it is none. A run reads some hundred thousand ids.
const DIGITS: [u8; 256] = {
    let mut digits = [NO_DIGIT; 256];
    let mut digit = 0;
    while digit < 16 {
        digits[b"0123456789abcdef"[digit as usize] as usize] = digit;
        digit += 1;
    }
    digits
};
/// None of the digits has this bit.
const NO_DIGIT: u8 = 1 << 4;

/// The number that an id in its usual form is.
fn number(text: &str) -> Option<u128> {
    let half = |digits: &[u8]| {
        digits
            .iter()
            .fold((0, 0), |(number, seen): (u64, u8), byte| {
                let digit = DIGITS[usize::from(*byte)];
                (number << 4 | u64::from(digit), seen | digit)
            })
    };
    let text: &[u8; Aid::DIGITS] = text.as_bytes().try_into().ok()?;
    // In halves, since a machine counts by 64 bits.
    let (high, low) = text.split_at(Aid::DIGITS / 2);
    let ((high, seen), (low, also_seen)) = (half(high), half(low));
    ((seen | also_seen) & NO_DIGIT == 0).then(|| u128::from(high) << 64 | u128::from(low))
}

impl From<&str> for Aid {
    /// As it comes: Falcon uses lower case throughout.
    fn from(text: &str) -> Self {
        Self(number(text).map_or_else(|| AidRepr::Other(text.into()), AidRepr::Usual))
    }
}

impl fmt::Display for Aid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            AidRepr::Usual(number) => write!(f, "{number:032x}"),
            AidRepr::Other(text) => f.write_str(text),
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
    /// The sensor's id; the key of its score.
    pub aid: Aid,
    /// The usable serial number, if it has one.
    pub serial: Option<Serial>,
    /// As reported; untrusted text, shortened to a sane length.
    pub hostname: Option<SmolStr>,
    /// When the sensor last spoke to the cloud. Some records lack it.
    pub last_seen: Option<Timestamp>,
}

impl Host {
    /// It cannot have been seen later than `now`: a time far ahead would make all other hosts of its serial look like old
    /// records.
    pub fn seen_by(&mut self, now: Timestamp) {
        self.last_seen = self.last_seen.map(|seen| seen.min(now));
    }
}

/// Hosts by sensor.
pub type Hosts = BTreeMap<Aid, Host>;

/// An overall Zero Trust Assessment score: a whole number from 0 (worst) to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "i64")]
pub struct Score(u8);

impl Score {
    /// The best score.
    pub const MAX: u8 = 100;

    /// Takes 0 to 100, refuses anything else.
    pub fn new(value: i64) -> Option<Self> {
        u8::try_from(value)
            .ok()
            .filter(|v| *v <= Self::MAX)
            .map(Self)
    }

    /// Takes a whole number from 0 to 100, refuses anything else.
    pub fn from_f64(value: f64) -> Option<Self> {
        let is_score = (0.0..=f64::from(Self::MAX)).contains(&value) && value.fract() == 0.0;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a whole number from 0 to 100 fits"
        )]
        is_score.then_some(value as i64).and_then(Self::new)
    }

    /// The next lower score; none below 0.
    pub fn before(self) -> Option<Self> {
        self.0.checked_sub(1).map(Self)
    }

    /// The number, as it is written to the posture attribute.
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl TryFrom<i64> for Score {
    type Error = &'static str;

    fn try_from(value: i64) -> Result<Self, Self::Error> {
        Self::new(value).ok_or("a score is a whole number from 0 to 100")
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The account's scores by sensor. A sensor without an assessment is not in it.
///
/// An assessment whose score is not a whole number from 0 to 100 is kept as [`Assessment::Invalid`]: it counts as not
/// assessed, and is reported.
pub type Assessments = BTreeMap<Aid, Assessment>;

/// What Falcon said about one sensor's posture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Assessment {
    /// A score to carry over.
    Score(Score),
    /// Anything but a whole number from 0 to 100, as text (shortened).
    Invalid(String),
}

impl Assessment {
    /// The usable score, if it is one.
    pub fn score(&self) -> Option<Score> {
        match self {
            Self::Score(score) => Some(*score),
            Self::Invalid(_) => None,
        }
    }
}

/// All that a run knows of the Falcon account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FalconInventory {
    /// How many visible hosts it has.
    pub visible: usize,
    /// Visible hosts by sensor: all of them, or those that were asked for.
    pub hosts: Hosts,
    /// Their assessments (and some of sensors that are no visible hosts).
    pub scores: Assessments,
}

impl FalconInventory {
    /// Adds what a direct look-up found. A host or score that is already known keeps its crawled value unless the
    /// look-up, which is newer, says otherwise.
    pub fn extend(&mut self, hosts: Hosts, scores: Assessments) {
        if self.hosts.is_empty() {
            self.hosts = hosts;
        } else {
            self.hosts.extend(hosts);
        }
        self.visible = self.visible.max(self.hosts.len());
        if self.scores.is_empty() {
            self.scores = scores;
        } else {
            self.scores.extend(scores);
        }
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
        assert!(usual.iter().all(Aid::is_usual));
        usual.sort();
        assert_eq!(usual, [texts[2], texts[3], texts[6]].map(Aid::from));
    }
}
