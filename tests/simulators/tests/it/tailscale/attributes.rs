//! Rules of attribute writes: values, calls, expiry.

use std::time::Duration;

use posture_simulators::tailscale::{BatchEndpoint, OmittedExpiry, UnknownNode};
use serde_json::json;

use super::{BATCH, KEY, NET, patch, sims, switch, value};

#[tokio::test]
async fn a_batch_is_a_merge_patch() {
    let (sims, client) = sims().await;
    let set = patch(&client, json!({"n1CNTRL": {KEY: {"value": 71}, "custom:flag": {"value": true}}, "n2CNTRL": {KEY: {"value": 5}}})).await;
    assert_eq!((set.status, set.text().as_str()), (200, "null"));
    // omitted entries stay; null deletes; the same value is no change
    assert_eq!(patch(&client, json!({"n1CNTRL": {KEY: {"value": 64}, "custom:gone": null}, "n2CNTRL": {KEY: {"value": 5}}})).await.status, 200);
    assert_eq!(
        patch(&client, json!({"n2CNTRL": {KEY: null}})).await.status,
        200
    );
    assert_eq!(
        json!(sims.tailscale().attributes(NET).unwrap()),
        json!({"n1CNTRL": {KEY: 64, "custom:flag": true}})
    );

    let changes = sims.tailscale().changes(NET).unwrap();
    let scores: Vec<_> = changes
        .iter()
        .filter(|change| change.key == KEY)
        .map(|change| {
            (
                change.node_id.as_str(),
                change.old.clone(),
                change.new.clone(),
            )
        })
        .collect();
    assert_eq!(
        scores,
        [
            ("n1CNTRL", None, Some(json!(71))),
            ("n2CNTRL", None, Some(json!(5))),
            ("n1CNTRL", Some(json!(71)), Some(json!(64))),
            ("n2CNTRL", Some(json!(5)), None)
        ]
    );
    assert_eq!(changes[0].comment.as_deref(), Some("test"));
    let writes = sims.tailscale().writes(NET).unwrap();
    assert_eq!((writes.patch_calls, writes.patch_nodes), (3, 5));
    let read = client.get("/api/v2/device/n1CNTRL/attributes").await.json();
    assert_eq!(
        (&read["attributes"][KEY], read.get("expiries")),
        (&json!(64), None)
    );
    assert!(read["attributes"]["node:os"].is_string());
}

#[tokio::test]
async fn bad_batches_are_refused_whole() {
    let (sims, client) = sims().await;
    let soon = (sims.clock().now() + Duration::from_mins(1)).to_string();
    for bad in [
        json!({KEY: 71}),
        json!({KEY: {"expiry": soon}}),
        json!({KEY: {"value": 71, "ttl": 5}}),
        json!({KEY: {"value": 55.5}}),
        json!({KEY: {"value": 9_007_199_254_740_992_i64}}),
        json!({KEY: {"value": null}}),
        json!({KEY: {"value": [1]}}),
        json!({KEY: {"value": "2026-01-01T00:00:00Z"}}),
        json!({KEY: {"value": "x".repeat(51)}}),
        json!({KEY: {"value": 1, "expiry": "2020-01-01T00:00:00Z"}}),
        json!({KEY: {"value": 1, "expiry": "tomorrow"}}),
        json!({"falcon:ztaScore": {"value": 1}}),
        json!({"falcon:ztaScore": null}),
        json!({"ztaScore": {"value": 1}}),
        json!({"custom:zta-score": {"value": 1}}),
        json!({format!("custom:{}", "x".repeat(122)): {"value": 1}}),
        json!({"custom:a": {"value": 1}, "custom:A": {"value": 1}}),
    ] {
        let refused = patch(
            &client,
            json!({"n1CNTRL": {"custom:good": {"value": 1}}, "n2CNTRL": bad}),
        )
        .await;
        assert_eq!(refused.status, 400, "{bad}");
        assert!(!refused.message().is_empty());
    }
    assert!(sims.tailscale().attributes(NET).unwrap().is_empty());
    assert_eq!(
        client.call("PATCH", BATCH, "").await.unwrap().message(),
        "unexpected end of JSON input"
    );
    for body in [
        json!({}),
        json!({"nodes": {}, "dryRun": true}),
        json!({"nodes": {}, "comment": "x".repeat(201)}),
    ] {
        assert_eq!(
            client.send("PATCH", BATCH, &body).await.status,
            400,
            "{body}"
        );
    }
    switch(&sims, |switches| {
        switches.writable_namespaces.extend(["falcon".to_owned()]);
    });
    assert_eq!(
        patch(
            &client,
            json!({"n1CNTRL": {"falcon:ztaScore": {"value": 1}}})
        )
        .await
        .status,
        200
    );
}

