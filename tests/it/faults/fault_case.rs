//! One row of the table: a call that fails in each way in turn.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use posture_simulators::{Device, GeneratorSpec, Host};
use serde_json::{Map, Value, json};

use super::call_sites::CallSite;
use super::expected::{Expected, StatusAfter, excuses, expected, is_one_devices, leaves_lease};
use super::fault_proxy::Fault;
use super::instance::{Instance, Outcome};
use super::invariants::{Before, Violations, audit_diff};
use super::kinds::Kind;
use crate::environment::{KEY, TAILNET, corp};

/// Changes per batch.
const BATCH_SIZE: usize = 50;

/// The world and the size of a page: three pages of hosts and scores, and changes for two batches where that matters.
fn world_and_page(call_site: CallSite) -> (GeneratorSpec, usize) {
    match call_site {
        CallSite::Patch(_) | CallSite::Record(_) => (GeneratorSpec::plain(54, 53), 25),
        _ => (GeneratorSpec::plain(12, 11), 5),
    }
}

/// The second look of the rounds that have one.
const REMOVE_AFTER_MINUTES: u64 = 25;

/// Timeout of a call: long enough for a busy machine. A stall takes two of them.
const CALL_TIMEOUT: Duration = Duration::from_millis(1500);

/// A cell: the outcome of the run, and the violations.
pub(super) struct Cell {
    pub(super) text: String,
    pub(super) violations: Vec<String>,
}

pub(super) struct FaultCase {
    instance: Instance,
    call_site: CallSite,
    away: Away,
    round: usize,
}

/// A host, a score and devices that are removed in one round and put back in the next.
#[derive(Default)]
struct Away {
    host: Option<Host>,
    score: Option<String>,
    devices: Vec<Device>,
}

impl FaultCase {
    pub(super) async fn cells(call_site: CallSite) -> Vec<Cell> {
        let mut case = Self {
            instance: Instance::start(world_and_page(call_site).1, CALL_TIMEOUT).await,
            call_site,
            away: Away::default(),
            round: 0,
        };
        case.begin_again().await;
        let mut cells = Vec::new();
        for kind in Kind::ALL {
            case.round += 1;
            let cell = case.cell(kind).await;
            if !cell.violations.is_empty() {
                case.begin_again().await;
            }
            cells.push(cell);
        }
        cells
    }

    async fn begin_again(&mut self) {
        self.away = Away::default();
        self.instance
            .begin_again(&world_and_page(self.call_site).0)
            .await;
        if self.call_site == CallSite::Absences {
            let env = &self.instance.env;
            env.update(json!({"removeAfterMinutes": REMOVE_AFTER_MINUTES}))
                .await;
        }
        if self.call_site == CallSite::Requests {
            let other = json!({"id": "lab", "attributeKey": "custom:lab"});
            self.instance.env.connect(other).await;
        }
    }

    async fn cell(&mut self, kind: Kind) -> Cell {
        let mut violations = Violations::default();
        self.prepare().await;
        let before = match self.call_site {
            CallSite::Announcement => None,
            _ => Some(Before::of(&self.instance.env).await),
        };
        let deserved = self.deserved();
        let planned = differences(&self.instance.env.scores(), &deserved);
        self.instance
            .proxy
            .arm([Fault::always(self.call_site, kind)]);
        let outcome = self.run_into().await;
        let met = self.instance.proxy.disarm();
        violations.unless(!met.is_empty(), || "the fault was not met".to_owned());
        self.instance.relays.up().await;

        let corp = self.instance.env.corp().await;
        let left = differences(&self.instance.env.scores(), &deserved);
        let done = planned.difference(&left).count();
        let text = match planned.len() {
            0 => told(&outcome, &corp["status"]),
            planned => format!("{}, {done} of {planned}", told(&outcome, &corp["status"])),
        };
        if is_one_devices(self.call_site, kind) {
            let odd = match self.call_site {
                // One of the changes concerns the odd device; the devices that are looked up have left.
                CallSite::PatchOfOne => 1,
                CallSite::Attributes => planned.len(),
                _ => 0,
            };
            let is_done = done + odd >= planned.len();
            violations.unless(is_done, || format!("only {done} devices are right"));
        }
        self.compare(kind, &outcome, &corp, &mut violations);
        let mut violations = violations.into_vec();
        if let Some(before) = before {
            let env = &self.instance.env;
            let excuses = excuses(self.call_site, kind);
            let checked = before.check(env, KEY, &deserved, false, &outcome, excuses);
            violations.extend(checked.await);
        }
        let healed = self.heal(kind).await;
        violations.extend(healed.into_iter().map(|text| format!("afterwards: {text}")));
        Cell { text, violations }
    }

