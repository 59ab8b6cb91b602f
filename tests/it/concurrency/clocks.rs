//! Machines with clocks that differ by minutes.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use falcon_posture_sync::app::App;
use falcon_posture_sync::clock::Clock;
use jiff::SignedDuration;
use posture_simulators::{GeneratorSpec, Matcher, Side};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::task::block_in_place;

use super::{ask_as, elsewhere};
use crate::environment::{TAILNET, TestEnvironment, chain};
use crate::second_integration::Integration;

/// A stopped clock with this offset from the environment's clock.
fn off_by(env: &TestEnvironment, minutes: i64) -> Clock {
    let now = env.app.clock.now();
    Clock::fixed_at(
        now.saturating_add(SignedDuration::from_mins(minutes))
            .unwrap(),
    )
}

fn writes() -> Matcher {
    Matcher::side(Side::Tailscale)
        .method("PATCH")
        .path("/api/v2/tailnet/-/device-attributes")
}

/// The outcome of the run that took over. It finishes while the other run waits for the response to a write.
type Successor = Arc<Mutex<Option<Result<Value, String>>>>;

/// Lets another machine take over when the next run sends its first write.
fn overtake(env: &TestEnvironment, machine: App, moves: bool) -> Successor {
    let answer = Successor::default();
    let (noted, runtime) = (Arc::clone(&answer), Handle::current());
    let (falcon, hosts) = (env.sims.falcon().clone(), Integration::corp().hosts(env));
    let machine = Mutex::new(Some(machine));
    env.sims.on_request(writes(), move |_| {
        // It writes, too, and must not find this locked.
        let taken = machine.lock().unwrap().take();
        let Some(machine) = taken else { return };
        for host in hosts.iter().filter(|_| moves) {
            falcon.set_score("corp", &host.device_id, 3).unwrap();
        }
        let asked = ask_as(&machine, "successor", json!({"command": "sync"}));
        let answer = block_in_place(|| runtime.block_on(asked));
        *noted.lock().unwrap() = Some(answer.map_err(|error| chain(&error)));
    });
    answer
}

