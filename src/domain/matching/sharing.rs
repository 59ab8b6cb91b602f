//! Serial numbers that several machines share: which device each of them serves, if any.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use smallvec::SmallVec;

use crate::domain::inventory::device::{Device, NodeId};
use crate::domain::inventory::host::Host;
use crate::domain::inventory::record::NodeRecords;
use crate::domain::inventory::serial::Serial;
use crate::domain::matching::Serials;
use crate::domain::matching::hosts::HostsBySerial;
use crate::domain::matching::rules::MatchRules;

/// A shared serial.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sharing {
    /// The names of the machines that share it: of its live hosts, and of the devices that report it.
    pub(crate) names: BTreeSet<String>,
    /// The devices that it serves, each with the name of the live hosts that speak for it; `None`: all live hosts do.
    served: BTreeMap<NodeId, Option<String>>,
}

impl Sharing {
    /// Returns whether a live host with the serial speaks for a device.
    pub(crate) fn serves(&self, device: &Device, host: &Host) -> bool {
        let served = self.served.get(&device.node_id);
        served.is_some_and(|name| name.is_none() || *name == host_name(host))
    }
}

/// The shared serials of an observation.
pub(crate) type SharedSerials = BTreeMap<Serial, Sharing>;

/// The own devices that report each usable serial.
#[derive(Debug, Default)]
pub(crate) struct DevicesBySerial<'a> {
    /// For lookups only: its order shows nowhere.
    devices: HashMap<&'a Serial, SmallVec<[&'a Device; 1]>>,
    /// The serials that several devices report, or one that is several machines.
    duplicated: BTreeSet<&'a Serial>,
}

impl<'a> DevicesBySerial<'a> {
    /// Collects own devices with their serials.
    pub(crate) fn new(own: impl Iterator<Item = (&'a Device, &'a Serials)>) -> Self {
        let mut by_serial = Self::default();
        for (device, serials) in own {
            for serial in serials {
                let reporting = by_serial.devices.entry(serial).or_default();
                reporting.push(device);
                if reporting.len() > 1 || device.has_multiple_connections {
                    by_serial.duplicated.insert(serial);
                }
            }
        }
        by_serial
    }

    fn reporting(&self, serial: &Serial) -> &[&'a Device] {
        self.devices.get(serial).map_or(&[], SmallVec::as_slice)
    }
}

/// Finds the shared serials: those of live hosts with different names, and those that several connected devices report, or
/// one that is several machines.
///
/// A shared serial serves the device whose record names it. If several records do, or none, the names of the live hosts
/// decide; where they leave no device, it serves none.
pub(crate) fn find_shared(
    hosts: &HostsBySerial<'_>,
    devices: &DevicesBySerial<'_>,
    records: &NodeRecords,
    rules: &MatchRules,
) -> SharedSerials {
    let by_hosts = hosts.duplicated();
    let mut serials: BTreeSet<&Serial> = by_hosts
        .filter(|serial| rules.is_usable(Some(serial)))
        .collect();
    serials.extend(&devices.duplicated);
    let sharing = serials.into_iter().filter_map(|serial| {
        let reporting = devices.reporting(serial);
        let live = hosts.live(serial);
        let host_names: BTreeSet<String> = live.iter().filter_map(|host| host_name(host)).collect();
        (host_names.len() > 1 || is_shared_by_devices(reporting)).then(|| {
            (
                serial.clone(),
                sharing(serial, &host_names, reporting, records),
            )
        })
    });
    sharing.collect()
}

fn is_shared_by_devices(reporting: &[&Device]) -> bool {
    let connected = reporting.iter().filter(|device| device.is_connected());
    connected.count() > 1
        || reporting
            .iter()
            .any(|device| device.has_multiple_connections)
}

fn sharing(
    serial: &Serial,
    host_names: &BTreeSet<String>,
    reporting: &[&Device],
    records: &NodeRecords,
) -> Sharing {
    let is_known_by_it = |device: &&&Device| {
        let record = records.get(&device.node_id);
        record.is_some_and(|record| record.serial == serial.as_str())
    };
    let name_of_host = |device: &Device| host_names.get(&short_name(&device.hostname)?).cloned();
    let known: Vec<&Device> = reporting.iter().filter(is_known_by_it).copied().collect();
    let served = if let [device] = known[..] {
        [(device.node_id.clone(), name_of_host(device))].into()
    } else {
        let rivals = if known.is_empty() { reporting } else { &known };
        let served = rivals.iter().filter_map(|device| {
            let name = name_of_host(device)?;
            Some((device.node_id.clone(), Some(name)))
        });
        served.collect()
    };
    let device_names = reporting
        .iter()
        .filter(|device| device.is_connected())
        .filter_map(|device| short_name(&device.hostname));
    Sharing {
        names: host_names.iter().cloned().chain(device_names).collect(),
        served,
    }
}

/// Returns the name of a host by which machines are told apart.
pub(crate) fn host_name(host: &Host) -> Option<String> {
    short_name(host.hostname.as_deref()?)
}

