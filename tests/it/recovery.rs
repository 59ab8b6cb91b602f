//! Recovery of writes that an earlier run could not record. A failure for one device does not affect the others.

use falcon_posture_sync::tailscale::WriteLimits;
use posture_simulators::{Fault, FaultKind, GeneratorSpec, Matcher, Side};
use serde_json::{Value, json};

use crate::environment::{TAILNET, TestEnvironment};
use crate::runs::finding;

/// Synced devices, of which a further run changed the first few in Tailscale and could record none of them. Returns their
/// nodes.
async fn unrecorded(devices: usize, changes: usize) -> (TestEnvironment, Vec<String>) {
    let env = TestEnvironment::connected(&GeneratorSpec::plain(devices + 5, devices)).await;
    assert_eq!(env.sync().await["written"], devices);
    let records = env.items("nodes").await;
    let text = |record: &Value, name: &str| record[name].as_str().unwrap().to_owned();
    for (n, record) in records[..changes].iter().enumerate() {
        let falcon = env.sims.falcon();
        let other = (record["score"].as_u64().unwrap() + 7 + n as u64) % 101;
        falcon
            .set_score("corp", &text(record, "aid"), other)
            .unwrap();
    }
    // Another run's record in each transaction: it is refused as a whole, after Tailscale has accepted the write.
    for record in records[..changes].chunks(50) {
        let taken = env.take_record(&text(&record[0], "nodeId"));
        let patch = Matcher::side(Side::Tailscale).path("/api/v2/tailnet/-/device-attributes");
        env.during(patch, taken);
    }
    env.try_ask(json!({"command": "sync"})).await.unwrap_err();
    assert_eq!(env.node_audit().await.len(), devices, "nothing is recorded");
    env.outlive_writes().await;
    let nodes = records[..changes].iter();
    let nodes = nodes.map(|record| text(record, "nodeId")).collect();
    (env, nodes)
}

fn attributes_of(node: &str) -> Matcher {
    Matcher::side(Side::Tailscale).path(&format!("/api/v2/device/{node}/attributes"))
}

/// The nodes that the journal names.
async fn journal(env: &TestEnvironment) -> Vec<String> {
    let pending = env.corp().await["pending"].clone();
    let entries = pending.as_object().unwrap().values();
    let nodes = entries.flat_map(|note| note["writes"].as_object().unwrap().keys().cloned());
    nodes.collect()
}

async fn audited(env: &TestEnvironment, node: &str) -> usize {
    let audit = env.node_audit().await;
    let of_node = audit.iter().filter(|record| record["target"]["id"] == node);
    of_node.count()
}

/// Asserts that the other devices are recorded and synced, whichever permanent error one device has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_cannot_be_asked_is_left_out_and_the_others_are_synced() {
    for fault in [
        |asked| Fault::status(asked, 500),
        |asked| Fault::status(asked, 404),
        |asked| Fault::status(asked, 400),
        |asked| Fault::new(asked, FaultKind::Reset),
        |asked| {
            Fault::new(
                asked,
                FaultKind::WrongJson {
                    body: Some(json!({"expiries": {}})),
                },
            )
        },
    ] {
        let (env, nodes) = unrecorded(12, 5).await;
        let odd = &nodes[2];
        let held = env.scores()[odd];
        env.sims.faults().add(fault(attributes_of(odd)).always());
        // Falcon has moved on, for the odd device and for one that nothing was open for.
        let records = env.items("nodes").await;
        for n in [2, 11] {
            let aid = records[n]["aid"].as_str().unwrap();
            env.sims.falcon().set_score("corp", aid, n).unwrap();
        }
        let mut expected = env.expected();
        assert_eq!(expected.insert(odd.clone(), held), Some(2));

        for written in [1, 0] {
            let answer = env.sync().await;
            assert_eq!(answer["outcome"], "synced", "{answer:#}");
            assert_eq!(answer["written"], written, "{answer:#}");
            let skipped = finding(&answer, "unreadableDevices");
            assert_eq!(skipped["count"], 1);
            let example = skipped["examples"][0].as_str().unwrap();
            assert!(example.contains(odd.as_str()), "{example}");
            assert_eq!(env.scores(), expected);
            assert_eq!(&journal(&env).await, std::slice::from_ref(odd));
            assert_eq!(audited(&env, odd).await, 1, "nothing is made up");
            assert_eq!(audited(&env, &nodes[0]).await, 2);
            assert_eq!(env.corp().await["lease"], Value::Null);
        }

        env.sims.faults().clear();
        let answer = env.sync().await;
        assert_eq!(answer["written"], 1, "{answer:#}");
        assert_eq!(env.scores(), env.expected());
        assert_eq!(env.corp().await["pending"], json!({}));
        assert_eq!(
            audited(&env, odd).await,
            3,
            "what was open, and the move since"
        );
        env.assert_sound().await;
    }
}