    /// Returns the attributes that the tailnet should hold after the run with the fault.
    fn deserved(&self) -> BTreeMap<String, i64> {
        let env = &self.instance.env;
        let mut deserved = env.expected();
        if self.call_site == CallSite::Absences {
            // What is absent keeps its score until the second look.
            let present = env.scores();
            for device in env.sims.tailscale().devices(TAILNET).unwrap() {
                let score = present.get(&device.node_id);
                deserved.extend(
                    score
                        .map(|score| (device.node_id.clone(), *score))
                        .filter(|(node, _)| !env.expected().contains_key(node)),
                );
            }
        }
        deserved
    }

    /// Prepares the world so that the run makes each call. The guard counts removals over a day, so each round has its own.
    async fn prepare(&mut self) {
        self.instance
            .env
            .app
            .clock
            .advance(Duration::from_hours(24));
        self.stir().await;
        let env = &self.instance.env;
        let (present, deserved) = (env.scores(), env.expected());
        let mut nodes: Vec<&String> = present.keys().chain(deserved.keys()).collect();
        nodes.sort();
        nodes.dedup();
        nodes.retain(|node| present.get(*node) != deserved.get(*node));
        let odd = match self.call_site {
            CallSite::PatchOfOne => nodes.last().copied(),
            CallSite::LookUpOfOne => self.away.devices.first().map(|device| &device.node_id),
            _ => None,
        };
        self.instance.proxy.expect_odd(odd.cloned());
        let batch = nodes.into_iter().take(BATCH_SIZE).cloned();
        self.instance.proxy.expect_first_batch(batch);
        match self.call_site {
            CallSite::Attributes | CallSite::StrikeOut => self.leave_open().await,
            CallSite::FalconSecret | CallSite::TailscaleSecret => self.instance.forget_secrets(),
            CallSite::Announcement => {
                let removed = self
                    .instance
                    .env
                    .ask(json!({"command": "remove", "integration": "corp"}))
                    .await;
                assert_eq!(removed["removed"], true, "{removed:#}");
            }
            _ => {}
        }
    }

    /// A run that writes and cannot record it.
    async fn leave_open(&self) {
        let instance = &self.instance;
        instance
            .proxy
            .arm([Fault::always(CallSite::Record(1), Kind::Failing)]);
        let outcome = instance.invoke(json!({"command": "sync"})).await;
        assert!(outcome.is_err(), "{outcome:?}");
        instance.proxy.disarm();
        instance.env.outlive_writes().await;
        self.move_on().await;
    }