/// Returns a name up to its first dot, in lower case; `None` if nothing is left.
pub(crate) fn short_name(name: &str) -> Option<String> {
    let short = name.trim().split('.').next().unwrap_or_default();
    (!short.is_empty()).then(|| short.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::inventory::device::{Devices, Identity, Presence};
    use crate::domain::inventory::host::{Aid, FalconInventory, Score};
    use crate::domain::inventory::platform::Platform;
    use crate::domain::inventory::record::NodeRecord;
    use crate::settings::AttributeKey;
    use jiff::Timestamp;

    /// A device that reports the serial S1: its name, whether it is connected, and whether its record names the serial.
    type Reporting = (&'static str, bool, bool);

    fn score() -> Score {
        Score::new(50).unwrap()
    }

    fn host(number: usize, name: &str) -> Host {
        Host {
            aid: Aid::from(number.to_string().as_str()),
            serial: Serial::parse("S1X").ok(),
            hostname: Some(name.into()),
            first_seen: None,
            last_seen: Some(Timestamp::UNIX_EPOCH),
            platform: Platform::Other,
            is_contained: false,
        }
    }

    /// Returns the served devices with the name of the hosts that speak for each, or `None` if the serial is not shared.
    fn served(hosts: &[&str], reporting: &[Reporting]) -> Option<Vec<(String, Option<String>)>> {
        let mut falcon = FalconInventory::default();
        for (number, name) in hosts.iter().enumerate() {
            let host = host(number, name);
            falcon.extend([(host.aid.clone(), host)].into(), BTreeMap::new());
        }
        let (mut devices, mut records) = (Devices::new(), NodeRecords::new());
        for (number, (name, is_connected, is_known)) in reporting.iter().enumerate() {
            let node_id = NodeId(format!("n{number}").into());
            let device = Device {
                node_id: node_id.clone(),
                name: (*name).into(),
                hostname: (*name).into(),
                user: "".into(),
                os: "".into(),
                is_external: false,
                is_ephemeral: false,
                presence: if *is_connected {
                    Presence::Connected
                } else {
                    Presence::Away { last_seen: None }
                },
                has_multiple_connections: false,
                identity: Identity::Missing,
            };
            devices.insert(node_id.clone(), device);
            if *is_known {
                let record = NodeRecord {
                    key: AttributeKey::default(),
                    score: score(),
                    aid: Aid::from("0"),
                    serial: "S1X".into(),
                    name: (*name).into(),
                    written_at: None,
                    expiry: None,
                    run_id: "before".into(),
                    is_ephemeral: false,
                    absence: None,
                };
                records.insert(node_id, record);
            }
        }
        let serial = Serial::parse("S1X").ok()?;
        let serials = Serials::from_iter([serial.clone()]);
        let by_serial = DevicesBySerial::new(devices.values().map(|device| (device, &serials)));
        let hosts = HostsBySerial::new(&falcon);
        let rules = MatchRules::with_defaults(Timestamp::UNIX_EPOCH);
        let shared = find_shared(&hosts, &by_serial, &records, &rules);
        let served = &shared.get(&serial)?.served;
        let served = served.iter();
        Some(
            served
                .map(|(id, name)| (id.to_string(), name.clone()))
                .collect(),
        )
    }

    fn by_name(node: &str, name: &str) -> (String, Option<String>) {
        (node.to_owned(), Some(name.to_owned()))
    }

    #[test]
    fn one_name_and_one_connected_device_share_nothing() {
        assert_eq!(served(&["a", "A.example.com"], &[("b", true, false)]), None);
        // A reinstalled client leaves its old node behind.
        assert_eq!(
            served(&["a"], &[("a", false, true), ("a-1", true, false)]),
            None
        );
    }

    #[test]
    fn a_shared_serial_serves_the_device_that_is_known_by_it() {
        let known = [("b", true, true), ("a", true, false)];
        assert_eq!(served(&["a"], &known), Some(vec![("n0".to_owned(), None)]));
        let named = [("a", true, true), ("b", true, false)];
        assert_eq!(served(&["a", "b"], &named), Some(vec![by_name("n0", "a")]));
    }

    #[test]
    fn names_decide_where_several_are_known_by_it_or_none() {
        let none = [("b", true, false), ("A.local", true, false)];
        assert_eq!(served(&["a"], &none), Some(vec![by_name("n1", "a")]));
        let both = [("a", true, true), ("b", true, true), ("c", true, false)];
        assert_eq!(
            served(&["c", "a"], &both),
            Some(vec![by_name("n0", "a")]),
            "the newcomer has no say"
        );
        let pool = [("a", true, false), ("a", true, false)];
        assert_eq!(
            served(&["a"], &pool),
            Some(vec![by_name("n0", "a"), by_name("n1", "a")])
        );
        assert_eq!(
            served(&["x"], &[("a", true, true), ("b", true, true)]),
            Some(Vec::new()),
            "where that leaves none, nobody"
        );
    }
}
