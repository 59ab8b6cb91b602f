//! Concurrent runs of one integration, duplicate events, slow neighbours, wrong clocks, and a throttling DynamoDB.

pub(crate) mod busy;
mod clocks;
mod deliveries;
mod neighbours;

use std::collections::BTreeSet;
use std::time::Duration;

use falcon_posture_sync::app::{App, Invocation};
use falcon_posture_sync::clock::Clock;
use falcon_posture_sync::handler::{self, HandlerError};
use futures::future::join_all;
use jiff::SignedDuration;
use posture_simulators::{GeneratorSpec, Host, Side};
use serde_json::{Value, json};

use crate::aws;
use crate::environment::{TAILNET, TestEnvironment, app, chain};
use crate::second_integration::Integration;

/// The same function on another machine, with its own clock.
fn elsewhere(env: &TestEnvironment, clock: Clock) -> App {
    let (dynamodb, others) = (env.dynamodb.url(), env.services.url());
    app(
        &env.variables(),
        clock,
        &aws::sdk(dynamodb),
        &aws::sdk(&others),
    )
}

/// Asks the function, with this request id and 15 minutes by its own clock.
async fn ask_as(app: &App, id: &str, payload: Value) -> Result<Value, HandlerError> {
    let invocation = Invocation {
        id: id.to_owned(),
        caller: None,
        alias: None,
        function_arn: "arn:aws:lambda:us-east-1:123456789012:function:falcon-posture-sync"
            .to_owned(),
        deadline: app
            .clock
            .now()
            .saturating_add(SignedDuration::from_mins(15))
            .unwrap(),
    };
    handler::handle(app, payload, &invocation).await
}

/// The comments of the changes in the tailnet from the `since`th change on: each names its run.
fn writers(env: &TestEnvironment, since: usize) -> BTreeSet<String> {
    let changes = env.sims.tailscale().changes(TAILNET).unwrap();
    let comments = changes.into_iter().skip(since);
    comments.filter_map(|change| change.comment).collect()
}

fn changes(env: &TestEnvironment) -> usize {
    env.sims.tailscale().changes(TAILNET).unwrap().len()
}

/// Each run that works signs in once.
const SIGN_IN: &str = "POST /oauth2/token";

/// Changes some scores, removes a host, and puts back the host that was removed before.
fn stir(env: &TestEnvironment, round: usize, away: &mut Option<Host>) {
    let corp = Integration::corp();
    let falcon = env.sims.falcon();
    if let Some(host) = away.take() {
        env.put_host_back("corp", host);
    }
    for n in 0..3 {
        corp.move_a_score(env, round * 5 + n * 11);
    }
    let hosts = corp.hosts(env);
    let leaves = &hosts[(round * 7 + 3) % hosts.len()].device_id;
    *away = falcon.remove_host("corp", leaves).unwrap();
}

#[tokio::test]
async fn of_three_that_come_at_the_same_moment_one_works_at_a_time() {
    let env = TestEnvironment::connected(&GeneratorSpec::plain(24, 24)).await;
    assert_eq!(env.sync().await["outcome"], "synced");
    // Long enough that no run ends before the others have begun.
    for side in [Side::Falcon, Side::Tailscale] {
        env.sims.set_latency(side, Duration::from_millis(5));
    }
    let corp = Integration::corp();
    let (mut away, mut skipped) = (None, 0);
    for round in 0..50 {
        // The guard counts removals over a day.
        env.app.clock.advance(Duration::from_hours(24));
        stir(&env, round, &mut away);
        let before = changes(&env);
        env.requests();
        let (a, b, c) = tokio::join!(env.sync(), env.ask(corp.requested()), env.force());
        let answers = [a, b, c];
        let of = |outcome: &str| answers.iter().filter(|a| a["outcome"] == outcome).count();
        let (synced, unchanged) = (of("synced"), of("unchanged"));
        assert_eq!(synced, 1, "{answers:#?}");
        assert_eq!(synced + unchanged + of("skipped"), 3, "{answers:#?}");
        skipped += of("skipped");
        let workers = u64::try_from(synced + unchanged).unwrap();
        assert_eq!(env.requests()[SIGN_IN], workers, "{answers:#?}");
        let writers = writers(&env, before);
        assert_eq!(writers.len(), 1, "one of them has written: {writers:?}");
        assert_eq!(env.scores(), env.expected(), "round {round}");
        env.assert_sound().await;
    }
    assert!(skipped >= 90, "{skipped} of 100 found somebody at work");
    assert_eq!(env.sync().await["outcome"], "unchanged");
}

/// Delivers an event twice. Its work must be done once.
async fn twice(env: &TestEnvironment, ids: [&str; 2], at_once: bool) {
    let event = Integration::corp().requested();
    let before = env.node_audit().await.len();
    stir(env, before, &mut None);
    let meant = env.expected().len();
    let deliver = |id| ask_as(&env.app, id, event.clone());
    let answers = if at_once {
        join_all(ids.map(deliver)).await
    } else {
        let first = deliver(ids[0]).await;
        vec![first, deliver(ids[1]).await]
    };
    for answer in &answers {
        match answer {
            Ok(answer) => {
                let good = ["synced", "unchanged", "skipped"].map(Value::from);
                assert!(good.contains(&answer["outcome"]), "{ids:?}: {answer:#}");
            }
            // Both have the same lease where both have the same name. One of them records.
            Err(error) => {
                assert!(at_once && ids[0] == ids[1], "{}", chain(error));
                assert!(chain(error).contains("another run"), "{}", chain(error));
            }
        }
    }
    assert!(answers.iter().any(Result::is_ok), "{ids:?}");
    assert_eq!(env.scores(), env.expected(), "{ids:?}");
    assert_eq!(env.scores().len(), meant);
    env.assert_sound().await;
    let audited = env.node_audit().await.len();
    assert!(audited > before, "{ids:?}");
    let later = deliver("later").await.unwrap();
    assert_eq!(later["outcome"], "unchanged", "{ids:?}: {later:#}");
    assert_eq!(env.node_audit().await.len(), audited);
    env.assert_sound().await;
}

#[tokio::test]
async fn an_event_that_is_delivered_twice_changes_nothing_twice() {
    for (ids, at_once) in [
        (["same", "same"], true),
        (["one", "other"], true),
        (["same", "same"], false),
        (["one", "other"], false),
    ] {
        let env = TestEnvironment::connected(&GeneratorSpec::plain(24, 24)).await;
        // The first of them creates all records, the second changes and removes some.
        twice(&env, ids, at_once).await;
        let ids = ids.map(|id| format!("{id} again"));
        twice(&env, [&ids[0], &ids[1]], at_once).await;
    }
}

#[tokio::test]
async fn the_change_of_settings_and_the_event_of_it_twice_make_one_change() {
    let env = TestEnvironment::connected(&GeneratorSpec::plain(24, 24)).await;
    let event = env.services.state().events[0].clone();
    assert_eq!(event["detail-type"], "Posture Integration Changed");
    let asked = [event.clone(), event.clone(), json!({"command": "sync"})].map(|p| env.ask(p));
    let answers = join_all(asked).await;
    let outcomes: BTreeSet<&str> = answers
        .iter()
        .map(|answer| answer["outcome"].as_str().unwrap())
        .collect();
    assert!(outcomes.contains("synced"), "{outcomes:?}");
    assert_eq!(env.scores(), env.expected());
    assert_eq!(env.node_audit().await.len(), 24);
    assert_eq!(env.ask(event).await["outcome"], "unchanged");
    env.assert_sound().await;
}
