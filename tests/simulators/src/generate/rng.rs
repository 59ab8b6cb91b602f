//! Seeded random numbers.

use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

use super::{GeneratorSpec, PLACEHOLDER_SERIALS};
use crate::clock::to_second;

/// A seeded random number generator.
pub(super) struct SeededRng(ChaCha8Rng);

impl SeededRng {
    pub(super) fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// Returns a number from 0 to `end` - 1. The bias of the remainder does not matter for a data
    /// set.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0.next_u64() % end.max(1)
    }

    pub(super) fn index(&mut self, length: usize) -> usize {
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        usize::try_from(self.below(length)).unwrap_or(0)
    }

    pub(super) fn choice<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.index(from.len()))
    }

    pub(super) fn hex(&mut self, digits: usize) -> String {
        (0..digits)
            .filter_map(|_| {
                self.choice(b"0123456789abcdef")
                    .map(|digit| char::from(*digit))
            })
            .collect()
    }

    pub(super) fn letters(&mut self, count: usize) -> String {
        const ALPHABET: &[u8] = b"0123456789ABCDEFGHJKLMNPQRSTVWXYZ";
        (0..count)
            .filter_map(|_| self.choice(ALPHABET).map(|letter| char::from(*letter)))
            .collect()
    }

    pub(super) fn shuffled(&mut self, length: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..length).collect();
        for last in (1..length).rev() {
            let other = self.index(last + 1);
            order.swap(last, other);
        }
        order
    }

    /// Marks an exact fraction of `of` places at random.
    pub(super) fn mark_share(&mut self, of: usize, fraction: f64) -> Vec<bool> {
        let mut marks = vec![false; of];
        for index in self
            .shuffled(of)
            .into_iter()
            .take(rounded_share(of, fraction))
        {
            if let Some(mark) = marks.get_mut(index) {
                *mark = true;
            }
        }
        marks
    }

    pub(super) fn chance(&mut self, fraction: f64) -> bool {
        rounded_share(10_000, fraction) > self.index(10_000)
    }

    /// Returns a serial in the spelling of some firmware or agent.
    pub(super) fn respell(&mut self, spec: &GeneratorSpec, serial: &str) -> String {
        if !self.chance(spec.odd_spelling) {
            return serial.to_owned();
        }
        match self.below(4) {
            0 => serial.to_lowercase(),
            1 => format!(" {serial}  "),
            2 => format!("{serial}\t"),
            _ => serial
                .char_indices()
                .map(|(at, letter)| {
                    if at % 2 == 0 {
                        letter.to_ascii_lowercase()
                    } else {
                        letter
                    }
                })
                .collect(),
        }
    }

    pub(super) fn placeholder(&mut self) -> String {
        let text = self
            .choice(&PLACEHOLDER_SERIALS)
            .copied()
            .unwrap_or_default();
        match self.below(4) {
            0 => text.to_uppercase(),
            1 => format!("  {text} "),
            2 => text
                .char_indices()
                .map(|(at, letter)| {
                    if at == 0 {
                        letter.to_ascii_uppercase()
                    } else {
                        letter
                    }
                })
                .collect(),
            _ => text.to_owned(),
        }
    }

    pub(super) fn time_ago(&mut self, spec: &GeneratorSpec, from_s: u64, to_s: u64) -> String {
        let ago = from_s + self.below(to_s - from_s);
        to_second(
            spec.now
                .checked_sub(Duration::from_secs(ago))
                .unwrap_or(spec.now),
        )
    }
}

/// Returns a fraction of a whole, rounded.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "sizes of data sets are far below 2^52 and not negative"
)]
pub(super) fn rounded_share(of: usize, fraction: f64) -> usize {
    ((of as f64 * fraction.clamp(0.0, 1.0)).round() as usize).min(of)
}
