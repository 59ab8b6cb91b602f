//! What is measured: tenants and tailnets of these sizes, and three syncs of each.

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

/// The two smallest, which `--quick` keeps to, come first.
pub(crate) const CASES: [Case; 6] = [
    case("100", 100, 50),
    case("1k", 1_000, 500),
    // The size that a price is promised for.
    case("2k", 2_000, 1_000),
    case("10k", 10_000, 5_000),
    case("100k", 100_000, 20_000),
    // A small tailnet in a large company.
    case("few", 100_000, 200),
];

/// How many of [`CASES`] `--quick` measures.
pub(crate) const QUICK: usize = 2;

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} hosts, {} devices", self.hosts, self.devices)
    }
}

/// One of a case's three syncs, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Sync {
    /// In a fresh process, with nothing written before.
    First,
    /// In the same process, with nothing changed.
    Unchanged,
    /// Likewise, after one score in a hundred has changed.
    Changed,
}

impl Sync {
    /// All three.
    pub(crate) const ALL: [Self; 3] = [Self::First, Self::Unchanged, Self::Changed];
}

impl fmt::Display for Sync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::First => "first",
            Self::Unchanged => "unchanged",
            Self::Changed => "1 % changed",
        })
    }
}
