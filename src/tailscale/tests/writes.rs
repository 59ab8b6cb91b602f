//! Attributes are written in batches. A batch with a rejected device is bisected.

use super::*;
use jiff::Timestamp;

pub(super) fn write(node: &str, set: Option<u8>, delete: bool) -> AttributeWrite {
    AttributeWrite {
        node_id: id(node),
        set: set.map(|score| SetAttribute {
            key: "custom:ztaScore".to_owned().try_into().unwrap(),
            score,
            expiry: Some("2026-02-01T12:00:00Z".parse().unwrap()),
        }),
        delete: delete.then(|| "custom:old".to_owned().try_into().unwrap()),
    }
}

fn writes(range: std::ops::Range<usize>) -> Vec<AttributeWrite> {
    range
        .map(|n| write(&format!("n{n:03}"), Some(50), false))
        .collect()
}

/// Returns the nodes in the body of a batch.
fn nodes(asked: &Asked) -> Vec<String> {
    let body: Value = serde_json::from_str(&asked.body).unwrap();
    body["nodes"].as_object().unwrap().keys().cloned().collect()
}

/// Starts a server that rejects a batch with a node that is `bad`.
fn rejecting_server(bad: fn(&str) -> bool) -> Server {
    server(move |_, asked| {
        if nodes(asked).iter().any(|node| bad(node)) {
            message(400, "unknown node")
        } else {
            answer(200, &[], "null")
        }
    })
}

#[tokio::test]
async fn a_batch_is_one_merge_patch() {
    let server = server(|_, _| answer(200, &[], "null"));
    let changes = [write("nA", Some(71), true), write("nB", None, true)];
    let result = sign_in(&server)
        .await
        .writer()
        .write(&changes, &"y".repeat(300), Timestamp::MAX)
        .await;
    assert_eq!(result.accepted, [id("nA"), id("nB")]);
    assert!(result.rejected.is_empty() && result.error.is_none());
    assert_eq!(
        calls(&server),
        ["PATCH /api/v2/tailnet/example.com/device-attributes"]
    );
    let body: Value = serde_json::from_str(&server.asked()[1].body).unwrap();
    assert_eq!(
        body["nodes"],
        json!({
            "nA": {"custom:ztaScore": {"value": 71, "expiry": "2026-02-01T12:00:00Z"}, "custom:old": null},
            "nB": {"custom:old": null},
        })
    );
    assert_eq!(body["comment"].as_str().unwrap().chars().count(), 200);
}

#[test]
fn a_batch_is_a_merge_patch_of_objects_and_nulls() {
    let changes = [write("nA", Some(71), true)];
    assert_eq!(
        serde_json::to_value(writer::batch_body(&changes, "why")).unwrap(),
        json!({
            "nodes": {"nA": {"custom:ztaScore": {"value": 71, "expiry": "2026-02-01T12:00:00Z"}, "custom:old": null}},
            "comment": "why",
        })
    );
}

#[tokio::test]
async fn a_rejected_device_is_found_and_the_others_are_written() {
    let server = rejecting_server(|node| node == "n042" || node == "n101");
    let result = sign_in(&server)
        .await
        .writer()
        .write(&writes(0..150), "why", Timestamp::MAX)
        .await;
    assert_eq!(result.accepted.len(), 148);
    let unknown = "unknown node".to_owned();
    assert_eq!(
        result.rejected,
        [(id("n042"), unknown.clone()), (id("n101"), unknown)]
    );
    assert!(result.error.is_none());
}

#[tokio::test]
async fn bisecting_ends_if_all_devices_are_rejected() {
    let server = rejecting_server(|_| true);
    let tailscale = sign_in(&server).await;
    let writer = tailscale.writer();
    let result = writer.write(&writes(0..1000), "why", Timestamp::MAX).await;
    assert_eq!(result.rejected.len(), 1000);
    let first = calls(&server).len();
    assert!(first < 200, "{first}");
    let result = writer.write(&writes(0..100), "why", Timestamp::MAX).await;
    assert_eq!(result.rejected.len(), 100);
    assert_eq!(
        calls(&server).len(),
        first + 3,
        "a hundred, and two times fifty"
    );
}

#[tokio::test]
async fn after_many_rejections_one_bad_device_affects_few_others() {
    let server = rejecting_server(|node| node < "n100" || node == "n700");
    let tailscale = sign_in(&server).await;
    let writer = tailscale.writer();
    assert_eq!(
        writer
            .write(&writes(0..100), "why", Timestamp::MAX)
            .await
            .rejected
            .len(),
        100
    );
    let result = writer
        .write(&writes(500..1000), "why", Timestamp::MAX)
        .await;
    assert!(result.error.is_none());
    assert_eq!(result.accepted.len() + result.rejected.len(), 500);
    let rejected: Vec<&str> = result
        .rejected
        .iter()
        .map(|(id, _)| id.0.as_str())
        .collect();
    assert!(
        rejected.contains(&"n700") && rejected.len() <= 50,
        "{rejected:?}"
    );
}

