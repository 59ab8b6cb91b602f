//! The client against a scripted server.

mod hostile;
mod prerequisites;

use serde_json::{Value, json};

use super::*;
use crate::domain::device::Identity;
use crate::http::scripted::{Asked, Server, answer};
use crate::retry::tests::budget;

fn json(status: u16, body: &Value) -> Vec<u8> {
    answer(
        status,
        &["content-type: application/json"],
        body.to_string(),
    )
}

fn message(status: u16, text: &str) -> Vec<u8> {
    json(status, &json!({"message": text}))
}

/// A server that gives a token to whoever asks, and answers the other calls by script. They are counted apart.
fn server(script: impl Fn(usize, &Asked) -> Vec<u8> + Send + 'static) -> Server {
    let calls = std::cell::Cell::new(0);
    Server::new(move |_, asked| {
        if asked.line == "POST /api/v2/oauth/token" {
            return json(
                200,
                &json!({"access_token": "t0ken", "token_type": "Bearer", "expires_in": 3600}),
            );
        }
        calls.set(calls.get() + 1);
        script(calls.get() - 1, asked)
    })
}

async fn sign_in_with(
    server: &Server,
    credentials: TailscaleCredentials,
) -> Result<Tailscale, UpstreamError> {
    let tailnet = "example.com".to_owned().try_into().unwrap();
    Tailscale::sign_in(
        Http::new().unwrap(),
        &server.url,
        &tailnet,
        credentials,
        budget(),
    )
    .await
}

async fn sign_in(server: &Server) -> Tailscale {
    let credentials = TailscaleCredentials::OAuth {
        client_id: "kABC".to_owned(),
        client_secret: "tskey-client-s3cret".into(),
    };
    sign_in_with(server, credentials).await.unwrap()
}

fn calls(server: &Server) -> Vec<String> {
    let mut lines = server.lines();
    lines.retain(|line| !line.ends_with("/oauth/token"));
    lines
}

fn id(id: &str) -> NodeId {
    NodeId(id.to_owned())
}

#[tokio::test]
async fn an_oauth_client_trades_its_secret_and_an_api_key_is_the_token() {
    let server = server(|_, _| json(200, &json!({"devices": []})));
    let tailscale = sign_in(&server).await;
    assert!(tailscale.devices().await.unwrap().is_empty());
    let key = TailscaleCredentials::ApiKey("tskey-api-key".into());
    sign_in_with(&server, key)
        .await
        .unwrap()
        .devices()
        .await
        .unwrap();
    let asked = server.asked();
    assert_eq!(
        asked[0].body,
        "client_id=kABC&client_secret=tskey-client-s3cret"
    );
    assert!(
        asked[1]
            .headers
            .contains(&"authorization: bearer t0ken".to_owned())
    );
    assert!(
        asked[2]
            .headers
            .contains(&"authorization: bearer tskey-api-key".to_owned())
    );
    assert_eq!(
        calls(&server)[0],
        "GET /api/v2/tailnet/example.com/devices?fields=all"
    );
    let debug = format!("{tailscale:?}");
    assert!(
        !debug.contains("s3cret") && !debug.contains("t0ken"),
        "{debug}"
    );
    let cut = TailscaleCredentials::ApiKey("tskey\napi".into());
    assert!(
        sign_in_with(&server, cut)
            .await
            .unwrap_err()
            .kind()
            .pauses()
    );
}

#[tokio::test]
async fn a_refused_token_is_replaced_once() {
    let mended = server(|number, _| match number {
        0 => message(401, "API token invalid"),
        _ => json(200, &json!({"devices": []})),
    });
    assert!(sign_in(&mended).await.devices().await.is_ok());
    let refused = server(|_, _| message(401, "API token invalid"));
    assert!(
        sign_in(&refused)
            .await
            .devices()
            .await
            .unwrap_err()
            .kind()
            .pauses()
    );
    assert_eq!(calls(&refused).len(), 2);
}

#[tokio::test]
async fn the_listing_is_decoded_as_it_comes() {
    let devices: Vec<Value> = (0..5000)
        .map(|n| {
            json!({"nodeId": format!("n{n}CNTRL"), "name": "a.ts.net", "routes": ["x".repeat(200)],
                        "postureIdentity": {"serialNumbers": ["A1"]}})
        })
        .collect();
    let server = server(move |_, _| json(200, &json!({"more": {}, "devices": devices, "end": 1})));
    let devices = sign_in(&server).await.devices().await.unwrap();
    assert_eq!(devices.len(), 5000);
    assert_eq!(
        devices[&id("n7CNTRL")].identity,
        Identity::Serials(vec!["A1".to_owned()])
    );
}

