//! Runs a schedule and checks the invariants after each run.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use posture_simulators::{Device, Host, Matcher, Side};
use serde_json::{Map, Value, json};

use super::schedule::{Arrival, Move, Schedule, Step};
use crate::environment::{KEY, TAILNET, TestEnvironment};
use crate::faults::call_sites::{CallSite, Server};
use crate::faults::fault_proxy::Met;
use crate::faults::instance::{Instance, Outcome};
use crate::faults::invariants::{Before, Excuses, Violations, attributes, audit_diff};
use crate::faults::kinds::Kind;

/// Listings of more than ten hosts need three pages.
const LONGEST_PAGE: usize = 5;
const OTHER_KEY: &str = "custom:other";

/// Runs one case after another in one environment.
pub(super) struct Runner {
    instance: Instance,
    hosts_away: Vec<Host>,
    devices_away: Vec<Device>,
    returned: u64,
    key: &'static str,
    keeps: bool,
    /// True if a write may be unrecorded since the last successful run.
    open: bool,
    /// The minutes since the oldest request that is still on its way.
    late_minutes: u64,
    /// The number of requests to Tailscale until those that are still on their way take effect.
    arrival: Arc<Mutex<Option<usize>>>,
}

/// A request that was sent takes effect in this time or never.
const LIFE_MINUTES: u64 = 5;

impl Runner {
    pub(super) async fn open(timeout: Duration) -> Self {
        let instance = Instance::start(LONGEST_PAGE, timeout).await;
        let arrival: Arc<Mutex<Option<usize>>> = Arc::default();
        let (left, late) = (
            Arc::clone(&arrival),
            instance.env.sims.late_requests().clone(),
        );
        let tailscale = Matcher::side(Side::Tailscale);
        instance.env.sims.on_request(tailscale, move |_| {
            let mut left = left.lock().unwrap();
            *left = match *left {
                Some(0) => {
                    late.release();
                    None
                }
                left => left.map(|left| left - 1),
            };
        });
        Self {
            instance,
            hosts_away: Vec::new(),
            devices_away: Vec::new(),
            returned: 0,
            key: KEY,
            keeps: false,
            open: false,
            late_minutes: 0,
            arrival,
        }
    }

    /// Returns the violations.
    pub(super) async fn perform(&mut self, schedule: &Schedule) -> Vec<String> {
        self.hosts_away.clear();
        self.devices_away.clear();
        (self.key, self.keeps, self.open) = (KEY, false, false);
        self.environment().sims.late_requests().clear();
        self.instance.reset(&schedule.world).await;
        for (n, step) in schedule.steps.iter().enumerate() {
            let violations = self.step(step).await;
            if !violations.is_empty() {
                let told = violations.into_iter();
                return told.map(|text| format!("step {n}: {text}")).collect();
            }
        }
        let violations = self.end().await;
        let told = violations.into_iter();
        told.map(|text| format!("in the end: {text}")).collect()
    }

    fn environment(&self) -> &TestEnvironment {
        &self.instance.env
    }

    async fn step(&mut self, step: &Step) -> Vec<String> {
        for change in &step.moves {
            self.change(*change).await;
        }
        if step.cold {
            self.instance.forget_secrets();
        }
        let during = self.pass(step);
        let before = Before::of(self.environment()).await;
        let deserved = self.environment().expected_after_records().await;
        self.instance.proxy.arm(step.faults.clone());
        let payload = if step.forced {
            json!({"command": "sync", "integration": "corp", "force": true})
        } else {
            json!({"command": "sync"})
        };
        let outcome = self.instance.invoke(payload).await;
        let met = self.instance.proxy.disarm();
        let is_disturbed = during && self.arrival.lock().unwrap().take().is_none();
        self.instance.relays.up().await;
        let mut excuses = excuses(&met);
        excuses.lease |= before.is_leased();
        self.open |= excuses.unrecorded;
        excuses.unrecorded = self.open;
        excuses.late = is_disturbed;
        let checked = before.check(
            self.environment(),
            self.key,
            &deserved,
            self.keeps,
            &outcome,
            excuses,
        );
        let violations = checked.await;
        if came_through(&outcome) && !met.iter().any(loses_track) {
            self.open = !self.environment().corp().await["pending"]
                .as_object()
                .is_none_or(Map::is_empty);
        }
        violations
            .into_iter()
            .map(|text| format!("{text}\n  after {met:?}\n  came {outcome:?}"))
            .collect()
    }

    /// Lets the time pass before a run, and decides when requests that are still on their way take effect. Returns whether it
    /// is during the run.
    fn pass(&mut self, step: &Step) -> bool {
        let env = &self.instance.env;
        let late = env.sims.late_requests();
        self.late_minutes = if late.is_empty() {
            0
        } else {
            self.late_minutes + step.minutes
        };
        let may_wait = self.late_minutes <= LIFE_MINUTES;
        let during = match step.arrival {
            Arrival::Never => {
                late.clear();
                None
            }
            Arrival::During(requests) if may_wait => Some(requests),
            Arrival::Later if may_wait => None,
            _ => {
                late.release();
                None
            }
        };
        env.app.clock.advance(Duration::from_mins(step.minutes));
        let during = during.filter(|_| !late.is_empty());
        *self.arrival.lock().unwrap() = during;
        during.is_some()
    }

