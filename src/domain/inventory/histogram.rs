//! The number of devices by score.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::domain::inventory::host::{Assessment, Assessments, Score};

/// The number of devices by score, stored and shown as an object such as `{"71":12}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, usize>", into = "BTreeMap<String, usize>")]
pub struct ScoreHistogram(BTreeMap<Score, usize>);

impl ScoreHistogram {
    /// Counts the valid scores of an account.
    pub fn from_assessments(scores: &Assessments) -> Self {
        let scores = scores.values().filter_map(Assessment::score);
        scores.map(|score| (score, 1)).collect()
    }

    /// Iterates over the scores, lowest first, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (Score, usize)> {
        self.0.iter().map(|(score, count)| (*score, *count))
    }

    /// Returns the number of devices with a score.
    pub fn total(&self) -> usize {
        self.0.values().sum()
    }

    /// Returns the number of devices with at least this score.
    pub fn at_least(&self, min: Score) -> usize {
        self.0.range(min..).map(|(_, count)| count).sum()
    }
}

/// Adds the counts of equal scores.
impl FromIterator<(Score, usize)> for ScoreHistogram {
    fn from_iter<I: IntoIterator<Item = (Score, usize)>>(counts: I) -> Self {
        let mut sums = BTreeMap::new();
        for (score, count) in counts {
            *sums.entry(score).or_default() += count;
        }
        Self(sums)
    }
}

impl From<ScoreHistogram> for BTreeMap<String, usize> {
    fn from(histogram: ScoreHistogram) -> Self {
        let counts = histogram.0.into_iter();
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
            let score = score(&text).ok_or_else(|| format!("{text:?} is not a score"))?;
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
        let histogram: ScoreHistogram = scores.map(|score| (score, 1)).into_iter().collect();
        assert_eq!(histogram.total(), 5);
        for (min, expect) in [(0, 5), (9, 4), (10, 3), (71, 3), (72, 1), (100, 1)] {
            let min = Score::new(min).unwrap();
            assert_eq!(histogram.at_least(min), expect, "{min}");
        }
        let stored = serde_json::to_value(&histogram).unwrap();
        assert_eq!(
            stored,
            serde_json::json!({"0": 1, "9": 1, "71": 2, "100": 1})
        );
        let read: ScoreHistogram = serde_json::from_value(stored).unwrap();
        assert_eq!(read, histogram);
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
