//! A Falcon that answers anything.

use std::collections::BTreeSet;

use jiff::Timestamp;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use super::*;
use crate::domain::inventory::serial::Serial;
use crate::falcon::paging::Collected;
use crate::testing::hostile::{
    MARK, Script, answers, assert_error, assert_fit, bytes, cases, check, text,
};

/// The successful response of each call.
fn documents() -> Vec<Value> {
    let page = |records: Value| {
        let total = records.as_array().unwrap().len() + 1;
        let pagination =
            json!({"total": total, "limit": 1000, "after": "p2", "next": "p2", "offset": 7});
        json!({"meta": {"pagination": pagination, "trace_id": "x"}, "resources": records, "errors": []})
    };
    vec![
        json!({"access_token": format!("{MARK}.t0ken"), "expires_in": 1799, "token_type": "bearer", "scope": "a b"}),
        page(json!([
            {"device_id": A, "serial_number": "C02D91CNPV4M", "hostname": MARK, "last_seen": "2023-05-22T17:20:01Z"},
            {"device_id": B, "serial_number": MARK, "hostname": "b"},
        ])),
        page(json!([{"aid": A, "score": 70}, {"aid": B, "score": MARK}])),
        page(json!([{"aid": C, "assessment": {"overall": 70, "os": 1}}])),
        json!({"meta": {"pagination": {"total": 0}}, "resources": null, "errors": null}),
        json!({"meta": {}, "resources": [], "errors": [{"code": 500, "message": MARK, "id": null}]}),
        json!({"errors": [{"code": 404, "message": "Assessment not found"}], "resources": [{"aid": A, "assessment": null}]}),
    ]
}

/// Header lines. No wait that a run would sit out is among them.
fn header() -> impl Strategy<Value = String> {
    let name = select(vec![
        "x-ratelimit-limit",
        "x-ratelimit-retryafter",
        "retry-after",
        "x-cs-region",
        "x-cs-traceid",
        "location",
        "content-encoding",
    ]);
    let value = prop_oneof![
        select(vec![
            "0",
            "-1",
            "15",
            "9223372036854775807",
            "-9223372036854775808",
            "253402300800",
            "1e9",
            "NaN",
            "us-2",
            "gzip",
            "identity",
            "//127.0.0.1:9/oauth2/token",
            "Fri, 31 Dec 9999 23:59:59 GMT",
            "",
        ])
        .prop_map(str::to_owned),
        "[!-~]{0,60}",
    ];
    (name, value).prop_map(|(name, value)| format!("{name}: {value}"))
}

fn status() -> impl Strategy<Value = u16> {
    prop_oneof![
        6 => select(vec![200_u16, 201]),
        3 => select(vec![301_u16, 308, 400, 401, 403, 404, 408, 429, 500, 503]),
        1 => 100..600_u16,
    ]
}

/// A body of its kind, or an error in any words.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let error = (any::<u16>(), text()).prop_map(|(code, text)| {
        let body = json!({"meta": {}, "errors": [{"code": code, "message": text}]});
        body.to_string().into_bytes()
    });
    prop_oneof![4 => bytes(documents()), 1 => error]
}

fn assert_aid(aid: &Aid) {
    let text = aid.to_string();
    assert_fit(&text, 128);
    assert!(!text.is_empty() && text == text.to_ascii_lowercase());
}

fn assert_hosts(hosts: &Hosts) {
    for host in hosts.values() {
        assert_aid(&host.aid);
        if let Some(serial) = &host.serial {
            assert_fit(serial.as_str(), Serial::MAX_CHARS);
            assert_eq!(Serial::parse(serial.as_str()).as_ref(), Ok(serial));
        }
        assert_fit(host.hostname.as_deref().unwrap_or_default(), 256);
    }
}

fn assert_scores(scores: &Assessments) {
    for (aid, assessment) in scores {
        assert_aid(aid);
        match assessment {
            Assessment::Score(score) => assert!(score.get() <= 100),
            Assessment::Invalid(text) => assert_fit(text, 40),
        }
    }
}

