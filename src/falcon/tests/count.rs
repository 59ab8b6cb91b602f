use super::*;
use crate::upstream::error::{Progress, UpstreamErrorKind};

/// Counts hosts and scores. Returns the two results and the calls.
async fn counts(
    script: impl Fn(usize, &Asked) -> Vec<u8> + Send + 'static,
) -> ([Result<usize, UpstreamError>; 2], Vec<String>) {
    let server = server(script);
    let falcon = sign_in(&server).await;
    let results = [falcon.count_hosts().await, falcon.count_scores().await];
    (results, calls(&server))
}

#[tokio::test]
async fn a_count_is_the_announced_total_of_a_page_of_one_record() {
    let (results, calls) = counts(|number, _| match number {
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
            "GET /devices/combined/devices/v1?limit=1&fields=device_id%2Cserial_number%2Chostname%2Cfirst_seen%2Clast_seen%2Cplatform_name%2Cstatus",
            "GET /zero-trust-assessment/queries/assessments/v1?limit=1&filter=score%3A%3E%3D0",
        ]
    );
}

#[tokio::test]
async fn an_empty_account_has_no_hosts_and_no_scores() {
    let (results, _) = counts(|_, _| page(&json!({"total": 0, "after": ""}), &json!([]))).await;
    assert_eq!(results.map(Result::unwrap), [0, 0]);
}

#[tokio::test]
async fn a_missing_scope_is_named() {
    let (results, calls) =
        counts(|_, _| failure(403, &[], "access denied, scope not permitted")).await;
    let missing = |result: &Result<usize, UpstreamError>| match result {
        Err(error) if error.error_kind() == ErrorKind::MissingScope => error.operation.scope,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        results.each_ref().map(missing),
        ["Hosts: Read", "Zero Trust Assessment: Read"]
    );
    assert_eq!(calls.len(), 2);
}

#[tokio::test]
async fn a_server_error_is_retried_and_a_missing_path_is_not() {
    let (results, calls) = counts(|number, _| match number {
        0 => answer(503, &[], "<html>"),
        _ => scores(&[A], 7, ""),
    })
    .await;
    assert_eq!(results.map(Result::unwrap), [7, 7]);
    assert_eq!(calls.len(), 3);
    let (results, calls) = counts(|_, _| failure(404, &[], "404: Page Not Found")).await;
    for result in results {
        assert!(result.unwrap_err().is_rejected_with(404));
    }
    assert_eq!(calls.len(), 2);
}

#[tokio::test]
async fn a_response_without_a_total_is_an_error() {
    for body in [
        "{}",
        "null",
        "<html>",
        r#"{"meta":{"pagination":{"next":""}},"resources":[]}"#,
        r#"{"meta":{"pagination":{"total":"7"}},"resources":[{}]}"#,
        r#"{"meta":{"pagination":{"total":-1}},"resources":[]}"#,
        r#"{"meta":{"pagination":{"total":7}},"resources":[{}],"errors":[{"code":400,"message":"oh"}]}"#,
    ] {
        let (results, calls) = counts(move |_, _| answer(200, &[], body)).await;
        for result in results {
            let kind = result.unwrap_err().kind;
            assert!(
                matches!(kind, UpstreamErrorKind::Protocol),
                "{body}: {kind:?}"
            );
        }
        assert_eq!(calls.len(), 2);
    }
}

#[tokio::test]
async fn a_total_that_the_page_contradicts_is_an_error() {
    for (ids, total) in [(&[A, B][..], 1), (&[A], 0), (&[], 9)] {
        let (results, calls) = counts(move |_, _| scores(ids, total, "")).await;
        for result in results {
            let got = ids.len();
            let kind = result.unwrap_err().kind;
            assert!(
                matches!(kind, UpstreamErrorKind::Incomplete(progress) if progress == Progress { got, total }),
                "{kind:?}"
            );
        }
        assert_eq!(calls.len(), 2);
    }
}
