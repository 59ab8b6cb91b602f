use super::*;
use crate::domain::inventory::attribute::{HeldAttribute, HeldAttributes};
use crate::domain::status::error_kind::ErrorKind;
use jiff::Timestamp;

const NOT_PERMITTED: &str =
    "calling actor does not have enough permissions to perform this function";

/// Makes the three diagnostic calls. Returns the server and whether each call succeeded.
async fn diagnose(
    script: impl Fn(usize, &Asked) -> Vec<u8> + Send + 'static,
) -> (Server, [Result<(), UpstreamError>; 3]) {
    let server = server(script);
    let tailscale = sign_in(&server).await;
    let results = [
        tailscale.identity_collection().await.map(|_| ()),
        tailscale.has_falcon_integration().await.map(|_| ()),
        tailscale.attributes(&id("nA")).await.map(|_| ()),
    ];
    (server, results)
}

/// Signs in with this `scope` in the token response. Returns the scopes.
async fn scopes(scope: Value) -> Option<Vec<String>> {
    let body = json!({"access_token": "t0ken", "expires_in": 3600, "scope": scope});
    let server = Server::new(move |_, _| json(200, &body));
    let scopes = sign_in(&server).await.scopes;
    scopes.map(|scopes| scopes.into_iter().collect())
}

#[tokio::test]
async fn the_granted_scopes_are_in_the_token_response() {
    assert_eq!(
        scopes(json!(
            "feature_settings:read  devices:posture_attributes devices:core:read\u{1b} "
        ))
        .await
        .unwrap(),
        [
            "devices:core:read ",
            "devices:posture_attributes",
            "feature_settings:read"
        ]
    );
    for missing in [json!(""), json!(" "), json!(null), json!(7), json!(["all"])] {
        assert_eq!(scopes(missing.clone()).await, None, "{missing}");
    }
    // A response without the field, and an API key, which has no token response.
    let server = server(|_, _| Vec::new());
    assert_eq!(sign_in(&server).await.scopes, None);
    let key = TailscaleCredentials::ApiKey("tskey-api-key".into());
    assert_eq!(sign_in_with(&server, key).await.unwrap().scopes, None);
}

#[tokio::test]
async fn identity_collection_is_on_or_off_or_unknown() {
    for (body, expect) in [
        (
            json!({"postureIdentityCollectionOn": true, "httpsEnabled": null, "new": {}}),
            Some(true),
        ),
        (json!({"postureIdentityCollectionOn": false}), Some(false)),
        (json!({"postureIdentityCollectionOn": null}), None),
        (json!({"devicesApprovalOn": true}), None),
    ] {
        let server = server(move |_, _| json(200, &body));
        let on = sign_in(&server).await.identity_collection().await;
        assert_eq!(on.unwrap(), expect);
        assert_eq!(calls(&server), ["GET /api/v2/tailnet/example.com/settings"]);
    }
}

#[tokio::test]
async fn the_native_integration_is_the_one_of_provider_falcon() {
    let falcon = json!({"id": "pcBEPQVMpki7DEVEL", "provider": "falcon", "cloudId": "us-1",
                        "status": {"error": "oauth2: cannot fetch token", "matchedCount": 0}});
    let jamf = json!({"id": "pFKyGf5YerWbDEVEL", "provider": "jamfpro", "clientId": "falcon"});
    for (list, expect) in [
        (json!([jamf, falcon]), true),
        (json!([jamf, {"provider": "new"}]), false),
        (json!([]), false),
        (json!(null), false),
    ] {
        let server = server(move |_, _| json(200, &json!({"integrations": list, "new": {}})));
        let native = sign_in(&server).await.has_falcon_integration().await;
        assert_eq!(native.unwrap(), expect);
        assert_eq!(
            calls(&server),
            ["GET /api/v2/tailnet/example.com/posture/integrations"]
        );
    }
}

