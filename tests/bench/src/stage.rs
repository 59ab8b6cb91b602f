//! A tenant, a tailnet and AWS around the function, and one sync measured.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use posture_simulators::{
    Account, DataSet, GeneratorSpec, PostureIdentity, Side, Simulators, Tailnet, Traffic, generate,
};
use serde_json::{Value, json};

use crate::aws::{Aws, Counts};
use crate::cases::{Case, Sync};
use crate::floor::{Chain, Way, Work};
use crate::process::Process;
use crate::{Trouble, count};

const ACCOUNT: &str = "corp";
const TAILNET: &str = "example.com";
/// Changed scores: one in this many.
const ONE_IN: usize = 100;
/// How the answers are timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pace {
    /// From a request to Falcon or Tailscale to its answer.
    pub(crate) apis: Duration,
    /// From a request to AWS to its answer.
    pub(crate) aws: Duration,
}

/// The measurements of one sync.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    /// From exec to the first ask for work; nothing for a process that was there already.
    pub(crate) start: Duration,
    /// From the invocation to its answer.
    pub(crate) wall: Duration,
    /// CPU time; that of the start is part of the first sync's.
    pub(crate) cpu: Duration,
    /// The most memory resident at once.
    pub(crate) peak_kib: u64,
    /// Requests to Falcon and Tailscale, by route.
    pub(crate) apis: BTreeMap<String, Traffic>,
    /// The requests to AWS.
    pub(crate) aws: Counts,
    /// Lines logged.
    pub(crate) log_lines: u64,
    /// Their bytes.
    pub(crate) log_bytes: u64,
    /// How hosts and scores were read.
    pub(crate) way: Way,
    /// The work of the sync.
    pub(crate) work: Work,
    /// The longest chain of calls.
    pub(crate) chain: Chain,
}

impl Measured {
    /// Returns the other measurement if it took less CPU time.
    pub(crate) fn or_less(self, other: Option<Self>) -> Self {
        match other {
            Some(other) if other.cpu < self.cpu => other,
            _ => self,
        }
    }

    /// Requests to one side.
    pub(crate) fn requests(&self, side: &str) -> u64 {
        self.of(side).map(|traffic| traffic.requests).sum()
    }

    /// Bytes of one side's answers.
    pub(crate) fn bytes(&self, side: &str) -> u64 {
        self.of(side).map(|traffic| traffic.bytes_out).sum()
    }

    fn of<'a>(&'a self, start: &'a str) -> impl Iterator<Item = &'a Traffic> {
        let matching = self
            .apis
            .iter()
            .filter(move |(route, _)| route.starts_with(start));
        matching.map(|(_, traffic)| traffic)
    }
}

/// Everything around the function.
#[derive(Debug)]
pub(crate) struct Stage {
    sims: Simulators,
    aws: Aws,
    world: DataSet,
    memory_mb: u32,
    /// Sensors of the hosts that are devices of the tailnet, and of those that are not.
    sensors: [Vec<String>; 2],
}

impl Stage {
    /// Sets the stage: the integration is connected, and nothing was ever synced.
    pub(crate) async fn set(
        case: Case,
        pace: Pace,
        memory_mb: u32,
        binary: &Path,
    ) -> Result<Self, Trouble> {
        let sims = Simulators::start().await?;
        let account = Account::new(ACCOUNT);
        let tailnet = Tailnet::new(TAILNET);
        let client = tailnet.oauth_clients.first().ok_or("no OAuth client")?;
        let secrets = BTreeMap::from([
            secret("falcon", &account.client_id, &account.client_secret),
            secret("tailscale", &client.client_id, &client.client_secret),
        ]);
        sims.falcon().put_account(account);
        sims.tailscale().put_tailnet(tailnet);
        let world = generate(&GeneratorSpec {
            now: sims.clock().now(),
            ..GeneratorSpec::plain(case.hosts, case.devices)
        });
        sims.falcon().load(ACCOUNT, &world)?;
        sims.tailscale().load(TAILNET, &world)?;
        let stage = Self {
            sensors: sensors(&world),
            aws: Aws::start(secrets, pace.aws).await?,
            sims,
            world,
            memory_mb,
        };
        stage.connect(binary).await?;
        for side in [Side::Falcon, Side::Tailscale] {
            let time = pace.apis;
            stage.sims.set_answer_time(side, time);
        }
        Ok(stage)
    }

    async fn connect(&self, binary: &Path) -> Result<(), Trouble> {
        let process = self.function(binary, &BTreeMap::new()).await?;
        let payload = json!({
            "command": "connect", "actor": "bench", "check": false,
            "integration": {
                "id": "corp", "provider": "falcon", "cloudId": "us-1",
                "falconSecret": "bench/falcon", "tailscaleSecret": "bench/tailscale",
            },
        });
        process.invoke("bench-connect", &payload).await?;
        process.end();
        Ok(())
    }

