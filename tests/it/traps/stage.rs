//! Performs a case and compares the tailnet with the oracle after each run.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use falcon_posture_sync::clock::Clock;
use jiff::{SignedDuration, Timestamp};
use posture_simulators::{DataSet, Device, GeneratorSpec, Host};
use serde_json::{Value, json};

use super::laws::assert_rises_are_vouched_for;
use super::moves::{Case, Machine};
use crate::environment::{TAILNET, TestEnvironment};
use crate::oracle::{Oracle, Settings};

/// Machines that nothing happens to, so that no run is suspicious.
const QUIET: usize = 3;
pub(super) const PLATFORMS: [(&str, &str); 3] =
    [("Mac", "macOS"), ("Windows", "windows"), ("Linux", "linux")];
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// Runs one case after another in one environment.
pub(super) struct Stage {
    pub(super) env: TestEnvironment,
    /// Sensors that do not report.
    pub(super) silent: BTreeSet<String>,
    /// Hosts that were hidden or removed.
    pub(super) gone: Vec<Host>,
    /// Hosts and nodes that came later.
    pub(super) arrivals: usize,
    /// Nodes that leave at once make an observation suspicious, so one may leave before each run.
    pub(super) has_left: bool,
}

impl Stage {
    pub(super) async fn open() -> Self {
        let env = TestEnvironment::empty().await;
        env.end_heartbeats();
        env.sims.falcon().configure(|settings| {
            settings.tokens_per_minute = 1_000_000;
            settings.requests_per_minute = 1_000_000;
        });
        Self {
            env,
            silent: BTreeSet::new(),
            gone: Vec::new(),
            arrivals: 0,
            has_left: false,
        }
    }

    /// Returns the first contradiction.
    pub(super) async fn perform(&mut self, case: &Case) -> Result<(), String> {
        self.begin(case).await;
        let mut oracle = Oracle::new(Settings::from_json(&case.settings));
        self.run(&mut oracle)
            .await
            .map_err(|text| format!("at first: {text}"))?;
        for (n, step) in case.steps.iter().enumerate() {
            self.has_left = false;
            for change in &step.moves {
                self.change(*change);
            }
            let wait = Duration::from_mins(step.minutes);
            self.env.app.clock.advance(wait);
            self.heartbeat();
            self.run(&mut oracle)
                .await
                .map_err(|text| format!("after step {n}, {step:?}: {text}"))?;
        }
        // Two runs later, nothing that waits is left.
        for _ in 0..2 {
            self.env.app.clock.advance(Duration::from_mins(26));
            self.heartbeat();
            self.run(&mut oracle)
                .await
                .map_err(|text| format!("in the end: {text}"))?;
        }
        Ok(())
    }

    async fn begin(&mut self, case: &Case) {
        self.silent.clear();
        self.gone.clear();
        self.arrivals = 0;
        self.env.dynamodb.clear().unwrap();
        // A stored case fails again at the same time.
        let start = Clock::fixed_at(GeneratorSpec::default().now);
        self.env.set_clock(start);
        let mut world = DataSet::default();
        let quiet = Machine {
            platform: 0,
            score: 50,
            is_connected: true,
            silent_hours: None,
        };
        let quiet = std::iter::repeat_n(&quiet, QUIET);
        for (n, machine) in quiet.chain(&case.machines).enumerate() {
            let (host, device) = self.machine(n, machine);
            let score = Value::from(machine.score);
            world.scores.insert(host.device_id.clone(), score);
            world.hosts.push(host);
            world.devices.push(device);
        }
        self.env.sims.falcon().load("corp", &world).unwrap();
        self.env.sims.tailscale().load(TAILNET, &world).unwrap();
        self.env.connect_unchecked(case.settings.clone()).await;
    }

    fn machine(&mut self, n: usize, machine: &Machine) -> (Host, Device) {
        let (platform, os) = PLATFORMS[machine.platform];
        let name = format!("machine-{n}");
        let mut device = Device::new(&format!("n{n:04}CNTRL"), &name, [serial(n)]);
        os.clone_into(&mut device.os);
        let ago = SignedDuration::from_hours(machine.silent_hours.unwrap_or(1));
        let seen = self.now() - ago;
        device.connected_to_control = machine.is_connected;
        device.last_seen = (!machine.is_connected).then(|| seen.to_string());
        let mut host = Host::new(&aid(n), &serial(n), &name, &seen.to_string());
        host.platform_name = Some(platform.to_owned());
        host.first_seen = Some((seen - 90 * DAY).to_string());
        if machine.silent_hours.is_some() || !machine.is_connected {
            self.silent.insert(host.device_id.clone());
        }
        (host, device)
    }

