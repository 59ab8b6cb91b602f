use std::io::Read;

use serde_json::Value;

use super::*;
use crate::clock::{Clock, Deadline};
use crate::domain::status::error_kind::Service;
use crate::json::TestList;
use crate::testing::server::{Server, answer};
use crate::text::error_chain;
use crate::upstream::retry::RetryPolicy;
use crate::upstream::retry::tests::budget;

const PROBE: Operation = Operation {
    side: Service::Tailscale,
    name: "a probe",
    scope: "",
};

async fn get(server: &Server, cap: usize) -> Result<Response, UpstreamError> {
    let http = HttpClient::new().unwrap();
    let request = http.request(Method::GET, server.url.clone());
    http.send(request, PROBE, cap, &budget()).await
}

async fn stream(server: &Server, cap: usize) -> Result<Streamed<Value>, UpstreamError> {
    let http = HttpClient::new().unwrap();
    let request = http.request(Method::GET, server.url.clone());
    http.stream::<TestList>(request, PROBE, cap, &budget())
        .await
}

#[tokio::test]
async fn an_answer_comes_whole_whatever_its_status() {
    let server = Server::new(|_, _| answer(503, &["x-a: b"], "busy"));
    let reply = get(&server, 4).await.unwrap();
    assert_eq!(reply.status, 503);
    assert_eq!(reply.header("X-A"), Some("b"));
    assert_eq!(reply.body, b"busy");
    assert!(
        server.asked()[0]
            .headers
            .iter()
            .any(|h| h.starts_with("user-agent: falcon-posture-sync/"))
    );
    assert!(!format!("{reply:?}").contains("busy"));
}

#[tokio::test]
async fn requests_are_counted_by_side() {
    let server = Server::new(|_, _| answer(200, &[], ""));
    let http = HttpClient::new().unwrap();
    let budget = budget();
    for _ in 0..2 {
        let request = http.request(Method::GET, server.url.clone());
        http.send(request, PROBE, 1, &budget).await.unwrap();
    }
    assert_eq!(
        (
            budget.requests(Service::Tailscale),
            budget.requests(Service::Falcon)
        ),
        (2, 0)
    );
}

