//! Previews of postures, compared with a slow and obvious evaluation of the simulators' data.

use std::collections::BTreeMap;

use posture_simulators::{Device, GeneratorSpec, Tailnet};
use serde_json::{Value, json};

use crate::environment::{TAILNET, TestEnvironment};

async fn preview(env: &TestEnvironment, fields: Value) -> Value {
    let mut payload = json!({"command": "preview", "integration": "corp"});
    payload
        .as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    env.ask(payload).await
}

fn spec(seed: u64) -> GeneratorSpec {
    GeneratorSpec {
        seed,
        hosts: 120,
        devices: 80,
        external: 0.1,
        unassessed: 0.2,
        no_identity: 0.1,
        duplicate_serial: 0.3,
        several_nodes: 0.2,
        odd_spelling: 0.5,
        ..GeneratorSpec::default()
    }
}

pub(crate) fn set_policy(env: &TestEnvironment, policy: &str) {
    let change = |tailnet: &mut Tailnet| policy.clone_into(&mut tailnet.policy);
    env.sims.tailscale().configure(TAILNET, change).unwrap();
}

/// Limits the credential to reading devices and the policy.
fn read_only(env: &TestEnvironment) {
    let change = |tailnet: &mut Tailnet| {
        tailnet.oauth_clients[0].scopes = ["devices:core:read", "policy_file:read"]
            .map(str::to_owned)
            .into();
    };
    env.sims.tailscale().configure(TAILNET, change).unwrap();
}

/// Returns each own device with the score that it deserves.
fn own(env: &TestEnvironment) -> Vec<(Device, Option<i64>)> {
    let expected = env.expected();
    let devices = env.sims.tailscale().devices(TAILNET).unwrap();
    devices
        .into_iter()
        .filter(|device| !device.is_external)
        .map(|device| {
            let score = expected.get(&device.node_id).copied();
            (device, score)
        })
        .collect()
}

/// Asserts that a preview agrees with this rule.
fn assert_right(env: &TestEnvironment, preview: &Value, passes: impl Fn(&Device, i64) -> bool) {
    let own = own(env);
    let passing =
        |(device, score): &&(Device, Option<i64>)| score.is_some_and(|score| passes(device, score));
    let count = |number: usize| json!(number);
    let pass = own.iter().filter(passing).count();
    let counts = &preview["counts"];
    assert_eq!(counts["pass"], count(pass), "{preview:#}");
    let none = own.iter().filter(|(_, score)| score.is_none()).count();
    assert_eq!(counts["noScore"], count(none), "{preview:#}");
    let because: u64 = counts["noScoreBecause"]
        .as_object()
        .unwrap()
        .values()
        .map(|count| count.as_u64().unwrap())
        .sum();
    assert_eq!(because, none as u64);
    let others = counts["below"].as_u64().unwrap() + counts["otherOs"].as_u64().unwrap();
    assert_eq!(others, (own.len() - pass - none) as u64);
    let all = env.sims.tailscale().devices(TAILNET).unwrap().len();
    assert_eq!(counts["external"], count(all - own.len()));

    let losing: BTreeMap<String, Option<i64>> = own
        .iter()
        .filter(|one| !passing(one))
        .map(|(device, score)| (device.node_id.clone(), *score))
        .collect();
    let told: BTreeMap<String, Option<i64>> = preview["lose"]
        .as_array()
        .unwrap()
        .iter()
        .map(|loser| {
            let id = loser["nodeId"].as_str().unwrap();
            (id.to_owned(), loser["score"].as_i64())
        })
        .collect();
    assert_eq!(told, losing);

    for (groups, name) in [
        (
            "byUser",
            (|device: &Device| device.user.clone()) as fn(&Device) -> String,
        ),
        ("byOs", |device| device.os.clone()),
    ] {
        let mut expected: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for one in &own {
            let entry = expected.entry(name(&one.0)).or_default();
            if passing(&one) {
                entry.0 += 1;
            } else {
                entry.1 += 1;
            }
        }
        let groups = preview[groups].as_array().unwrap();
        let told = groups.iter().map(|group| {
            let number = |name: &str| group[name].as_u64().unwrap();
            (
                group["name"].as_str().unwrap().to_owned(),
                (number("pass"), number("lose")),
            )
        });
        assert_eq!(told.collect::<BTreeMap<_, _>>(), expected);
    }
    let scored: Vec<i64> = own.iter().filter_map(|(_, score)| *score).collect();
    for (score, number) in preview["distribution"].as_object().unwrap() {
        let score: i64 = score.parse().unwrap();
        let expected = scored.iter().filter(|other| **other == score).count();
        assert_eq!(number, &count(expected));
    }
}

