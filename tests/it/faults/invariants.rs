//! Invariants that hold after every run, whichever faults it had.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::instance::Outcome;
use crate::environment::{TAILNET, TestEnvironment};

/// A change of one attribute's value: node, key, old, new.
type Transition = (String, String, Option<i64>, Option<i64>);

/// Attributes by node and key.
pub(crate) type Attributes = BTreeMap<(String, String), i64>;

/// Deviations that the fault excuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a question of its own"
)]
pub(crate) struct Excuses {
    /// Tailscale may have accepted an unrecorded write.
    pub(crate) unrecorded: bool,
    /// The run may have recorded more than it counted.
    pub(crate) uncounted: bool,
    /// The status may be that of the run before.
    pub(crate) old_status: bool,
    /// The lease may not be released.
    pub(crate) lease: bool,
    /// A write of an earlier run took effect during the run.
    pub(crate) late: bool,
}

/// The state before a run.
pub(crate) struct Before {
    attributes: Attributes,
    status: Value,
    is_leased: bool,
}

/// The violations that were found.
#[derive(Debug, Default)]
pub(crate) struct Violations(Vec<String>);

impl Violations {
    pub(crate) fn unless(&mut self, holds: bool, violation: impl FnOnce() -> String) {
        if !holds {
            self.0.push(violation());
        }
    }

    pub(crate) fn into_vec(self) -> Vec<String> {
        self.0
    }
}

/// The attributes in the tailnet.
pub(crate) fn attributes(env: &TestEnvironment) -> Attributes {
    let all = env.sims.tailscale().attributes(TAILNET).unwrap();
    all.into_iter()
        .flat_map(|(node, values)| {
            values
                .into_iter()
                .map(move |(key, value)| ((node.clone(), key), value.as_i64().unwrap()))
        })
        .collect()
}

/// Differences between the log of the tailnet and the audit trail, each with its count.
pub(crate) struct AuditDiff {
    pub(crate) unrecorded: BTreeMap<Transition, usize>,
    pub(crate) invented: BTreeMap<Transition, usize>,
}

/// Compares the audit trail with the tailnet's own log.
pub(crate) fn audit_diff(env: &TestEnvironment, audit: &[Value]) -> AuditDiff {
    let mut unrecorded: BTreeMap<Transition, usize> = BTreeMap::new();
    let changes = env.sims.tailscale().changes(TAILNET).unwrap();
    // The function does not record the expiry of a score.
    let changes = changes
        .into_iter()
        .filter(|change| change.comment.as_deref() != Some("expired"));
    for change in changes {
        let value = |value: Option<Value>| value.and_then(|value| value.as_i64());
        let transition = (
            change.node_id,
            change.key,
            value(change.old),
            value(change.new),
        );
        *unrecorded.entry(transition).or_default() += 1;
    }
    let mut invented: BTreeMap<Transition, usize> = BTreeMap::new();
    let is_unknown = |record: &&Value| record["details"]["unknown"] == true;
    let (unknown, known): (Vec<&Value>, Vec<&Value>) = audit.iter().partition(is_unknown);
    for transition in known.into_iter().flat_map(transitions) {
        if !take(&mut unrecorded, &transition) {
            *invented.entry(transition).or_default() += 1;
        }
    }
    // A change of which the trail says that it may have been made.
    for (node, key, _, new) in unknown.into_iter().flat_map(transitions) {
        let is_it = |other: &&Transition| (&other.0, &other.1, other.3) == (&node, &key, new);
        if let Some(made) = unrecorded.keys().find(is_it).cloned() {
            take(&mut unrecorded, &made);
        }
    }
    AuditDiff {
        unrecorded,
        invented,
    }
}

/// Takes one of these away. Returns false if there is none.
fn take(counts: &mut BTreeMap<Transition, usize>, transition: &Transition) -> bool {
    let Some(count) = counts.get_mut(transition) else {
        return false;
    };
    *count -= 1;
    if *count == 0 {
        counts.remove(transition);
    }
    true
}