    /// A fresh process of the function, with other variables where they are given.
    pub(crate) async fn function(
        &self,
        binary: &Path,
        others: &BTreeMap<&'static str, String>,
    ) -> Result<Process, Trouble> {
        let mut variables = BTreeMap::from([
            ("INTEGRATIONS_TABLE", "integrations".to_owned()),
            ("NODES_TABLE", "nodes".to_owned()),
            ("AUDIT_TABLE", "audit".to_owned()),
            ("TAILSCALE_API_URL", self.sims.tailscale_url()),
            (
                "FALCON_CLOUDS_EXTRA",
                format!("us-1={}", self.sims.falcon_url("us-1")),
            ),
        ]);
        variables.extend(self.aws.variables());
        variables.extend(others.iter().map(|(name, value)| (*name, value.clone())));
        Process::start(binary, self.memory_mb, variables).await
    }

    /// Changes one score in a hundred: of the devices' hosts, and of the others.
    fn change_scores(&self) -> Result<(), Trouble> {
        for sensor in self
            .sensors
            .iter()
            .flat_map(|some| some.iter().step_by(ONE_IN))
        {
            let old = self.world.scores.get(sensor).and_then(Value::as_u64);
            let new = (old.unwrap_or(0) + 37) % 101;
            self.sims.falcon().set_score(ACCOUNT, sensor, new)?;
        }
        Ok(())
    }

    /// Returns the work of a sync.
    fn work(&self, sync: Sync) -> Result<Work, Trouble> {
        let mut of_score: BTreeMap<String, u64> = BTreeMap::new();
        for score in self.sims.falcon().scores(ACCOUNT)?.values() {
            *of_score.entry(score.to_string()).or_default() += 1;
        }
        let devices = self.sensors.first().map_or(0, Vec::len);
        Ok(Work {
            hosts: count(self.world.hosts.len()),
            most_of_one_score: of_score.into_values().max().unwrap_or(0),
            devices: count(devices),
            changes: count(match sync {
                Sync::First => devices,
                Sync::Daily | Sync::Unchanged => 0,
                Sync::Changed => devices.div_ceil(ONE_IN),
            }),
            first: sync == Sync::First,
        })
    }

    /// Has the function sync, as the schedule does, and measures it.
    pub(crate) async fn measure(&self, process: &Process, sync: Sync) -> Result<Measured, Trouble> {
        let start = process.ready().await?;
        if sync == Sync::Changed {
            self.change_scores()?;
        }
        let work = self.work(sync)?;
        let first = sync == Sync::First;
        if !first {
            process.reset_peak()?;
        }
        self.sims.requests().clear();
        self.aws.take();
        let (lines, bytes) = if first { (0, 0) } else { process.logged() };
        let cpu_before = if first {
            Duration::ZERO
        } else {
            process.cpu()?
        };
        let payload = json!({"command": "sync"});
        let id = format!("bench-{sync:?}");
        let answer = process.invoke(&id, &payload).await?;
        let cpu = process.cpu()?.saturating_sub(cpu_before);
        expect(&answer.value, &work)?;
        self.aws.settle().await?;
        let (lines_after, bytes_after) = process.logged();
        let way = self.way();
        Ok(Measured {
            start: if first { start } else { Duration::ZERO },
            wall: answer.took,
            cpu,
            peak_kib: process.peak_kib()?,
            apis: self.sims.requests().traffic(),
            aws: self.aws.take(),
            log_lines: lines_after - lines,
            log_bytes: bytes_after - bytes,
            way,
            chain: work.chain(way),
            work,
        })
    }

    /// By serial, if hosts were asked for by some; with all scores, if these were listed.
    fn way(&self) -> Way {
        let entries = self.sims.requests().entries();
        let asked = |path: &str, filter: &str| {
            let matching = |query: &str| query.contains(filter);
            entries
                .iter()
                .any(|entry| entry.path.starts_with(path) && matching(&entry.query))
        };
        if asked("/devices/combined/", "serial_number%3A") {
            Way::BySerial
        } else if asked("/zero-trust-assessment/queries/", "") {
            Way::All
        } else {
            Way::Hosts
        }
    }
}

fn secret(side: &str, id: &str, secret: &str) -> (String, Value) {
    let value = json!({"clientId": id, "clientSecret": secret});
    (format!("bench/{side}"), value)
}

fn sensors(world: &DataSet) -> [Vec<String>; 2] {
    let serials: BTreeSet<&str> = world
        .devices
        .iter()
        .filter_map(|device| match &device.posture_identity {
            Some(PostureIdentity::Serials { serial_numbers }) => Some(serial_numbers),
            _ => None,
        })
        .flatten()
        .map(String::as_str)
        .collect();
    let (devices, others): (Vec<_>, Vec<_>) = world.hosts.iter().partition(|host| {
        let serial = host.serial_number.as_deref();
        serial.is_some_and(|serial| serials.contains(serial))
    });
    [devices, others].map(|hosts| {
        hosts
            .into_iter()
            .map(|host| host.device_id.clone())
            .collect()
    })
}

/// A measure of a sync that did not do its work is worth nothing.
fn expect(answer: &Value, work: &Work) -> Result<(), Trouble> {
    let is = |field: &str, value: u64| answer[field].as_u64() == Some(value);
    let done = is("providerHostCount", work.hosts) || answer["providerHostCount"].is_null();
    if done
        && is("matchedCount", work.devices)
        && is("written", work.changes)
        && is("removed", 0)
        && is("failed", 0)
    {
        Ok(())
    } else {
        Err(format!("the sync did not do what it should ({work:?}): {answer}").into())
    }
}
