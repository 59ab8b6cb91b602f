//! The Falcon hosts of each serial number, and which of them are live.

use std::collections::{BTreeSet, HashMap};

use jiff::Timestamp;
use smallvec::SmallVec;

use crate::domain::inventory::host::{FalconInventory, Host};
use crate::domain::inventory::serial::Serial;
use crate::domain::matching::rules::LIVE_WINDOW;

/// The hosts of each serial, in the order of their aids. They are judged on request: most hosts of a large account are not
/// devices of the tailnet.
#[derive(Debug)]
pub(crate) struct HostsBySerial<'a> {
    /// For lookups only: its order shows nowhere.
    hosts: HashMap<&'a Serial, SmallVec<[&'a Host; 1]>>,
    duplicated: BTreeSet<&'a Serial>,
}

impl<'a> HostsBySerial<'a> {
    /// Collects the hosts with a serial.
    pub(crate) fn new(falcon: &'a FalconInventory) -> Self {
        let mut hosts: HashMap<&Serial, SmallVec<[&Host; 1]>> =
            HashMap::with_capacity(falcon.hosts.len());
        let mut duplicated = BTreeSet::new();
        for host in falcon.hosts.values() {
            let Some(serial) = &host.serial else { continue };
            let same_serial = hosts.entry(serial).or_default();
            if !same_serial.is_empty() {
                duplicated.insert(serial);
            }
            same_serial.push(host);
        }
        Self { hosts, duplicated }
    }

    /// Returns the serials that several hosts have.
    pub(crate) fn duplicated(&self) -> impl Iterator<Item = &'a Serial> {
        self.duplicated.iter().copied()
    }

    /// Returns the live hosts with a serial: neither superseded nor seen long before the newest one.
    pub(crate) fn live(&self, serial: &Serial) -> SmallVec<[&'a Host; 1]> {
        let hosts = self.with_serial(serial);
        let times = GroupTimes::new(hosts);
        let live = hosts.iter().copied();
        live.filter(|host| times.is_live(host)).collect()
    }

    /// Returns the hosts with a serial.
    pub(crate) fn with_serial(&self, serial: &Serial) -> &[&'a Host] {
        self.hosts.get(serial).map_or(&[], SmallVec::as_slice)
    }
}

/// The times of the hosts with one serial, by which some are live and others are old records.
pub(crate) struct GroupTimes {
    pub(crate) newest_seen: Option<Timestamp>,
    newest_first_seen: Option<Timestamp>,
}

impl GroupTimes {
    pub(crate) fn new(hosts: &[&Host]) -> Self {
        Self {
            newest_seen: hosts.iter().filter_map(|host| host.last_seen).max(),
            newest_first_seen: hosts.iter().filter_map(|host| host.first_seen).max(),
        }
    }

    /// Returns whether a host is live. A host without a time may still be in use.
    pub(crate) fn is_live(&self, host: &Host) -> bool {
        let (Some(seen), Some(newest)) = (host.last_seen, self.newest_seen) else {
            return true;
        };
        newest.duration_since(seen) <= LIVE_WINDOW && self.superseded_at(host).is_none()
    }

    /// Returns when another host was first seen after this one was last seen, if one was: the machine was re-imaged.
    pub(crate) fn superseded_at(&self, host: &Host) -> Option<Timestamp> {
        let seen = host.last_seen?;
        self.newest_first_seen.filter(|start| *start > seen)
    }
}
