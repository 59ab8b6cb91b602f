//! Why no Falcon host matches a device, as far as what was read tells.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::domain::inventory::device::{Device, NodeId};
use crate::domain::inventory::host::{Aid, FalconInventory, Host};
use crate::domain::inventory::record::NodeRecord;
use crate::domain::inventory::serial::Serial;
use crate::domain::matching::rules::MatchRules;
use crate::domain::matching::sharing::{host_name, short_name};

/// The cause of an unmatched device that has a sensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnmatchedCause {
    /// The host that decided the score until now shows another serial.
    SerialChanged {
        /// The host.
        aid: Aid,
        /// Its serial now.
        now: Serial,
    },
    /// A live host has the device's name and no usable serial.
    NoUsableSerial {
        /// The host.
        aid: Aid,
        /// The text that it reports in place of a serial.
        reported: Option<Serial>,
    },
}

impl UnmatchedCause {
    /// Returns what to do about an unmatched device with this cause, or with none that is known.
    pub(crate) fn remedy(cause: Option<&Self>) -> &'static str {
        match cause {
            None => {
                "Install the Falcon sensor on the device, or check whether its host is hidden or in another Falcon \
                 account."
            }
            Some(Self::SerialChanged { .. }) => {
                "Install the sensor for images as CrowdStrike documents it, so that each machine gets an id of its own."
            }
            Some(Self::NoUsableSerial { .. }) => {
                "The sensor is there, and its machine has no serial number that identifies it: set one in the firmware. \
                 If the text identifies the machine after all, add it to ignoredSerials with a `!` before it."
            }
        }
    }
}

impl fmt::Display for UnmatchedCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SerialChanged { aid, now } => write!(
                f,
                "its host {aid} now shows the serial number {now}; sensors that were cloned with an image share one id"
            ),
            Self::NoUsableSerial {
                aid,
                reported: Some(text),
            } => write!(
                f,
                "Falcon has a host of that name, {aid}, with the serial number \"{text}\", which is none"
            ),
            Self::NoUsableSerial {
                aid,
                reported: None,
            } => write!(
                f,
                "Falcon has a host of that name, {aid}, without a serial number"
            ),
        }
    }
}

/// Returns the serial that the host of a record shows now, if it is another one.
pub(crate) fn changed_serial<'a>(
    falcon: &'a FalconInventory,
    record: &NodeRecord,
) -> Option<&'a Serial> {
    let serial = falcon.hosts.get(&record.aid)?.serial.as_ref()?;
    (serial.as_str() != record.serial).then_some(serial)
}

/// Finds the causes of unmatched devices, each with its record.
pub(crate) fn find_causes<'a>(
    falcon: &FalconInventory,
    rules: &MatchRules,
    unmatched: impl Iterator<Item = (&'a Device, Option<&'a NodeRecord>)>,
) -> BTreeMap<NodeId, UnmatchedCause> {
    let unmatched: Vec<_> = unmatched.collect();
    let names = unmatched.iter();
    let names: BTreeSet<String> = names
        .filter_map(|(device, _)| short_name(&device.hostname))
        .collect();
    let nameless = hosts_without_serial(falcon, rules, &names);
    let cause = |(device, record): &(&'a Device, Option<&'a NodeRecord>)| {
        let changed = record.and_then(|record| Some((record, changed_serial(falcon, record)?)));
        let cause = if let Some((record, now)) = changed {
            UnmatchedCause::SerialChanged {
                aid: record.aid.clone(),
                now: now.clone(),
            }
        } else {
            let host = nameless.get(&short_name(&device.hostname)?)?;
            UnmatchedCause::NoUsableSerial {
                aid: host.aid.clone(),
                reported: host.serial.clone(),
            }
        };
        Some((device.node_id.clone(), cause))
    };
    unmatched.iter().filter_map(cause).collect()
}

/// Returns the hosts with one of these names and without a usable serial, the most recently seen one of each name.
fn hosts_without_serial<'a>(
    falcon: &'a FalconInventory,
    rules: &MatchRules,
    names: &BTreeSet<String>,
) -> BTreeMap<String, &'a Host> {
    let mut hosts: BTreeMap<String, &Host> = BTreeMap::new();
    if names.is_empty() {
        return hosts;
    }
    for host in falcon.hosts.values() {
        let name = host_name(host).filter(|name| names.contains(name));
        let Some(name) = name else { continue };
        if !rules.is_recent(host) || rules.is_usable(host.serial.as_ref()) {
            continue;
        }
        let newest = hosts.entry(name).or_insert(host);
        if host.last_seen > newest.last_seen {
            *newest = host;
        }
    }
    hosts
}
