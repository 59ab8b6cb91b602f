//! Lookups by serial number: what a filter finds, and what happens where it does not.

use std::time::Duration;

use posture_simulators::{Device, Fault, GeneratorSpec, Host, Matcher, Side};
use serde_json::{Value, json};

use crate::environment::{TAILNET, TestEnvironment};

const HOSTS: &str = "GET /devices/combined/devices/v1";
const SEEN: &str = "2026-01-15T11:00:00Z";

/// A large account and few devices, after the daily listing.
async fn environment() -> TestEnvironment {
    let env = TestEnvironment::connected(&GeneratorSpec::plain(20_000, 40)).await;
    for _ in 0..2 {
        env.sync().await;
    }
    env
}

async fn crawl(env: &TestEnvironment) -> Value {
    env.corp().await["status"]["crawl"].clone()
}

fn put_device(env: &TestEnvironment, node: &str, serial: &str) {
    let device = Device::new(node, node, [serial]);
    env.sims.tailscale().put_device(TAILNET, device).unwrap();
}

/// Adds a host whose id is this digit, 32 times.
fn put_host(env: &TestEnvironment, digit: &str, serial: &str, score: u64) {
    let (falcon, aid) = (env.sims.falcon(), digit.repeat(32));
    let host = Host::new(&aid, serial, "new", SEEN);
    falcon.put_host("corp", host).unwrap();
    falcon.set_score("corp", &aid, score).unwrap();
}

#[tokio::test]
async fn each_spelling_is_asked_for() {
    let env = environment().await;
    for (node, digit, falcon, tailnet) in [
        ("lower", "a", "5cg1111aaa", "5CG1111AAA"),
        ("upper", "b", "5CG2222BBB", "5cg2222bbb"),
        ("mixed", "c", "5cG3333ccc", " 5cG3333ccc "),
    ] {
        put_host(&env, digit, falcon, 88);
        put_device(&env, node, tailnet);
        env.requests();
        assert_eq!(env.sync().await["written"], 1, "{node}");
        assert_eq!(env.scores()[node], 88);
        assert_eq!(crawl(&env).await["way"], "filtered", "{node}");
        // The number of hosts, those with a serial, those by id.
        assert_eq!(env.requests()[HOSTS], 3);
    }
    // A record is confirmed by each spelling, too: the sensor was reinstalled.
    env.sims
        .falcon()
        .remove_host("corp", &"a".repeat(32))
        .unwrap();
    put_host(&env, "d", "5cg1111aaa", 77);
    assert_eq!(env.sync().await["written"], 1);
    assert_eq!(env.scores()["lower"], 77);
    assert_eq!(env.scores(), env.expected());
    env.assert_sound().await;
}

/// A serial in mixed case, which no filter finds.
#[tokio::test]
async fn a_device_that_is_unmatched_for_the_first_time_leads_to_a_listing_once() {
    let env = environment().await;
    for (node, digit) in [("first", "a"), ("second", "b")] {
        put_host(&env, digit, &format!("5cG{digit}{digit}1111xYz"), 88);
        put_device(&env, node, &format!("5CG{digit}{digit}1111XYZ"));
        env.requests();
        assert_eq!(env.sync().await["written"], 1, "{node}");
        assert_eq!(env.scores()[node], 88);
        let told = crawl(&env).await;
        assert_eq!(told["way"], "hosts", "{node}");
        assert_eq!(told["unmatched"], "");
        let why = told["why"].as_str().unwrap();
        assert!(
            why.starts_with("1 device has no host for the first time"),
            "{why}"
        );
        // Falcon has 20,00x hosts: their number, two lookups, three pages.
        assert_eq!(env.requests()[HOSTS], 6, "{node}");
        assert_eq!(env.sync().await["outcome"], "unchanged");
        assert_eq!(crawl(&env).await["way"], "filtered", "{node}");
    }
    // Falcon has no host of these. One listing says so, and later runs remember it.
    for node in ["third", "fourth"] {
        put_device(&env, node, &format!("5CG-{node}"));
        for way in ["hosts", "filtered", "filtered"] {
            assert_eq!(env.sync().await["outcome"], "unchanged");
            assert_eq!(crawl(&env).await["way"], way, "{node}");
        }
    }
    let told = crawl(&env).await;
    let hashes = told["unmatched"].as_str().unwrap();
    assert_eq!(hashes.split(' ').count(), 2, "{told}");
    // A device that loses its host is unmatched for the first time, too.
    let falcon = env.sims.falcon();
    let mut host = falcon
        .remove_host("corp", &"a".repeat(32))
        .unwrap()
        .unwrap();
    host.device_id = "c".repeat(32);
    falcon.put_host("corp", host).unwrap();
    falcon.set_score("corp", &"c".repeat(32), 66_u64).unwrap();
    assert_eq!(env.sync().await["written"], 1);
    assert_eq!(crawl(&env).await["way"], "hosts");
    assert_eq!(env.scores()["first"], 66);
    assert_eq!(env.scores(), env.expected());
    env.assert_sound().await;
}