/// A run whose lease seems expired to another machine, because their clocks differ by 20 minutes: the other machine takes
/// over while the run is writing.
async fn is_overtaken(first: i64, second: i64, moves: bool) {
    let env = TestEnvironment::connected(&GeneratorSpec::plain(290, 290)).await;
    let overtaken = elsewhere(&env, off_by(&env, first));
    let successor = elsewhere(&env, off_by(&env, second));
    let successors = overtake(&env, successor, moves);
    let answer = ask_as(&overtaken, "overtaken", json!({"command": "sync"})).await;
    let said = match &answer {
        Ok(answer) => answer["error"].as_str().unwrap_or_default().to_owned(),
        Err(error) => chain(error),
    };
    let taken = successors.lock().unwrap().take().unwrap();
    let changes = env.sims.tailscale().changes(TAILNET).unwrap();
    let comment = Some("falcon-posture-sync run overtaken".to_owned());
    let own = changes.iter().filter(|change| change.comment == comment);
    if said.contains("another run") {
        // Five calls were on their way; it made no others.
        assert!(own.count() <= 250);
    } else {
        // All six were in the journal before the lease was lost. Then the successor says so.
        assert_eq!(said, "");
        assert_eq!(own.count(), 290);
        assert!(taken.is_err(), "{taken:?}");
    }
    // The writes that were on their way with the first one may have been recorded under the successor's hands.
    match taken {
        Ok(answer) => assert_eq!(answer["outcome"], "synced", "{answer:#}"),
        Err(error) => assert!(error.contains("another run"), "{error}"),
    }
    let status = env.corp().await["status"].clone();
    assert_eq!(status["runId"], "successor", "the last word: {status:#}");
    assert_eq!(env.corp().await["lease"], Value::Null);

    // A write that was on its way when the lease was lost may have come last: the next run sees to that.
    env.app.clock.advance(Duration::from_mins(30));
    let answer = env.sync().await;
    let good = ["synced", "unchanged"].map(Value::from);
    assert!(good.contains(&answer["outcome"]), "{answer:#}");
    assert_eq!(env.scores(), env.expected());
    env.assert_sound().await;
    let answer = env.sync().await;
    assert_eq!(answer["outcome"], "unchanged", "{answer:#}");
    env.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_ahead_takes_a_lease_that_is_still_held_and_nothing_is_wrong_in_the_end() {
    is_overtaken(0, 20, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_ahead_takes_a_lease_while_scores_move_and_nothing_is_wrong_in_the_end() {
    is_overtaken(0, 20, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_behind_loses_its_lease_to_others_and_nothing_is_wrong_in_the_end() {
    is_overtaken(-20, 0, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_behind_loses_its_lease_while_scores_move_and_nothing_is_wrong_in_the_end() {
    is_overtaken(-20, 0, true).await;
}

#[tokio::test]
async fn machines_by_turns_with_clocks_apart_lose_nothing() {
    let env = TestEnvironment::synced().await;
    let corp = Integration::corp();
    let clocks = [-20, 0, 20].map(|minutes| off_by(&env, minutes));
    let machines = clocks.clone().map(|clock| elsewhere(&env, clock));
    for n in 0..12 {
        let machine = &machines[n * 5 % 3];
        corp.move_a_score(&env, n * 7);
        let id = format!("turn-{n}");
        let answer = ask_as(machine, &id, json!({"command": "sync"})).await;
        assert_eq!(answer.unwrap()["outcome"], "synced");
        assert_eq!(env.scores(), env.expected());
        assert_eq!(env.corp().await["status"]["runId"], id.as_str());
        env.assert_sound().await;
        for clock in &clocks {
            clock.advance(Duration::from_mins(1));
        }
    }
}

#[tokio::test]
async fn leases_and_pauses_end_for_a_clock_that_is_behind() {
    let env = TestEnvironment::synced().await;
    let late = elsewhere(&env, off_by(&env, -20));
    let now = env.app.clock.now();
    let until = now.saturating_add(SignedDuration::from_mins(15)).unwrap();
    let id = "corp".to_owned().try_into().unwrap();
    let left = env
        .app
        .store
        .acquire(&id, "killed", "killed", now, until)
        .await;
    assert!(left.unwrap().is_some());
    let outcome = async |name: &str| {
        let answer = ask_as(&late, name, json!({"command": "sync"})).await;
        answer.unwrap()["outcome"].clone()
    };
    assert_eq!(outcome("a").await, "skipped");
    late.clock.advance(Duration::from_mins(34));
    assert_eq!(outcome("b").await, "skipped");
    late.clock.advance(Duration::from_mins(2));
    assert_eq!(outcome("c").await, "unchanged", "35 minutes later at most");

    // A pause for an hour, by the clock that was right; the other one is 20 minutes behind again.
    env.app.clock.advance(Duration::from_mins(56));
    let wrong = json!({"clientId": "0".repeat(32), "clientSecret": "wrong"});
    env.services.put_secret("corp/falcon", wrong);
    assert_eq!(env.sync().await["outcome"], "paused");
    env.requests();
    late.clock.advance(Duration::from_mins(79));
    assert_eq!(outcome("d").await, "paused");
    assert!(env.requests().is_empty(), "nobody is asked");
    late.clock.advance(Duration::from_mins(22));
    assert_eq!(outcome("e").await, "paused");
    assert_eq!(env.requests()["POST /oauth2/token"], 1, "it has ended");
    assert_eq!(env.corp().await["pause"]["attempts"], 2);
    env.services
        .put_secret("corp/falcon", crate::environment::falcon_secret("corp"));
    assert_eq!(outcome("f").await, "unchanged");
    env.assert_sound().await;
}