async fn every_call(falcon: &Falcon) {
    let serials = BTreeSet::from(["A".to_owned(), "A'B".to_owned()]);
    let aids = BTreeSet::from([A, C].map(Aid::from));
    check(falcon.hosts().await, |hosts| assert_hosts(&hosts));
    check(falcon.scores(&ranges(&[])).await, |scores| {
        assert_scores(&scores);
    });
    check(falcon.hosts_matching(&serials, &aids).await, |hosts| {
        assert_hosts(&hosts);
    });
    check(falcon.scores_of(&aids).await, |scores| {
        assert_scores(&scores);
    });
    check(falcon.count_hosts().await, |_| ());
    check(falcon.count_scores().await, |_| ());
}

/// Seven calls, in two rounds of four tries each at most, with a token for each, through some pages.
const MANY: usize = 300;

#[test]
fn whatever_falcon_answers_is_a_value_that_keeps_its_promise_or_an_error_that_is_fit_to_be_shown() {
    let script = Script::default();
    let answers_of = script.clone();
    let server = server(move |_, _| answers_of.next());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let falcon = runtime.block_on(sign_in(&server));
    proptest!(cases(300), |(answers in answers(status(), header(), body()))| {
        script.load(answers);
        runtime.block_on(every_call(&falcon));
        prop_assert!(script.asked() < MANY, "{} requests", script.asked());
    });
}

#[test]
fn whatever_the_token_call_answers_is_a_token_or_an_error_that_repeats_nothing() {
    let script = Script::default();
    let answers_of = script.clone();
    let server = Server::new(move |_, _| answers_of.next());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let client = client();
    let here = cloud("us-1");
    let clouds = [(here.clone(), server.url.clone())].into();
    proptest!(cases(200), |(answers in answers(status(), header(), body()))| {
        script.load(answers);
        let signing_in = Falcon::sign_in(client.clone(), &clouds, &here, credentials());
        if let Err(error) = runtime.block_on(signing_in) {
            assert_error(&error);
            let text = error_chain(&error);
            prop_assert!(!text.contains(MARK) && !text.contains("s3cret"), "{text}");
        }
        prop_assert!(script.asked() <= 8, "{} requests", script.asked());
    });
}

/// The headers of a quota, a wait and a region, in any combination.
fn headers() -> impl Strategy<Value = HeaderMap> {
    let names = [
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-retryafter",
        "x-cs-region",
        "location",
    ];
    let value = prop_oneof![
        vec(any::<u8>(), 0..30),
        any::<i128>().prop_map(|number| number.to_string().into_bytes()),
        any::<i64>().prop_map(|number| number.to_string().into_bytes()),
        select(vec!["0", "301", "6000", " 7 ", "us-2", "US-2\t"])
            .prop_map(|text| text.as_bytes().to_vec()),
    ];
    btree_map(select(names.to_vec()), value, 0..5).prop_map(|headers| {
        let header = |(name, value): (&'static str, Vec<u8>)| {
            Some((
                HeaderName::from_static(name),
                HeaderValue::from_bytes(&value).ok()?,
            ))
        };
        headers.into_iter().filter_map(header).collect()
    })
}

