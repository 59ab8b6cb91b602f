//! Worlds from public reports about serial numbers, and what must come out: fillers that pass for serials, machines that are
//! "unmatched" although Falcon has them, two machines with one identity, and sides that contradict each other.

mod scene;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::runs::finding;
use scene::{Scene, aid};

/// A host and a node with each of these texts.
fn pairs(texts: &[&str]) -> (Value, BTreeMap<String, usize>) {
    let mut world = json!({"falcon": [], "tailnet": []});
    let mut scores = BTreeMap::new();
    for (n, text) in texts.iter().enumerate() {
        let host = json!({"aid": format!("a{n}"), "serial_number": text, "hostname": format!("m{n}"), "score": n});
        let node = json!({"nodeId": format!("n{n}"), "serialNumbers": [text], "hostname": format!("m{n}")});
        world["falcon"].as_array_mut().unwrap().push(host);
        world["tailnet"].as_array_mut().unwrap().push(node);
        scores.insert(format!("n{n}"), n);
    }
    (world, scores)
}

#[tokio::test]
async fn case_a_fillers_match_nobody() {
    let mut scene = Scene::new(json!({})).await;
    scene.put(&json!({
        "falcon": [{"aid": "a1", "serial_number": "SYS-1234567890", "hostname": "stranger", "score": 95},
                   {"aid": "a2", "serial_number": "SystemSerialNumb", "hostname": "other", "score": 95},
                   {"aid": "a3", "serial_number": "(null string)", "score": 95}, {"aid": "a4", "serial_number": "0000-0000-0000", "score": 95}],
        "tailnet": [{"nodeId": "n1", "serialNumbers": ["SYS-1234567890"]}, {"nodeId": "n2", "serialNumbers": ["SystemSerialNumb"]},
                    {"nodeId": "n3", "serialNumbers": ["(null string)"]}, {"nodeId": "n4", "serialNumbers": ["0000-0000-0000"]}],
    }));
    let answer = scene.run(json!({})).await;
    assert_eq!(finding(&answer, "placeholderSerials")["count"], 4);
    let status = scene.env.corp().await["status"].clone();
    assert_eq!(status["hostsWithoutSerial"], 4);
}

#[tokio::test]
async fn case_a_the_texts_of_public_lists_are_no_serials() {
    let mut scene = Scene::new(json!({})).await;
    let (world, _) = pairs(&[
        "SYS-9876543210",
        "SN-12345",
        "SN-1234567890",
        "MB-1234567890",
        "OEM_Serial",
        "Unknow",
        "empty",
        "12345",
        "12345678",
        "123456789000",
        "12345678901234567",
        "EVAL",
        "IATPASS",
        "Serial Number xxxxxx",
        "oem default string inject xxxxxxxxxx",
        "System Serial#",
        "Type2 - Board Serial Number",
        "SSN12345678901234567",
        "NB-1234567890",
        "NotApplicable",
    ]);
    scene.put(&world);
    scene.run(json!({})).await;
}

#[tokio::test]
async fn case_a_the_serials_of_real_machines_stay_serials() {
    let mut scene = Scene::new(json!({})).await;
    let (world, scores) = pairs(&[
        "5CG1234ABC",
        "VM5vodACsc+k",
        "C02D91CNPV4M",
        "4CE0123456",
        "PF012345",
        "VMware-56 4d d1 1f 26 c9 31 7d-aa 2e 01 02 37 ac a0 16",
        "7b0a1e2f-9c4d-4f0d-8f2a-6f1b7a9c3d5e",
        "0000-0012-3456-7890-1234-5678-90",
    ]);
    scene.put(&world);
    scene.run(json!(scores)).await;
}

#[tokio::test]
async fn case_a_the_user_adds_texts_and_takes_them_back() {
    let ignored = json!({"ignoredSerials": ["KIOSK*", "Stock 1", "!SN-12345"]});
    let mut scene = Scene::new(ignored).await;
    let (world, _) = pairs(&[
        "kiosk-17",
        " stock 1",
        "SN-12345",
        "SN-123456",
        "5CG1234ABC",
    ]);
    scene.put(&world);
    scene.run(json!({"n2": 2, "n4": 4})).await;
}

