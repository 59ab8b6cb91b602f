//! One function with its integration and its own random faults.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_simulators::lambda::NoAnswer;
use posture_simulators::{Device, Host};
use serde_json::{Value, json};

use super::fault_mix::{FaultMix, Relays};
use super::health::Health;
use super::rng::Rng;
use crate::environment::TestEnvironment;
use crate::process::Process;
use crate::second_integration::{Integration, Tally, audited, tally};

/// Retries of Lambda after a failed invocation.
const RETRIES: usize = 2;
/// Runs between two samples of the process.
const LOOK: usize = 50;

type Scores = BTreeMap<String, i64>;

pub(super) struct Instance {
    integration: Integration,
    process: Process,
    fault_mix: FaultMix,
    _relays: Relays,
    rng: Rng,
    away: Vec<Host>,
    /// Devices that were added so far. Each has a new id.
    devices: usize,
    outcomes: BTreeMap<String, usize>,
    /// Errors of failed runs, each with its count.
    errors: BTreeMap<String, usize>,
    audited: Tally,
    /// Changes of which the audit trail says that they may have been made: their devices left the tailnet.
    unknown: Tally,
    health: Health,
}

impl Instance {
    pub(super) async fn start(env: &TestEnvironment, integration: Integration, seed: u64) -> Self {
        let fault_mix = FaultMix::new(!seed);
        let relays = fault_mix.relays(env).await;
        Self {
            integration,
            process: Process::start(env, &relays.variables()).await,
            fault_mix,
            _relays: relays,
            rng: Rng::new(seed),
            away: Vec::new(),
            devices: 0,
            outcomes: BTreeMap::new(),
            errors: BTreeMap::new(),
            audited: Tally::new(),
            unknown: Tally::new(),
            health: Health::default(),
        }
    }

    pub(super) async fn run(&mut self, env: &TestEnvironment, ticks: usize) {
        for n in 1..=ticks {
            self.stir(env);
            self.tick(env, n).await;
            if n.is_multiple_of(LOOK) {
                self.health.sample(self.process.id());
            }
        }
    }

    /// Changes some scores, hosts and devices.
    fn stir(&mut self, env: &TestEnvironment) {
        if self.rng.chance(50) {
            let n = self.rng.below(1000);
            self.integration.move_a_score(env, n);
        }
        let falcon = env.sims.falcon();
        if self.rng.chance(5) && self.away.len() < 2 {
            let hosts = self.integration.hosts(env);
            let aid = &self.rng.choose(&hosts).device_id;
            let host = falcon.remove_host(&self.integration.name, aid).unwrap();
            self.away.extend(host);
        } else if self.rng.chance(10) {
            self.bring_hosts_back(env);
        }
        if self.rng.chance(5) {
            self.replace_a_device(env);
        }
    }

    fn bring_hosts_back(&mut self, env: &TestEnvironment) {
        for host in self.away.drain(..) {
            env.put_host_back(&self.integration.name, host);
        }
    }

    /// Replaces a device by another one of the same machine.
    fn replace_a_device(&mut self, env: &TestEnvironment) {
        let (tailscale, tailnet) = (env.sims.tailscale(), &self.integration.tailnet);
        let devices = tailscale.devices(tailnet).unwrap();
        let leaves = self.rng.choose(&devices);
        tailscale.remove_device(tailnet, &leaves.node_id).unwrap();
        self.devices += 1;
        let node = format!("n{}{:04}CNTRL", self.integration.name, self.devices);
        let comes = Device {
            os: leaves.os.clone(),
            connected_to_control: leaves.connected_to_control,
            last_seen: leaves.last_seen.clone(),
            ..Device::new(&node, &leaves.hostname, leaves.serials())
        };
        tailscale.put_device(tailnet, comes).unwrap();
    }

    /// Makes one run, and asserts the invariants after it.
    async fn tick(&mut self, env: &TestEnvironment, n: usize) {
        // The next tick comes a quarter of an hour later.
        env.age_lease(&self.integration.name).await;
        env.age_journal(&self.integration.name).await;
        let before = self.integration.scores(env);
        let outcome = self.invoke(&format!("{}-{n}", self.integration.name)).await;
        let (mut now, mut right) = (self.integration.scores(env), self.integration.expected(env));
        assert_nothing_wrong(&before, &now, &right);
        if ["synced", "unchanged"].contains(&outcome.as_str()) {
            // A device whose write was not answered waits.
            let pending = self.integration.item(env).await["pending"].take();
            let entries = pending.as_object().into_iter().flatten();
            let waiting =
                entries.flat_map(|(_, entry)| entry["writes"].as_object().unwrap().keys());
            for node in waiting {
                now.remove(node);
                right.remove(node);
            }
            assert_eq!(now, right, "{} after tick {n}", self.integration.name);
        }
        self.read_audit(env).await;
        let logged = self.integration.logged(env);
        for (change, times) in &self.audited {
            let really = logged.get(change).unwrap_or(&0);
            assert!(times <= really, "after tick {n}: {change:?}, {times} times");
        }
        *self.outcomes.entry(outcome).or_default() += 1;
    }

