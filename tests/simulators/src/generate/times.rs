//! Times of the hosts that agree with each other and with the nodes of their machines.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::{DAY_S, GeneratorSpec, HostRecord, Node, RecordKind};
use crate::clock::to_second;

const HOUR_S: u64 = 3600;

/// Sets `first_seen` of all hosts. Moves `last_seen` of the hosts in use to within half a day before the last sight of their
/// machine's node, which is now while the node is connected.
pub(super) fn set_times(spec: &GeneratorSpec, hosts: &mut [HostRecord], nodes: &[Node]) {
    let online = online(spec, nodes);
    let mut reimaged: BTreeMap<usize, Timestamp> = BTreeMap::new();
    for record in hosts.iter_mut() {
        let seen = seen(spec, record);
        if record.kind == RecordKind::Reimaged {
            let installed = before(seen, Duration::from_secs(300 * DAY_S));
            record.host.first_seen = Some(to_second(installed));
            let latest = reimaged.entry(record.machine).or_insert(seen);
            *latest = seen.max(*latest);
        }
    }
    let mut present: BTreeMap<usize, Timestamp> = BTreeMap::new();
    for record in hosts.iter_mut() {
        let ago = ago(spec, record);
        let seen = match (record.kind, online.get(&record.machine)) {
            (RecordKind::Reimaged, _) => continue,
            // a sensor without a node: as drawn
            (RecordKind::Present, None) => before(spec.now, ago),
            (RecordKind::Present, Some(online)) => {
                before(*online, Duration::from_secs(ago.as_secs() % (4 * HOUR_S)))
            }
            // the first record of the machine comes before its clones
            (RecordKind::Clone, _) => before(
                present.get(&record.machine).copied().unwrap_or(spec.now),
                ago,
            ),
        };
        if record.kind == RecordKind::Present {
            present.insert(record.machine, seen);
        }
        // the sensor that replaced an old one came a few hours after that one's last sight
        let installed = match reimaged.get(&record.machine) {
            Some(old) => later(
                *old,
                Duration::from_secs(HOUR_S + ago.as_secs() % (8 * HOUR_S)),
            ),
            None => before(
                seen,
                Duration::from_secs((60 + ago.as_secs() % 300) * DAY_S),
            ),
        };
        record.host.first_seen = Some(to_second(installed));
        record.host.last_seen = Some(to_second(seen));
    }
}

/// Returns the latest sight of each machine's nodes.
fn online(spec: &GeneratorSpec, nodes: &[Node]) -> BTreeMap<usize, Timestamp> {
    let mut online = BTreeMap::new();
    for node in nodes {
        let Some(machine) = node.machine else {
            continue;
        };
        let seen = node.device.last_seen.as_deref();
        let seen = seen.and_then(|time| time.parse().ok()).unwrap_or(spec.now);
        let latest = online.entry(machine).or_insert(seen);
        *latest = seen.max(*latest);
    }
    online
}

fn seen(spec: &GeneratorSpec, record: &HostRecord) -> Timestamp {
    let seen = record.host.last_seen.as_deref();
    seen.and_then(|time| time.parse().ok()).unwrap_or(spec.now)
}

fn ago(spec: &GeneratorSpec, record: &HostRecord) -> Duration {
    let ago = spec.now.duration_since(seen(spec, record));
    ago.try_into().unwrap_or_default()
}

fn before(time: Timestamp, by: Duration) -> Timestamp {
    time.checked_sub(by).unwrap_or(time)
}

fn later(time: Timestamp, by: Duration) -> Timestamp {
    time.checked_add(by).unwrap_or(time)
}