    /// A run without faults makes everything right, and the next one changes nothing.
    async fn end(&mut self) -> Vec<String> {
        let mut violations = Violations::default();
        let env = self.environment();
        env.sims.late_requests().release();
        env.app.clock.advance(Duration::from_mins(15));
        let run = json!({
            "command": "sync", "integration": "corp", "force": true, "allowMassRemoval": 1000
        });
        let outcome = self.instance.invoke(run.clone()).await;
        violations.unless(came_through(&outcome), || format!("{outcome:?}"));
        let (present, deserved) = (attributes(env), env.expected_after_records().await);
        for (node, score) in &deserved {
            let held = present.get(&(node.clone(), self.key.to_owned()));
            violations.unless(held == Some(score), || {
                format!("{node} has {held:?}, and deserves {score}")
            });
        }
        for (node, key) in present.keys() {
            // A kept score stays under its key.
            let belongs = if deserved.contains_key(node) {
                key == self.key
            } else {
                self.keeps
            };
            violations.unless(belongs, || format!("{node} still has {key}"));
        }
        let audit_diff = audit_diff(env, &env.node_audit().await);
        let gaps = audit_diff.unrecorded;
        violations.unless(gaps.is_empty(), || format!("not audited: {gaps:?}"));
        violations.unless(audit_diff.invented.is_empty(), || {
            format!("audited, and never so: {:?}", audit_diff.invented)
        });
        let corp = env.corp().await;
        let clean = corp["lease"].is_null()
            && corp["pause"].is_null()
            && corp["pending"].as_object().is_none_or(Map::is_empty);
        violations.unless(clean, || format!("left behind: {corp}"));
        let written = env.sims.tailscale().writes(TAILNET).unwrap();
        let last = self.instance.invoke(run).await;
        let idle = last
            .as_ref()
            .is_ok_and(|answer| answer["outcome"] == "unchanged");
        violations.unless(idle, || format!("the run after it: {last:?}"));
        let after = env.sims.tailscale().writes(TAILNET).unwrap();
        violations.unless(after == written, || "the run after it writes".to_owned());
        violations.into_vec()
    }

    async fn change(&mut self, change: Move) {
        let (falcon, tailscale) = (
            self.instance.env.sims.falcon().clone(),
            self.instance.env.sims.tailscale().clone(),
        );
        let hosts = falcon.hosts("corp").unwrap();
        let devices = tailscale.devices(TAILNET).unwrap();
        let host = |n: usize| {
            hosts
                .get(n % hosts.len().max(1))
                .map(|host| host.device_id.as_str())
        };
        let device = |n: usize| devices.get(n % devices.len().max(1)).cloned();
        match change {
            Move::Score(n, score) => {
                if let Some(aid) = host(n) {
                    falcon.set_score("corp", aid, score).unwrap();
                }
            }
            Move::Unscore(n) => {
                if let Some(aid) = host(n) {
                    falcon.remove_score("corp", aid).unwrap();
                }
            }
            Move::Hide(n) => {
                if let Some(aid) = host(n) {
                    falcon.hide_host("corp", aid).unwrap();
                }
            }
            Move::RemoveHost(n) => {
                if let Some(aid) = host(n) {
                    self.hosts_away
                        .extend(falcon.remove_host("corp", aid).unwrap());
                }
            }
            Move::RestoreHosts => {
                for host in self.hosts_away.drain(..) {
                    self.instance.env.put_host_back("corp", host);
                }
            }
            Move::RemoveDevice(n) => {
                if let Some(device) = device(n) {
                    tailscale.remove_device(TAILNET, &device.node_id).unwrap();
                    self.devices_away.push(device);
                }
            }
            Move::RestoreDevices => {
                for device in self.devices_away.drain(..) {
                    // A machine that is put back is a new node: ids are never reused.
                    self.returned += 1;
                    let node_id = format!("n{:06}AGAINCNTRL", self.returned);
                    let id = format!("{}", 20_000_000_000_000_u64 + self.returned);
                    let device = Device {
                        node_id,
                        id,
                        ..device
                    };
                    tailscale.put_device(TAILNET, device).unwrap();
                }
            }
            Move::ForgetIdentity(n) => {
                if let Some(device) = device(n) {
                    let device = Device {
                        posture_identity: None,
                        ..device
                    };
                    tailscale.put_device(TAILNET, device).unwrap();
                }
            }
            Move::Keep(keeps) => {
                let on_missing = if keeps { "keep" } else { "delete" };
                self.environment()
                    .update(json!({"onMissing": on_missing}))
                    .await;
                self.keeps = keeps;
            }
            Move::Key(other) => {
                self.key = if other { OTHER_KEY } else { KEY };
                self.environment()
                    .update(json!({"attributeKey": self.key}))
                    .await;
            }
        }
    }
}

fn came_through(outcome: &Outcome) -> bool {
    let good = ["synced", "unchanged"].map(Value::from);
    outcome
        .as_ref()
        .is_ok_and(|answer| good.contains(&answer["outcome"]))
}

/// True if Tailscale may have accepted an unrecorded write.
fn loses_track(met: &Met) -> bool {
    match met.call_site {
        CallSite::Patch(_) => met.processed,
        CallSite::Record(_) => true,
        _ => false,
    }
}

fn excuses(met: &[Met]) -> Excuses {
    let any = |is: fn(&Met) -> bool| met.iter().any(is);
    let dynamodb_down =
        any(|met| met.kind == Kind::Refused && met.call_site.server() == Server::DynamoDb);
    Excuses {
        unrecorded: any(loses_track),
        uncounted: any(|met| matches!(met.call_site, CallSite::Record(_)) && met.processed),
        old_status: dynamodb_down
            || any(|met| {
                matches!(
                    met.call_site,
                    CallSite::Lease | CallSite::Finish | CallSite::Integrations
                )
            }),
        lease: dynamodb_down
            || any(|met| matches!(met.call_site, CallSite::Lease | CallSite::Finish)),
        late: false,
    }
}
