use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use posture_simulators::{
    DataSet, Device, GeneratorSpec, Host, PLACEHOLDER_SERIALS, PostureIdentity, generate,
};
use tokio::time::Instant;

fn normalized(serial: &str) -> String {
    serial.trim().to_uppercase()
}

fn host_serials(data: &DataSet) -> BTreeSet<String> {
    let placeholder = |serial: &str| {
        PLACEHOLDER_SERIALS
            .iter()
            .any(|known| known.eq_ignore_ascii_case(serial))
    };
    data.hosts
        .iter()
        .filter_map(|host| host.serial_number.as_deref())
        .map(normalized)
        .filter(|serial| !placeholder(serial))
        .collect()
}

#[test]
fn a_seed_determines_the_data_set() {
    let spec = GeneratorSpec::default();
    assert_eq!(generate(&spec), generate(&spec));
    assert_ne!(
        generate(&spec),
        generate(&GeneratorSpec {
            seed: 2,
            ..spec.clone()
        })
    );
    let json = serde_json::to_string(&generate(&spec)).unwrap();
    assert_eq!(
        serde_json::from_str::<DataSet>(&json).unwrap(),
        generate(&spec)
    );
    // pinned, to detect a changed dependency or a difference between machines
    let data = generate(&spec);
    assert_eq!(data.hosts[0].device_id, FIRST_AID);
}

const FIRST_AID: &str = "98c2a2ff8969f9d934cd45d0027cc179";

#[test]
fn fractions_hold_exactly() {
    let spec = GeneratorSpec {
        hosts: 1000,
        devices: 500,
        ..GeneratorSpec::default()
    };
    let data = generate(&spec);
    assert_eq!(
        (data.hosts.len(), data.scores.len(), data.devices.len()),
        (1000, 950, 500)
    );
    assert_eq!(
        data.hosts
            .iter()
            .filter(|host| host.serial_number.is_none())
            .count(),
        19,
        "2% of the 960 first records"
    );
    assert_eq!(
        data.devices
            .iter()
            .filter(|device| device.is_external)
            .count(),
        25
    );
    let disabled = Some(PostureIdentity::disabled());
    assert_eq!(
        data.devices
            .iter()
            .filter(|device| device.posture_identity == disabled)
            .count(),
        15
    );
    let own = data
        .devices
        .iter()
        .filter(|device| !device.is_external && !device.serials().is_empty());
    let known = host_serials(&data);
    let matched = own
        .filter(|device| known.contains(&normalized(&device.serials()[0])))
        .count();
    assert_eq!(matched, 348, "80% of the 435 nodes with serials");
    let ids: BTreeSet<_> = data.devices.iter().map(|device| &device.node_id).collect();
    assert_eq!(ids.len(), 500);
}

fn time(text: Option<&String>) -> Timestamp {
    text.unwrap().parse().unwrap()
}

#[test]
fn hosts_were_seen_when_their_devices_were() {
    let spec = GeneratorSpec {
        hosts: 1000,
        devices: 500,
        duplicate_serial: 0.3,
        several_nodes: 0.2,
        ..GeneratorSpec::default()
    };
    let data = generate(&spec);
    let mut by_serial: BTreeMap<String, Vec<&Host>> = BTreeMap::new();
    for host in &data.hosts {
        let serial = host.serial_number.as_deref().unwrap_or_default();
        by_serial.entry(normalized(serial)).or_default().push(host);
        assert!(time(host.first_seen.as_ref()) < time(host.last_seen.as_ref()));
        assert!(time(host.last_seen.as_ref()) <= spec.now);
    }
    let known = host_serials(&data);
    let (mut replaced, mut clones) = (0, 0);
    for serial in &known {
        let hosts = &by_serial[serial];
        let present = hosts[0];
        for other in hosts.iter().skip(1) {
            let (first, last) = (other.first_seen.as_ref(), other.last_seen.as_ref());
            if other.hostname == present.hostname {
                assert!(time(last) < time(present.first_seen.as_ref()));
                replaced += 1;
            } else {
                assert!(time(first) < time(present.last_seen.as_ref()));
                assert!(time(last) > time(present.first_seen.as_ref()));
                clones += 1;
            }
        }
    }
    assert!(replaced > 100 && clones > 100, "{replaced} {clones}");
    let day = SignedDuration::from_hours(24);
    for device in data.devices.iter().filter(|device| !device.is_external) {
        let seen = device.last_seen.as_ref().map(|seen| time(Some(seen)));
        let seen = seen.unwrap_or(spec.now);
        let Some(serial) = device.serials().first().map(|serial| normalized(serial)) else {
            continue;
        };
        for host in by_serial
            .get(&serial)
            .filter(|_| known.contains(&serial))
            .into_iter()
            .flatten()
        {
            let platform = host.platform_name.as_deref();
            let os = [("Mac", "macOS"), ("Windows", "windows"), ("Linux", "linux")];
            assert!(os.contains(&(platform.unwrap(), &device.os)), "{device:?}");
            let is_old = time(host.last_seen.as_ref()) < spec.now - 30 * day;
            assert!(is_old || seen.duration_since(time(host.last_seen.as_ref())) < day);
        }
    }
}

#[test]
fn a_plain_data_set_matches_one_to_one() {
    let data = generate(&GeneratorSpec::plain(50, 50));
    let reported: BTreeSet<String> = data
        .devices
        .iter()
        .flat_map(Device::serials)
        .map(|serial| normalized(serial))
        .collect();
    assert_eq!(reported, host_serials(&data));
    assert_eq!((reported.len(), data.scores.len()), (50, 50));
}

#[test]
fn large_data_sets_are_generated_quickly() {
    let started = Instant::now();
    let data = generate(&GeneratorSpec {
        hosts: 20_000,
        devices: 5_000,
        ..GeneratorSpec::default()
    });
    assert_eq!(data.hosts.len(), 20_000);
    assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
}