/// The changes in an audit record: one for each key.
fn transitions(record: &Value) -> Vec<Transition> {
    let node = record["target"]["id"].as_str().unwrap();
    let mut keys: Vec<&String> = ["old", "new"]
        .iter()
        .filter_map(|side| record[side].as_object())
        .flat_map(|values| values.keys())
        .collect();
    keys.sort();
    keys.dedup();
    let value = |side: &str, key: &str| record[side].get(key).and_then(Value::as_i64);
    keys.into_iter()
        .map(|key| {
            (
                node.to_owned(),
                key.clone(),
                value("old", key),
                value("new", key),
            )
        })
        .collect()
}

impl Before {
    pub(crate) async fn of(env: &TestEnvironment) -> Self {
        let corp = env.corp().await;
        Self {
            attributes: attributes(env),
            status: corp["status"].clone(),
            is_leased: !corp["lease"].is_null(),
        }
    }

    /// True if an earlier run did not release its lease.
    pub(crate) fn is_leased(&self) -> bool {
        self.is_leased
    }

    /// Checks the state after a run. `deserved` are the scores that the devices should have under `key`. If the integration
    /// `keeps` attributes, other devices may have their old scores.
    pub(crate) async fn check(
        &self,
        env: &TestEnvironment,
        key: &str,
        deserved: &BTreeMap<String, i64>,
        keeps: bool,
        outcome: &Outcome,
        excuses: Excuses,
    ) -> Vec<String> {
        let mut violations = Violations::default();
        if !excuses.late {
            self.check_attributes(env, key, deserved, keeps, &mut violations);
        }
        let audit = env.node_audit().await;
        let audit_diff = audit_diff(env, &audit);
        violations.unless(audit_diff.invented.is_empty(), || {
            format!(
                "audited, but not in the tailnet's log: {:?}",
                audit_diff.invented
            )
        });
        violations.unless(
            excuses.unrecorded || audit_diff.unrecorded.is_empty(),
            || format!("changed, but not audited: {:?}", audit_diff.unrecorded),
        );
        let corp = env.corp().await;
        violations.unless(excuses.lease || corp["lease"].is_null(), || {
            format!("the lease is not free: {}", corp["lease"])
        });
        let present = attributes(env);
        let due = under(key, deserved);
        let all = due.keys().chain(present.keys().filter(|_| !keeps));
        let wrong: BTreeSet<&String> = all
            .filter(|place| present.get(*place) != due.get(*place))
            .map(|(node, _)| node)
            .collect();
        let status = &corp["status"];
        if status["runId"] == env.last_run() {
            self.check_status(env, status, wrong.len(), &mut violations);
            check_counts(status, &audit, outcome, excuses, &mut violations);
        } else {
            self.check_old_status(status, outcome, excuses, &mut violations);
        }
        violations.into_vec()
    }

    fn check_attributes(
        &self,
        env: &TestEnvironment,
        key: &str,
        deserved: &BTreeMap<String, i64>,
        keeps: bool,
        violations: &mut Violations,
    ) {
        let after = attributes(env);
        for (place, value) in &after {
            let stayed = self.attributes.get(place) == Some(value);
            let right = place.1 == key && deserved.get(&place.0) == Some(value);
            let was =
                |((node, _), held): (&(String, String), &i64)| *node == place.0 && held == value;
            let moved = keeps && place.1 == key && self.attributes.iter().any(was);
            violations.unless(stayed || right || moved, || {
                format!("{place:?} is {value}, which it neither was nor should be")
            });
        }
        let devices = env.sims.tailscale().devices(TAILNET).unwrap();
        for (node, lost) in self
            .attributes
            .keys()
            .filter(|place| !after.contains_key(*place))
        {
            let is_there = devices.iter().any(|device| device.node_id == *node);
            let moved = after.contains_key(&(node.clone(), key.to_owned()));
            violations.unless(!is_there || moved || !deserved.contains_key(node), || {
                format!("{node} lost {lost}, and deserves a score")
            });
        }
    }