    /// Changes every score, removes a host, a score and a device, and puts back those that were removed before.
    async fn stir(&mut self) {
        let nodes = self.instance.env.items("nodes").await;
        let text = |n: usize, name: &str| {
            let node = &nodes[(5 * self.round + n) % nodes.len()];
            node[name].as_str().unwrap().to_owned()
        };
        let departing = match self.call_site {
            CallSite::LookUpOfOne => 2,
            _ => 1,
        };
        let (falcon, tailscale) = (
            self.instance.env.sims.falcon(),
            self.instance.env.sims.tailscale(),
        );
        if let Some(host) = self.away.host.take() {
            self.instance.env.put_host_back("corp", host);
        }
        for device in self.away.devices.drain(..) {
            tailscale.put_device(TAILNET, device).unwrap();
        }
        for (n, host) in falcon.hosts("corp").unwrap().iter().enumerate() {
            let score = (n * 13 + self.round * 7) % 101;
            falcon.set_score("corp", &host.device_id, score).unwrap();
        }
        self.away = Away {
            host: falcon.remove_host("corp", &text(0, "aid")).unwrap(),
            score: Some(text(1, "aid")),
            devices: [2, 3]
                .into_iter()
                .take(departing)
                .filter_map(|n| {
                    tailscale
                        .remove_device(TAILNET, &text(n, "nodeId"))
                        .unwrap()
                })
                .collect(),
        };
        let unscored = self.away.score.as_deref().unwrap();
        assert!(falcon.remove_score("corp", unscored).unwrap());
    }

    async fn run_into(&self) -> Outcome {
        let payload = if self.call_site == CallSite::Announcement {
            json!({"command": "connect", "integration": corp(json!({})), "actor": "amelie"})
        } else {
            json!({"command": "sync"})
        };
        self.instance.invoke(payload).await
    }

    fn compare(&self, kind: Kind, outcome: &Outcome, corp: &Value, violations: &mut Violations) {
        let expected = expected(self.call_site, kind);
        let status = &corp["status"];
        let error = status["error"].as_str().unwrap_or_default();
        let fits = match (expected, outcome) {
            (Expected::Completed(came), Ok(answer)) => {
                answer["outcome"] == came && answer["error"].is_null()
            }
            (Expected::Ended(came, class, side), Ok(answer)) => {
                answer["outcome"] == came && status["errorKind"] == class && error.contains(side)
            }
            (Expected::InvocationFailed(expected, told), Err((error_type, message))) => {
                let is_told = match told {
                    StatusAfter::Failure => {
                        status["errorKind"] == "storage" && error.starts_with("DynamoDB")
                    }
                    StatusAfter::Success => status["outcome"] == "synced",
                    StatusAfter::Unchanged => true,
                };
                // The error of an item that does not decode names the operation.
                let names = match (expected, self.call_site) {
                    ("Events", _) => "EventBridge",
                    (_, CallSite::Lease) => "take the lease",
                    _ => "DynamoDB",
                };
                error_type == expected && is_told && message.contains(names)
            }
            (Expected::Requested, Ok(answer)) => answer["requested"] == json!(["corp", "lab"]),
            (Expected::Connected(announced), Ok(answer)) => {
                let sync = answer["sync"].as_str().unwrap_or_default();
                sync.starts_with("requested") == announced
            }
            _ => false,
        };
        violations.unless(fits, || {
            format!("{expected:?} is {outcome:?}, with {status}")
        });
        let lease = &corp["lease"];
        violations.unless(
            lease.is_null() != leaves_lease(self.call_site, kind),
            || format!("the lease is {lease}"),
        );
    }

