//! Every view in every state, written to `target/tmp/console` for `make console` to open in a browser.

use std::fs;
use std::num::NonZeroU16;
use std::path::Path;
use std::time::Duration;

use posture_simulators::{Account, Device, Fault, GeneratorSpec, Host, Matcher, Side};
use serde_json::{Value, json};

use super::{lock_out, with_buttons};
use crate::environment::{TAILNET, TestEnvironment};
use crate::second_integration::Integration;

const FOLDER: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/console");

const EVENT: &str = "2026-01-15T11:00:00Z";

/// Runs the schedule this many times.
async fn ticks(env: &TestEnvironment, ticks: usize) {
    for _ in 0..ticks {
        env.app.clock.advance(Duration::from_mins(14));
        env.sync().await;
    }
}

/// Creates an integration with half a day of runs: with and without changes, and a device of each kind.
async fn lived_in() -> TestEnvironment {
    let spec = GeneratorSpec {
        hosts: 240,
        devices: 160,
        ..GeneratorSpec::default()
    };
    let env = with_buttons(TestEnvironment::connected(&spec).await);
    // Most devices have a good score, and the APIs are slow.
    for (aid, score) in env.sims.falcon().scores("corp").unwrap() {
        let score = score.as_i64().unwrap_or(0);
        let falcon = env.sims.falcon();
        falcon
            .set_score("corp", &aid, 100 - score * score / 140)
            .unwrap();
    }
    let clock = env.app.clock.clone();
    env.sims.on_request(Matcher::side(Side::Falcon), move |_| {
        clock.advance(Duration::from_millis(137));
    });
    ticks(&env, 6).await;
    let aids: Vec<String> = {
        let records = env.items("nodes").await;
        let aid = |record: &Value| record["aid"].as_str().unwrap().to_owned();
        records.iter().map(aid).collect()
    };
    for (n, quiet) in [(3, 8), (11, 2), (29, 12)] {
        let falcon = env.sims.falcon();
        falcon.set_score("corp", &aids[n], 40 + n).unwrap();
        ticks(&env, quiet).await;
    }
    env.update(json!({"maxHostAgeDays": 60})).await;
    ticks(&env, 1).await;
    env
}

/// Writes the responses to these requests, in both themes.
async fn write(env: &TestEnvironment, situation: &str, calls: &[(&str, Value)]) {
    fs::create_dir_all(FOLDER).unwrap();
    for theme in ["light", "dark"] {
        for (name, call) in calls {
            let mut payload = call.clone();
            let forms = payload.as_object_mut().unwrap().remove("forms");
            payload["widgetContext"] = json!({
                "theme": theme, "forms": {"all": forms},
                "timezone": {"label": "Local", "offsetISO": "+01:00", "offsetInMinutes": 60}
            });
            let page = env.ask(payload).await;
            let file = format!("{situation}.{name}.{theme}.html");
            fs::write(Path::new(FOLDER).join(file), page.as_str().unwrap()).unwrap();
        }
    }
}

fn views() -> Vec<(&'static str, Value)> {
    let views = ["overview", "history", "findings", "audit", "explain"];
    let mut calls: Vec<_> = views
        .into_iter()
        .map(|view| (view, json!({ "view": view })))
        .collect();
    calls.push(("scores", json!({"view": "scores", "minScore": 70})));
    calls
}

fn explained(device: &str) -> (&'static str, Value) {
    let call = json!({"view": "explain", "action": "explain", "forms": {"integration": "corp", "device": device}});
    ("explained", call)
}

fn checked() -> (&'static str, Value) {
    ("checked", json!({"action": "check", "integration": "corp"}))
}

#[tokio::test]
async fn healthy() {
    let env = lived_in().await;
    let (node, _) = env.scores().pop_first().unwrap();
    let mut calls = views();
    calls.extend([explained(&node), checked()]);
    calls.push(("trouble", json!({"view": "nothing"})));
    write(&env, "healthy", &calls).await;
}

#[tokio::test]
async fn paused() {
    let env = lived_in().await;
    lock_out(&env);
    ticks(&env, 3).await;
    let mut calls = views();
    calls.extend([explained("nobody"), checked()]);
    write(&env, "paused", &calls).await;
}

#[tokio::test]
async fn held() {
    let env = lived_in().await;
    let hosts = env.sims.falcon().hosts("corp").unwrap();
    for host in hosts.iter().take(200) {
        let falcon = env.sims.falcon();
        falcon.remove_host("corp", &host.device_id).unwrap();
    }
    ticks(&env, 2).await;
    assert_eq!(env.corp().await["status"]["outcome"], "held");
    write(&env, "held", &views()).await;
}

#[tokio::test]
async fn failing() {
    let env = lived_in().await;
    let all = Matcher::side(Side::Tailscale);
    env.sims.faults().add(Fault::status(all, 400).always());
    ticks(&env, 2).await;
    write(&env, "failing", &views()).await;
}

#[tokio::test]
async fn empty() {
    write(
        &with_buttons(TestEnvironment::empty().await),
        "empty",
        &views(),
    )
    .await;
}

#[tokio::test]
async fn forty() {
    let mut env = with_buttons(TestEnvironment::synced().await);
    // Each request takes a minute.
    env.app.config.sync_interval_minutes = NonZeroU16::new(60).unwrap();
    for n in 1..40_u64 {
        let long = "-x".repeat(if n == 7 { 20 } else { 0 });
        let account = Account::new(&format!("plant-{n:02}{long}"));
        let spec = GeneratorSpec {
            seed: n,
            ..GeneratorSpec::plain(12, 8)
        };
        let plant = Integration::connect(&env, account, &spec).await;
        if n % 13 == 0 {
            continue;
        }
        if n % 9 == 4 {
            let secret = json!({"clientId": "0".repeat(32), "clientSecret": "not-it"});
            env.services
                .put_secret(&format!("{}/falcon", plant.name), secret);
        }
        env.ask(plant.requested()).await;
    }
    write(&env, "forty", &views()).await;
}

#[tokio::test]
async fn hostile() {
    let env = with_buttons(TestEnvironment::empty().await);
    let payload = json!({
        "command": "connect", "integration": crate::environment::corp(json!({})), "check": false,
        "actor": "<script>alert(1)</script>\"><img src=x onerror=alert(1)>"
    });
    env.ask(payload).await;
    let long = "W".repeat(200);
    let names = [
        "<script>alert(1)</script>",
        "\"><img src=x onerror=alert(1)>",
        "' onmouseover='alert(1)",
        "\u{202e}gpj.exe\u{202c}",
        "שלום-עולם",
        "</style></svg><iframe src=//evil>",
        "{\"action\":\"sync\"}</cwdb-action>",
        long.as_str(),
        "\u{0}\u{1b}[31mred",
        "",
    ];
    for (n, name) in names.into_iter().enumerate() {
        let (serial, aid) = (format!("SN<b>{n}'\"&"), format!("{n:032x}"));
        let device = Device::new(&format!("n{n}"), name, [serial.clone()]);
        env.sims.tailscale().put_device(TAILNET, device).unwrap();
        // Every third device has no host, so that a finding names it.
        if n % 3 > 0 {
            let host = Host::new(&aid, &serial, name, EVENT);
            env.sims.falcon().put_host("corp", host).unwrap();
            env.sims.falcon().set_score("corp", &aid, 60 + n).unwrap();
        }
    }
    ticks(&env, 2).await;
    let mut calls = views();
    calls.push(explained("n1"));
    write(&env, "hostile", &calls).await;
}
