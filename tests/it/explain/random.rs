//! Random tailnets with every trap: each explanation agrees with the oracle.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use falcon_posture_sync::app::Invocation;
use falcon_posture_sync::domain::explain::ExplainContext;
use falcon_posture_sync::domain::inventory::device::NodeId;
use falcon_posture_sync::domain::snapshot::Snapshot;
use falcon_posture_sync::sync::inspect;
use jiff::SignedDuration;
use posture_simulators::{GeneratorSpec, Host, PostureIdentity};
use serde_json::{Value, json};

use crate::environment::{KEY, TAILNET, TestEnvironment};
use crate::oracle::{Reason, Settings};

/// The settings of the integration, as the oracle needs them.
struct Rules {
    max_host_age_days: Option<i64>,
    keeps: bool,
    /// True if the settings let no removal pass.
    holds: bool,
    /// The attribute key after the first sync.
    key: &'static str,
}

impl Rules {
    fn of(seed: u64) -> Self {
        Self {
            max_host_age_days: [None, Some(1), Some(3), Some(30)]
                [usize::try_from(seed % 4).unwrap()],
            keeps: seed % 5 == 2,
            holds: seed % 3 == 1,
            key: if seed % 7 == 3 { "custom:moved" } else { KEY },
        }
    }

    fn settings(&self) -> Value {
        json!({
            "maxHostAgeDays": self.max_host_age_days,
            "onMissing": if self.keeps { "keep" } else { "delete" },
            "maxRemovals": if self.holds {
                json!({"percent": 0, "atLeast": 0})
            } else {
                json!({"percent": 100, "atLeast": 1000})
            },
        })
    }
}

fn spec(seed: u64) -> GeneratorSpec {
    GeneratorSpec {
        seed,
        hosts: 90,
        devices: 60,
        duplicate_serial: 0.4,
        multi_serial: 0.4,
        placeholder_serial: 0.1,
        unassessed: 0.15,
        no_identity: 0.07,
        disabled_identity: 0.05,
        external: 0.08,
        several_nodes: 0.2,
        odd_spelling: 0.5,
        ..GeneratorSpec::default()
    }
}

/// Changes random hosts and devices after the first sync.
pub(super) fn change_world(env: &TestEnvironment, seed: u64) {
    let (falcon, tailscale) = (env.sims.falcon(), env.sims.tailscale());
    let hosts = falcon.hosts("corp").unwrap();
    let mut die = seed.wrapping_mul(6_364_136_223_846_793_005) | 1;
    let mut roll = || {
        die ^= die << 13;
        die ^= die >> 7;
        die ^= die << 17;
        die % 100
    };
    for host in &hosts {
        let aid = &host.device_id;
        match roll() {
            0..8 => drop(falcon.remove_host("corp", aid).unwrap()),
            8..16 => drop(falcon.remove_score("corp", aid).unwrap()),
            16..24 => falcon.set_score("corp", aid, roll()).unwrap(),
            24..30 => falcon.set_score("corp", aid, json!(101.5)).unwrap(),
            30..36 => {
                let last_seen = None;
                let host = Host {
                    last_seen,
                    ..host.clone()
                };
                falcon.put_host("corp", host).unwrap();
            }
            36..44 => {
                let days = SignedDuration::from_hours(24 * i64::try_from(roll()).unwrap() / 10);
                let last_seen = Some((env.app.clock.now() - days).to_string());
                let host = Host {
                    last_seen,
                    ..host.clone()
                };
                falcon.put_host("corp", host).unwrap();
            }
            _ => {}
        }
    }
    for mut device in tailscale.devices(TAILNET).unwrap() {
        match roll() {
            0..4 => {
                tailscale.remove_device(TAILNET, &device.node_id).unwrap();
                continue;
            }
            4..8 => device.is_external = !device.is_external,
            8..11 => device.posture_identity = None,
            11..14 => {
                device.posture_identity = Some(PostureIdentity::serials(Vec::<String>::new()));
            }
            14..17 => device.posture_identity = Some(PostureIdentity::serials(["None", " 0 "])),
            17..30 => {
                // A part of another machine, or another serial of the same one.
                let other = &hosts[usize::try_from(roll()).unwrap() % hosts.len()];
                let serials = device.serials().iter().chain(&other.serial_number).cloned();
                device.posture_identity =
                    Some(PostureIdentity::serials(serials.collect::<Vec<_>>()));
            }
            _ => continue,
        }
        tailscale.put_device(TAILNET, device).unwrap();
    }
}

pub(super) async fn snapshot(env: &TestEnvironment) -> Snapshot {
    let now = env.app.clock.now();
    let invocation = Invocation {
        id: "look".to_owned(),
        deadline: now + SignedDuration::from_mins(15),
        caller: None,
        alias: None,
        function_arn: "arn:aws:lambda:us-east-1:123456789012:function:falcon-posture-sync"
            .to_owned(),
    };
    let corp = "corp".to_owned().try_into().unwrap();
    let snapshot = inspect(&env.app, &corp, false, &invocation).await;
    snapshot.unwrap().unwrap()
}

/// Returns whether the next sync holds its removals: by the settings, or because it would remove more than half of the
/// scores. A single removal is never held for the second reason.
fn holds(
    rules: &Rules,
    reasons: &BTreeMap<String, Reason>,
    written: &BTreeMap<String, i64>,
) -> bool {
    let is_removed = |node: &&String| {
        reasons
            .get(*node)
            .is_some_and(|reason| reason.score.is_none())
    };
    let removals = written.keys().filter(is_removed).count();
    rules.holds || !rules.keeps && removals > 1 && 2 * removals > written.len()
}

