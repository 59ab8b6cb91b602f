use super::*;

#[tokio::test]
async fn hosts_are_paged_by_next_of_any_scalar_type() {
    let server = server(|number, _| match number {
        0 => page(
            &json!({"total": 3, "offset": "x", "next": 42}),
            &json!([{"device_id": A, "hostname": "old"}, {"device_id": B}]),
        ),
        _ => page(
            &json!({"total": 3, "offset": 0}),
            &json!([{"device_id": A, "hostname": "new"}, {"device_id": C}]),
        ),
    });
    let hosts = sign_in(&server).await.hosts().await.unwrap();
    let names: Vec<_> = hosts
        .values()
        .map(|host| (host.aid.to_string(), host.hostname.as_deref()))
        .collect();
    assert_eq!(
        names,
        [
            (A.to_owned(), Some("new")),
            (B.to_owned(), None),
            (C.to_owned(), None)
        ]
    );
    let first = "GET /devices/combined/devices/v1?limit=10000&fields=device_id%2Cserial_number%2Chostname%2Cfirst_seen%2Clast_seen%2Cplatform_name%2Cstatus";
    assert_eq!(
        calls(&server),
        [first.to_owned(), format!("{first}&offset=42")]
    );
    let asked = server.asked();
    assert!(
        asked[1]
            .headers
            .contains(&"authorization: bearer t0ken".to_owned())
    );
    assert!(
        asked[1]
            .headers
            .contains(&"accept-encoding: gzip".to_owned())
    );
}

#[tokio::test]
async fn an_invalid_host_does_not_affect_the_others() {
    let server = server(|_, _| {
        page(
            &json!({"total": 5}),
            &json!([
                {"device_id": A.to_uppercase(), "serial_number": " c02d91cnpv4m ", "hostname": "x".repeat(300),
                 "last_seen": "2023-05-22T17:20:01Z", "cid": 7, "tags": null},
                {"device_id": B, "serial_number": "Default string", "hostname": "", "last_seen": "yesterday"},
                {"device_id": C, "serial_number": 7, "hostname": null, "last_seen": ["now"]},
                {"serial_number": "PF0LOST"},
                null,
            ]),
        )
    });
    let hosts = sign_in(&server).await.hosts().await.unwrap();
    assert_eq!(hosts.len(), 3);
    let hosts: Vec<_> = hosts.into_values().collect();
    assert_eq!(hosts[0].aid, Aid::from(A));
    assert_eq!(hosts[0].serial.as_ref().unwrap().as_str(), "C02D91CNPV4M");
    assert_eq!(hosts[0].hostname.as_ref().unwrap().chars().count(), 256);
    assert_eq!(hosts[0].last_seen.unwrap().as_second(), 1_684_776_001);
    for host in &hosts[1..] {
        assert_eq!((&host.hostname, &host.last_seen), (&None, &None));
    }
    // A filler is judged with the integration's settings, which the client does not have.
    assert_eq!(hosts[1].serial.as_ref().unwrap().as_str(), "DEFAULT STRING");
    assert_eq!(hosts[2].serial, None);
}

#[tokio::test]
async fn a_host_tells_its_times_its_platform_and_whether_it_is_contained() {
    let record = |aid: &str, platform: &str, status: &Value| {
        json!({"device_id": aid, "first_seen": "2023-05-22T17:00:01Z", "last_seen": "2023-05-22T17:20:01Z",
               "platform_name": platform, "status": status})
    };
    let records = json!([
        record(A, "Windows", &json!("normal")),
        record(B, "Mac", &json!("Lift_Containment_Pending ")),
        record(C, "ChromeOS", &json!(["contained"])),
    ]);
    let server = server(move |_, _| page(&json!({"total": 3}), &records));
    let hosts = sign_in(&server).await.hosts().await.unwrap();
    let told: Vec<_> = hosts
        .values()
        .map(|host| (host.platform, host.is_contained))
        .collect();
    assert_eq!(
        told,
        [
            (Platform::Windows, false),
            (Platform::MacOs, true),
            (Platform::Other, false)
        ]
    );
    let first_seen = hosts[&Aid::from(A)].first_seen.unwrap();
    assert_eq!(first_seen.as_second(), 1_684_774_801);
}

#[tokio::test]
async fn scores_are_paged_by_after_or_next_and_the_lower_of_two_counts() {
    let server = server(|number, _| match number {
        0 => page(
            &json!({"total": 4, "after": "p2"}),
            &json!([{"aid": A, "score": 80}]),
        ),
        1 => page(
            &json!({"total": 4, "next": "p3"}),
            &json!([{"aid": B, "score": 10}, {"aid": A, "score": 20}]),
        ),
        _ => page(
            &json!({"total": 4, "after": ""}),
            &json!([{"aid": C, "score": 1}, {"aid": B, "score": 90}]),
        ),
    });
    let scores = sign_in(&server).await.scores(&ranges(&[])).await.unwrap();
    let values: Vec<_> = scores.values().cloned().collect();
    assert_eq!(values, [score(20), score(10), score(1)]);
    let first =
        "GET /zero-trust-assessment/queries/assessments/v1?limit=1000&filter=score%3A%3E%3D0";
    assert_eq!(
        calls(&server),
        [
            first.to_owned(),
            format!("{first}&after=p2"),
            format!("{first}&after=p3")
        ]
    );
}

