//! The strategies that fetch hosts and scores; none of them loses a match.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use posture_simulators::{GeneratorSpec, Matcher, Side, generate};
use serde_json::{Value, json};

use crate::environment::{TAILNET, TestEnvironment};

const HOSTS: &str = "GET /devices/combined/devices/v1";
const SCORES: &str = "GET /zero-trust-assessment/queries/assessments/v1";
const ASSESSMENTS: &str = "GET /zero-trust-assessment/entities/assessments/v1";

/// 60 devices and 20,000 hosts, with a small share of each special case.
fn a_small_tailnet() -> GeneratorSpec {
    GeneratorSpec {
        hosts: 20_000,
        devices: 60,
        duplicate_serial: 0.3,
        multi_serial: 0.5,
        odd_spelling: 0.0,
        ..GeneratorSpec::default()
    }
}

fn falcon(requests: &BTreeMap<String, u64>) -> u64 {
    requests
        .iter()
        .filter(|(route, _)| {
            [HOSTS, SCORES, ASSESSMENTS, "POST /oauth2/token"].contains(&route.as_str())
        })
        .map(|(_, count)| count)
        .sum()
}

async fn crawl(env: &TestEnvironment) -> Value {
    env.corp().await["status"]["crawl"].clone()
}

#[tokio::test]
async fn few_devices_of_a_large_account_are_asked_for_by_serial_and_all_hosts_once_a_day() {
    let env = TestEnvironment::connected(&a_small_tailnet()).await;
    env.requests();
    let first = env.sync().await;
    assert_eq!(first["outcome"], "synced", "{first:#}");
    assert_eq!(first["providerHostCount"], 20_000);
    assert_eq!(env.scores(), env.expected());
    let requests = env.requests();
    assert!(falcon(&requests) <= 8, "{requests:?}");
    // The first run lists all hosts, since some devices have none. Later runs do so once a day, for serials that a filter does
    // not find.
    let told = crawl(&env).await;
    assert_eq!(told["way"], "hosts");
    assert!(
        told["why"].as_str().unwrap().contains("for the first time"),
        "{told}"
    );
    assert_eq!(told["lastFull"], env.corp().await["status"]["lastSync"]);
    env.requests();
    for _ in 0..3 {
        assert_eq!(env.sync().await["outcome"], "unchanged");
        let requests = env.requests();
        assert!(falcon(&requests) <= 8, "{requests:?}");
        assert_eq!(crawl(&env).await["way"], "filtered");
    }
    env.app.clock.advance(Duration::from_hours(24));
    env.requests();
    assert_eq!(env.sync().await["outcome"], "unchanged");
    let told = crawl(&env).await;
    assert_eq!(told["way"], "hosts");
    assert!(
        told["why"].as_str().unwrap().contains("once a day"),
        "{told}"
    );
    // Two pages of hosts, no listing of scores.
    let requests = env.requests();
    assert_eq!(
        (requests[HOSTS], requests.get(SCORES)),
        (2, None),
        "{requests:?}"
    );
    assert_eq!(env.scores(), env.expected());
    env.assert_sound().await;
}

#[tokio::test]
async fn a_tailnet_that_has_grown_is_not_looked_up_piece_by_piece() {
    let env = TestEnvironment::connected(&GeneratorSpec::plain(20_000, 40)).await;
    env.sync().await;
    assert_eq!(crawl(&env).await["way"], "filtered");
    // Due for the listing of hosts, with scores to be looked up, as far as the run before could know.
    let grown = generate(&GeneratorSpec::plain(20_000, 4_000));
    env.sims.tailscale().load(TAILNET, &grown).unwrap();
    env.requests();
    assert_ne!(env.sync().await["outcome"], "failed");
    assert_eq!(crawl(&env).await["way"], "full");
    assert_eq!(env.requests().get(ASSESSMENTS), None);
}

#[tokio::test]
async fn a_serial_that_falcon_spells_in_its_own_way_is_found_at_once_and_stays_found() {
    let spec = GeneratorSpec {
        odd_spelling: 1.0,
        ..a_small_tailnet()
    };
    let env = TestEnvironment::connected(&spec).await;
    assert_eq!(env.sync().await["outcome"], "synced");
    assert_eq!(crawl(&env).await["way"], "hosts");
    assert_eq!(env.scores(), env.expected());
    for _ in 0..3 {
        let answer = env.sync().await;
        assert_eq!(crawl(&env).await["way"], "filtered");
        assert_eq!(answer["outcome"], "unchanged", "{answer:#}");
        assert_eq!(env.scores(), env.expected());
    }
    env.assert_sound().await;
}

#[tokio::test]
async fn both_ways_see_scores_and_hosts_come_and_go() {
    let env = TestEnvironment::connected(&a_small_tailnet()).await;
    env.sync().await;
    env.sync().await;
    let falcon = env.sims.falcon();
    for (position, record) in env.items("nodes").await.iter().enumerate().take(6) {
        let aid = record["aid"].as_str().unwrap();
        match position % 3 {
            0 => falcon.set_score("corp", aid, 4).unwrap(),
            1 => drop(falcon.remove_score("corp", aid).unwrap()),
            _ => drop(falcon.remove_host("corp", aid).unwrap()),
        }
        assert_ne!(env.sync().await["outcome"], "failed");
        assert_eq!(crawl(&env).await["way"], "filtered");
        assert_eq!(env.scores(), env.expected(), "{position}");
    }
    env.assert_sound().await;
}