#[tokio::test]
async fn a_threshold_is_judged_as_a_person_would_with_pencil_and_paper() {
    for (seed, min_score) in [(1, 0), (2, 1), (3, 50), (4, 70), (5, 71), (6, 100)] {
        let env = TestEnvironment::connected(&spec(seed)).await;
        if seed % 2 == 0 {
            env.sync().await;
        }
        let answer = preview(&env, json!({"minScore": min_score})).await;
        assert_eq!(answer["error"], Value::Null, "{answer:#}");
        let told = &answer["previews"][0];
        assert_right(&env, told, |_, score| score >= min_score);
        // Other minimum scores.
        let thresholds = told["thresholds"].as_array().unwrap();
        assert!(thresholds.len() >= 11);
        for threshold in thresholds {
            let line = threshold["minScore"].as_i64().unwrap();
            let own = own(&env);
            let pass = own
                .iter()
                .filter(|(_, score)| score.is_some_and(|score| score >= line));
            let pass = pass.count();
            assert_eq!(
                (&threshold["pass"], &threshold["lose"]),
                (&json!(pass), &json!(own.len() - pass))
            );
        }
        assert!(
            thresholds
                .iter()
                .any(|threshold| threshold["minScore"] == min_score)
        );
    }
}

const POLICY: &str = r#"{
    // Two of ours, one of somebody else's.
    "postures": {
        "posture:trusted": ["custom:ztaScore >= 70"],
        "posture:macs": ["custom:ztaScore > 40", "node:os == 'macos'", "node:tsVersion >= '1.40'"],
        "posture:other": ["node:osVersion >= '13'"],
    },
    "defaultSrcPosture": ["posture:macs"],
    "grants": [
        {"src": ["*"], "dst": ["*"], "ip": ["*"]},
        {"src": ["*"], "dst": ["tag:prod"], "ip": ["*"], "srcPosture": ["posture:trusted", "posture:macs"]},
    ],
}"#;

#[tokio::test]
async fn the_postures_of_the_policy_are_judged_with_a_credential_that_only_reads() {
    for seed in [11, 12, 13] {
        let env = TestEnvironment::connected(&spec(seed)).await;
        env.sync().await;
        set_policy(&env, POLICY);
        read_only(&env);
        let tables = async || {
            let mut tables = Vec::new();
            for table in ["integrations", "nodes", "audit"] {
                tables.push(env.items(table).await);
            }
            tables
        };
        let before = tables().await;
        env.requests();
        let answer = preview(&env, json!({"policy": true})).await;
        let requests = env.requests();
        assert!(
            requests.keys().all(|route| route.starts_with("GET ")
                || route.ends_with("/oauth2/token")
                || route.ends_with("/oauth/token")),
            "{requests:?}"
        );
        assert_eq!(tables().await, before, "nothing is written");
        assert_eq!(answer["error"], Value::Null, "{answer:#}");
        let [macs, trusted] = answer["previews"].as_array().unwrap().as_slice() else {
            panic!("{answer:#}");
        };
        assert_eq!(macs["posture"], "posture:macs");
        assert_eq!(macs["usedIn"], json!(["defaultSrcPosture", "grants[1]"]));
        assert_eq!(macs["notEvaluated"], json!(["node:tsVersion >= '1.40'"]));
        assert_right(&env, macs, |device, score| {
            score > 40 && device.os == "macOS"
        });
        assert_eq!(trusted["usedIn"], json!(["grants[1]"]));
        assert_right(&env, trusted, |_, score| score >= 70);
    }
}

#[tokio::test]
async fn what_is_kept_and_what_waits_counts_as_long_as_it_stays() {
    let env = TestEnvironment::synced().await;
    let scores = env.scores();
    let good = scores.values().filter(|score| **score >= 30).count();
    for record in env.items("nodes").await {
        let aid = record["aid"].as_str().unwrap();
        env.sims.falcon().remove_score("corp", aid).unwrap();
    }
    let answer = preview(&env, json!({"minScore": 30})).await;
    assert!(
        answer["held"]
            .as_str()
            .unwrap()
            .contains("40 removals are held"),
        "{answer:#}"
    );
    assert_eq!(answer["previews"][0]["counts"]["pass"], good);
    env.update(json!({"onMissing": "keep"})).await;
    let answer = preview(&env, json!({"minScore": 30})).await;
    assert_eq!(answer["previews"][0]["counts"]["pass"], good);
}