#[tokio::test]
async fn only_an_integer_from_0_to_100_is_a_score() {
    for (value, expect) in [
        (json!(0), score(0)),
        (json!(100), score(100)),
        (json!(101), Assessment::Invalid("101".to_owned())),
        (json!(-1), Assessment::Invalid("-1".to_owned())),
        (json!(55.0), score(55)),
        (json!(5.5e1), score(55)),
        (json!(1e2), score(100)),
        (json!(-0.0), score(0)),
        (json!(55.5), Assessment::Invalid("55.5".to_owned())),
        (json!(100.5), Assessment::Invalid("100.5".to_owned())),
        (json!(-1.0), Assessment::Invalid("-1.0".to_owned())),
        (json!(1e300), Assessment::Invalid("1e+300".to_owned())),
        (json!("55"), Assessment::Invalid("\"55\"".to_owned())),
        (json!(null), Assessment::Invalid("null".to_owned())),
        (json!(u64::MAX), Assessment::Invalid(u64::MAX.to_string())),
        (
            json!("x".repeat(99)),
            Assessment::Invalid(format!("\"{}…", "x".repeat(38))),
        ),
    ] {
        let server =
            server(move |_, _| page(&json!({"total": 1}), &json!([{"aid": A, "score": value}])));
        let scores = sign_in(&server).await.scores(&ranges(&[])).await.unwrap();
        assert_eq!(scores[&Aid::from(A)], expect);
    }
}

#[tokio::test]
async fn a_listing_ends_with_its_records() {
    // The announced number of records, with a cursor.
    assert_eq!(
        list_scores(|_, _| scores(&[A, B], 2, "more")).await,
        (1, Ok(2))
    );
    // No records.
    assert_eq!(list_scores(|_, _| scores(&[], 0, "")).await, (1, Ok(0)));
    // The page past the end, with a total of 0.
    let past = |number, _: &Asked| match number {
        0 => scores(&[A, B, A], 3, "more"),
        _ => scores(&[], 0, ""),
    };
    assert_eq!(list_scores(past).await, (2, Ok(2)));
    // A record disappears between two pages.
    let shrinking = |number, _: &Asked| match number {
        0 => scores(&[A], 3, "more"),
        _ => scores(&[B], 2, ""),
    };
    assert_eq!(list_scores(shrinking).await, (2, Ok(2)));
}

#[tokio::test]
async fn an_incomplete_listing_is_read_again_once() {
    let incomplete = |got, total| {
        Err(format!(
            "Falcon: score listing failed: incomplete after {got} of {total} records"
        ))
    };
    assert_eq!(
        list_scores(|_, _| scores(&[A], 3, "")).await,
        (2, incomplete(1, 3))
    );
    assert_eq!(
        list_scores(|_, _| scores(&[], 3, "more")).await,
        (2, incomplete(0, 3))
    );
    // A circular cursor.
    assert_eq!(
        list_scores(|_, _| scores(&[A], 3, "more")).await,
        (4, incomplete(2, 3))
    );
    // An expired cursor.
    let expired = |_, asked: &Asked| {
        if asked.line.contains("after") {
            failure(
                404,
                &[],
                "Search context expired, 'after' key no longer valid",
            )
        } else {
            scores(&[A], 3, "more")
        }
    };
    assert_eq!(list_scores(expired).await, (4, incomplete(1, 3)));
    let repaired = |number, _: &Asked| match number {
        0 => scores(&[A], 3, ""),
        _ => scores(&[A, B, C], 3, ""),
    };
    assert_eq!(list_scores(repaired).await, (2, Ok(3)));
}

#[tokio::test]
async fn a_response_of_another_form_is_an_error() {
    let errors = |code: u16| {
        let meta = json!({"pagination": {"total": 0}});
        json(
            200,
            &json!({"meta": meta, "resources": [], "errors": [{"code": code, "message": "oh"}]}),
        )
    };
    let (calls, result) = list_scores(move |_, _| errors(500)).await;
    assert_eq!(calls, 4);
    assert!(result.unwrap_err().ends_with("score listing failed: oh"));
    let (calls, result) = list_scores(move |_, _| errors(404)).await;
    assert_eq!(calls, 1);
    assert!(
        result
            .unwrap_err()
            .ends_with("a successful response with an error: oh")
    );
    let (calls, result) = list_scores(|_, _| page(&json!({"after": ""}), &json!([]))).await;
    assert_eq!(calls, 1);
    assert!(result.unwrap_err().contains("at meta.pagination (line 1"));
    let (calls, _) = list_scores(|_, _| answer(200, &[], "{\"meta\":")).await;
    assert_eq!(calls, 4);
}

