//! The client against a scripted server.

mod diagnostics;
mod hostile;
mod writes;

use serde_json::{Value, json};

use super::*;
use crate::domain::inventory::device::Identity;
use crate::testing::server::{Asked, Server, answer};
use crate::upstream::error::UpstreamErrorKind;
use crate::upstream::retry::tests::client;

use writes::write;

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

/// Starts a server that issues tokens. A script gets the number of each other call (from 0) and returns the response.
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
    Tailscale::sign_in(client(), &server.url, &tailnet, credentials).await
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
    NodeId(id.into())
}

#[tokio::test]
async fn an_oauth_client_exchanges_its_secret_and_an_api_key_is_the_token() {
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
            .error_kind()
            .pauses()
    );
}

#[tokio::test]
async fn a_rejected_token_is_replaced_once() {
    let repaired = server(|number, _| match number {
        0 => message(401, "API token invalid"),
        _ => json(200, &json!({"devices": []})),
    });
    assert!(sign_in(&repaired).await.devices().await.is_ok());
    let refused = server(|_, _| message(401, "API token invalid"));
    assert!(
        sign_in(&refused)
            .await
            .devices()
            .await
            .unwrap_err()
            .error_kind()
            .pauses()
    );
    assert_eq!(calls(&refused).len(), 2);
}

#[tokio::test]
async fn the_listing_is_decoded_while_it_arrives() {
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
        Identity::Serials(["A1".into()].into_iter().collect())
    );
}

#[tokio::test]
async fn a_truncated_listing_is_retried() {
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
            matches!(error.kind, UpstreamErrorKind::Protocol),
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
    // A 404 of a proxy says nothing about the device.
    assert!(tailscale.device(&id("nC")).await.is_err());
    assert_eq!(calls(&server).len(), 3);
}

#[tokio::test]
async fn futures_are_send() {
    fn check(_: impl Send) {}
    let server = server(|_, _| Vec::new());
    let tailscale = sign_in(&server).await;
    let writer = tailscale.writer();
    check(tailscale.devices());
    check(tailscale.device(&id("nA")));
    check(tailscale.identity_collection());
    check(tailscale.has_falcon_integration());
    check(tailscale.attributes(&id("nA")));
    let end = jiff::Timestamp::MAX;
    check(writer.write(&[], "", end));
    let client = tailscale.client.within(end);
    check(writer.write_one(&client, &write("nA", None, true), ""));
}
