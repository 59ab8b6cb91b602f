//! Cases of the bench: sizes of tenant and tailnet, and the syncs of each.

use std::fmt;

/// A tenant and a tailnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Case {
    /// Name in `--only`.
    pub(crate) name: &'static str,
    /// Hosts of the Falcon account, all assessed.
    pub(crate) hosts: usize,
    /// Devices of the tailnet, each with one of the hosts.
    pub(crate) devices: usize,
}

const fn case(name: &'static str, hosts: usize, devices: usize) -> Case {
    Case {
        name,
        hosts,
        devices,
    }
}

/// Name of the case with a small tailnet in a large company.
pub(crate) const FEW: &str = "few";

/// The two smallest cases come first, since `--quick` measures only these.
pub(crate) const CASES: [Case; 6] = [
    case("100", 100, 50),
    case("1k", 1_000, 500),
    // The documented price is for this size.
    case("2k", 2_000, 1_000),
    case("10k", 10_000, 5_000),
    case("100k", 100_000, 20_000),
    case(FEW, 100_000, 200),
];

/// Number of [`CASES`] that `--quick` measures.
pub(crate) const QUICK: usize = 2;

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} hosts, {} devices", self.hosts, self.devices)
    }
}

/// One of a case's syncs, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Sync {
    /// In a fresh process, with nothing written before.
    First,
    /// In the same process, with nothing changed, when the daily listing of all hosts is due.
    Daily,
    /// In the same process, with nothing changed.
    Unchanged,
    /// In the same process, after one score in a hundred has changed.
    Changed,
}

impl Case {
    /// Returns the syncs of the case.
    pub(crate) fn syncs(&self) -> &'static [Sync] {
        if self.name == FEW {
            // The run after the first lists all hosts, then one run a day: filters by serial miss some hosts.
            &[Sync::First, Sync::Daily, Sync::Unchanged, Sync::Changed]
        } else {
            &[Sync::First, Sync::Unchanged, Sync::Changed]
        }
    }
}

impl Sync {
    /// Returns the number of repetitions: a sync that changes nothing can repeat.
    pub(crate) fn times(self) -> usize {
        match self {
            Self::Unchanged => 5,
            Self::First | Self::Daily | Self::Changed => 1,
        }
    }
}

impl fmt::Display for Sync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::First => "first",
            Self::Daily => "daily listing",
            Self::Unchanged => "unchanged",
            Self::Changed => "1 % changed",
        })
    }
}