/// A simulated score listing.
struct ScoreListing {
    scores: std::cell::RefCell<Vec<(String, usize)>>,
    in_order: bool,
    /// The number of records after which no cursor is offered.
    max_records: usize,
}

impl ScoreListing {
    fn uniform(count: usize) -> Self {
        let scores = (0..count).map(|n| (format!("{n:032x}"), n * 37 % 101));
        Self {
            scores: std::cell::RefCell::new(scores.collect()),
            in_order: true,
            max_records: usize::MAX,
        }
    }

    fn assessments(&self) -> std::collections::BTreeMap<Aid, Assessment> {
        let scores = self.scores.borrow();
        let entry = |(aid, value): &(String, usize)| {
            (
                Aid::from(aid.as_str()),
                score(i64::try_from(*value).unwrap()),
            )
        };
        scores.iter().map(entry).collect()
    }

    fn answer(&self, asked: &Asked) -> Vec<u8> {
        let url = Url::parse(&format!(
            "http://x{}",
            asked.line.trim_start_matches("GET ")
        ))
        .unwrap();
        let parameter = |name: &str| {
            let found = url.query_pairs().find(|(key, _)| key == name);
            found
                .map(|(_, value)| value.into_owned())
                .unwrap_or_default()
        };
        let filter = parameter("filter");
        let bound = |start: &str, default: usize| {
            let terms = filter.split('+').find_map(|term| term.strip_prefix(start));
            terms.map_or(default, |text| text.parse().unwrap())
        };
        let (min, max) = (bound("score:>=", 0), bound("score:<=", 100));
        let mut found = self.scores.borrow().clone();
        found.retain(|(_, score)| (min..=max).contains(score));
        if self.in_order {
            found.sort_by_key(|(aid, score)| (*score, aid.clone()));
            if parameter("sort") == "score|desc" {
                found.reverse();
            }
        }
        let start: usize = parameter("after").parse().unwrap_or(0);
        let records: Vec<Value> = found
            .iter()
            .skip(start)
            .take(1_000)
            .map(|(aid, score)| json!({"aid": aid, "score": score}))
            .collect();
        let end = start + records.len();
        let after = if end < found.len().min(self.max_records) {
            end.to_string()
        } else {
            String::new()
        };
        page(
            &json!({"total": found.len(), "after": after}),
            &json!(records),
        )
    }
}

/// Lists scores without a known distribution. Returns the number of calls and the result.
async fn scan_scores(
    script: impl Fn(usize, &Asked) -> Vec<u8> + Send + 'static,
) -> (usize, Result<Assessments, String>) {
    let server = server(script);
    let falcon = sign_in(&server).await;
    let first = falcon.first_scores().await.unwrap();
    let scores = falcon.remaining_scores(first).await;
    (
        calls(&server).len(),
        scores.map_err(|error| error_chain(&error)),
    )
}

#[tokio::test]
async fn a_scan_from_both_ends_takes_few_more_requests() {
    for (count, max_calls) in [
        (0, 1),
        (999, 1),
        (1_000, 1),
        (1_001, 2),
        (9_500, 11),
        (40_000, 43),
    ] {
        let listing = ScoreListing::uniform(count);
        let expect = listing.assessments();
        let (calls, scores) = scan_scores(move |_, asked| listing.answer(asked)).await;
        assert_eq!(scores.unwrap(), expect, "{count}");
        assert!(calls <= max_calls, "{calls} calls for {count} scores");
    }
}

#[tokio::test]
async fn a_listing_in_another_order_is_read_from_the_start() {
    let listing = ScoreListing {
        in_order: false,
        ..ScoreListing::uniform(4_500)
    };
    let expect = listing.assessments();
    let (_, scores) = scan_scores(move |_, asked| listing.answer(asked)).await;
    assert_eq!(scores.unwrap(), expect);
}

#[tokio::test]
async fn a_partial_scan_is_an_error() {
    let listing = ScoreListing {
        max_records: 2_000,
        ..ScoreListing::uniform(6_000)
    };
    let (_, scores) = scan_scores(move |_, asked| listing.answer(asked)).await;
    assert_eq!(
        scores.unwrap_err(),
        "Falcon: score listing failed: incomplete after 2000 of 6000 records"
    );
}

#[tokio::test]
async fn moving_scores_are_missed_or_the_lower_ones() {
    let listing = ScoreListing::uniform(8_000);
    let before = listing.assessments();
    let (_, scores) = scan_scores(move |number, asked| {
        for (position, (_, score)) in listing.scores.borrow_mut().iter_mut().enumerate() {
            if position % 50 == number % 50 {
                *score = if position % 100 < 50 { 99 } else { 1 };
            }
        }
        listing.answer(asked)
    })
    .await;
    let scores = scores.unwrap();
    // Only scores that moved are missing.
    assert!(scores.len() > 8_000 * 3 / 4, "{}", scores.len());
    for (aid, found) in scores {
        let moved = [&before[&aid], &score(99), &score(1)];
        assert!(moved.contains(&&found), "{aid} {found:?}");
    }
}