/// An unauthorized credential and a rate limit are reported as such, after the other devices were recorded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_single_devices_trouble_ends_the_run() {
    for (status, outcome, kind) in [
        (401, "paused", "authentication"),
        (429, "failed", "rateLimited"),
    ] {
        let (env, nodes) = unrecorded(12, 5).await;
        let refused = Fault::status(attributes_of(&nodes[2]), status).always();
        env.sims.faults().add(refused);
        let answer = env.sync().await;
        assert_eq!(answer["outcome"], outcome, "{answer:#}");
        assert_eq!(env.corp().await["status"]["errorKind"], kind);
        assert_eq!(journal(&env).await, [nodes[2].clone()]);
        assert_eq!(audited(&env, &nodes[4]).await, 2);
        env.sims.faults().clear();
        assert_eq!(env.force().await["outcome"], "unchanged");
        env.assert_sound().await;
    }
}

/// If most requests fail, recovery stops early, so that the run has time and retries left for its own work.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_many_without_an_answer_no_more_are_asked() {
    let (env, nodes) = unrecorded(45, 40).await;
    let all = Matcher::side(Side::Tailscale).path("/api/v2/device/");
    env.sims.faults().add(Fault::status(all, 500).always());
    env.requests();
    let answer = env.sync().await;
    assert_eq!(answer["outcome"], "synced", "{answer:#}");
    assert_eq!(finding(&answer, "unreadableDevices")["count"], 40);
    let requests = env.requests();
    let asked = nodes
        .iter()
        .filter(|node| requests.contains_key(&format!("GET /api/v2/device/{node}/attributes")));
    assert_eq!(asked.count(), 16);
    env.sims.faults().clear();
    assert_eq!(env.sync().await["outcome"], "unchanged");
    env.assert_sound().await;
}

/// An integration is not deleted while a device may have an unrecorded attribute, unless a person forces it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_waits_for_a_device_that_cannot_be_asked() {
    let (env, nodes) = unrecorded(12, 5).await;
    let odd = &nodes[2];
    env.sims
        .faults()
        .add(Fault::status(attributes_of(odd), 500).always());
    let remove = json!({"command": "remove", "integration": "corp", "actor": "amelie"});
    let answer = env.ask(remove.clone()).await;
    assert_eq!(answer["removed"], false, "{answer:#}");
    let error = answer["error"].as_str().unwrap();
    assert!(error.contains(odd.as_str()), "{error}");
    let left: Vec<String> = env.scores().into_keys().collect();
    assert_eq!(&left, std::slice::from_ref(odd), "the others are gone");
    let status = env.corp().await["status"].clone();
    assert_eq!(finding(&status, "unreadableDevices")["count"], 1);

    env.sims.faults().clear();
    assert_eq!(env.ask(remove).await["removed"], true);
    assert!(env.scores().is_empty());
    assert!(env.sims.tailscale().devices(TAILNET).unwrap().len() >= 12);
    env.assert_audited().await;
}

/// E1: what a run left open is recorded before the integration ends: the accepted writes as such, if the devices can be asked,
/// and otherwise each as one that may have been made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_that_keeps_the_attributes_records_what_is_open() {
    let keep = json!({"command": "remove", "integration": "corp", "attributes": "keep"});
    for can_ask in [true, false] {
        let (env, nodes) = unrecorded(12, 5).await;
        let scores = env.scores();
        if !can_ask {
            let down = Fault::new(Matcher::side(Side::Tailscale), FaultKind::Reset);
            env.sims.faults().add(down.always());
        }
        assert_eq!(env.ask(keep.clone()).await["removed"], true);
        assert!(env.items("integrations").await.is_empty());
        assert!(env.items("nodes").await.is_empty());
        assert_eq!(env.scores(), scores);
        let audit = env.node_audit().await;
        let unknown = audit.iter().filter(|one| one["details"]["unknown"] == true);
        let unknown: Vec<&Value> = unknown.map(|one| &one["target"]["id"]).collect();
        let expected: Vec<&String> = nodes.iter().filter(|_| !can_ask).collect();
        assert_eq!(json!(unknown), json!(expected));
        assert_eq!(audit.len(), 12 + 5);
        env.assert_audited().await;
    }
}

/// A removal with keep records open writes as unknown, while the writes may still take effect.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_that_keeps_the_attributes_waits_for_no_write() {
    for arrives in [true, false] {
        let (env, node) = late_write(TestEnvironment::synced().await).await;
        let late = env.sims.late_requests();
        if arrives {
            late.release();
        }
        let keep = json!({"command": "remove", "integration": "corp", "attributes": "keep"});
        assert_eq!(env.ask(keep).await["removed"], true);
        late.release();
        let audit = env.node_audit().await;
        let of_node: Vec<&Value> = audit
            .iter()
            .filter(|one| one["target"]["id"] == node.as_str())
            .collect();
        assert_eq!(of_node.len(), 2, "{of_node:#?}");
        assert_eq!(of_node[1]["details"]["unknown"] == true, !arrives);
        env.assert_audited().await;
    }
}