    /// Invokes the function as Lambda does: a failed invocation is retried under the same id.
    async fn invoke(&mut self, id: &str) -> String {
        for _ in 0..=RETRIES {
            let time = Duration::from_mins(15);
            // Each tick removes something, and there are many in a day.
            let payload = json!({
                "command": "sync", "integration": self.integration.name, "allowMassRemoval": 1000
            });
            match self.process.invoke(id, &payload, time).await {
                Ok(answer) => {
                    self.note(&answer["error"]);
                    return answer["outcome"].as_str().unwrap().to_owned();
                }
                Err(NoAnswer::Error(error)) => {
                    assert_eq!(error["errorType"], "Storage", "{error:#}");
                    self.note(&error["errorMessage"]);
                }
                Err(NoAnswer::Died) => panic!("{}", self.process.output()),
            }
        }
        "error".to_owned()
    }

    /// Counts an error by its first words.
    fn note(&mut self, error: &Value) {
        if let Some(error) = error.as_str() {
            let what = error.split([':', '.', ';', '(']).next().unwrap();
            *self.errors.entry(what.trim().to_owned()).or_default() += 1;
        }
    }

    /// Reads the audit trail.
    async fn read_audit(&mut self, env: &TestEnvironment) {
        let audit = self.integration.audit(env).await;
        let is_unknown = |record: &&Value| record["details"]["unknown"] == true;
        let (unknown, known): (Vec<&Value>, Vec<&Value>) = audit.iter().partition(is_unknown);
        self.audited = tally(known.into_iter().map(audited));
        self.unknown = tally(unknown.into_iter().map(audited));
    }

    /// Stops the faults and makes two runs. Asserts that everything is right afterwards.
    pub(super) async fn finish(&mut self, env: &TestEnvironment) {
        self.fault_mix.stop();
        self.bring_hosts_back(env);
        env.age_lease(&self.integration.name).await;
        env.age_journal(&self.integration.name).await;
        let outcome = self.invoke("clear").await;
        assert!(["synced", "unchanged"].contains(&outcome.as_str()));
        assert_eq!(self.integration.scores(env), self.integration.expected(env));
        self.read_audit(env).await;
        let logged = self.integration.logged(env);
        for (change, times) in &logged {
            let of = |tally: &Tally| tally.get(change).copied().unwrap_or_default();
            let (audited, unknown) = (of(&self.audited), of(&self.unknown));
            let is_audited = audited <= *times && *times <= audited + unknown;
            assert!(
                is_audited,
                "{change:?}, {times} times: {audited}, {unknown}"
            );
        }
        let invented = self
            .audited
            .keys()
            .find(|change| !logged.contains_key(*change));
        assert_eq!(invented, None);

        assert_eq!(self.invoke("after").await, "unchanged");
        let item = self.integration.item(env).await;
        let status = &item["status"];
        assert_eq!(item["lease"], Value::Null);
        assert_eq!(item["pause"], Value::Null);
        let nothing = [json!(null), json!({})];
        assert!(nothing.contains(&item["pending"]), "{item:#}");
        assert_eq!(status["findings"], Value::Null, "nothing is a finding");
        assert_eq!(status["outcome"], "unchanged");
        assert_eq!(status["consecutiveFailures"], 0);
        assert_eq!(status["lastSuccess"], status["lastSync"]);
        assert_eq!(status["error"], Value::Null);
    }

    pub(super) fn fault_mix(&self) -> &FaultMix {
        &self.fault_mix
    }

    pub(super) fn summary(&self) -> String {
        format!(
            "{}: {:?} {:?}; {}; {}; {} changes audited\n",
            self.integration.name,
            self.outcomes,
            self.errors,
            self.fault_mix.summary(),
            self.health.summary(),
            self.audited.values().sum::<usize>()
        )
    }

    pub(super) fn assert_healthy(self) {
        self.health.assert_flat(&self.integration.name);
        let of = |outcome: &str| self.outcomes.get(outcome).unwrap_or(&0);
        let ticks: usize = self.outcomes.values().sum();
        let good = of("synced") + of("unchanged");
        assert!(good * 10 > ticks * 9, "{:?}", self.outcomes);
        let others = of("failed") + of("error") + of("skipped");
        assert_eq!(good + others, ticks, "no pause");
        assert!(!self.process.end().contains("panicked"));
    }
}

/// Asserts that each attribute has its old value or its expected value.
fn assert_nothing_wrong(before: &Scores, now: &Scores, right: &Scores) {
    for node in before.keys().chain(now.keys()).chain(right.keys()) {
        let (was, is, should) = (before.get(node), now.get(node), right.get(node));
        assert!(is == was || is == should, "{node}: {is:?}, {was:?} before");
    }
}