#[tokio::test]
async fn a_listing_that_is_cut_is_asked_for_again_and_never_taken_for_whole() {
    const HALF: &str = r#"{"devices":[{"nodeId":"nA"}"#;
    let server = server(|number, _| match number {
        0 => answer(200, &[], HALF),
        1 => format!("HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n{HALF}").into(),
        2 => message(
            504,
            "request took too long to process, please try again later",
        ),
        _ => json(
            200,
            &json!({"devices": [{"nodeId": "nA"}, {"nodeId": "nB"}, {}]}),
        ),
    });
    assert_eq!(sign_in(&server).await.devices().await.unwrap().len(), 2);
    assert_eq!(calls(&server).len(), 4);
}

#[tokio::test]
async fn a_listing_of_another_form_is_an_error() {
    for body in [
        "{}",
        r#"{"devices":{}}"#,
        r#"{"devices":[7]}"#,
        "<html>",
        r#"{"devices":[]} x"#,
    ] {
        let server = server(move |_, _| answer(200, &[], body));
        let error = sign_in(&server).await.devices().await.unwrap_err();
        assert!(
            matches!(error, UpstreamError::Protocol { .. }),
            "{body}: {error:?}"
        );
        assert_eq!(calls(&server).len(), 1);
    }
}

#[tokio::test]
async fn a_device_is_looked_up_by_its_id() {
    let server = server(|_, asked| match asked.line.as_str() {
        "GET /api/v2/device/nA?fields=all" => {
            json(200, &json!({"nodeId": "nA", "name": "a.ts.net"}))
        }
        "GET /api/v2/device/nB?fields=all" => message(404, "device not found"),
        _ => answer(404, &[], "no such route"),
    });
    let tailscale = sign_in(&server).await;
    let device = tailscale.device(&id("nA")).await.unwrap().unwrap();
    assert_eq!(
        (device.name.as_str(), device.identity),
        ("a.ts.net", Identity::Missing)
    );
    assert_eq!(tailscale.device(&id("nB")).await.unwrap(), None);
    assert_eq!(tailscale.device(&id("..")).await.unwrap(), None);
    // What no API answered is no news of a device.
    assert!(tailscale.device(&id("nC")).await.is_err());
    assert_eq!(calls(&server).len(), 3);
}

fn write(node: &str, set: Option<u8>, delete: bool) -> AttributeWrite {
    AttributeWrite {
        node_id: id(node),
        set: set.map(|score| ("custom:ztaScore".to_owned().try_into().unwrap(), score)),
        delete: delete.then(|| "custom:old".to_owned().try_into().unwrap()),
    }
}

fn writes(range: std::ops::Range<usize>) -> Vec<AttributeWrite> {
    range
        .map(|n| write(&format!("n{n:03}"), Some(50), false))
        .collect()
}

/// The nodes of a batch's body.
fn nodes(asked: &Asked) -> Vec<String> {
    let body: Value = serde_json::from_str(&asked.body).unwrap();
    body["nodes"].as_object().unwrap().keys().cloned().collect()
}

/// A server whose batch refuses the nodes that `bad` says, and accepts those without.
fn picky(bad: fn(&str) -> bool) -> Server {
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
    let written = sign_in(&server)
        .await
        .writer()
        .write(&changes, &"y".repeat(300))
        .await;
    assert_eq!(written.accepted, [id("nA"), id("nB")]);
    assert!(written.refused.is_empty() && written.error.is_none());
    assert_eq!(
        calls(&server),
        ["PATCH /api/v2/tailnet/example.com/device-attributes"]
    );
    let body: Value = serde_json::from_str(&server.asked()[1].body).unwrap();
    assert_eq!(
        body["nodes"],
        json!({"nA": {"custom:ztaScore": {"value": 71}, "custom:old": null}, "nB": {"custom:old": null}})
    );
    assert_eq!(body["comment"].as_str().unwrap().chars().count(), 200);
}

#[tokio::test]
async fn a_refused_device_is_found_and_the_others_are_written() {
    let server = picky(|node| node == "n042" || node == "n101");
    let written = sign_in(&server)
        .await
        .writer()
        .write(&writes(0..150), "why")
        .await;
    assert_eq!(written.accepted.len(), 148);
    let unknown = "unknown node".to_owned();
    assert_eq!(
        written.refused,
        [(id("n042"), unknown.clone()), (id("n101"), unknown)]
    );
    assert!(written.error.is_none());
}

