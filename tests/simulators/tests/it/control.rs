use posture_simulators::Simulators;
use serde_json::{Value, json};

use crate::client::{Client, form};

async fn sims() -> (Simulators, Client) {
    let sims = Simulators::builder().control_port(0).start().await.unwrap();
    let control = Client {
        base: sims.control_url(),
        token: String::new(),
    };
    (sims, control)
}

async fn ok(control: &Client, method: &str, path: &str, body: Value) -> Value {
    let response = control.send(method, path, &body).await;
    assert_eq!(response.status, 200, "{method} {path}: {}", response.text());
    response.json()
}

#[tokio::test]
async fn both_sides_are_set_and_read_over_http() {
    let (sims, control) = sims().await;
    let order = json!({"spec": {"seed": 3, "hosts": 50, "devices": 20}, "account": {"name": "corp"}, "tailnet": {"name": "example.com"}});
    let generated = ok(&control, "POST", "/generate", order).await;
    assert_eq!(
        (&generated["hosts"], &generated["devices"]),
        (&json!(50), &json!(20))
    );
    let (id, secret) = (
        generated["account"]["client_id"].as_str().unwrap(),
        generated["account"]["client_secret"].as_str().unwrap(),
    );
    assert_eq!(
        form(
            &sims.falcon_url("us-1"),
            "/oauth2/token",
            &format!("client_id={id}&client_secret={secret}")
        )
        .await
        .status,
        201
    );

    ok(
        &control,
        "PUT",
        "/falcon/accounts/corp/hosts/aa",
        json!({"serial_number": "S1", "hostname": "one", "colour": "red"}),
    )
    .await;
    ok(
        &control,
        "PUT",
        "/falcon/accounts/corp/scores/aa",
        json!("80"),
    )
    .await;
    assert_eq!(
        ok(&control, "GET", "/falcon/accounts/corp/scores", json!(null)).await["aa"],
        "80"
    );
    assert_eq!(
        ok(
            &control,
            "DELETE",
            "/falcon/accounts/corp/hosts/aa",
            json!(null)
        )
        .await,
        json!({"removed": true})
    );
    let host =
        json!({"serial_number": "S2", "first_seen": "2026-01-01T00:00:00Z", "status": "contained"});
    for aid in ["bb", "cc"] {
        let path = format!("/falcon/accounts/corp/hosts/{aid}");
        ok(&control, "PUT", &path, host.clone()).await;
    }
    let beat = json!({"time": "2026-01-02T00:00:00Z", "except": ["cc"]});
    ok(&control, "POST", "/falcon/accounts/corp/heartbeat", beat).await;
    let mut hosts = sims.falcon().hosts("corp").unwrap();
    hosts.retain(|host| host.status.as_deref() == Some("contained"));
    let seen = hosts.iter().map(|host| host.last_seen.as_deref());
    assert!(seen.eq([Some("2026-01-02T00:00:00Z"), None]));
    for aid in ["bb", "cc"] {
        sims.falcon().remove_host("corp", aid).unwrap();
    }
    // a PUT keeps the fields that it does not name
    let account = ok(
        &control,
        "PUT",
        "/falcon/accounts/corp",
        json!({"scopes": ["zta:read"]}),
    )
    .await;
    assert_eq!(account["client_id"], id);
    assert_eq!(sims.falcon().hosts("corp").unwrap().len(), 50);
    let settings = ok(
        &control,
        "PUT",
        "/falcon/settings",
        json!({"zta_cursor": "next", "token_lifetime_s": 5}),
    )
    .await;
    assert_eq!(
        (&settings["zta_cursor"], &settings["cursor_lifetime_s"]),
        (&json!("next"), &json!(120))
    );

    assert_eq!(
        ok(&control, "GET", "/requests", json!(null)).await["requests"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    ok(&control, "POST", "/reset", json!(null)).await;
    assert_eq!(control.get("/falcon/accounts/corp/hosts").await.status, 404);
}

#[tokio::test]
async fn devices_and_attributes_are_set_and_read_over_http() {
    let (_sims, control) = sims().await;
    let order = json!({"spec": {"devices": 20}, "tailnet": {"name": "example.com"}});
    ok(&control, "POST", "/generate", order).await;
    ok(
        &control,
        "PUT",
        "/tailscale/tailnets/example.com/devices/n1CNTRL",
        json!({"hostname": "one", "postureIdentity": {"serialNumbers": ["S1"]}}),
    )
    .await;
    ok(
        &control,
        "PUT",
        "/tailscale/tailnets/example.com/devices/n1CNTRL/attributes/custom:x",
        json!(5),
    )
    .await;
    assert_eq!(
        ok(
            &control,
            "GET",
            "/tailscale/tailnets/example.com/attributes",
            json!(null)
        )
        .await,
        json!({"n1CNTRL": {"custom:x": 5}})
    );
    assert_eq!(
        ok(
            &control,
            "GET",
            "/tailscale/tailnets/example.com/changes",
            json!(null)
        )
        .await[0]["new"],
        5
    );
    assert_eq!(
        ok(
            &control,
            "GET",
            "/tailscale/tailnets/example.com/devices",
            json!(null)
        )
        .await
        .as_array()
        .unwrap()
        .len(),
        21
    );
}

#[tokio::test]
async fn scripts_and_faults_run_at_their_moment() {
    let (sims, control) = sims().await;
    let account = ok(&control, "PUT", "/falcon/accounts/corp", json!({})).await;
    let credentials = format!(
        "client_id={}&client_secret={}",
        account["client_id"].as_str().unwrap(),
        account["client_secret"].as_str().unwrap()
    );
    let base = sims.falcon_url("us-1");
    let token = form(&base, "/oauth2/token", &credentials).await.json()["access_token"]
        .as_str()
        .unwrap()
        .to_owned();
    let client = Client { base, token };
    let path = "/zero-trust-assessment/queries/assessments/v1?filter=score:>=0";

    let when =
        json!({"side": "falcon", "path_prefix": "/zero-trust-assessment/queries", "count": 2});
    let actions = json!([{"setScore": {"account": "corp", "aid": "aa", "score": 7}}, {"expireFalconTokens": {}}]);
    ok(
        &control,
        "POST",
        "/scripts",
        json!({"after": when, "do": actions}),
    )
    .await;
    ok(&control, "POST", "/faults", json!({"side": "falcon", "path_prefix": "/zero", "nth": 2, "kind": {"status": {"code": 500}}})).await;
    for (status, total) in [(200, json!(0)), (200, json!(0)), (500, Value::Null)] {
        let response = client.get(path).await;
        assert_eq!(
            (
                response.status,
                &response.json()["meta"]["pagination"]["total"]
            ),
            (status, &total)
        );
    }
    assert_eq!(client.get(path).await.status, 401);
    assert_eq!(sims.falcon().scores("corp").unwrap()["aa"], 7);

    for (path, body) in [
        ("/faults", json!({"side": "falcon", "kind": "explode"})),
        (
            "/faults",
            json!({"side": "falcon", "path": "/x", "kind": "reset"}),
        ),
        (
            "/scripts",
            json!({"after": when, "do": [{"setScores": {}}]}),
        ),
        ("/generate", json!({"spec": {"host": 5}})),
    ] {
        assert_eq!(
            control.send("POST", path, &body).await.status,
            400,
            "{path} {body}"
        );
    }
    ok(&control, "PUT", "/listening", json!({"falcon": false})).await;
    assert!(client.call("GET", path, "").await.is_err());
    ok(&control, "PUT", "/listening", json!({"falcon": true})).await;
    assert_eq!(client.get(path).await.status, 401);
}