/// Returns the expected action of the next sync on a device with this score.
fn action(rules: &Rules, holds: bool, reason: &Reason, written: Option<i64>) -> &'static str {
    let moves = rules.key != KEY;
    match (written, reason.score) {
        (Some(_), Some(_)) if moves => "move",
        (None, Some(_)) if !reason.may_rise => "waits",
        (old, new @ Some(_)) if new > old && !reason.may_rise => "nothing",
        (None, Some(_)) => "set",
        (Some(old), Some(new)) if old != new => "change",
        (Some(_), None) if rules.keeps => "nothing",
        (Some(_), None) if holds => "held",
        (Some(_), None) => "remove",
        (None, None) if reason.verdict == "external" => "notOurs",
        _ => "nothing",
    }
}

/// Returns the facts of an explanation that [`Reason`] has, too.
fn told(explanation: &Value) -> Value {
    let hosts = explanation["hosts"].as_array().unwrap();
    let decides: Vec<&Value> = hosts
        .iter()
        .filter(|host| host["decides"] == true)
        .map(|host| &host["aid"])
        .collect();
    assert!(decides.len() <= 1, "{explanation:#}");
    assert!(hosts.iter().skip(1).all(|host| host["decides"] == false));
    let standings: BTreeMap<&str, &Value> = hosts
        .iter()
        .map(|host| (host["aid"].as_str().unwrap(), &host["standing"]))
        .collect();
    assert_eq!(standings.len(), hosts.len());
    let serials = explanation["serials"].as_array().unwrap();
    let usable: Vec<bool> = serials
        .iter()
        .map(|serial| {
            assert!(serial["serial"].is_string() != serial["refused"].is_string());
            serial["serial"].is_string()
        })
        .collect();
    json!({
        "verdict": explanation["verdict"],
        "score": explanation["score"],
        "decides": decides.first(),
        "hosts": standings,
        "serials": usable,
        "written": explanation["written"]["score"],
        "action": explanation["nextAction"],
    })
}

/// The verdicts, actions and hosts that the worlds of the test must contain.
const EVERYTHING: [&str; 29] = [
    "action change",
    "action held",
    "action move",
    "action notOurs",
    "action nothing",
    "action remove",
    "action set",
    "action waits",
    "host behind",
    "host invalid",
    "host lowest",
    "host otherPlatform",
    "host shared",
    "host silent",
    "host stale",
    "host superseded",
    "host unassessed",
    "several serials",
    "verdict external",
    "verdict noIdentity",
    "verdict noSerial",
    "verdict otherPlatform",
    "verdict scored",
    "verdict sharedSerial",
    "verdict silent",
    "verdict stale",
    "verdict unassessed",
    "verdict unmatched",
    "verdict unwitnessed",
];

#[tokio::test]
async fn what_is_explained_is_what_the_oracle_says() {
    let env = TestEnvironment::empty().await;
    let mut seen = BTreeSet::new();
    for seed in 1..=105 {
        let rules = Rules::of(seed);
        env.clear(spec(seed));
        env.connect_unchecked(rules.settings()).await;
        let answer = env.sync().await;
        assert_eq!(answer["outcome"], "synced", "{answer:#}");
        let written = env.scores();
        change_world(&env, seed);
        if rules.key != KEY {
            env.update(json!({"attributeKey": rules.key})).await;
        }
        env.app.clock.advance(Duration::from_mins(14));

        let world = env.world();
        let devices = &world.devices;
        let settings = Settings::from_json(&rules.settings());
        let reasons = env.oracle(settings).await.run(&world).reasons;
        let holds = holds(&rules, &reasons, &written);
        let snapshot = snapshot(&env).await;
        let scene = ExplainContext::new(&snapshot);
        for device in devices {
            let node = &device.node_id;
            let explanation = scene
                .explain(&NodeId(node.as_str().into()), Vec::new())
                .unwrap();
            let explanation = serde_json::to_value(explanation).unwrap();
            let reason = &reasons[node];
            let written = written.get(node).copied();
            let action = action(&rules, holds, reason, written);
            // A host that may raise nothing leaves the value that stands, and sets no first one.
            let waits = action == "waits";
            let verdict = if waits { "unwitnessed" } else { reason.verdict };
            let score = match (reason.score, written) {
                (Some(score), Some(written)) if !reason.may_rise => Some(score.min(written)),
                (score, _) => score.filter(|_| !waits),
            };
            let expect = json!({
                "verdict": verdict,
                "score": score,
                "decides": reason.decides.as_ref().filter(|_| !waits),
                "hosts": reason.hosts,
                "serials": reason.serials,
                "written": written,
                "action": action,
            });
            assert_eq!(told(&explanation), expect, "seed {seed}: {explanation:#}");
            seen.insert(format!("verdict {verdict}"));
            seen.insert(format!("action {action}"));
            seen.extend(
                reason
                    .hosts
                    .values()
                    .map(|standing| format!("host {standing}")),
            );
            if reason
                .hosts
                .values()
                .filter(|standing| **standing == "lowest")
                .count()
                > 1
            {
                seen.insert("several serials".to_owned());
            }
        }
    }
    assert_eq!(
        seen,
        EVERYTHING.map(str::to_owned).into(),
        "the worlds have everything in them"
    );
}