proptest! {
    #![proptest_config(cases(2_000))]

    #[test]
    fn whatever_status_headers_and_body_mean_they_mean_something(
        status in prop_oneof![status(), 100..1000_u16], headers in headers(), body in body(),
    ) {
        let reply = Response { status: StatusCode::from_u16(status).unwrap(), headers, received: Timestamp::UNIX_EPOCH, body };
        assert_error(&errors::classify(HOST_LISTING, &reply));
        let error = errors::classify_token(token::TOKEN, &reply);
        assert_error(&error);
        prop_assert!(!error_chain(&error).contains(MARK));
        if let Some((limit, remaining)) = errors::quota(&reply) {
            RateLimiter::new(client().budget).record_quota(limit, remaining);
        }
    }

    /// Cursors of any kind, pages of any size, totals of any number: a crawl ends when the account does.
    #[test]
    fn a_crawl_ends(pages in vec((vec(0..40_u8, 0..6), any::<Option<usize>>(), any::<Option<u8>>()), 1..60)) {
        let mut crawl = PageCollector::<Numbered>::default();
        // The server never stops to serve pages, and never has other records than these.
        let mut steps = 0;
        for (ids, total, next) in pages.iter().cycle() {
            steps += 1;
            prop_assert!(steps <= 42, "each page but the last brings one of 40 records");
            let page = ListingPage {
                records: ids.iter().map(|id| Some(Numbered(*id))).collect(),
                total: total.unwrap_or(usize::MAX),
                next: next.map(|next| next.to_string()),
            };
            match crawl.add_page(page) {
                Step::Next(_) => {}
                Step::End | Step::NoProgress => break,
            }
        }
        match crawl.finish(HOST_LISTING) {
            Collected::Complete { records, .. } => prop_assert!(records.len() <= 40),
            Collected::Short(short) => check(Err::<(), _>(short.error(HOST_LISTING)), |()| ()),
        }
    }
}

#[derive(serde::Deserialize)]
struct Numbered(u8);

impl ListedRecord for Numbered {
    type Value = ();

    fn into_entry(self) -> Option<(Aid, ())> {
        Some((Aid::from(self.0.to_string().as_str()), ()))
    }

    fn merge((): &mut (), (): ()) {}
}

fn reply(body: &str) -> Response {
    Response {
        status: StatusCode::OK,
        headers: HeaderMap::new(),
        received: Timestamp::UNIX_EPOCH,
        body: body.into(),
    }
}

#[test]
fn errors_cannot_be_hidden_behind_a_second_list_of_them() {
    let body = r#"{"errors":[{"code":500,"message":"half"}],"meta":{"pagination":{"total":0}},"resources":[],"errors":[]}"#;
    assert!(wire::page::<HostRecord>(HOST_LISTING, &reply(body)).is_err());
    assert!(wire::assessments(SCORE_LOOK_UP, &reply(body)).is_err());
}

#[test]
fn a_page_of_more_records_than_were_asked_for_is_refused() {
    let page = |records: usize| {
        let list = vec!["null"; records].join(",");
        let body =
            format!(r#"{{"meta":{{"pagination":{{"total":{records}}}}},"resources":[{list}]}}"#);
        wire::page::<HostRecord>(HOST_LISTING, &reply(&body)).map(|page| page.records.len())
    };
    assert_eq!(page(10_000).unwrap(), 10_000);
    let text = error_chain(&page(10_001).unwrap_err());
    assert!(text.contains("unexpected value at resources"), "{text}");
}

#[test]
fn a_cursor_that_no_url_holds_is_refused() {
    let page = |bytes: usize| {
        let cursor = "ü".repeat(bytes / 2);
        let body = format!(
            r#"{{"meta":{{"pagination":{{"total":2,"next":"{cursor}"}}}},"resources":[null]}}"#
        );
        wire::page::<HostRecord>(HOST_LISTING, &reply(&body)).map(|page| page.next)
    };
    let cursor = page(16 << 10).unwrap().unwrap();
    let base = "http://127.0.0.1/".parse().unwrap();
    let url = host_listing(&base, HOST_LISTING, HOSTS_PER_PAGE, None).url(Some(&cursor));
    assert!(url.as_str().len() < 65_000);
    let text = error_chain(&page((16 << 10) + 2).unwrap_err());
    assert!(text.contains("at meta.pagination"), "{text}");
}

#[test]
fn of_a_list_of_errors_without_end_the_rest_counts_as_one() {
    let problem = r#"{"message":"Assessment not found"}"#;
    let body = |problems: usize| {
        format!(
            r#"{{"resources":[],"errors":[{}]}}"#,
            vec![problem; problems].join(",")
        )
    };
    assert!(wire::assessments(SCORE_LOOK_UP, &reply(&body(200))).is_ok());
    assert!(wire::assessments(SCORE_LOOK_UP, &reply(&body(201))).is_err());
}