    pub(super) fn now(&self) -> Timestamp {
        self.env.app.clock.now()
    }

    /// The sensors that are not silent have reported within the last hours.
    pub(super) fn heartbeat(&self) {
        let now = self.now();
        let beat = |host: &mut Host| {
            if !self.silent.contains(&host.device_id) {
                let number = host.device_id.bytes().map(i64::from).sum::<i64>();
                let ago = SignedDuration::from_secs(60 + 61 * (number % 170));
                let first = host.first_seen.as_deref().map(|time| time.parse().unwrap());
                let seen = first.map_or(now - ago, |first: Timestamp| first.max(now - ago));
                host.last_seen = Some(seen.to_string());
            }
        };
        self.env.sims.falcon().update_hosts("corp", beat).unwrap();
    }

    /// Runs, lets all removals pass, and compares.
    pub(super) async fn run(&mut self, oracle: &mut Oracle) -> Result<(), String> {
        let before = self.env.scores();
        let sync = json!({"command": "sync", "integration": "corp", "allowMassRemoval": 1000});
        let answer = self.env.ask(sync).await;
        let world = self.env.world();
        let expected = oracle.run(&world);
        let held = self.env.scores();
        let good = ["synced", "unchanged"].contains(&answer["outcome"].as_str().unwrap());
        if !good {
            return Err(format!("{answer:#}"));
        }
        if held != expected.attributes {
            let differ = differences(&held, &expected.attributes);
            let mut differ = differ.into_iter().map(|(node, held, deserved)| {
                format!(
                    "{node} has {held:?} instead of {deserved:?}, had {:?}: {:?}",
                    before.get(&node),
                    expected.reasons.get(&node),
                )
            });
            let first: Vec<String> = differ.by_ref().take(3).collect();
            return Err(format!("{}\nin {}", first.join("\n"), told(&world)));
        }
        assert_rises_are_vouched_for(&world, &before, &held)?;
        for (kind, subjects) in &expected.findings {
            let mut told = answer["findings"].as_array().unwrap().iter();
            if !told.any(|finding| finding["kind"] == *kind) {
                return Err(format!("no finding {kind} of {subjects:?}: {answer:#}"));
            }
        }
        Ok(())
    }
}

/// The serial of a machine; one too many is a filler.
pub(super) fn serial(n: usize) -> String {
    const FILLERS: [&str; 5] = [
        "Default string",
        "SYS-1234567890",
        "SN-12345",
        "(null string)",
        "SystemSerialNumb",
    ];
    match n {
        0..12 => format!("TRAPS{n:02}QX"),
        _ => FILLERS[n % FILLERS.len()].to_owned(),
    }
}

pub(super) fn aid(n: usize) -> String {
    format!("{:032x}", 0xa000 + n)
}

fn differences(
    held: &BTreeMap<String, i64>,
    deserved: &BTreeMap<String, i64>,
) -> Vec<(String, Option<i64>, Option<i64>)> {
    let nodes: BTreeSet<&String> = held.keys().chain(deserved.keys()).collect();
    let pairs = nodes.into_iter().map(|node| {
        (
            node.clone(),
            held.get(node).copied(),
            deserved.get(node).copied(),
        )
    });
    pairs
        .filter(|(_, held, deserved)| held != deserved)
        .collect()
}

/// A world in a few lines.
fn told(world: &crate::oracle::World) -> String {
    let mut lines = vec![format!("the world at {}", world.now)];
    for host in &world.hosts {
        let score = world.scores.get(&host.device_id);
        lines.push(format!(
            "host {} {:?} {:?} {:?} first {:?} last {:?} {:?} score {score:?}",
            host.device_id.trim_start_matches('0'),
            host.serial_number,
            host.hostname,
            host.platform_name,
            host.first_seen,
            host.last_seen,
            host.status,
        ));
    }
    for device in &world.devices {
        lines.push(format!(
            "node {} {:?} {:?} {} connected {} seen {:?} many {} external {}",
            device.node_id,
            device.hostname,
            device.serials(),
            device.os,
            device.connected_to_control,
            device.last_seen,
            device.multiple_connections,
            device.is_external,
        ));
    }
    lines.join("\n")
}
