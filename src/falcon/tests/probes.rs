use super::*;

/// What the two probes say to one answer, hosts first, and what they ask.
async fn probes(
    script: impl Fn(usize, &Asked) -> Vec<u8> + Send + 'static,
) -> ([Result<usize, UpstreamError>; 2], Vec<String>) {
    let server = server(script);
    let falcon = sign_in(&server).await;
    let results = [falcon.probe_hosts().await, falcon.probe_scores().await];
    (results, calls(&server))
}

#[tokio::test]
async fn a_probe_is_the_listing_of_one_record_and_tells_the_announced_total() {
    let (results, calls) = probes(|number, _| match number {
        0 => page(
            &json!({"total": 12345, "offset": "x", "next": "more"}),
            &json!([{"device_id": A, "new": {}}]),
        ),
        _ => scores(&[B], 678, "more"),
    })
    .await;
    assert_eq!(results.map(Result::unwrap), [12345, 678]);
    assert_eq!(
        calls,
        [
            "GET /devices/combined/devices/v1?limit=1&fields=device_id%2Cserial_number%2Chostname%2Clast_seen",
            "GET /zero-trust-assessment/queries/assessments/v1?limit=1&filter=score%3A%3E%3D0",
        ]
    );
}

#[tokio::test]
async fn an_empty_account_has_none() {
    let (results, _) = probes(|_, _| page(&json!({"total": 0, "after": ""}), &json!([]))).await;
    assert_eq!(results.map(Result::unwrap), [0, 0]);
}

#[tokio::test]
async fn a_missing_scope_is_named() {
    let (results, calls) =
        probes(|_, _| failure(403, &[], "access denied, scope not permitted")).await;
    let missing = |result: &Result<usize, UpstreamError>| match result {
        Err(UpstreamError::MissingScope { scope, .. }) => *scope,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        results.each_ref().map(missing),
        ["Hosts: Read", "Zero Trust Assessment: Read"]
    );
    assert_eq!(calls.len(), 2);
}

#[tokio::test]
async fn a_failure_is_tried_again_and_a_path_that_is_not_there_is_not() {
    let (results, calls) = probes(|number, _| match number {
        0 => answer(503, &[], "<html>"),
        _ => scores(&[A], 7, ""),
    })
    .await;
    assert_eq!(results.map(Result::unwrap), [7, 7]);
    assert_eq!(calls.len(), 3);
    let (results, calls) = probes(|_, _| failure(404, &[], "404: Page Not Found")).await;
    for result in results {
        assert!(
            matches!(result, Err(UpstreamError::Rejected { status: 404, .. })),
            "{result:?}"
        );
    }
    assert_eq!(calls.len(), 2);
}

#[tokio::test]
async fn an_answer_without_a_number_is_an_error() {
    for body in [
        "{}",
        "null",
        "<html>",
        r#"{"meta":{"pagination":{"next":""}},"resources":[]}"#,
        r#"{"meta":{"pagination":{"total":"7"}},"resources":[{}]}"#,
        r#"{"meta":{"pagination":{"total":-1}},"resources":[]}"#,
        r#"{"meta":{"pagination":{"total":7}},"resources":[{}],"errors":[{"code":400,"message":"oh"}]}"#,
    ] {
        let (results, calls) = probes(move |_, _| answer(200, &[], body)).await;
        for result in results {
            assert!(
                matches!(result, Err(UpstreamError::Protocol { .. })),
                "{body}: {result:?}"
            );
        }
        assert_eq!(calls.len(), 2);
    }
}

#[tokio::test]
async fn a_number_that_the_page_contradicts_is_not_believed() {
    for (ids, total) in [(&[A, B][..], 1), (&[A], 0), (&[], 9)] {
        let (results, calls) = probes(move |_, _| scores(ids, total, "")).await;
        for result in results {
            assert!(
                matches!(result, Err(UpstreamError::Incomplete { got, total: announced, .. })
                    if got == ids.len() && announced == total),
                "{result:?}"
            );
        }
        assert_eq!(calls.len(), 2);
    }
}