#[tokio::test]
async fn case_b_a_host_of_the_name_whose_serial_is_a_filler_is_named() {
    let mut scene = Scene::new(json!({})).await;
    scene.put(&json!({
        "falcon": [{"aid": "a1", "serial_number": "Default string", "hostname": "gmk-7", "score": 88}],
        "tailnet": [{"nodeId": "n1", "hostname": "gmk-7", "serialNumbers": ["M3MRCG005810LMB"]}],
    }));
    scene.run(json!({})).await;
    let told = scene.explain("n1").await;
    assert!(told.contains(&aid("a1")), "{told}");
    assert!(told.contains("DEFAULT STRING"), "{told}");
    assert!(!told.to_lowercase().contains("install the "), "{told}");
}

#[tokio::test]
async fn case_b_a_host_that_changed_its_serial_is_told() {
    let mut scene = Scene::new(json!({})).await;
    let nodes = json!([{"nodeId": "n1", "serialNumbers": ["VMware-1"]}, {"nodeId": "n2", "serialNumbers": ["VMware-2"]}]);
    let host = |serial: &str, name: &str| json!([{"aid": "a1", "serial_number": serial, "hostname": name, "score": 75}]);
    scene.put(&json!({"falcon": host("VMware-1", "vdi-001"), "tailnet": nodes}));
    scene.run(json!({"n1": 75})).await;
    scene.put(&json!({"falcon": host("VMware-2", "vdi-002")}));
    let answer = scene.run(json!({"n2": 75})).await;
    let changed = finding(&answer, "changedSerials");
    assert_eq!(changed["count"], 1, "{answer:#}");
    let told = scene.explain("n1").await;
    assert!(told.contains(&aid("a1")), "{told}");
}

#[tokio::test]
async fn case_c_of_two_machines_with_one_identity_the_named_one_has_the_score() {
    let mut scene = Scene::new(json!({})).await;
    scene.put(&json!({
        "falcon": [{"aid": "a1", "serial_number": "ZV4HQ7K2LM", "hostname": "build-mac-1", "score": 92}],
        "tailnet": [{"nodeId": "n1", "hostname": "build-mac-1", "serialNumbers": ["ZV4HQ7K2LM"], "connectedToControl": true},
                    {"nodeId": "n2", "hostname": "build-mac-2", "serialNumbers": ["ZV4HQ7K2LM"], "connectedToControl": true}],
    }));
    let answer = scene.run(json!({"n1": 92})).await;
    let shared = finding(&answer, "sharedSerials");
    assert_eq!(shared["count"], 1);
    let examples = shared["examples"].to_string();
    for text in ["zv4hq7k2lm", "build-mac-1", "build-mac-2"] {
        assert!(examples.to_lowercase().contains(text), "{examples}");
    }
}

#[tokio::test]
async fn case_c_a_reinstalled_client_shares_nothing() {
    let mut scene = Scene::new(json!({})).await;
    scene.put(&json!({
        "falcon": [{"aid": "a1", "serial_number": "ZV4HQ7K2LM", "hostname": "mac", "score": 92}],
        "tailnet": [{"nodeId": "n1", "serialNumbers": ["ZV4HQ7K2LM"], "connectedToControl": false, "hoursAgo": 5},
                    {"nodeId": "n2", "serialNumbers": ["ZV4HQ7K2LM"]}],
    }));
    let answer = scene.run(json!({"n1": 92, "n2": 92})).await;
    assert!(!answer["findings"].to_string().contains("sharedSerials"));
}

#[tokio::test]
async fn case_h_a_connected_device_with_a_silent_sensor_has_no_score() {
    let mut scene = Scene::new(json!({})).await;
    let host = |hours: i64| json!({"falcon": [{"aid": "a1", "serial_number": "5CG1111AAA", "hoursAgo": hours, "score": 90}]});
    scene.put(&json!({"tailnet": [{"nodeId": "n1", "serialNumbers": ["5CG1111AAA"], "connectedToControl": true}]}));
    scene.put(&host(40 * 24));
    let answer = scene.run(json!({})).await;
    assert_eq!(finding(&answer, "silentSensors")["count"], 1);

    scene.put(&host(1));
    scene.run(json!({"n1": 90})).await;
    // From a day on it is told, and after a week it has no score.
    for (hours, attributes) in [(30, json!({"n1": 90})), (169, json!({}))] {
        scene.put(&host(hours));
        let answer = scene.run(attributes).await;
        assert_eq!(finding(&answer, "silentSensors")["count"], 1, "{hours}");
    }
}