/// A filter of all serials is longer than 3 kB here. A listing without a filter is answered.
#[tokio::test]
async fn a_refused_filter_leads_to_the_full_listing() {
    let env = TestEnvironment::connected(&GeneratorSpec::plain(20_000, 120)).await;
    let falcon = env.sims.falcon();
    falcon.configure(|settings| settings.longest_filter = Some(3_000));
    let answer = env.sync().await;
    assert_eq!(answer["outcome"], "synced", "{answer:#}");
    assert_eq!(env.scores(), env.expected());
    let told = crawl(&env).await;
    assert_eq!(told["way"], "full", "{told}");
    let why = told["why"].as_str().unwrap();
    assert!(
        why.starts_with("Falcon refused a lookup at 2026-01-15T12:0"),
        "{why}"
    );
    // The next runs know, and cost no refused request.
    for _ in 0..2 {
        env.requests();
        assert_eq!(env.sync().await["outcome"], "unchanged");
        assert_eq!(crawl(&env).await["way"], "full");
        assert_eq!(env.requests()[HOSTS], 2, "the pages");
    }
    // A day later, the filter is tried again, after the daily listing.
    let next_day = async || {
        env.app.clock.advance(Duration::from_hours(24));
        env.sync().await;
        assert_eq!(crawl(&env).await["way"], "hosts");
    };
    next_day().await;
    env.requests();
    assert_eq!(env.sync().await["outcome"], "unchanged");
    assert_eq!(crawl(&env).await["way"], "full");
    let hosts = env.requests()[HOSTS];
    assert_eq!(hosts, 1 + 3 + 2, "the number, the refused ones, the pages");
    falcon.configure(|settings| settings.longest_filter = None);
    next_day().await;
    assert_eq!(env.sync().await["outcome"], "unchanged");
    let told = crawl(&env).await;
    assert_eq!(
        (&told["way"], &told["lookupsRefused"]),
        (&json!("filtered"), &Value::Null)
    );
    env.assert_sound().await;
}

#[tokio::test]
async fn a_lookup_is_refused_by_these_statuses_and_no_others() {
    for (status, way) in [
        (400, "full"),
        (413, "full"),
        (500, "full"),
        (503, "full"),
        (401, "hosts"),
        (403, "hosts"),
        (404, "hosts"),
        (429, "hosts"),
    ] {
        let env = environment().await;
        env.sims.falcon().configure(|settings| {
            settings.longest_filter = Some(0);
            settings.long_filter_status = status;
        });
        let answer = env.sync().await;
        let (told, is_full) = (crawl(&env).await, way == "full");
        // A run that fails keeps the state of the run before.
        assert_eq!(told["way"], way, "{status}: {told}");
        assert_eq!(
            told["lookupsRefused"].is_string(),
            is_full,
            "{status}: {told}"
        );
        assert_eq!(
            answer["outcome"] == "unchanged",
            is_full,
            "{status}: {answer:#}"
        );
    }
}

/// The filter is accepted, and the long list of ids is not.
#[tokio::test]
async fn a_refused_lookup_of_scores_leads_to_their_listing() {
    for syncs in 0..2 {
        let env = TestEnvironment::connected(&GeneratorSpec::plain(20_000, 40)).await;
        for _ in 0..syncs {
            env.sync().await;
        }
        let look_up = Matcher::side(Side::Falcon).path("/zero-trust-assessment/entities");
        env.sims.faults().add(Fault::status(look_up, 414).always());
        let answer = env.sync().await;
        assert_ne!(answer["outcome"], "failed", "{answer:#}");
        assert_eq!(crawl(&env).await["way"], "full");
        assert_eq!(env.scores(), env.expected());
    }
}
