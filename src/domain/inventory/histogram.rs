//! How the scores of the devices are distributed: so many devices with each score.

use std::collections::BTreeMap;
use std::iter::Sum;

use serde::{Deserialize, Serialize};

use crate::domain::inventory::host::{Assessment, Assessments, Score};
use crate::domain::matching::{MatchOutcome, Matches};

/// How many devices have which score. It is stored and shown as an object by score, such as `{"71":12}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, usize>", into = "BTreeMap<String, usize>")]
pub struct ScoreHistogram(BTreeMap<Score, usize>);

impl ScoreHistogram {
    /// The scores that the devices of an observation deserve.
    pub fn of(joined: &Matches) -> Self {
        joined
            .outcomes
            .values()
            .filter_map(|outcome| match outcome {
                MatchOutcome::Scored(evidence) => Some(evidence.score),
                _ => None,
            })
            .collect()
    }

    /// All scores of an account.
    pub fn of_account(scores: &Assessments) -> Self {
        scores.values().filter_map(Assessment::score).collect()
    }

    /// Each score that some device has, lowest first, and how many have it.
    pub fn iter(&self) -> impl Iterator<Item = (Score, usize)> {
        self.0.iter().map(|(score, count)| (*score, *count))
    }

    /// How many devices have a score.
    pub fn total(&self) -> usize {
        self.0.values().sum()
    }

    /// How many devices have this score or a better one.
    pub fn at_least(&self, min: Score) -> usize {
        self.0.range(min..).map(|(_, count)| count).sum()
    }
}

impl FromIterator<Score> for ScoreHistogram {
    fn from_iter<I: IntoIterator<Item = Score>>(scores: I) -> Self {
        let mut counts = BTreeMap::new();
        for score in scores {
            *counts.entry(score).or_default() += 1;
        }
        Self(counts)
    }
}

impl<'a> Sum<&'a Self> for ScoreHistogram {
    fn sum<I: Iterator<Item = &'a Self>>(distributions: I) -> Self {
        let mut counts = BTreeMap::new();
        for (score, count) in distributions.flat_map(Self::iter) {
            *counts.entry(score).or_default() += count;
        }
        Self(counts)
    }
}

impl From<ScoreHistogram> for BTreeMap<String, usize> {
    fn from(distribution: ScoreHistogram) -> Self {
        let counts = distribution.0.into_iter();
        counts
            .map(|(score, count)| (score.to_string(), count))
            .collect()
    }
}

impl TryFrom<BTreeMap<String, usize>> for ScoreHistogram {
    type Error = String;

    fn try_from(counts: BTreeMap<String, usize>) -> Result<Self, Self::Error> {
        let score = |text: &str| Score::new(text.parse().ok()?);
        let counts = counts.into_iter().map(|(text, count)| {
            let score = score(&text).ok_or_else(|| format!("{text:?} is no score"))?;
            Ok((score, count))
        });
        counts.collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_counted_by_score() {
        let scores = [71, 9, 100, 71, 0].map(|score| Score::new(score).unwrap());
        let distribution: ScoreHistogram = scores.into_iter().collect();
        assert_eq!(distribution.total(), 5);
        for (min, expect) in [(0, 5), (9, 4), (10, 3), (71, 3), (72, 1), (100, 1)] {
            let min = Score::new(min).unwrap();
            assert_eq!(distribution.at_least(min), expect, "{min}");
        }
        let stored = serde_json::to_value(&distribution).unwrap();
        assert_eq!(
            stored,
            serde_json::json!({"0": 1, "9": 1, "71": 2, "100": 1})
        );
        let read: ScoreHistogram = serde_json::from_value(stored).unwrap();
        assert_eq!(read, distribution);
        let lowest_first: Vec<u8> = read.iter().map(|(score, _)| score.get()).collect();
        assert_eq!(lowest_first, [0, 9, 71, 100]);
        for bad in ["101", "-1", "x", ""] {
            let stored = serde_json::json!({ bad: 1 });
            assert!(
                serde_json::from_value::<ScoreHistogram>(stored).is_err(),
                "{bad}"
            );
        }
    }
}
