//! A Tailscale that answers anything.

use jiff::Timestamp;
use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::settings::AttributeKey;
use crate::testing::hostile::{
    MARK, Script, answers, assert_error, assert_fit, bytes, cases, check, text,
};

/// A successful response of each call.
fn documents() -> Vec<Value> {
    let device = json!({
        "nodeId": "nA1", "id": "92960230385", "name": "laptop.tail1.ts.net", "hostname": MARK, "isExternal": false,
        "addresses": ["100.64.0.1"], "clientConnectivity": {"latency": {"Amsterdam": {"latencyMs": 12.5}}},
        "postureIdentity": {"serialNumbers": ["C02D91CNPV4M", MARK, " "], "disabled": false},
    });
    let disabled = json!({"nodeId": "nA2", "postureIdentity": {"disabled": true}});
    let serials: Vec<String> = (0..40).map(|n| format!("SN{n}")).collect();
    let many = json!({"nodeId": "nA3", "postureIdentity": {"serialNumbers": serials}});
    vec![
        json!({"access_token": format!("{MARK}.t0ken"), "expires_in": 3600, "token_type": "Bearer", "scope": "all a:b"}),
        json!({"devices": [device.clone(), disabled, {"id": "7"}, many]}),
        device,
        json!({"attributes": {"custom:ztaScore": 70, "node:os": MARK}, "expiries": {}}),
        json!({"postureIdentityCollectionOn": true, "devicesApprovalOn": false}),
        json!({"integrations": [{"provider": "falcon", "id": "p1", "status": {"error": MARK}}]}),
        json!(null),
        json!({"message": MARK}),
    ]
}

fn header() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        select(vec![
            "0",
            "-1",
            "4294967295",
            "1e9",
            "Fri, 31 Dec 9999 23:59:59 GMT",
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "gzip",
            "http://127.0.0.1:9/",
        ])
        .prop_map(str::to_owned),
        "[!-~]{0,60}",
    ];
    let name = select(vec![
        "retry-after",
        "location",
        "content-encoding",
        "content-type",
    ]);
    (name, value).prop_map(|(name, value)| format!("{name}: {value}"))
}

fn status() -> impl Strategy<Value = u16> {
    prop_oneof![
        6 => Just(200_u16),
        3 => select(vec![301_u16, 307, 400, 401, 403, 404, 405, 422, 429, 500, 501, 503]),
        1 => 100..600_u16,
    ]
}

/// A body of its kind, or an error in any words.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let error = text().prop_map(|text| json!({"message": text}).to_string().into_bytes());
    prop_oneof![4 => bytes(documents()), 1 => error]
}

fn assert_device(device: &Device) {
    assert!(wire::is_node_id(&device.node_id.0), "{device:?}");
    for name in [&device.name, &device.hostname, &device.user, &device.os] {
        assert_fit(name, 256);
    }
    if let Identity::Serials(serials) = &device.identity {
        assert!(serials.len() <= 32);
        assert!(serials.iter().all(|serial| serial.chars().count() <= 255));
    }
}

async fn every_read(tailscale: &Tailscale) {
    check(tailscale.devices().await, |devices| {
        for (node, device) in &devices {
            assert_eq!(*node, device.node_id);
            assert_device(device);
        }
    });
    check(tailscale.device(&id("nA1")).await, |device| {
        device.iter().for_each(assert_device);
    });
    check(tailscale.identity_collection().await, |_| ());
    check(tailscale.has_falcon_integration().await, |_| ());
    check(tailscale.attributes(&id("nA1")).await, |_| ());
}

/// Each write is accepted, refused, of unknown fate, or left open by an error; and none is more than one of these.
async fn every_write(tailscale: &Tailscale) {
    let key: AttributeKey = "custom:ztaScore".to_owned().try_into().unwrap();
    let writes = ["nA1", "nA2", "nA3"].map(|node| AttributeWrite {
        node_id: id(node),
        set: Some(SetAttribute {
            key: key.clone(),
            score: 7,
            expiry: None,
        }),
        delete: None,
    });
    let written = tailscale
        .writer()
        .write(&writes, "why", Timestamp::MAX)
        .await;
    let failed = written.rejected.iter().chain(&written.unknown);
    let refused = failed.map(|(node, message)| {
        assert_fit(message, 400);
        node
    });
    let mut told: BTreeMap<&NodeId, usize> = BTreeMap::new();
    for node in refused.chain(&written.accepted) {
        *told.entry(node).or_default() += 1;
    }
    assert!(told.values().all(|times| *times == 1), "{told:?}");
    assert!(told.len() == 3 || written.error.is_some(), "{told:?}");
    if let Some(error) = &written.error {
        assert_error(error);
    }
}

/// Five reads and some writes, each in two rounds of four tries at most, with a token for each.
const MANY: usize = 200;

#[test]
fn whatever_tailscale_answers_is_a_value_that_keeps_its_promise_or_an_error_that_is_fit_to_be_shown()
 {
    let script = Script::default();
    let answers_of = script.clone();
    let server = server(move |_, _| answers_of.next());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let tailscale = runtime.block_on(sign_in(&server));
    proptest!(cases(300), |(answers in answers(status(), header(), body()))| {
        script.load(answers);
        runtime.block_on(async {
            every_read(&tailscale).await;
            every_write(&tailscale).await;
        });
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
    let tailnet = Tailnet::default();
    proptest!(cases(200), |(answers in answers(status(), header(), body()))| {
        script.load(answers);
        let credentials = TailscaleCredentials::OAuth {
            client_id: "kABC".to_owned(),
            client_secret: "tskey-client-s3cret".into(),
        };
        let signing_in = Tailscale::sign_in(client.clone(), &server.url, &tailnet, credentials);
        match runtime.block_on(signing_in) {
            Ok(tailscale) => {
                for scope in tailscale.scopes.clone().unwrap_or_default() {
                    prop_assert!(scope.chars().count() <= 101 && !scope.contains(char::is_control), "{scope:?}");
                }
            }
            Err(error) => {
                assert_error(&error);
                let text = crate::text::error_chain(&error);
                prop_assert!(!text.contains(MARK) && !text.contains("s3cret"), "{text}");
            }
        }
        prop_assert!(script.asked() <= 4, "{} requests", script.asked());
    });
}

#[tokio::test]
async fn a_listing_of_more_devices_than_its_size_allows_real_ones_is_refused() {
    let listing = async |devices: usize| {
        let server = server(move |_, _| {
            let devices: Vec<String> = (0..devices).map(|n| format!(r#"{{"id":"{n}"}}"#)).collect();
            answer(
                200,
                &[],
                format!(r#"{{"devices":[{}]}}"#, devices.join(",")),
            )
        });
        let devices = sign_in(&server).await.devices().await;
        devices.map(|devices| devices.len()).ok()
    };
    assert_eq!(listing(150_000).await, Some(150_000));
    assert_eq!(listing(150_001).await, None);
}
