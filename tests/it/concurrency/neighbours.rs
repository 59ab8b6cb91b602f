//! A slow integration does not delay another one in the same process.

use std::sync::Mutex;

use axum::Router;
use axum::http::StatusCode;
use futures::FutureExt as _;
use futures::future::join;
use posture_simulators::net::Server;
use posture_simulators::{Account, GeneratorSpec};
use tokio::sync::watch;

use super::elsewhere;
use crate::aws;
use crate::environment::{TAILNET, TestEnvironment};
use crate::second_integration::Integration;

/// A server that answers no request until it is opened, and then redirects each to another server.
struct Gate {
    server: Server,
    open: watch::Sender<bool>,
}

impl Gate {
    async fn before(target: &str) -> Self {
        let (open, gate) = watch::channel(false);
        let target = format!("{target}/oauth2/token");
        let server = aws::serve(Router::new().fallback(move || {
            let (mut gate, target) = (gate.clone(), target.clone());
            async move {
                gate.wait_for(|open| *open).await.unwrap();
                (StatusCode::PERMANENT_REDIRECT, [("location", target)])
            }
        }))
        .await;
        Self { server, open }
    }
}

#[tokio::test]
async fn a_slow_falcon_account_delays_nobody_else() {
    let mut env = TestEnvironment::synced().await;
    let account = Account::new("labs").region("us-2");
    let labs = Integration::connect(&env, account, &GeneratorSpec::plain(8, 8)).await;
    // The token call of `labs` hangs; that of `corp` has another URL.
    let gate = Gate::before(&env.sims.falcon_url("us-2")).await;
    let clouds = &mut env.app.config.clouds;
    clouds.insert(
        "us-3".to_owned().try_into().unwrap(),
        clouds[&"us-2".to_owned().try_into().unwrap()].clone(),
    );
    clouds.insert(
        "us-2".to_owned().try_into().unwrap(),
        gate.server.url().parse().unwrap(),
    );
    let corp = Integration::corp();
    let finished = Mutex::new(Vec::new());
    let run = async |integration: &Integration| {
        let answer = env.ask(integration.requested()).await;
        assert_eq!(answer["outcome"], "synced", "{answer:#}");
        finished.lock().unwrap().push(integration.name.clone());
    };
    let slow = run(&labs);
    let quick = async {
        for n in 0..5 {
            corp.move_a_score(&env, n);
            run(&corp).await;
            assert!(!labs.item(&env).await["lease"].is_null(), "at work");
        }
        gate.open.send_replace(true);
    };
    join(slow.boxed_local(), quick.boxed_local()).await;
    let order = finished.into_inner().unwrap();
    assert_eq!(order, ["corp", "corp", "corp", "corp", "corp", "labs"]);
    for integration in [corp, labs] {
        assert_eq!(integration.scores(&env), integration.expected(&env));
        integration.assert_sound(&env).await;
    }
}

#[tokio::test]
async fn a_slow_tailnet_delays_nobody_else() {
    let env = TestEnvironment::synced().await;
    let labs = Integration::connect(&env, Account::new("labs"), &GeneratorSpec::plain(8, 8)).await;
    // For this function, the tailnet API hangs. It shares tables and secrets with the other function.
    let gate = Gate::before("http://127.0.0.1:9").await;
    let mut hanging = elsewhere(&env, env.app.clock.clone());
    hanging.config.tailscale_api = gate.server.url().parse().unwrap();
    let corp = Integration::corp();
    let finished = Mutex::new(Vec::new());
    let slow = async {
        let answer = super::ask_as(&hanging, "slow", labs.requested()).await;
        assert_eq!(answer.unwrap()["outcome"], "failed");
        finished.lock().unwrap().push("labs");
    };
    let quick = async {
        for n in 0..5 {
            corp.move_a_score(&env, n);
            assert_eq!(env.ask(corp.requested()).await["outcome"], "synced");
            finished.lock().unwrap().push("corp");
            let other = env.ask(labs.requested()).await;
            assert_eq!(other["outcome"], "skipped", "{other:#}");
        }
        gate.open.send_replace(true);
    };
    join(slow.boxed_local(), quick.boxed_local()).await;
    let order = finished.into_inner().unwrap();
    assert_eq!(order, ["corp", "corp", "corp", "corp", "corp", "labs"]);
    assert_eq!(env.ask(labs.requested()).await["outcome"], "synced");
    assert_eq!(env.sims.tailscale().changes(TAILNET).unwrap().len(), 45);
    for integration in [corp, labs] {
        assert_eq!(integration.scores(&env), integration.expected(&env));
        integration.assert_sound(&env).await;
    }
}