#[tokio::test]
async fn attributes_are_unchanged_and_by_key() {
    let server = server(|_, asked| match asked.line.as_str() {
        "GET /api/v2/device/nA/attributes" => json(
            200,
            &json!({"attributes": {"custom:ztaScore": 80, "node:os": "linux", "kandji:agentInstalled": true},
                    "expiries": {"custom:ztaScore": "2024-04-23T18:25:43.511Z"}}),
        ),
        "GET /api/v2/device/nB/attributes"
        | "GET /api/v2/device/nB?fields=all"
        | "GET /api/v2/device/nE/attributes" => message(404, "device not found"),
        "GET /api/v2/device/nE?fields=all" => json(200, &json!({"nodeId": "nE"})),
        "GET /api/v2/device/nC/attributes" => json(200, &json!({"attributes": {}})),
        _ => answer(404, &[], "404 page not found"),
    });
    let tailscale = sign_in(&server).await;
    let attributes = tailscale.attributes(&id("nA")).await.unwrap().unwrap();
    let end = "2024-04-23T18:25:43.511Z".parse().unwrap();
    let expect = [
        ("custom:ztaScore", json!(80), Some(end)),
        ("kandji:agentInstalled", json!(true), None),
        ("node:os", json!("linux"), None),
    ];
    let held = |(key, value, expiry): (&str, Value, Option<Timestamp>)| {
        (key.to_owned(), HeldAttribute { value, expiry })
    };
    assert_eq!(attributes, HeldAttributes(expect.map(held).into()));
    assert_eq!(tailscale.attributes(&id("nB")).await.unwrap(), None);
    let none = tailscale.attributes(&id("nC")).await.unwrap().unwrap();
    assert_eq!(none, HeldAttributes::default());
    assert_eq!(tailscale.attributes(&id("../keys")).await.unwrap(), None);
    // A 404 of a proxy says nothing about the device.
    let error = tailscale.attributes(&id("nD")).await.unwrap_err();
    assert!(error.is_rejected_with(404), "{error:?}");
    assert_eq!(calls(&server).len(), 5);
    // The device of a wrong 404 exists.
    let error = tailscale.attributes(&id("nE")).await.unwrap_err();
    assert!(error.to_string().contains("the device exists"), "{error}");
}

#[tokio::test]
async fn a_missing_scope_is_named() {
    let (server, results) = diagnose(|_, _| message(403, NOT_PERMITTED)).await;
    let missing = |result: Result<(), UpstreamError>| match result {
        Err(error) if error.error_kind() == ErrorKind::MissingScope => error.operation.scope,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        results.map(missing),
        [
            "feature_settings:read",
            "feature_settings:read",
            "devices:posture_attributes:read"
        ]
    );
    assert_eq!(calls(&server).len(), 3);
}

#[tokio::test]
async fn a_missing_tailnet_is_an_error_and_a_missing_device_is_none() {
    let (server, results) = diagnose(|_, _| message(404, "tailnet not found")).await;
    let [settings, integrations, attributes] = results;
    for result in [settings, integrations] {
        let error = result.unwrap_err();
        assert!(
            matches!(&error.kind, UpstreamErrorKind::Rejected { status: 404, message }
                if message == "tailnet not found"),
            "{error:?}"
        );
    }
    assert!(attributes.is_ok());
    assert_eq!(calls(&server).len(), 4);
}

#[tokio::test]
async fn a_response_of_another_form_is_an_error() {
    const LARGE: usize = 2 << 20;
    let bodies = ["null", "7", "<html>", "{} x"]
        .map(str::to_owned)
        .into_iter()
        .chain([format!("{{\"x\":\"{}\"}}", "x".repeat(LARGE))]);
    for body in bodies {
        let start: String = body.chars().take(20).collect();
        let (server, results) = diagnose(move |_, _| answer(200, &[], &body)).await;
        for result in results {
            let kind = result.unwrap_err().kind;
            assert!(
                matches!(kind, UpstreamErrorKind::Protocol),
                "{start}: {kind:?}"
            );
        }
        assert_eq!(calls(&server).len(), 3);
    }
}

#[tokio::test]
async fn an_ambiguous_value_is_an_error() {
    for (which, body) in [
        (0, json!({"postureIdentityCollectionOn": "true"})),
        (0, json!({"postureIdentityCollectionOn": 1})),
        (1, json!({})),
        (1, json!({"integrations": {}})),
        (1, json!({"integrations": [null]})),
        (1, json!({"integrations": [{"id": "p1"}]})),
        (1, json!({"integrations": [{"provider": 7}]})),
        (2, json!({})),
        (2, json!({"attributes": null})),
        (2, json!({"attributes": [1]})),
    ] {
        let text = body.to_string();
        let (_, results) = diagnose(move |_, _| json(200, &body)).await;
        let kind = &results[which].as_ref().unwrap_err().kind;
        assert!(
            matches!(kind, UpstreamErrorKind::Protocol),
            "{text}: {kind:?}"
        );
    }
}
