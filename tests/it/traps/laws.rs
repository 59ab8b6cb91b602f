//! Laws that hold in every world, whatever the oracle says.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use posture_simulators::{Device, GeneratorSpec, Host, generate};
use serde_json::{Value, json};

use super::stage::PLATFORMS;
use crate::environment::{TAILNET, TestEnvironment};
use crate::oracle::World;

/// Fails if a score was set or raised without the word of a host: of the device's platform, with one of its serials, and seen
/// at most 24 h before the device was.
pub(super) fn assert_rises_are_vouched_for(
    world: &World,
    before: &BTreeMap<String, i64>,
    after: &BTreeMap<String, i64>,
) -> Result<(), String> {
    for device in &world.devices {
        let (old, new) = (before.get(&device.node_id), after.get(&device.node_id));
        let rises = new > old;
        if rises && !world.hosts.iter().any(|host| vouches(world, host, device)) {
            return Err(format!("{old:?} -> {new:?} of {device:?} in {world:#?}"));
        }
    }
    Ok(())
}

fn vouches(world: &World, host: &Host, device: &Device) -> bool {
    let fold = |text: &String| text.trim().to_lowercase();
    let serial = host.serial_number.as_ref().map(fold);
    let mut serials = device.serials().iter().map(fold);
    let platform = PLATFORMS
        .iter()
        .find(|(name, _)| host.platform_name.as_deref() == Some(name));
    let is_known = PLATFORMS.iter().any(|(_, os)| *os == device.os);
    let time = |text: &String| text.parse::<Timestamp>().unwrap();
    let seen = device
        .last_seen
        .as_ref()
        .filter(|_| !device.connected_to_control);
    let seen = seen.map_or(world.now, time);
    let is_recent = host
        .last_seen
        .as_ref()
        .is_some_and(|host| seen.duration_since(time(host)) <= SignedDuration::from_hours(24));
    serials.any(|own| Some(own) == serial)
        && platform.is_none_or(|(_, os)| !is_known || *os == device.os)
        && is_recent
}

/// Rooms of machines with re-imaged and cloned ones.
fn spec(seed: u64) -> GeneratorSpec {
    GeneratorSpec {
        seed,
        duplicate_serial: 0.3,
        several_nodes: 0.2,
        multi_serial: 0.3,
        odd_spelling: 0.3,
        ..GeneratorSpec::plain(20, 15)
    }
}

async fn assert_nothing_changes(env: &TestEnvironment, what: &str) {
    let before = env.scores();
    let answer = env.sync().await;
    assert_eq!(env.scores(), before, "{what}: {answer:#}");
    assert_eq!(answer["written"], 0, "{what}: {answer:#}");
    assert_eq!(answer["removed"], 0, "{what}: {answer:#}");
}

#[tokio::test]
async fn names_order_and_doubles_of_records_change_nothing() {
    let env = TestEnvironment::empty().await;
    for seed in 1..=20 {
        env.clear(spec(seed));
        env.connect_unchecked(json!({})).await;
        assert_eq!(env.sync().await["outcome"], "synced");
        assert!(env.scores().len() > 5, "the world is not an empty one");
        let (falcon, tailscale) = (env.sims.falcon(), env.sims.tailscale());

        // The names of all, in the same way: no two names become equal or different.
        let rename = |host: &mut Host| {
            let name = host.hostname.take().unwrap();
            host.hostname = Some(format!("Other-{name}.example.com"));
        };
        falcon.update_hosts("corp", rename).unwrap();
        let rename = |device: &mut Device| {
            device.hostname = format!("other-{}", device.hostname);
            device.name = format!("other-{}", device.name);
        };
        tailscale.update_devices(TAILNET, rename).unwrap();
        assert_nothing_changes(&env, &format!("{seed}: names")).await;

        // The listing shows a record twice, under a page boundary or not.
        let hosts = falcon.hosts("corp").unwrap();
        for (n, host) in hosts.iter().enumerate().step_by(3) {
            let mut double = host.clone();
            double.device_id = format!("{:032x}", u128::MAX - u128::try_from(n).unwrap());
            let shown = Value::from(host.device_id.clone());
            double.extra.insert("device_id".to_owned(), shown);
            falcon.put_host("corp", double).unwrap();
        }
        assert_nothing_changes(&env, &format!("{seed}: doubles")).await;

        // Falcon lists by id, so other ids are another order.
        let scores = falcon.scores("corp").unwrap();
        for host in falcon.hosts("corp").unwrap() {
            falcon.remove_host("corp", &host.device_id).unwrap();
        }
        for host in hosts {
            let number = u128::from_str_radix(&host.device_id, 16).unwrap();
            let device_id = format!("{:032x}", !number);
            if let Some(score) = scores.get(&host.device_id) {
                falcon.remove_score("corp", &host.device_id).unwrap();
                let score = score.clone();
                falcon.set_score("corp", &device_id, score).unwrap();
            }
            falcon.put_host("corp", Host { device_id, ..host }).unwrap();
        }
        assert_nothing_changes(&env, &format!("{seed}: order")).await;
    }
}