/// A score changes, and the run that writes it gives up while its requests are still on their way. Returns the device.
async fn late_write(env: TestEnvironment) -> (TestEnvironment, String) {
    let record = env.items("nodes").await.swap_remove(3);
    let (node, aid) = (&record["nodeId"], record["aid"].as_str().unwrap());
    let other = (record["score"].as_u64().unwrap() + 50) % 101;
    env.sims.falcon().set_score("corp", aid, other).unwrap();
    let write = Matcher::side(Side::Tailscale).method("PATCH");
    let fault = Fault::new(write, FaultKind::Reset).late();
    env.sims.faults().add(fault.always());
    assert_eq!(env.sync().await["outcome"], "failed");
    env.sims.faults().clear();
    env.sims
        .falcon()
        .set_score("corp", aid, record["score"].clone())
        .unwrap();
    assert!(!env.sims.late_requests().is_empty());
    let node = node.as_str().unwrap().to_owned();
    (env, node)
}

/// E2: a write that takes effect after the next run is no one's only until it is judged, and is then put right.
#[tokio::test]
async fn a_write_that_takes_effect_late_is_found_and_put_right() {
    let (env, node) = late_write(TestEnvironment::synced().await).await;
    let right = env.expected();
    let answer = env.sync().await;
    assert_eq!(finding(&answer, "unsettledWrites")["count"], 1);
    let example = &finding(&answer, "unsettledWrites")["examples"][0];
    assert!(example.as_str().unwrap().contains(&node), "{example}");
    assert_eq!(&journal(&env).await, std::slice::from_ref(&node));

    env.sims.late_requests().release();
    assert_ne!(env.scores(), right);
    assert_eq!(env.sync().await["written"], 0, "it may come again");
    env.outlive_writes().await;
    let answer = env.sync().await;
    assert_eq!(
        (&answer["outcome"], &answer["written"]),
        (&json!("synced"), &json!(1))
    );
    assert_eq!(env.scores(), right);
    assert_eq!(audited(&env, &node).await, 3, "there and back");
    assert_eq!(env.corp().await["pending"], json!({}));
    env.assert_sound().await;
}

/// A write that was sent twice, since the first attempt had no answer, can take effect again after it was recorded.
#[tokio::test]
async fn a_write_that_takes_effect_twice_is_found_and_put_right() {
    let env = TestEnvironment::synced().await;
    let record = env.items("nodes").await.swap_remove(3);
    let aid = record["aid"].as_str().unwrap();
    let other = (record["score"].as_u64().unwrap() + 50) % 101;
    env.sims.falcon().set_score("corp", aid, other).unwrap();
    let write = Matcher::side(Side::Tailscale).method("PATCH");
    env.sims
        .faults()
        .add(Fault::new(write, FaultKind::Reset).twice());
    let answer = env.sync().await;
    assert_eq!(
        (&answer["outcome"], &answer["written"]),
        (&json!("synced"), &json!(1))
    );
    env.assert_sound().await;
    // The score changes again: nothing is written before the device can be asked for good.
    env.sims
        .falcon()
        .set_score("corp", aid, record["score"].clone())
        .unwrap();
    assert_eq!(finding(&env.sync().await, "unsettledWrites")["count"], 1);
    env.sims.late_requests().release();
    env.outlive_writes().await;
    assert_eq!(env.sync().await["written"], 1);
    assert_eq!(env.scores(), env.expected());
    env.assert_sound().await;
}

/// Entries of unanswered attempts stay in the journal. When they leave no room for another batch, the run ends.
#[tokio::test]
async fn a_full_journal_ends_the_run_and_later_runs_go_on() {
    let devices = 4_500;
    let mut env = TestEnvironment::connected(&GeneratorSpec::plain(devices, devices)).await;
    env.app.write_limits = WriteLimits::default();
    let write = Matcher::side(Side::Tailscale).method("PATCH");
    for n in 0..100 {
        let lost = Fault::new(write.clone(), FaultKind::Reset).processed();
        env.sims.faults().add(lost.after(n));
    }
    let answer = env.sync().await;
    let error = answer["error"].as_str().unwrap();
    assert!(error.contains("the journal has no room"), "{error}");
    let recorded = env.node_audit().await.len();
    assert_eq!(answer["written"], recorded);
    let kept = journal(&env).await.len();
    assert!(500 < kept && kept <= recorded && recorded < devices);
    env.sims.faults().clear();
    env.outlive_writes().await;
    let answer = env.sync().await;
    assert_eq!(answer["outcome"], "synced", "{answer:#}");
    assert_eq!(env.scores(), env.expected());
    assert_eq!(env.corp().await["pending"], json!({}));
    env.assert_sound().await;
}
