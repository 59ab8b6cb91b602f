use std::io::Read;

use serde_json::Value;

use super::*;
use crate::clock::{Clock, Deadline};
use crate::domain::status::error_kind::Service;
use crate::json::TestList;
use crate::testing::server::{Server, answer};
use crate::text::error_chain;
use crate::upstream::error::UpstreamErrorKind;
use crate::upstream::retry::RetryPolicy;
use crate::upstream::retry::tests::client;

const PROBE: Operation = Operation::new(Service::Tailscale, "a probe", "");

async fn get(server: &Server, max_bytes: usize) -> Result<Response, UpstreamError> {
    let client = client();
    let request = client.request(Method::GET, server.url.clone());
    client.send(request, PROBE, max_bytes).await
}

async fn stream(server: &Server, max_bytes: usize) -> Result<Vec<Value>, UpstreamError> {
    let client = client();
    let request = client.request(Method::GET, server.url.clone());
    let classify = |operation: Operation, response: &Response| {
        operation.rejected(response.status.as_u16(), String::new())
    };
    client
        .stream::<TestList>(request, PROBE, max_bytes, classify)
        .await
}

#[tokio::test]
async fn a_response_is_complete_whatever_its_status() {
    let server = Server::new(|_, _| answer(503, &["x-a: b"], "busy"));
    let response = get(&server, 4).await.unwrap();
    assert_eq!(response.status, 503);
    assert_eq!(response.header("X-A"), Some("b"));
    assert_eq!(response.body, b"busy");
    assert!(
        server.asked()[0]
            .headers
            .iter()
            .any(|h| h.starts_with("user-agent: falcon-posture-sync/"))
    );
    assert!(!format!("{response:?}").contains("busy"));
}

#[tokio::test]
async fn requests_are_counted_by_service() {
    let server = Server::new(|_, _| answer(200, &[], ""));
    let client = client();
    for _ in 0..2 {
        let request = client.request(Method::GET, server.url.clone());
        client.send(request, PROBE, 1).await.unwrap();
    }
    assert_eq!(
        (
            client.budget.requests(Service::Tailscale),
            client.budget.requests(Service::Falcon)
        ),
        (2, 0)
    );
}

#[tokio::test]
async fn a_redirect_is_a_response_like_any_other() {
    let server = Server::new(|_, _| answer(308, &["location: http://127.0.0.1:9/"], ""));
    assert_eq!(get(&server, 1).await.unwrap().status, 308);
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn a_body_over_the_limit_is_rejected_whole_or_streamed() {
    let server = Server::new(|_, _| answer(200, &[], r#"{"list":[]}"#));
    for error in [
        get(&server, 10).await.unwrap_err(),
        stream(&server, 10).await.unwrap_err(),
    ] {
        assert!(
            matches!(error.kind, UpstreamErrorKind::Protocol),
            "{error:?}"
        );
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
async fn the_limit_counts_decompressed_bytes() {
    /// A JSON string of 2,000 letters in 36 bytes.
    const PACKED: &[u8] = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\x53\x4a\x1c\x05\xa3\x60\x14\x8c\x82\x51\x30\x0a\x46\xc1\x90\x07\x4a\x00\xc2\x08\xf2\x31\xd2\x07\x00\x00";
    let server = Server::new(|_, _| answer(200, &["content-encoding: gzip"], PACKED));
    assert_eq!(get(&server, 2002).await.unwrap().body.len(), 2002);
    assert!(get(&server, 2001).await.is_err());
    let streamed = async |cap| error_chain(&stream(&server, cap).await.unwrap_err());
    assert!(streamed(2002).await.contains("unexpected value"));
    assert!(streamed(2001).await.contains("larger than 2001 bytes"));
}

#[tokio::test]
async fn an_incomplete_response_is_unavailable_without_its_url() {
    let cut = Server::new(|_, _| b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n[1,".to_vec());
    let silent = Server::new(|_, _| Vec::new());
    let early = Server::new(|_, _| answer(200, &[], r#"{"list":[{"a":"#));
    for error in [
        get(&cut, 99).await.unwrap_err(),
        stream(&cut, 99).await.unwrap_err(),
        get(&silent, 99).await.unwrap_err(),
        stream(&early, 99).await.unwrap_err(),
    ] {
        assert!(error.error_kind().is_transient(), "{error:?}");
        assert!(
            !error_chain(&error).contains("127.0.0.1"),
            "{}",
            error_chain(&error)
        );
    }
}

#[tokio::test]
async fn a_call_without_remaining_time_is_not_sent() {
    let server = Server::new(|_, _| answer(200, &[], ""));
    let clock = Clock::system();
    let expired = CallBudget::new(
        RetryPolicy::default(),
        clock.clone(),
        Deadline::new(clock, Timestamp::MIN),
    );
    let client = ApiClient::new(HttpClient::new().unwrap(), expired);
    let request = client.request(Method::GET, server.url.clone());
    let error = client.send(request, PROBE, 1).await.unwrap_err();
    assert!(matches!(error.kind, UpstreamErrorKind::Deadline { .. }));
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn an_unsuccessful_stream_is_a_classified_response() {
    let server = Server::new(|_, _| answer(403, &[], "{}"));
    assert!(stream(&server, 1).await.unwrap_err().is_rejected_with(403));
}

#[test]
fn a_decoding_error_names_the_path_and_not_the_content() {
    let error = PROBE
        .decode::<std::collections::BTreeMap<String, u8>>(br#"{"a": "s3cret"}"#)
        .unwrap_err();
    let text = error_chain(&error);
    assert!(
        text.ends_with("unexpected value at a (line 1, column 14)"),
        "{text}"
    );
    let text = error_chain(&PROBE.decode::<Value>(b"{} s3cret").unwrap_err());
    assert!(
        text.ends_with("unexpected value at the top (line 1, column 4)"),
        "{text}"
    );
}

#[test]
fn a_decoding_error_redacts_keys() {
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
fn segments_are_encoded() {
    let base: Url = "https://example.com/proxy/".parse().unwrap();
    let url = endpoint(&base, ["api", "a/b", "../x", "..", "c?d#e", "50%"]);
    assert_eq!(
        url.as_str(),
        "https://example.com/proxy/api/a%2Fb/..%2Fx/c%3Fd%23e/50%25"
    );
}

/// Returns the TLS versions that the first message of a connection offers (RFC 8446, 4.1.2 and 4.2.1).
fn offered_tls_versions(hello: &[u8]) -> Vec<u16> {
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
async fn no_tls_version_before_1_2_is_offered() {
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
    let client = client();
    let request = client.request(Method::GET, url);
    assert!(client.send(request, PROBE, 10).await.is_err());
    assert_eq!(
        offered_tls_versions(&server.join().unwrap()),
        [0x0304, 0x0303]
    );
}