#[tokio::test]
async fn a_redirect_is_an_answer_like_any_other() {
    let server = Server::new(|_, _| answer(308, &["location: http://127.0.0.1:9/"], ""));
    assert_eq!(get(&server, 1).await.unwrap().status, 308);
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn a_body_past_the_cap_is_refused_whole_or_streamed() {
    let server = Server::new(|_, _| answer(200, &[], r#"{"list":[]}"#));
    for error in [
        get(&server, 10).await.unwrap_err(),
        stream(&server, 10).await.unwrap_err(),
    ] {
        assert!(matches!(error, UpstreamError::Protocol { .. }), "{error:?}");
        assert!(
            error_chain(&error).ends_with("it is larger than 10 bytes"),
            "{}",
            error_chain(&error)
        );
    }
    assert!(get(&server, 11).await.is_ok());
    assert!(stream(&server, 11).await.is_ok());
}

#[tokio::test]
async fn the_cap_counts_what_is_unpacked() {
    /// A JSON string of 2,000 letters in 36 bytes.
    const PACKED: &[u8] = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\x53\x4a\x1c\x05\xa3\x60\x14\x8c\x82\x51\x30\x0a\x46\xc1\x90\x07\x4a\x00\xc2\x08\xf2\x31\xd2\x07\x00\x00";
    let server = Server::new(|_, _| answer(200, &["content-encoding: gzip"], PACKED));
    assert_eq!(get(&server, 2002).await.unwrap().body.len(), 2002);
    assert!(get(&server, 2001).await.is_err());
    let streamed = async |cap| error_chain(&stream(&server, cap).await.unwrap_err());
    assert!(streamed(2002).await.contains("not what is expected"));
    assert!(streamed(2001).await.contains("larger than 2001 bytes"));
}

#[tokio::test]
async fn what_does_not_arrive_is_unavailable_and_the_url_is_not_told() {
    let cut = Server::new(|_, _| b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n[1,".to_vec());
    let silent = Server::new(|_, _| Vec::new());
    let early = Server::new(|_, _| answer(200, &[], r#"{"list":[{"a":"#));
    for error in [
        get(&cut, 99).await.unwrap_err(),
        stream(&cut, 99).await.unwrap_err(),
        get(&silent, 99).await.unwrap_err(),
        stream(&early, 99).await.unwrap_err(),
    ] {
        assert!(error.is_transient(), "{error:?}");
        assert!(
            !error_chain(&error).contains("127.0.0.1"),
            "{}",
            error_chain(&error)
        );
    }
}

#[tokio::test]
async fn a_call_without_time_is_not_made() {
    let server = Server::new(|_, _| answer(200, &[], ""));
    let http = HttpClient::new().unwrap();
    let clock = Clock::system();
    let over = CallBudget::new(
        RetryPolicy::default(),
        clock.clone(),
        Deadline::new(clock, Timestamp::MIN),
    );
    let request = http.request(Method::GET, server.url.clone());
    let error = http.send(request, PROBE, 1, &over).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Deadline { .. }));
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn a_stream_that_is_no_success_comes_as_a_reply() {
    let server = Server::new(|_, _| answer(403, &[], "{}"));
    assert!(matches!(stream(&server, 1).await, Ok(Streamed::Other(reply)) if reply.status == 403));
}

#[test]
fn a_decoding_error_names_the_place_and_not_the_content() {
    let error = PROBE
        .decode::<std::collections::BTreeMap<String, u8>>(br#"{"a": "s3cret"}"#)
        .unwrap_err();
    let text = error_chain(&error);
    assert!(
        text.ends_with("not what is expected at a (line 1, column 14)"),
        "{text}"
    );
    let text = error_chain(&PROBE.decode::<Value>(b"{} s3cret").unwrap_err());
    assert!(
        text.ends_with("not what is expected at the top (line 1, column 4)"),
        "{text}"
    );
}

#[test]
fn a_decoding_error_names_no_key_that_is_not_fit_to_be_shown() {
    for key in [
        "s3cret-1234567890-abcdef".to_owned(),
        "x\u{1b}[31m\n".repeat(1_000),
    ] {
        let body = format!("{{{}: nul}}", Value::from(key));
        let text = error_chain(
            &PROBE
                .decode::<std::collections::BTreeMap<String, u8>>(body.as_bytes())
                .unwrap_err(),
        );
        assert!(!text.contains("s3cret"), "{text:?}");
        crate::testing::hostile::assert_fit(&text, 1_000);
    }
}

#[test]
fn segments_stay_in_their_place() {
    let base: Url = "https://example.com/proxy/".parse().unwrap();
    let url = endpoint(&base, ["api", "a/b", "../x", "..", "c?d#e", "50%"]);
    assert_eq!(
        url.as_str(),
        "https://example.com/proxy/api/a%2Fb/..%2Fx/c%3Fd%23e/50%25"
    );
}

/// The TLS versions that the first message of a connection offers (RFC 8446, 4.1.2 and 4.2.1).
fn offered(hello: &[u8]) -> Vec<u16> {
    let number = |at: usize| usize::from(hello[at]) << 8 | usize::from(hello[at + 1]);
    // Record and handshake headers, version and random; then three lists with their lengths.
    let mut at = 5 + 4 + 2 + 32;
    at += 1 + usize::from(hello[at]);
    at += 2 + number(at);
    at += 1 + usize::from(hello[at]);
    let end = at + 2 + number(at);
    at += 2;
    while at < end {
        let (kind, length) = (number(at), number(at + 2));
        if kind == 43 {
            let versions = &hello[at + 5..at + 4 + length];
            let version = |bytes: &[u8]| u16::from_be_bytes([bytes[0], bytes[1]]);
            return versions.chunks(2).map(version).collect();
        }
        at += 4 + length;
    }
    Vec::new()
}

#[tokio::test]
async fn nothing_older_than_tls_1_2_is_offered() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url: Url = format!("https://{}", listener.local_addr().unwrap())
        .parse()
        .unwrap();
    let server = std::thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        let mut hello = vec![0; 5];
        connection.read_exact(&mut hello).unwrap();
        let length = usize::from(hello[3]) << 8 | usize::from(hello[4]);
        hello.resize(5 + length, 0);
        connection.read_exact(&mut hello[5..]).unwrap();
        hello
    });
    let http = HttpClient::new().unwrap();
    let request = http.request(Method::GET, url);
    let refused = http.send(request, PROBE, 10, &budget()).await;
    assert!(refused.is_err());
    assert_eq!(offered(&server.join().unwrap()), [0x0304, 0x0303]);
}