#[tokio::test]
async fn what_cannot_be_looked_at_is_told_and_nobody_who_refused_is_asked() {
    let env = TestEnvironment::synced().await;
    let change = |tailnet: &mut Tailnet| {
        tailnet.oauth_clients[0].scopes.remove("policy_file:read");
    };
    env.sims.tailscale().configure(TAILNET, change).unwrap();
    let answer = preview(&env, json!({"policy": true})).await;
    let error = answer["error"].as_str().unwrap();
    assert!(
        error.contains("add the scope policy_file:read")
            || error.contains("Add the scope policy_file:read"),
        "{error}"
    );
    env.sync().await;
    assert_eq!(
        env.corp().await["pause"],
        Value::Null,
        "what a preview lacks pauses nothing"
    );
    env.services
        .put_secret("corp/falcon", json!({"clientId": "x", "clientSecret": "y"}));
    env.sync().await;
    env.requests();
    let answer = preview(&env, json!({"minScore": 70})).await;
    assert!(
        answer["error"]
            .as_str()
            .unwrap()
            .contains("is paused until"),
        "{answer:#}"
    );
    assert_eq!(env.requests(), BTreeMap::new());
    let missing = json!({"command": "preview", "integration": "labs", "minScore": 1});
    assert!(env.try_ask(missing).await.is_err());
}

#[tokio::test]
async fn a_hostile_policy_is_read_as_far_as_it_makes_sense() {
    let env = TestEnvironment::connected(&GeneratorSpec::plain(10, 8)).await;
    for (text, previews) in [
        (
            r#"{"postures": {"posture:a": "custom:ztaScore >= 1", "posture:b": [1, null, "custom:ztaScore >= 1"]}}"#,
            1,
        ),
        (
            r#"{"postures": {}, "grants": [7, null, {"srcPosture": "x"}], "acls": null}"#,
            0,
        ),
        (
            r#"{"postures": {"posture:\u001b[31m<b>": ["custom:ztaScore >= 1\u0000", "custom:ztaScore >="]}}"#,
            1,
        ),
        ("{}", 0),
    ] {
        set_policy(&env, text);
        let answer = preview(&env, json!({"policy": true})).await;
        assert_eq!(answer["error"], Value::Null, "{text}: {answer:#}");
        assert_eq!(
            answer["previews"].as_array().unwrap().len(),
            previews,
            "{text}"
        );
        let readable = preview(&env, json!({"policy": true, "format": "text"})).await;
        let readable = readable.as_str().unwrap();
        assert!(
            !readable.contains(|c: char| c.is_control() && c != '\n'),
            "{readable:?}"
        );
    }
    set_policy(
        &env,
        r#"{"postures": {"posture:a": ["custom:ztaScore => 70"]}}"#,
    );
    let answer = preview(&env, json!({"policy": true})).await;
    assert_eq!(
        answer["previews"][0]["problems"][0]["condition"],
        "custom:ztaScore => 70"
    );
    set_policy(&env, r#"["no", "policy"]"#);
    let answer = preview(&env, json!({"policy": true})).await;
    assert!(
        answer["error"]
            .as_str()
            .unwrap()
            .contains("invalid response: unexpected value at [0]"),
        "{answer:#}"
    );
}

#[tokio::test]
async fn a_rule_is_a_score_or_the_policy() {
    let env = TestEnvironment::synced().await;
    for fields in [
        json!({}),
        json!({"minScore": 70, "policy": true}),
        json!({"policy": false}),
        json!({"minScore": 101}),
        json!({"minScore": "70"}),
    ] {
        let mut payload = json!({"command": "preview", "integration": "corp"});
        payload
            .as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        let error = env.try_ask(payload).await.unwrap_err().to_string();
        assert!(error.starts_with("minScore: "), "{error}");
    }
}

#[tokio::test]
async fn a_person_reads_how_many_then_who_and_why() {
    let spec = GeneratorSpec {
        hosts: 200,
        devices: 60,
        ..GeneratorSpec::default()
    };
    let env = TestEnvironment::connected(&spec).await;
    set_policy(&env, POLICY);
    let told = async |fields: Value| preview(&env, fields).await.as_str().unwrap().to_owned();
    insta::assert_snapshot!(
        "preview_of_a_threshold",
        told(json!({"minScore": 70, "format": "text"})).await
    );
    insta::assert_snapshot!(
        "preview_of_the_policy",
        told(json!({"policy": true, "format": "text"})).await
    );
    set_policy(&env, "{}");
    assert_eq!(
        told(json!({"policy": true, "format": "text"})).await,
        "No posture of the policy file mentions custom:ztaScore. To try a threshold: MIN_SCORE=70.\n"
    );
}