    /// Checks a status that is not of this run.
    fn check_old_status(
        &self,
        status: &Value,
        outcome: &Outcome,
        excuses: Excuses,
        violations: &mut Violations,
    ) {
        let nothing_done = outcome.as_ref().is_ok_and(|answer| {
            answer["outcome"] == "skipped" || is_at_rest(answer) || answer["outcome"].is_null()
        });
        violations.unless(*status == self.status, || {
            format!("the status is nobody's: {status}")
        });
        violations.unless(excuses.old_status || nothing_done, || {
            format!("the status is still that of the run before: {status}")
        });
    }

    fn check_status(
        &self,
        env: &TestEnvironment,
        status: &Value,
        wrong: usize,
        violations: &mut Violations,
    ) {
        let came = status["outcome"].as_str().unwrap_or_default();
        let success = matches!(came, "synced" | "unchanged");
        violations.unless(!success || wrong <= named_devices(status), || {
            format!("it claims success, and the attributes of {wrong} devices are not right")
        });
        violations.unless(success != status["error"].is_string(), || {
            format!("{came} with the error {}", status["error"])
        });
        let classed = matches!(came, "failed" | "paused");
        violations.unless(classed == status["errorKind"].is_string(), || {
            format!("{came} of the class {}", status["errorKind"])
        });
        let now = falcon_posture_sync::clock::rfc3339(env.app.clock.now());
        violations.unless(same_time(&status["lastSync"], &now.into()), || {
            format!("lastSync is {}", status["lastSync"])
        });
        let last_success = if success { status } else { &self.status };
        let last_success = if success {
            &last_success["lastSync"]
        } else {
            &last_success["lastSuccess"]
        };
        violations.unless(same_time(&status["lastSuccess"], last_success), || {
            format!("{came} with lastSuccess {}", status["lastSuccess"])
        });
        let failures = self.status["consecutiveFailures"].as_u64().unwrap_or(0);
        violations.unless(
            status["consecutiveFailures"] == if success { 0 } else { failures + 1 },
            || format!("{came} after {failures} failures: {status}"),
        );
    }
}

/// Checks that the counts in the status and the answer are those of the run's audit records.
fn check_counts(
    status: &Value,
    audit: &[Value],
    outcome: &Outcome,
    excuses: Excuses,
    violations: &mut Violations,
) {
    let own = audit
        .iter()
        .filter(|record| record["runId"] == status["runId"]);
    let (removals, writes): (Vec<&Value>, Vec<&Value>) =
        own.partition(|record| record["new"].is_null());
    for (name, recorded) in [("written", writes.len()), ("removed", removals.len())] {
        let claimed = status[name].as_u64().unwrap_or_default();
        let recorded = u64::try_from(recorded).unwrap();
        let fits = claimed == recorded || (excuses.uncounted && claimed < recorded);
        violations.unless(fits, || {
            format!("{name} is {claimed}, and {recorded} are recorded")
        });
    }
    let Ok(answer) = outcome else { return };
    for name in ["outcome", "error", "written", "removed"] {
        violations.unless(answer[name] == status[name], || {
            format!(
                "{name} is {} in the answer, {} in the status",
                answer[name], status[name]
            )
        });
    }
}
/// True for the answer of a run that a pause prevented.
fn is_at_rest(answer: &Value) -> bool {
    let error = answer["error"].as_str().unwrap_or_default();
    answer["outcome"] == "paused" && error.starts_with("paused until")
}

/// The number of devices that a run skipped or that Tailscale rejected, by its findings.
fn named_devices(status: &Value) -> usize {
    let kinds = ["refusedWrites", "unreadableDevices", "unsettledWrites"].map(Value::from);
    let findings = status["findings"].as_array().into_iter().flatten();
    let counts = findings
        .filter(|finding| kinds.contains(&finding["kind"]))
        .filter_map(|finding| finding["count"].as_u64());
    usize::try_from(counts.sum::<u64>()).unwrap()
}

fn same_time(one: &Value, other: &Value) -> bool {
    let time = |value: &Value| value.as_str()?.parse::<jiff::Timestamp>().ok();
    time(one) == time(other)
}

/// The expected scores as attributes.
pub(crate) fn under(key: &str, deserved: &BTreeMap<String, i64>) -> Attributes {
    deserved
        .iter()
        .map(|(node, score)| ((node.clone(), key.to_owned()), *score))
        .collect()
}
