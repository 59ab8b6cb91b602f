//! What is measured: tenants and tailnets of these sizes, and a few syncs of each.

use std::fmt;

/// A tenant and a tailnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Case {
    /// How `--only` calls it.
    pub(crate) name: &'static str,
    /// Hosts of the Falcon account, all of them assessed.
    pub(crate) hosts: usize,
    /// Devices of the tailnet, each of them one of the hosts.
    pub(crate) devices: usize,
}

const fn case(name: &'static str, hosts: usize, devices: usize) -> Case {
    Case {
        name,
        hosts,
        devices,
    }
}

/// A small tailnet in a large company.
pub(crate) const FEW: &str = "few";

/// The two smallest, which `--quick` keeps to, come first.
pub(crate) const CASES: [Case; 6] = [
    case("100", 100, 50),
    case("1k", 1_000, 500),
    // The size that a price is promised for.
    case("2k", 2_000, 1_000),
    case("10k", 10_000, 5_000),
    case("100k", 100_000, 20_000),
    case(FEW, 100_000, 200),
];

/// How many of [`CASES`] `--quick` measures.
pub(crate) const QUICK: usize = 2;

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} hosts, {} devices", self.hosts, self.devices)
    }
}

/// One of a case's syncs, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Sync {
    /// In a fresh process, with nothing written before.
    First,
    /// In the same process, with nothing changed, when it is time to list all hosts.
    Daily,
    /// In the same process, with nothing changed.
    Unchanged,
    /// Likewise, after one score in a hundred has changed.
    Changed,
}

impl Case {
    /// Its syncs.
    pub(crate) fn syncs(&self) -> &'static [Sync] {
        if self.name == FEW {
            // What asking by serial cannot see is looked for in the run after the first, and once a day from then on.
            &[Sync::First, Sync::Daily, Sync::Unchanged, Sync::Changed]
        } else {
            &[Sync::First, Sync::Unchanged, Sync::Changed]
        }
    }
}

impl Sync {
    /// How many times it is measured: what changes nothing can be repeated.
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