#[tokio::test]
async fn the_maximum_batch_is_found_and_remembered() {
    let server = server(|_, asked| {
        if nodes(asked).len() > 130 {
            message(400, "too many nodes")
        } else {
            answer(200, &[], "null")
        }
    });
    let tailscale = sign_in(&server).await;
    let writer = tailscale.writer();
    let result = writer.write(&writes(0..500), "why", Timestamp::MAX).await;
    assert_eq!((result.accepted.len(), result.rejected.len()), (500, 0));
    let first = calls(&server).len();
    assert_eq!(first, 1 + 2 + 4);
    let result = writer
        .write(&writes(500..1000), "why", Timestamp::MAX)
        .await;
    assert_eq!((result.accepted.len(), result.rejected.len()), (500, 0));
    assert_eq!(calls(&server).len(), first + 4, "no more than it takes");
}

#[tokio::test]
async fn a_general_failure_ends_the_writing_and_keeps_accepted_writes() {
    let server = server(|number, _| match number {
        0 => answer(200, &[], "null"),
        _ => message(
            403,
            "calling actor does not have enough permissions to perform this function",
        ),
    });
    let result = sign_in(&server)
        .await
        .writer()
        .write(&writes(0..750), "why", Timestamp::MAX)
        .await;
    assert_eq!(result.accepted.len(), 500);
    assert!(result.rejected.is_empty());
    let error = result.error.unwrap().to_string();
    assert!(
        error.contains("lacks the scope devices:posture_attributes"),
        "{error}"
    );
    // The first batch, the second one, and three of its devices alone.
    assert_eq!(calls(&server).len(), 5);
}

#[tokio::test]
async fn a_batch_is_retried() {
    let server = server(|number, _| match number {
        0 => answer(502, &[], "<html>"),
        1 => answer(429, &["retry-after: 0"], ""),
        2 => Vec::new(),
        _ => answer(200, &[], "null"),
    });
    let result = sign_in(&server)
        .await
        .writer()
        .write(&writes(0..1), "why", Timestamp::MAX)
        .await;
    assert_eq!(result.accepted.len(), 1);
}

#[tokio::test]
async fn without_a_batch_call_attributes_are_written_singly() {
    for missing in [
        answer(405, &[], ""),
        answer(404, &[], "404 page not found"),
        answer(501, &[], ""),
    ] {
        let server = server(move |_, asked| match asked.line.as_str() {
            line if line.starts_with("PATCH") => missing.clone(),
            "POST /api/v2/device/nB/attributes/custom:ztaScore" => message(404, "no such device"),
            line if line.starts_with("DELETE") => message(404, "no such attribute"),
            _ => answer(200, &[], "null"),
        });
        let changes = [
            write("nA", Some(71), true),
            write("nB", Some(1), false),
            write("nC", None, true),
        ];
        let tailscale = sign_in(&server).await;
        let writer = tailscale.writer();
        let result = writer.write(&changes, "why", Timestamp::MAX).await;
        assert_eq!(result.accepted, [id("nA"), id("nC")]);
        assert_eq!(result.rejected, [(id("nB"), "no such device".to_owned())]);
        assert!(result.error.is_none());
        let mut asked = calls(&server);
        asked.sort();
        assert_eq!(
            asked,
            [
                "DELETE /api/v2/device/nA/attributes/custom:old",
                "DELETE /api/v2/device/nC/attributes/custom:old",
                "PATCH /api/v2/tailnet/example.com/device-attributes",
                "POST /api/v2/device/nA/attributes/custom:ztaScore",
                "POST /api/v2/device/nB/attributes/custom:ztaScore",
            ]
        );
        let post = server
            .asked()
            .into_iter()
            .find(|asked| asked.line.contains("POST /api/v2/device/nA"));
        assert_eq!(
            post.unwrap().body,
            r#"{"value":71,"expiry":"2026-02-01T12:00:00Z","comment":"why"}"#
        );
        // The batch call is not tried again.
        writer.write(&changes[..1], "why", Timestamp::MAX).await;
        assert_eq!(
            calls(&server)
                .iter()
                .filter(|line| line.starts_with("PATCH"))
                .count(),
            1
        );
    }
}

/// Writes to 20 devices of a control plane without a batch call, which forbids some of them.
async fn write_singly(is_forbidden: fn(&str) -> bool) -> crate::tailscale::writer::WriteResult {
    let server = server(move |_, asked| match asked.line.as_str() {
        line if line.starts_with("PATCH") => answer(405, &[], ""),
        line if is_forbidden(line) => message(403, "no permission"),
        _ => answer(200, &[], "null"),
    });
    let tailscale = sign_in(&server).await;
    let writer = tailscale.writer();
    writer.write(&writes(0..20), "why", Timestamp::MAX).await
}

#[tokio::test]
async fn of_single_writes_one_that_is_forbidden_is_its_devices_own() {
    let result = write_singly(|line| line.contains("n005")).await;
    assert_eq!((result.accepted.len(), result.rejected.len()), (19, 1));
    assert!(result.error.is_none() && !result.is_uncertain);
}

#[tokio::test]
async fn single_writes_end_at_a_general_failure_and_keep_accepted_writes() {
    let result = write_singly(|line| !line.contains("n000")).await;
    assert_eq!((result.accepted.len(), result.rejected.len()), (1, 3));
    assert!(result.error.unwrap().error_kind().pauses());
}
