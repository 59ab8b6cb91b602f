//! Data sets of any size with the traps of real ones: re-imaged machines, clones, placeholder
//! serials, odd case and padding, nodes without identity, nodes of other tailnets.
//!
//! The same spec gives the same data set, in every run and on every machine.

mod nodes;
mod rng;
mod times;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::falcon::Host;
use crate::tailscale::Device;
use nodes::devices;
use rng::{SeededRng, rounded_share};
use times::set_times;

/// Invalid serials of public lists. Either side's data has them in odd case and with padding.
pub const PLACEHOLDER_SERIALS: [&str; 25] = [
    "",
    "0",
    "none",
    "n/a",
    "na",
    "unknown",
    "default string",
    "defaultstring",
    "to be filled by o.e.m.",
    "o.e.m.",
    "not specified",
    "not applicable",
    "not available",
    "not present",
    "system serial number",
    "serial number",
    "serialnumber",
    "chassis serial number",
    "base board serial number",
    "123456789",
    "0123456789",
    "1234567890",
    "xxxxxxxx",
    "00000000",
    "1111111",
];

/// Parameters of a data set. Fractions are from 0 to 1 and hold exactly, up to rounding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GeneratorSpec {
    /// Another seed gives another data set.
    pub seed: u64,
    /// Falcon host records, duplicates included.
    pub hosts: usize,
    /// Tailscale nodes, external ones included.
    pub devices: usize,
    /// Fraction of the nodes with serials that report a Falcon host's serial.
    pub overlap: f64,
    /// Fraction of the hosts that repeat the serial of another record. Every second one is an old
    /// record of a re-imaged machine (same name, seen 31 to 400 days ago, before the new record was first seen). The
    /// others are clones (another name, in use at the same time, seen within half a day of the first).
    pub duplicate_serial: f64,
    /// Fraction of the nodes with serials that also report the serials of a baseboard and a
    /// chassis.
    pub multi_serial: f64,
    /// Fraction of the hosts' first records and of the unmatched nodes that have a placeholder.
    pub placeholder_serial: f64,
    /// Fraction of the hosts without a score.
    pub unassessed: f64,
    /// Fraction of the hosts' first records without the key `serial_number`.
    pub no_serial_key: f64,
    /// Fraction of the nodes without `postureIdentity`.
    pub no_identity: f64,
    /// Fraction of the nodes with `{"disabled":true}`.
    pub disabled_identity: f64,
    /// Fraction of the nodes that are shared in. Every second one reports a Falcon host's serial.
    pub external: f64,
    /// Fraction of the matched nodes that report the serial of an earlier node, and are offline.
    pub several_nodes: f64,
    /// Fraction of all serials, on either side, with odd case or padding.
    pub odd_spelling: f64,
    /// The base of all times.
    pub now: Timestamp,
}

impl Default for GeneratorSpec {
    /// 100 hosts, 60 nodes, and a few instances of every trap.
    fn default() -> Self {
        Self {
            seed: 1,
            hosts: 100,
            devices: 60,
            overlap: 0.8,
            duplicate_serial: 0.04,
            multi_serial: 0.2,
            placeholder_serial: 0.04,
            unassessed: 0.05,
            no_serial_key: 0.02,
            no_identity: 0.05,
            disabled_identity: 0.03,
            external: 0.05,
            several_nodes: 0.03,
            odd_spelling: 0.2,
            // 2026-01-15T12:00:00Z
            now: Timestamp::constant(1_768_478_400, 0),
        }
    }
}

impl GeneratorSpec {
    /// Hosts and nodes one to one, without any trap: every node has a score.
    pub fn plain(hosts: usize, devices: usize) -> Self {
        Self {
            hosts,
            devices,
            overlap: 1.0,
            duplicate_serial: 0.0,
            multi_serial: 0.0,
            placeholder_serial: 0.0,
            unassessed: 0.0,
            no_serial_key: 0.0,
            no_identity: 0.0,
            disabled_identity: 0.0,
            external: 0.0,
            several_nodes: 0.0,
            odd_spelling: 0.0,
            ..Self::default()
        }
    }
}

/// A data set for both sides.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSet {
    /// Falcon hosts.
    pub hosts: Vec<Host>,
    /// Scores by agent id; unassessed hosts are absent.
    pub scores: BTreeMap<String, Value>,
    /// Tailscale nodes.
    pub devices: Vec<Device>,
}

/// Generates the data set of a spec.
pub fn generate(spec: &GeneratorSpec) -> DataSet {
    let mut rng = SeededRng::new(spec.seed);
    let machines = machines(spec, &mut rng);
    let mut hosts = hosts(spec, &machines, &mut rng);
    let assessed = rng.mark_share(hosts.len(), 1.0 - spec.unassessed);
    let scores = hosts
        .iter()
        .zip(assessed)
        .filter(|(_, assessed)| *assessed)
        .map(|(host, _)| (host.host.device_id.clone(), Value::from(rng.below(101))))
        .collect();
    let devices = devices(spec, &machines, &mut rng);
    set_times(spec, &mut hosts, &devices);
    DataSet {
        hosts: hosts.into_iter().map(|record| record.host).collect(),
        scores,
        devices: devices.into_iter().map(|node| node.device).collect(),
    }
}

