//! Memory and open files of a process, from `/proc`. Without `/proc`, nothing is asserted.

use std::fs;

/// Memory and open files at one moment.
#[derive(Clone, Copy, Debug)]
struct Sample {
    resident_kb: usize,
    open_files: usize,
}

/// The samples of one process.
#[derive(Debug, Default)]
pub(super) struct Health(Vec<Sample>);

impl Health {
    pub(super) fn sample(&mut self, process: u32) {
        self.0.extend(look(process));
    }

    /// The median of the first and of the last samples.
    fn ends(&self) -> Option<(Sample, Sample)> {
        let few = 3.min(self.0.len() / 2);
        let first = self.0.get(..few)?;
        let last = self.0.get(self.0.len() - few..)?;
        Some((median(first)?, median(last)?))
    }

    pub(super) fn summary(&self) -> String {
        self.ends().map_or_else(String::new, |(first, last)| {
            format!(
                "RSS {} to {} kB, files {} to {}",
                first.resident_kb, last.resident_kb, first.open_files, last.open_files
            )
        })
    }

    pub(super) fn assert_flat(&self, whose: &str) {
        let Some((first, last)) = self.ends() else {
            return;
        };
        let all = &self.0;
        let most = first.resident_kb * 11 / 10 + 2048;
        assert!(last.resident_kb <= most, "{whose}'s memory: {all:?}");
        // A connection more or less for each of the five servers.
        let most = first.open_files + 5;
        assert!(last.open_files <= most, "{whose}'s open files: {all:?}");
    }
}

fn median(samples: &[Sample]) -> Option<Sample> {
    let middle = |number: fn(&Sample) -> usize| {
        let mut numbers: Vec<usize> = samples.iter().map(number).collect();
        numbers.sort_unstable();
        numbers.get(numbers.len() / 2).copied()
    };
    Some(Sample {
        resident_kb: middle(|sample| sample.resident_kb)?,
        open_files: middle(|sample| sample.open_files)?,
    })
}

fn look(process: u32) -> Option<Sample> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let resident_kb = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    let open_files = fs::read_dir(format!("/proc/{process}/fd")).ok()?.count();
    Some(Sample {
        resident_kb,
        open_files,
    })
}
