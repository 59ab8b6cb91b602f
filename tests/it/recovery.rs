//! Recovery of writes that an earlier run could not record. A failure for one device does not affect the others.

use posture_simulators::{Fault, FaultKind, GeneratorSpec, Matcher, Side};
use serde_json::{Value, json};

use crate::runs::finding;
use crate::world::{TAILNET, TestEnvironment};

/// Synced devices, of which a further run changed the first few in Tailscale and could record none of them. Returns their
/// nodes.
async fn unrecorded(devices: usize, changes: usize) -> (TestEnvironment, Vec<String>) {
    let stage = TestEnvironment::connected(&GeneratorSpec::plain(devices + 5, devices)).await;
    assert_eq!(stage.sync().await["written"], devices);
    let records = stage.items("nodes").await;
    let text = |record: &Value, name: &str| record[name].as_str().unwrap().to_owned();
    for (n, record) in records[..changes].iter().enumerate() {
        let falcon = stage.sims.falcon();
        let other = (record["score"].as_u64().unwrap() + 7 + n as u64) % 101;
        falcon
            .set_score("corp", &text(record, "aid"), other)
            .unwrap();
    }
    // Another run's record in each transaction: it is refused as a whole, after Tailscale has accepted the write.
    for record in records[..changes].chunks(50) {
        let taken = stage.take_record(&text(&record[0], "nodeId"));
        let patch = Matcher::side(Side::Tailscale).path("/api/v2/tailnet/-/device-attributes");
        stage.amid(patch, taken);
    }
    stage.try_ask(json!({"command": "sync"})).await.unwrap_err();
    assert_eq!(
        stage.node_audit().await.len(),
        devices,
        "nothing is recorded"
    );
    let nodes = records[..changes].iter();
    let nodes = nodes.map(|record| text(record, "nodeId")).collect();
    (stage, nodes)
}

fn attributes_of(node: &str) -> Matcher {
    Matcher::side(Side::Tailscale).path(&format!("/api/v2/device/{node}/attributes"))
}

/// The nodes that the journal names.
async fn journal(stage: &TestEnvironment) -> Vec<String> {
    let pending = stage.corp().await["pending"].clone();
    let entries = pending.as_object().unwrap().values();
    let nodes = entries.flat_map(|note| note.as_object().unwrap().keys().cloned());
    nodes.collect()
}

async fn audited(stage: &TestEnvironment, node: &str) -> usize {
    let audit = stage.node_audit().await;
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
        let (stage, nodes) = unrecorded(12, 5).await;
        let odd = &nodes[2];
        let held = stage.scores()[odd];
        stage.sims.faults().add(fault(attributes_of(odd)).always());
        // Falcon has moved on, for the odd device and for one that nothing was open for.
        let records = stage.items("nodes").await;
        for n in [2, 11] {
            let aid = records[n]["aid"].as_str().unwrap();
            stage.sims.falcon().set_score("corp", aid, n).unwrap();
        }
        let mut expected = stage.expected();
        assert_eq!(expected.insert(odd.clone(), held), Some(2));

        for written in [1, 0] {
            let answer = stage.sync().await;
            let outcome = if written > 0 { "synced" } else { "unchanged" };
            assert_eq!(answer["outcome"], outcome, "{answer:#}");
            assert_eq!(answer["written"], written, "{answer:#}");
            let skipped = finding(&answer, "skippedDevices");
            assert_eq!(skipped["count"], 1);
            let example = skipped["examples"][0].as_str().unwrap();
            assert!(example.contains(odd.as_str()), "{example}");
            assert_eq!(stage.scores(), expected);
            assert_eq!(&journal(&stage).await, std::slice::from_ref(odd));
            assert_eq!(audited(&stage, odd).await, 1, "nothing is made up");
            assert_eq!(audited(&stage, &nodes[0]).await, 2);
            assert_eq!(stage.corp().await["lease"], Value::Null);
        }

        stage.sims.faults().clear();
        let answer = stage.sync().await;
        assert_eq!(answer["written"], 1, "{answer:#}");
        assert_eq!(stage.scores(), stage.expected());
        assert_eq!(stage.corp().await["pending"], json!({}));
        assert_eq!(
            audited(&stage, odd).await,
            3,
            "what was open, and the move since"
        );
        stage.assert_sound().await;
    }
}

/// An unauthorized credential and a rate limit are reported as such, after the other devices were recorded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_single_devices_trouble_ends_the_run() {
    for (status, outcome, kind) in [
        (401, "paused", "authentication"),
        (429, "failed", "rateLimited"),
    ] {
        let (stage, nodes) = unrecorded(12, 5).await;
        let refused = Fault::status(attributes_of(&nodes[2]), status).always();
        stage.sims.faults().add(refused);
        let answer = stage.sync().await;
        assert_eq!(answer["outcome"], outcome, "{answer:#}");
        assert_eq!(stage.corp().await["status"]["errorKind"], kind);
        assert_eq!(journal(&stage).await, [nodes[2].clone()]);
        assert_eq!(audited(&stage, &nodes[4]).await, 2);
        stage.sims.faults().clear();
        assert_eq!(stage.force().await["outcome"], "unchanged");
        stage.assert_sound().await;
    }
}

/// If most requests fail, recovery stops early, so that the run has time and retries left for its own work.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_many_without_an_answer_no_more_are_asked() {
    let (stage, nodes) = unrecorded(45, 40).await;
    let all = Matcher::side(Side::Tailscale).path("/api/v2/device/");
    stage.sims.faults().add(Fault::status(all, 500).always());
    stage.requests();
    let answer = stage.sync().await;
    assert_eq!(answer["outcome"], "unchanged", "{answer:#}");
    assert_eq!(finding(&answer, "skippedDevices")["count"], 40);
    let requests = stage.requests();
    let asked = nodes
        .iter()
        .filter(|node| requests.contains_key(&format!("GET /api/v2/device/{node}/attributes")));
    assert_eq!(asked.count(), 16);
    stage.sims.faults().clear();
    assert_eq!(stage.sync().await["outcome"], "unchanged");
    stage.assert_sound().await;
}

/// An integration is not deleted while a device may have an unrecorded attribute, unless a person forces it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_waits_for_a_device_that_cannot_be_asked() {
    let (stage, nodes) = unrecorded(12, 5).await;
    let odd = &nodes[2];
    stage
        .sims
        .faults()
        .add(Fault::status(attributes_of(odd), 500).always());
    let remove = json!({"command": "remove", "integration": "corp", "actor": "amelie"});
    let answer = stage.ask(remove.clone()).await;
    assert_eq!(answer["removed"], false, "{answer:#}");
    let error = answer["error"].as_str().unwrap();
    assert!(error.contains(odd.as_str()), "{error}");
    let left: Vec<String> = stage.scores().into_keys().collect();
    assert_eq!(&left, std::slice::from_ref(odd), "the others are gone");
    let status = stage.corp().await["status"].clone();
    assert_eq!(finding(&status, "skippedDevices")["count"], 1);

    stage.sims.faults().clear();
    assert_eq!(stage.ask(remove).await["removed"], true);
    assert!(stage.scores().is_empty());
    assert!(stage.sims.tailscale().devices(TAILNET).unwrap().len() >= 12);
    stage.assert_audited().await;
}