#[tokio::test]
async fn case_h_a_laptop_that_is_away_with_its_sensor_keeps_its_score() {
    let mut scene = Scene::new(json!({})).await;
    let world = |hours: i64| {
        json!({
            "falcon": [{"aid": "a1", "serial_number": "5CG1111AAA", "hoursAgo": hours, "score": 90}],
            "tailnet": [{"nodeId": "n1", "serialNumbers": ["5CG1111AAA"], "connectedToControl": false, "hoursAgo": hours}],
        })
    };
    for hours in [1, 169, 29 * 24] {
        scene.put(&world(hours));
        scene.run(json!({"n1": 90})).await;
    }
    scene.put(&world(31 * 24));
    scene.run(json!({})).await;
}

/// Attack H1: a dead record never speaks again because the live one was hidden.
#[tokio::test]
async fn a_dead_record_does_not_raise_a_score() {
    let mut scene = Scene::new(json!({})).await;
    scene.put(&json!({
        "falcon": [{"aid": "a1", "serial_number": "5CG1111AAA", "hostname": "pc", "hoursAgo": 100, "score": 95},
                   {"aid": "a2", "serial_number": "5CG1111AAA", "hostname": "pc", "installedHoursAgo": 90, "score": 15}],
        "tailnet": [{"nodeId": "n1", "hostname": "pc", "serialNumbers": ["5CG1111AAA"]}],
    }));
    scene.run(json!({"n1": 15})).await;
    let falcon = scene.env.sims.falcon();
    falcon.hide_host("corp", &aid("a2")).unwrap();
    scene.run(json!({"n1": 15})).await;
}

#[tokio::test]
async fn a_contained_host_takes_the_score_at_once_and_gives_it_back() {
    let mut scene = Scene::new(json!({"onMissing": "keep", "removeAfterMinutes": 60})).await;
    let host = |status: &str| json!({"falcon": [{"aid": "a1", "serial_number": "5CG1111AAA", "status": status, "score": 90}]});
    scene.put(&json!({"tailnet": [{"nodeId": "n1", "serialNumbers": ["5CG1111AAA"]}]}));
    scene.put(&host("normal"));
    scene.run(json!({"n1": 90})).await;
    for status in [
        "contained",
        "containment_pending",
        "lift_containment_pending",
        "Contained",
    ] {
        scene.put(&host(status));
        let answer = scene.run(json!({})).await;
        assert_eq!(finding(&answer, "contained")["count"], 1, "{status}");
        scene.put(&host("normal"));
        scene.run(json!({"n1": 90})).await;
    }
}

#[tokio::test]
async fn a_live_system_of_another_platform_is_not_the_machine_that_was_assessed() {
    let mut scene = Scene::new(json!({})).await;
    scene.put(&json!({
        "falcon": [{"aid": "a1", "serial_number": "5CG1111AAA", "platform_name": "Windows", "score": 90}],
        "tailnet": [{"nodeId": "n1", "os": "windows", "serialNumbers": ["5CG1111AAA"], "connectedToControl": false, "hoursAgo": 3},
                    {"nodeId": "n2", "os": "linux", "serialNumbers": ["5CG1111AAA"]},
                    {"nodeId": "n3", "os": "iOS", "serialNumbers": ["5CG1111AAA"], "connectedToControl": false, "hoursAgo": 3}],
    }));
    let answer = scene.run(json!({"n1": 90, "n3": 90})).await;
    assert_eq!(finding(&answer, "otherPlatform")["count"], 1);
}

/// A machine that starts one of two systems has two hosts with one serial number. Under one name each system has the score of its
/// own host; under two names only the one that is known by the serial number.
#[tokio::test]
async fn a_second_system_has_its_own_score_under_the_same_name() {
    for (name, attributes) in [
        ("pc", json!({"n1": 90, "n2": 70})),
        ("pc-linux", json!({"n1": 90})),
    ] {
        let mut scene = Scene::new(json!({})).await;
        scene.put(&json!({
            "falcon": [{"aid": "a1", "serial_number": "5CG1111AAA", "hostname": "pc", "platform_name": "Windows", "hoursAgo": 5, "score": 90}],
            "tailnet": [{"nodeId": "n1", "os": "windows", "hostname": "pc", "serialNumbers": ["5CG1111AAA"], "connectedToControl": false, "hoursAgo": 5}],
        }));
        scene.run(json!({"n1": 90})).await;
        scene.put(&json!({
            "falcon": [{"aid": "a2", "serial_number": "5CG1111AAA", "hostname": name, "platform_name": "Linux", "installedHoursAgo": 400, "score": 70}],
            "tailnet": [{"nodeId": "n2", "os": "linux", "hostname": name, "serialNumbers": ["5CG1111AAA"]}],
        }));
        scene.run(attributes).await;
    }
}
