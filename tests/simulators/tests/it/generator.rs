use std::collections::BTreeSet;

use posture_simulators::{
    Device, GeneratorSpec, PLACEHOLDER_SERIALS, PostureIdentity, World, generate,
};
use tokio::time::Instant;

fn normal(serial: &str) -> String {
    serial.trim().to_uppercase()
}

fn host_serials(world: &World) -> BTreeSet<String> {
    let placeholder = |serial: &str| {
        PLACEHOLDER_SERIALS
            .iter()
            .any(|known| known.eq_ignore_ascii_case(serial))
    };
    world
        .hosts
        .iter()
        .filter_map(|host| host.serial_number.as_deref())
        .map(normal)
        .filter(|serial| !placeholder(serial))
        .collect()
}

#[test]
fn a_seed_is_a_world() {
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
        serde_json::from_str::<World>(&json).unwrap(),
        generate(&spec)
    );
    // pinned, to detect a changed dependency or a difference between machines
    let world = generate(&spec);
    assert_eq!(world.hosts[0].device_id, FIRST_AID);
}

const FIRST_AID: &str = "98c2a2ff8969f9d934cd45d0027cc179";

#[test]
fn fractions_hold_exactly() {
    let spec = GeneratorSpec {
        hosts: 1000,
        devices: 500,
        ..GeneratorSpec::default()
    };
    let world = generate(&spec);
    assert_eq!(
        (world.hosts.len(), world.scores.len(), world.devices.len()),
        (1000, 950, 500)
    );
    assert_eq!(
        world
            .hosts
            .iter()
            .filter(|host| host.serial_number.is_none())
            .count(),
        19,
        "2% of the 960 first records"
    );
    assert_eq!(
        world
            .devices
            .iter()
            .filter(|device| device.is_external)
            .count(),
        25
    );
    let disabled = Some(PostureIdentity::disabled());
    assert_eq!(
        world
            .devices
            .iter()
            .filter(|device| device.posture_identity == disabled)
            .count(),
        15
    );
    let own = world
        .devices
        .iter()
        .filter(|device| !device.is_external && !device.serials().is_empty());
    let known = host_serials(&world);
    let matched = own
        .filter(|device| known.contains(&normal(&device.serials()[0])))
        .count();
    assert_eq!(matched, 348, "80% of the 435 nodes with serials");
    let ids: BTreeSet<_> = world.devices.iter().map(|device| &device.node_id).collect();
    assert_eq!(ids.len(), 500);
}

#[test]
fn a_plain_world_matches_one_to_one() {
    let world = generate(&GeneratorSpec::plain(50, 50));
    let reported: BTreeSet<String> = world
        .devices
        .iter()
        .flat_map(Device::serials)
        .map(|serial| normal(serial))
        .collect();
    assert_eq!(reported, host_serials(&world));
    assert_eq!((reported.len(), world.scores.len()), (50, 50));
}

#[test]
fn large_worlds_are_quick() {
    let started = Instant::now();
    let world = generate(&GeneratorSpec {
        hosts: 20_000,
        devices: 5_000,
        ..GeneratorSpec::default()
    });
    assert_eq!(world.hosts.len(), 20_000);
    assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
}