#[tokio::test]
async fn when_all_are_refused_batches_are_not_taken_apart_for_ever() {
    let server = picky(|_| true);
    let writer = sign_in(&server).await.writer();
    let written = writer.write(&writes(0..1000), "why").await;
    assert_eq!(written.refused.len(), 1000);
    let first = calls(&server).len();
    assert!(first < 200, "{first}");
    let written = writer.write(&writes(0..100), "why").await;
    assert_eq!(written.refused.len(), 100);
    assert_eq!(
        calls(&server).len(),
        first + 3,
        "a hundred, and two times fifty"
    );
}

#[tokio::test]
async fn one_bad_device_takes_few_others_along_even_when_many_were_refused() {
    let server = picky(|node| node < "n100" || node == "n700");
    let writer = sign_in(&server).await.writer();
    assert_eq!(
        writer.write(&writes(0..100), "why").await.refused.len(),
        100
    );
    let written = writer.write(&writes(500..1000), "why").await;
    assert!(written.error.is_none());
    assert_eq!(written.accepted.len() + written.refused.len(), 500);
    let refused: Vec<&str> = written
        .refused
        .iter()
        .map(|(id, _)| id.0.as_str())
        .collect();
    assert!(
        refused.contains(&"n700") && refused.len() <= 50,
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_limit_of_the_batch_is_found_and_kept_to() {
    let server = server(|_, asked| {
        if nodes(asked).len() > 130 {
            message(400, "too many nodes")
        } else {
            answer(200, &[], "null")
        }
    });
    let writer = sign_in(&server).await.writer();
    let written = writer.write(&writes(0..500), "why").await;
    assert_eq!((written.accepted.len(), written.refused.len()), (500, 0));
    let first = calls(&server).len();
    assert_eq!(first, 1 + 2 + 4);
    let written = writer.write(&writes(500..1000), "why").await;
    assert_eq!((written.accepted.len(), written.refused.len()), (500, 0));
    assert_eq!(calls(&server).len(), first + 4, "no more than it takes");
}

#[tokio::test]
async fn a_failure_of_the_whole_ends_the_writing_and_keeps_what_was_accepted() {
    let server = server(|number, _| match number {
        0 => answer(200, &[], "null"),
        _ => message(
            403,
            "calling actor does not have enough permissions to perform this function",
        ),
    });
    let written = sign_in(&server)
        .await
        .writer()
        .write(&writes(0..750), "why")
        .await;
    assert_eq!(written.accepted.len(), 500);
    assert!(written.refused.is_empty());
    let error = written.error.unwrap().to_string();
    assert!(
        error.contains("lacks the scope devices:posture_attributes"),
        "{error}"
    );
    assert_eq!(calls(&server).len(), 2);
}

#[tokio::test]
async fn a_batch_that_fails_on_the_way_is_sent_again() {
    let server = server(|number, _| match number {
        0 => answer(502, &[], "<html>"),
        1 => answer(429, &["retry-after: 0"], ""),
        2 => Vec::new(),
        _ => answer(200, &[], "null"),
    });
    let written = sign_in(&server)
        .await
        .writer()
        .write(&writes(0..1), "why")
        .await;
    assert_eq!(written.accepted.len(), 1);
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
        let writer = sign_in(&server).await.writer();
        let written = writer.write(&changes, "why").await;
        assert_eq!(written.accepted, [id("nA"), id("nC")]);
        assert_eq!(written.refused, [(id("nB"), "no such device".to_owned())]);
        assert!(written.error.is_none());
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
        assert_eq!(post.unwrap().body, r#"{"value":71,"comment":"why"}"#);
        // It is not asked for again.
        writer.write(&changes[..1], "why").await;
        assert_eq!(
            calls(&server)
                .iter()
                .filter(|line| line.starts_with("PATCH"))
                .count(),
            1
        );
    }
}

#[tokio::test]
async fn single_writes_end_at_a_failure_of_the_whole_and_tell_what_was_accepted() {
    let server = server(|_, asked| match asked.line.as_str() {
        line if line.starts_with("PATCH") => answer(405, &[], ""),
        line if line.contains("n005") => message(403, "no permission"),
        _ => answer(200, &[], "null"),
    });
    let written = sign_in(&server)
        .await
        .writer()
        .write(&writes(0..20), "why")
        .await;
    assert_eq!(written.accepted.len(), 7);
    assert!(written.error.unwrap().kind().pauses());
}

#[tokio::test]
async fn its_futures_can_go_to_any_thread() {
    fn check(_: impl Send) {}
    let server = server(|_, _| Vec::new());
    let tailscale = sign_in(&server).await;
    let writer = tailscale.writer();
    check(tailscale.devices());
    check(tailscale.device(&id("nA")));
    check(tailscale.identity_collection());
    check(tailscale.native_falcon());
    check(tailscale.attributes(&id("nA")));
    check(writer.write(&[], ""));
    check(writer.write_one(&write("nA", None, true), ""));
}