    /// The next run makes everything right although a score has changed, and the run after that changes nothing.
    async fn heal(&mut self, kind: Kind) -> Vec<String> {
        let mut violations = Violations::default();
        let instance = &self.instance;
        if leaves_lease(self.call_site, kind) {
            let early = instance.force().await;
            violations.unless(outcome_of(&early) == "skipped", || format!("{early:?}"));
            instance.env.app.clock.advance(Duration::from_mins(15));
        }
        instance.env.outlive_writes().await;
        self.move_on().await;
        if self.call_site == CallSite::Absences {
            let first_look = instance.force().await;
            violations.unless(outcome_of(&first_look) == "synced", || {
                format!("{first_look:?}")
            });
            let wait = Duration::from_mins(REMOVE_AFTER_MINUTES);
            instance.env.app.clock.advance(wait);
        }
        let outcome = instance.force().await;
        let good = ["synced", "unchanged"].contains(&outcome_of(&outcome));
        violations.unless(good, || format!("{outcome:?}"));
        let (present, deserved) = (instance.env.scores(), instance.env.expected());
        violations.unless(present == deserved, || {
            "the attributes are not right".to_owned()
        });
        let nodes = instance.env.items("nodes").await;
        let records: BTreeMap<String, i64> = nodes
            .iter()
            .map(|record| {
                let node = record["nodeId"].as_str().unwrap();
                (node.to_owned(), record["score"].as_i64().unwrap())
            })
            .collect();
        violations.unless(records == deserved, || {
            "the records are not right".to_owned()
        });
        let audit_diff = audit_diff(&instance.env, &instance.env.node_audit().await);
        violations.unless(
            audit_diff.unrecorded.is_empty() && audit_diff.invented.is_empty(),
            || {
                format!(
                    "not audited: {:?}; invented: {:?}",
                    audit_diff.unrecorded, audit_diff.invented
                )
            },
        );
        let corp = instance.env.corp().await;
        let clean = corp["lease"].is_null()
            && corp["pause"].is_null()
            && corp["pending"].as_object().is_none_or(Map::is_empty);
        violations.unless(clean, || format!("left behind: {corp}"));
        let good = corp["status"]["consecutiveFailures"] == 0
            && corp["status"]["lastSuccess"] == corp["status"]["lastSync"]
            && corp["status"]["error"].is_null();
        violations.unless(good, || format!("{}", corp["status"]));

        let written = instance.env.sims.tailscale().writes(TAILNET).unwrap();
        let last = instance.force().await;
        violations.unless(outcome_of(&last) == "unchanged", || format!("{last:?}"));
        let after = instance.env.sims.tailscale().writes(TAILNET).unwrap();
        violations.unless(after == written, || "the last run writes".to_owned());
        violations.into_vec()
    }

    /// Changes the score of a device that the run may have written.
    async fn move_on(&self) {
        let env = &self.instance.env;
        let nodes = env.items("nodes").await;
        let is_away = |node: &&Value| {
            let Away {
                host,
                score,
                devices,
            } = &self.away;
            let departed = |device: &Device| node["nodeId"] == *device.node_id;
            node["aid"].as_str() == score.as_deref()
                || host
                    .as_ref()
                    .is_some_and(|host| node["aid"] == *host.device_id)
                || devices.iter().any(departed)
        };
        let Some(node) = nodes.iter().rev().find(|node| !is_away(node)) else {
            return;
        };
        let aid = node["aid"].as_str().unwrap();
        let score = (31 * self.round) % 101;
        env.sims.falcon().set_score("corp", aid, score).unwrap();
    }
}

/// Returns the devices whose attribute is not the deserved one.
fn differences(
    present: &BTreeMap<String, i64>,
    deserved: &BTreeMap<String, i64>,
) -> BTreeSet<String> {
    let nodes = present.keys().chain(deserved.keys());
    let differing = nodes.filter(|node| present.get(*node) != deserved.get(*node));
    differing.cloned().collect()
}

fn outcome_of(outcome: &Outcome) -> &str {
    match outcome {
        Ok(answer) => answer["outcome"].as_str().unwrap_or_default(),
        Err(_) => "error",
    }
}

/// The outcome in a few words.
fn told(outcome: &Outcome, status: &Value) -> String {
    let answer = match outcome {
        Err((kind, _)) => return format!("error {kind}"),
        Ok(answer) if answer["requested"].is_array() => return "requested".to_owned(),
        Ok(answer) if answer["configVersion"].is_number() => return "connected".to_owned(),
        Ok(answer) => answer,
    };
    let came = outcome_of(outcome);
    match (status["errorKind"].as_str(), answer["failed"].as_u64()) {
        (Some(class), _) => format!("{came}: {class}"),
        (None, Some(failed @ 1..)) => format!("{came}, {failed} refused"),
        (None, _) => came.to_owned(),
    }
}