const DAY_S: u64 = 86_400;

/// A machine with a Falcon sensor: the first record of its host.
struct Machine {
    /// The serial on the case; `None` without a usable serial.
    serial: Option<String>,
    hostname: String,
    platform: &'static str,
}

fn machines(spec: &GeneratorSpec, rng: &mut SeededRng) -> Vec<Machine> {
    let count = spec.hosts - rounded_share(spec.hosts, spec.duplicate_serial);
    let order = rng.shuffled(count);
    let without =
        rounded_share(count, spec.placeholder_serial) + rounded_share(count, spec.no_serial_key);
    let mut machines: Vec<Machine> = (0..count)
        .map(|number| {
            let platform = ["Mac", "Windows", "Mac", "Windows", "Linux"]
                .get(rng.index(5))
                .copied()
                .unwrap_or("Mac");
            Machine {
                serial: Some(serial(rng, number, platform)),
                hostname: format!("{}-{number:06}", platform.to_lowercase()),
                platform,
            }
        })
        .collect();
    for index in order.into_iter().take(without) {
        if let Some(machine) = machines.get_mut(index) {
            machine.serial = None;
        }
    }
    machines
}

/// Returns a serial in the maker's form that contains the number, so that all serials differ.
fn serial(rng: &mut SeededRng, number: usize, platform: &str) -> String {
    match platform {
        "Mac" => format!("C{number:06}{}", rng.letters(4)),
        // HP's begin with a digit. After letters that end in SN, some numbers would be fillers.
        "Windows" => {
            let letters = rng.letters(3);
            let letter = letters.chars().next().unwrap_or('G');
            format!("5C{letter}{number:06}")
        }
        // recorded of a virtual machine, with spaces and a dash
        _ => {
            let bytes = format!("{number:08x}{}", rng.hex(24));
            let pairs: Vec<&str> = (0..16)
                .filter_map(|at| bytes.get(2 * at..2 * at + 2))
                .collect();
            let (left, right) = pairs.split_at(8);
            format!("VMware-{}-{}", left.join(" "), right.join(" "))
        }
    }
}

/// The relation of a host record to its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RecordKind {
    /// The sensor of the machine.
    Present,
    /// The sensor before the machine was re-imaged.
    Reimaged,
    /// The sensor of another machine with the serial of this one.
    Clone,
}

/// A host record, and the index of its machine.
struct HostRecord {
    machine: usize,
    kind: RecordKind,
    host: Host,
}

/// A node, and the index of its machine.
struct Node {
    machine: Option<usize>,
    device: Device,
}

fn hosts(spec: &GeneratorSpec, machines: &[Machine], rng: &mut SeededRng) -> Vec<HostRecord> {
    let mut without_key = rounded_share(machines.len(), spec.no_serial_key);
    let mut hosts = Vec::with_capacity(spec.hosts);
    for (index, machine) in machines.iter().enumerate() {
        let serial_number = match &machine.serial {
            Some(serial) => Some(rng.respell(spec, serial)),
            None if without_key > 0 => {
                without_key -= 1;
                None
            }
            None => Some(rng.placeholder()),
        };
        let last_seen = rng.time_ago(spec, 0, 7 * DAY_S);
        let hostname = machine.hostname.clone();
        hosts.push(HostRecord {
            machine: index,
            kind: RecordKind::Present,
            host: host(rng, machine, serial_number, hostname, last_seen),
        });
    }
    let duplicable: Vec<usize> = (0..machines.len())
        .filter(|index| {
            machines
                .get(*index)
                .is_some_and(|machine| machine.serial.is_some())
        })
        .collect();
    for number in machines.len()..spec.hosts {
        // without a machine to duplicate, the data set has fewer hosts than requested
        let Some(index) = rng.choice(&duplicable).copied() else {
            break;
        };
        let Some(machine) = machines.get(index) else {
            continue;
        };
        let serial = machine
            .serial
            .as_deref()
            .map(|serial| rng.respell(spec, serial));
        let (kind, hostname, last_seen) = if number % 2 == 0 {
            (
                RecordKind::Reimaged,
                machine.hostname.clone(),
                rng.time_ago(spec, 31 * DAY_S, 400 * DAY_S),
            )
        } else {
            (
                RecordKind::Clone,
                format!("{}-clone", machine.hostname),
                rng.time_ago(spec, 0, DAY_S / 2),
            )
        };
        hosts.push(HostRecord {
            machine: index,
            kind,
            host: host(rng, machine, serial, hostname, last_seen),
        });
    }
    hosts
}

fn host(
    rng: &mut SeededRng,
    machine: &Machine,
    serial_number: Option<String>,
    hostname: String,
    last_seen: String,
) -> Host {
    Host {
        device_id: rng.hex(32),
        serial_number,
        hostname: Some(hostname),
        last_seen: Some(last_seen),
        first_seen: None,
        status: None,
        platform_name: Some(machine.platform.to_owned()),
        product_type_desc: Some(
            if machine.platform == "Linux" {
                "Server"
            } else {
                "Workstation"
            }
            .to_owned(),
        ),
        extra: BTreeMap::new(),
    }
}