#[tokio::test]
async fn other_settings_may_mean_another_account_of_which_nothing_is_known() {
    let env = TestEnvironment::connected(&GeneratorSpec::plain(4_000, 20)).await;
    env.sync().await;
    assert_eq!(crawl(&env).await["hosts"], 4_000);
    env.update(json!({"maxHostAgeDays": 3000})).await;
    env.requests();
    env.sync().await;
    let requests = env.requests();
    // As at first: the bounds of another account would only cost requests.
    assert_eq!((requests[HOSTS], requests[SCORES]), (1, 4));
}

/// A host with a duplicate serial in a spelling that no filter finds. At first, its score is the higher one.
#[tokio::test]
async fn a_clone_that_did_not_decide_is_asked_for_by_id() {
    let env = TestEnvironment::connected(&GeneratorSpec::plain(20_000, 40)).await;
    env.sync().await;
    let record = env.items("nodes").await.swap_remove(0);
    let (aid, score) = (
        record["aid"].as_str().unwrap(),
        record["score"].as_u64().unwrap(),
    );
    let falcon = env.sims.falcon();
    let hosts = falcon.hosts("corp").unwrap();
    let mut clone = hosts
        .into_iter()
        .find(|host| host.device_id == aid)
        .unwrap();
    clone.device_id = "c".repeat(32);
    clone.serial_number = clone
        .serial_number
        .map(|serial| format!("  {} ", serial.to_lowercase()));
    falcon.put_host("corp", clone).unwrap();
    falcon
        .set_score("corp", &"c".repeat(32), score + 1)
        .unwrap();
    assert_eq!(env.sync().await["outcome"], "unchanged");
    let told = crawl(&env).await;
    assert_eq!(
        (&told["way"], &told["beside"]),
        (&json!("hosts"), &json!(["c".repeat(32)]))
    );
    falcon.set_score("corp", &"c".repeat(32), 0_u64).unwrap();
    let answer = env.sync().await;
    assert_eq!(
        (&answer["outcome"], &answer["written"]),
        (&json!("synced"), &json!(1))
    );
    assert_eq!(crawl(&env).await["way"], "filtered");
    assert_eq!(env.scores(), env.expected());
    // The one that decided before is not forgotten, either.
    let told = crawl(&env).await;
    assert!(
        told["beside"].as_array().unwrap().contains(&json!(aid)),
        "{told}"
    );
    env.assert_sound().await;
}

#[tokio::test]
async fn a_first_listing_of_scores_is_walked_from_both_ends() {
    let env = TestEnvironment::connected(&GeneratorSpec::plain(10_000, 500)).await;
    env.requests();
    assert_eq!(env.sync().await["outcome"], "synced");
    let requests = env.requests();
    assert!((10..=11).contains(&requests[SCORES]), "{requests:?}");
    assert_eq!(crawl(&env).await["scores"], 10_000);
    assert_eq!(env.scores(), env.expected());
}

#[tokio::test]
async fn a_large_listing_of_scores_is_walked_in_ranges_side_by_side() {
    let env = TestEnvironment::connected(&GeneratorSpec::plain(10_000, 500)).await;
    env.sync().await;
    let told = crawl(&env).await;
    assert_eq!(
        (&told["way"], &told["scores"]),
        (&json!("full"), &json!(10_000))
    );
    let ranges = told["scoreBounds"].as_array().unwrap().len() + 1;
    assert!((3..=10).contains(&ranges), "{told}");
    env.sims
        .set_latency(Side::Falcon, Duration::from_millis(20));
    env.requests();
    assert_eq!(env.sync().await["outcome"], "unchanged");
    let peak = env.sims.requests().peak(Side::Falcon);
    let requests = env.requests();
    assert_eq!(requests[HOSTS], 1);
    assert!((10..=11).contains(&requests[SCORES]), "{requests:?}");
    assert!(peak > 2, "{peak} at once");
}

/// While the listing is read, scores move between the ranges, so that some are seen twice and some never.
#[tokio::test(flavor = "multi_thread")]
async fn a_score_that_moves_between_ranges_is_neither_lost_nor_raised() {
    let env = TestEnvironment::connected(&GeneratorSpec::plain(5_000, 300)).await;
    env.sync().await;
    assert!(crawl(&env).await["scoreBounds"].is_array());
    let aids: Vec<String> = env
        .items("nodes")
        .await
        .iter()
        .map(|record| record["aid"].as_str().unwrap().to_owned())
        .collect();
    let falcon = env.sims.falcon().clone();
    let moved = AtomicUsize::new(0);
    let pages = Matcher::side(Side::Falcon).path("/zero-trust-assessment/queries");
    env.sims.on_request(pages, move |_| {
        let turn = moved.fetch_add(1, Ordering::SeqCst);
        if turn > 4 {
            return;
        }
        for (position, aid) in aids.iter().enumerate().skip(turn).step_by(7) {
            let score = if (position + turn).is_multiple_of(2) {
                2
            } else {
                97
            };
            falcon.set_score("corp", aid, score).unwrap();
        }
    });
    let answer = env.sync().await;
    assert_ne!(answer["outcome"], "failed", "{answer:#}");
    assert_eq!(answer["removed"], 0, "{answer:#}");
    assert_eq!(env.scores().len(), 300);
    // The last word is the next run's, when nothing moves any more.
    env.sync().await;
    assert_eq!(env.scores(), env.expected());
    env.assert_sound().await;
}