#[tokio::test]
async fn a_key_has_one_type_and_one_spelling_in_a_tailnet() {
    let (sims, client) = sims().await;
    let other_spelling = "custom:ztascore";
    for (nodes, status) in [
        (json!({"n1CNTRL": {KEY: {"value": 71}}}), 200),
        (json!({"n2CNTRL": {KEY: {"value": "71"}}}), 400),
        (json!({"n2CNTRL": {other_spelling: {"value": 71}}}), 400),
        // within one batch too
        (
            json!({"n1CNTRL": {"custom:x": {"value": 1}}, "n2CNTRL": {"custom:x": {"value": true}}}),
            400,
        ),
        // the type outlives the last value; the spelling is free again
        (json!({"n1CNTRL": {KEY: null}}), 200),
        (json!({"n1CNTRL": {KEY: {"value": "71"}}}), 400),
        (json!({"n1CNTRL": {other_spelling: {"value": 71}}}), 200),
    ] {
        assert_eq!(
            patch(&client, nodes.clone()).await.status,
            status,
            "{nodes}"
        );
    }
    assert_eq!(value(&sims, "n1CNTRL", other_spelling), Some(json!(71)));
}

#[tokio::test]
async fn unknown_nodes_and_missing_endpoints_are_as_switched() {
    let (sims, client) = sims().await;
    let nodes = json!({"n1CNTRL": {KEY: {"value": 1}}, "nope": {KEY: {"value": 1}}});
    assert_eq!(patch(&client, nodes.clone()).await.status, 400);
    assert_eq!(value(&sims, "n1CNTRL", KEY), None);
    switch(&sims, |switches| {
        switches.unknown_node = UnknownNode::NotFound;
        switches.all_or_nothing = false;
    });
    assert_eq!(patch(&client, nodes.clone()).await.status, 404);
    assert_eq!(value(&sims, "n1CNTRL", KEY), Some(json!(1)));
    switch(&sims, |switches| {
        switches.unknown_node = UnknownNode::Ignored;
    });
    assert_eq!(patch(&client, nodes.clone()).await.status, 200);
    switch(&sims, |switches| switches.batch = BatchEndpoint::NotFound);
    let missing = patch(&client, nodes.clone()).await;
    assert_eq!(
        (missing.status, missing.text().as_str()),
        (404, "404 page not found\n")
    );
    switch(&sims, |switches| {
        switches.batch = BatchEndpoint::MethodNotAllowed;
    });
    assert_eq!(patch(&client, nodes).await.status, 405);
}

#[tokio::test]
async fn single_writes_follow_the_same_rules() {
    let (sims, client) = sims().await;
    let path = |node: &str, key: &str| format!("/api/v2/device/{node}/attributes/{key}");
    let set = client
        .send(
            "POST",
            &path("n1CNTRL", "custom%3AztaScore"),
            &json!({"value": 7, "comment": "why"}),
        )
        .await;
    assert_eq!((set.status, set.text().as_str()), (200, "null"));
    assert_eq!(
        sims.tailscale().changes(NET).unwrap()[0].comment.as_deref(),
        Some("why")
    );
    assert_eq!(
        client
            .send("POST", &path("n9", KEY), &json!({"value": 7}))
            .await
            .status,
        404
    );
    assert_eq!(
        client
            .send(
                "POST",
                &path("n1CNTRL", "falcon:ztaScore"),
                &json!({"value": 7})
            )
            .await
            .status,
        400
    );
    assert_eq!(
        client
            .send("POST", &path("n1CNTRL", KEY), &json!({"value": "x"}))
            .await
            .status,
        400
    );
    assert_eq!(
        client
            .send("PUT", &path("n1CNTRL", KEY), &json!({"value": 7}))
            .await
            .status,
        405
    );
    assert_eq!(
        client
            .call("DELETE", &path("n1CNTRL", KEY), "")
            .await
            .unwrap()
            .status,
        200
    );
    assert_eq!(value(&sims, "n1CNTRL", KEY), None);
}

#[tokio::test]
async fn attributes_expire_and_expiries_are_merged() {
    let (sims, client) = sims().await;
    let expiry = (sims.clock().now() + Duration::from_mins(10)).to_string();
    assert_eq!(patch(&client, json!({"n1CNTRL": {KEY: {"value": 7, "expiry": expiry}}, "n2CNTRL": {KEY: {"value": 7, "expiry": expiry}}})).await.status, 200);
    assert_eq!(
        patch(&client, json!({"n1CNTRL": {KEY: {"value": 8}}}))
            .await
            .status,
        200
    );
    let read = client.get("/api/v2/device/n1CNTRL/attributes").await.json();
    assert!(read["expiries"][KEY].is_string(), "kept, by merge patch");
    switch(&sims, |switches| {
        switches.omitted_expiry = OmittedExpiry::Cleared;
    });
    assert_eq!(
        patch(&client, json!({"n1CNTRL": {KEY: {"value": 9}}}))
            .await
            .status,
        200
    );

    sims.clock().advance(Duration::from_secs(601));
    assert_eq!(
        (value(&sims, "n1CNTRL", KEY), value(&sims, "n2CNTRL", KEY)),
        (Some(json!(9)), None)
    );
    let last = sims.tailscale().changes(NET).unwrap().pop().unwrap();
    assert_eq!(
        (last.node_id.as_str(), last.new, last.comment.as_deref()),
        ("n2CNTRL", None, Some("expired"))
    );
}