#[tokio::test]
async fn the_order_of_records_decides_nothing_from_the_start() {
    let (one, other) = (
        TestEnvironment::empty().await,
        TestEnvironment::empty().await,
    );
    for seed in 21..=40 {
        one.clear(spec(seed));
        other.clear(spec(seed));
        let mut world = generate(&GeneratorSpec {
            now: other.app.clock.now(),
            ..spec(seed)
        });
        let mirrored = |id: &str| {
            let number = u128::from_str_radix(id, 16).unwrap();
            format!("{:032x}", !number)
        };
        for host in &mut world.hosts {
            host.device_id = mirrored(&host.device_id);
        }
        let scores = world.scores.into_iter();
        world.scores = scores.map(|(aid, score)| (mirrored(&aid), score)).collect();
        other.sims.falcon().load("corp", &world).unwrap();
        for env in [&one, &other] {
            env.connect_unchecked(json!({})).await;
            assert_eq!(env.sync().await["outcome"], "synced");
        }
        assert_eq!(one.scores(), other.scores(), "seed {seed}");
    }
}

/// A device that joins with the serial of a connected one gets no score, and takes none away.
#[tokio::test]
async fn a_joiner_with_the_serial_of_a_connected_device_changes_nothing() {
    let env = TestEnvironment::empty().await;
    for seed in 1..=20_u64 {
        env.clear(GeneratorSpec {
            seed,
            ..GeneratorSpec::plain(8, 6)
        });
        env.connect_unchecked(json!({"removeAfterMinutes": 0}))
            .await;
        assert_eq!(env.sync().await["outcome"], "synced");
        let (falcon, tailscale) = (env.sims.falcon(), env.sims.tailscale());
        let mut owners = tailscale.devices(TAILNET).unwrap();
        owners.retain(|device| device.connected_to_control);
        let mut joiners = Vec::new();
        for (n, owner) in owners.iter().enumerate() {
            let spelled = owner.serials()[0].to_lowercase();
            // Ids before and after all others; the owner's name, or another one.
            let node = format!("{}{n}CNTRL", ["a", "z"][n % 2]);
            let name = ["stranger", owner.hostname.as_str()][n / 2 % 2];
            let joiner = Device {
                os: owner.os.clone(),
                multiple_connections: n % 5 == 4,
                ..Device::new(&node, name, [spelled])
            };
            tailscale.put_device(TAILNET, joiner).unwrap();
            joiners.push(node);
        }
        assert_nothing_changes(&env, &format!("seed {seed}")).await;
        let answer = env.sync().await;
        assert!(joiners.iter().all(|node| !env.scores().contains_key(node)));
        let told = answer["findings"].as_array().unwrap();
        let shared = told
            .iter()
            .find(|finding| finding["kind"] == "sharedSerials");
        assert!(joiners.is_empty() || shared.is_some(), "{answer:#}");

        // The owners' scores go on as before: down and up.
        for score in [1, 99] {
            for aid in falcon.scores("corp").unwrap().keys() {
                falcon.set_score("corp", aid, score).unwrap();
            }
            env.sync().await;
            for owner in &owners {
                let held = env.scores().get(&owner.node_id).copied();
                assert_eq!(held, Some(score), "seed {seed}: {owner:?}");
            }
            assert!(joiners.iter().all(|node| !env.scores().contains_key(node)));
        }
    }
}
