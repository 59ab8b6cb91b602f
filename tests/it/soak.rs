//! Soak test: five functions at the same time, each with 500 scheduled runs, while hosts, scores and devices change and
//! two percent of the requests fail.
//!
//! `SOAK_SEED` and `SOAK_TICKS` set another seed and another number of runs.

mod fault_mix;
mod health;
mod instance;
mod rng;

use std::fmt::Write as _;
use std::io::{Write as _, stderr};

use falcon_posture_sync::clock::Clock;
use futures::future::join_all;
use posture_simulators::{Account, GeneratorSpec};

use crate::environment::TestEnvironment;
use crate::second_integration::Integration;
use instance::Instance;

const INSTANCES: [&str; 5] = ["bank", "farm", "mill", "port", "shop"];

/// A number from the environment.
#[expect(
    clippy::disallowed_methods,
    reason = "it is the test that is asked, not the function"
)]
fn wish(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

async fn instance(env: &TestEnvironment, name: &str, seed: u64) -> Instance {
    // Some hosts more than devices, and nothing that would be a finding.
    let spec = GeneratorSpec {
        seed,
        now: env.app.clock.now(),
        ..GeneratorSpec::plain(18, 14)
    };
    let integration = Integration::connect(env, Account::new(name), &spec).await;
    Instance::start(env, integration, seed).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_functions_go_through_500_ticks_of_random_faults() {
    let seed = wish("SOAK_SEED").unwrap_or(20_251_122);
    let ticks = usize::try_from(wish("SOAK_TICKS").unwrap_or(500)).unwrap();
    let mut env = TestEnvironment::empty().await;
    env.set_clock(Clock::system());
    let started = env.app.clock.now();
    // All five share the address that these count for; in life, so much comes in weeks.
    env.sims.falcon().configure(|settings| {
        settings.tokens_per_minute = u32::MAX;
        settings.requests_per_minute = u32::MAX;
    });
    let mut instances = Vec::new();
    for (n, name) in (1..).zip(INSTANCES) {
        instances.push(instance(&env, name, seed.wrapping_mul(n)).await);
    }
    join_all(
        instances
            .iter_mut()
            .map(|instance| instance.run(&env, ticks)),
    )
    .await;
    let mut report = format!("soak, seed {seed}, {ticks} ticks:\n");
    for instance in &mut instances {
        instance.finish(&env).await;
        report.push_str(&instance.summary());
    }
    let (requests, faults) = instances
        .iter()
        .fold((0, 0), |(requests, faults), instance| {
            let fault_mix = instance.fault_mix();
            (requests + fault_mix.requests(), faults + fault_mix.faults())
        });
    let time = env.app.clock.now().duration_since(started);
    writeln!(
        report,
        "{requests} requests, {faults} of them spoilt, in {} s",
        time.as_secs()
    )
    .unwrap();
    // libtest keeps what a passing test prints to itself, but not this.
    stderr().lock().write_all(report.as_bytes()).unwrap();
    for instance in instances {
        instance.assert_healthy();
    }
    assert!(
        faults * 100 > requests,
        "there were enough faults: {report}"
    );
}
