//! The function leaves most of Falcon's quota to the customer's other tools.

use std::time::Duration;

use posture_simulators::{GeneratorSpec, Side};

use crate::environment::TestEnvironment;

/// True if each of these requests was answered before the next one began.
fn one_by_one(requests: &[(u64, Option<u64>)]) -> bool {
    let pairs = requests.iter().zip(requests.iter().skip(1));
    pairs
        .into_iter()
        .all(|((_, ended), (started, _))| ended.is_some_and(|ended| ended <= *started))
}

#[tokio::test]
async fn fewer_requests_are_under_way_as_the_quota_runs_out() {
    let env = TestEnvironment::connected(&GeneratorSpec::plain(170, 20)).await;
    // 340 pages of a single record, hosts and scores side by side, of the 400 requests that a minute has.
    env.sims.falcon().configure(|settings| {
        settings.longest_page = Some(1);
        settings.requests_per_minute = 400;
    });
    env.sims.set_latency(Side::Falcon, Duration::from_millis(5));
    env.requests();
    assert_eq!(env.sync().await["outcome"], "synced");
    let requests: Vec<(u64, Option<u64>)> = env
        .sims
        .requests()
        .of(Side::Falcon)
        .iter()
        .filter(|entry| entry.method == "GET")
        .map(|entry| (entry.started_ms, entry.ended_ms))
        .collect();
    assert_eq!(requests.len(), 340);
    assert_eq!(env.sims.requests().peak(Side::Falcon), 2);
    assert!(!one_by_one(&requests[..100]), "at first two at a time");
    // Below a quarter from the 301st answer on; one more may be under way by then.
    assert!(one_by_one(&requests[304..]), "{:?}", &requests[304..]);
    assert_eq!(env.scores(), env.expected());
}
