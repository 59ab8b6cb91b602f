//! Lambda delivers one event twice, under one request id.

use std::sync::{Arc, Mutex};

use posture_simulators::{Matcher, Side};
use serde_json::{Value, json};

use super::{ask_as, elsewhere};
use crate::environment::TestEnvironment;

/// E5: the second delivery finds the lease of the first one, at once as well as after a run that died.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_deliveries_of_one_event_are_two_runs() {
    let env = TestEnvironment::synced().await;
    env.lower_a_score().await;
    let other = elsewhere(&env, env.app.clock.clone());
    let second: Arc<Mutex<Option<Value>>> = Arc::default();
    let noted = Arc::clone(&second);
    let write = Matcher::side(Side::Tailscale).method("PATCH");
    env.during_with_runtime(write, move |runtime| {
        let answer = runtime.block_on(ask_as(&other, "event-1", json!({"command": "sync"})));
        *noted.lock().unwrap() = Some(answer.unwrap());
    });
    let first = ask_as(&env.app, "event-1", json!({"command": "sync"})).await;
    assert_eq!(first.unwrap()["written"], 1);
    let second = second.lock().unwrap().take().unwrap();
    assert_eq!(second["outcome"], "skipped", "{second:#}");
    assert_eq!(env.scores(), env.expected());
    env.assert_sound().await;
}
