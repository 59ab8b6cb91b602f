use super::*;

#[tokio::test]
async fn a_host_look_up_filters_by_safe_values_in_chunks() {
    let server = server(|_, asked| {
        let host = json!([{"device_id": if asked.line.contains("device_id%3A") { B } else { A }}]);
        page(&json!({"total": 1, "next": ""}), &host)
    });
    let falcon = sign_in(&server).await;
    let mut serials: BTreeSet<String> = (0..251).map(|n| format!("S{n:03}")).collect();
    serials.extend([
        "'] + device_id:*".to_owned(),
        "a\\".to_owned(),
        "*".to_owned(),
        String::new(),
    ]);
    let aids = [B, "x']", "abc"].map(Aid::from).into();
    let hosts = falcon.hosts_matching(&serials, &aids).await.unwrap();
    assert_eq!(hosts.len(), 2);
    let calls = calls(&server);
    assert_eq!(calls.len(), 3);
    assert!(calls[0].contains("filter=serial_number%3A%5B%27S000%27%2C%27S001%27%2C"));
    assert!(calls[0].ends_with("%27S249%27%5D"));
    assert!(calls[1].ends_with("filter=serial_number%3A%5B%27S250%27%5D"));
    assert!(calls[2].ends_with(&format!("filter=device_id%3A%5B%27{B}%27%5D")));
    assert!(
        falcon
            .hosts_matching(&BTreeSet::new(), &BTreeSet::new())
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn a_score_look_up_reads_old_and_new_responses() {
    let entity = |id: &str, assessment: Value| json!({"aid": id, "assessment": assessment, "assessment_items": {}});
    let list = json!([
        entity(A, json!({"overall": 19, "os": 65})),
        entity(B, json!({"overall": null})),
        entity("f", json!({"overall": 1}))
    ]);
    let unknown =
        json!([{"code": 404, "message": "One or more of the specified agent IDs is not found"}]);
    let found: Assessments = [(Aid::from(A), score(19))].into();
    let ids: BTreeSet<Aid> = [A, B, C].map(Aid::from).into();
    for (status, body, expect) in [
        (
            200,
            json!({"resources": list, "errors": []}),
            Some(found.clone()),
        ),
        (
            404,
            json!({"resources": list, "errors": unknown}),
            Some(found),
        ),
        (
            404,
            json!({"resources": null, "errors": unknown}),
            Some(Assessments::new()),
        ),
        (
            200,
            json!({"resources": [], "errors": null}),
            Some(Assessments::new()),
        ),
        // A missing path and a response without a list are errors.
        (
            404,
            json!({"errors": [{"code": 404, "message": "404: Page Not Found"}]}),
            None,
        ),
        (404, json!({}), None),
        (200, json!({"resources": null}), None),
        (
            200,
            json!({"resources": list, "errors": [{"code": 500, "message": "oh"}]}),
            None,
        ),
    ] {
        let text = body.to_string();
        let server = server(move |_, _| json(status, &body));
        let scores = sign_in(&server).await.scores_of(&ids).await;
        assert_eq!(scores.ok(), expect, "{text}");
        let path = "GET /zero-trust-assessment/entities/assessments/v1";
        assert_eq!(calls(&server)[0], format!("{path}?ids={A}&ids={B}&ids={C}"));
    }
}
