//! What is kept of the Falcon side: hosts, and the scores of their assessments.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::domain::serial::Serial;

/// Falcon's id of an installed sensor (`device_id` of a host, `aid` of an assessment). A machine that was installed
/// anew has a new one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Aid(pub String);

impl fmt::Display for Aid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
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
    pub hostname: Option<String>,
    /// When the sensor last spoke to the cloud. Some records lack it.
    pub last_seen: Option<Timestamp>,
}

impl Host {
    /// The host, which cannot have been seen later than `now`: a time far ahead would make all other hosts of its serial
    /// look like old records.
    #[must_use]
    pub fn seen_by(mut self, now: Timestamp) -> Self {
        self.last_seen = self.last_seen.map(|seen| seen.min(now));
        self
    }
}

/// An overall Zero Trust Assessment score: an integer from 0 (worst) to 100.
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
/// An assessment whose score is no integer from 0 to 100 is kept as [`Assessment::Invalid`]: it counts as not
/// assessed, and is reported.
pub type Scores = BTreeMap<Aid, Assessment>;

/// What Falcon said about one sensor's posture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Assessment {
    /// A score to carry over.
    Score(Score),
    /// Something else than an integer from 0 to 100, as text (shortened).
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
pub struct Account {
    /// How many visible hosts it has.
    pub visible: usize,
    /// Visible hosts by sensor: all of them, or those that were asked for.
    pub hosts: BTreeMap<Aid, Host>,
    /// Their assessments (and some of sensors that are no visible hosts).
    pub scores: Scores,
}

impl Account {
    /// Adds what a direct look-up found. A host or score that is already known keeps its crawled value unless the
    /// look-up, which is newer, says otherwise.
    pub fn extend(&mut self, hosts: impl IntoIterator<Item = Host>, scores: Scores) {
        self.hosts
            .extend(hosts.into_iter().map(|host| (host.aid.clone(), host)));
        self.visible = self.visible.max(self.hosts.len());
        self.scores.extend(scores);
    }
}
