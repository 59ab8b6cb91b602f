//! Secrets never leave the function: not in an answer, an error, a log line, an item of a table, or an event.

mod canaries;
mod echo;
mod instance;
mod own;
mod upstream;

use futures::future::{BoxFuture, FutureExt, join_all};
use serde_json::json;

use canaries::Evidence;
use instance::{Instance, Level, connect};

/// The number of processes that share the failures of one kind. They wait for most of their time.
const SHARES: usize = 6;

async fn everything(level: Level) -> Evidence {
    let mut instances: Vec<BoxFuture<'_, Evidence>> = vec![
        own::commands(level).boxed(),
        own::secrets(level).boxed(),
        own::pasted(level).boxed(),
        own::environment(level).boxed(),
    ];
    for share in 0..SHARES {
        instances.push(own::refused(level, share, SHARES).boxed());
        instances.push(upstream::echoed(level, share, SHARES).boxed());
        // Nothing is echoed there, and what is logged at this level is logged at that one, too.
        if level == Level::Trace {
            instances.push(upstream::broken(level, share, SHARES).boxed());
        }
    }
    let mut all = Evidence::default();
    for evidence in join_all(instances).await {
        all.extend(evidence);
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_comes_out_whatever_is_asked_and_whatever_fails() {
    everything(Level::Info).await.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_comes_out_at_the_most_talkative_level() {
    everything(Level::Trace).await.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_planted_is_found_wherever_something_comes_out() {
    let mut instance = Instance::start(Level::Info, false).await;
    let planted = connect(json!({"id": "planted", "attributeKey": "custom:planted"}));
    instance.ask(planted.clone()).await.unwrap();
    instance.ask(planted).await.unwrap_err();
    let sync = json!({"command": "sync", "integration": "planted"});
    instance.ask(sync).await.unwrap();
    let evidence = instance.end().await;
    let mut places: Vec<&str> = evidence
        .holding("planted")
        .iter()
        .map(|(place, _)| *place)
        .collect();
    places.sort_unstable();
    places.dedup();
    assert_eq!(
        places,
        [
            "an answer",
            "an error",
            "an event",
            "the log",
            "the table audit",
            "the table integrations",
            "the table nodes",
        ]
    );
}
