//! Checks the metric lines of runs against the rules of the Embedded Metric Format.

use std::collections::BTreeSet;
use std::time::Duration;

use falcon_posture_sync::metrics::{self, MetricEvent};
use jiff::Timestamp;
use posture_simulators::{Account, Fault, GeneratorSpec, Matcher, Side};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::environment::TestEnvironment;
use crate::process::Process;
use crate::second_integration::Integration;

/// CloudWatch's units (`MetricDatum`).
const UNITS: [&str; 27] = [
    "Seconds",
    "Microseconds",
    "Milliseconds",
    "Bytes",
    "Kilobytes",
    "Megabytes",
    "Gigabytes",
    "Terabytes",
    "Bits",
    "Kilobits",
    "Megabits",
    "Gigabits",
    "Terabits",
    "Percent",
    "Count",
    "Bytes/Second",
    "Kilobytes/Second",
    "Megabytes/Second",
    "Gigabytes/Second",
    "Terabytes/Second",
    "Bits/Second",
    "Kilobits/Second",
    "Megabits/Second",
    "Gigabits/Second",
    "Terabits/Second",
    "Count/Second",
    "None",
];

/// Checks the rules of the CloudWatch guide's "Specification: Embedded metric format".
fn assert_emf(line: &Value) {
    let text = line.to_string();
    assert!(!text.contains('\n') && text.len() < 1_000_000, "a line");
    let root = line.as_object().unwrap();
    let aws = root["_aws"].as_object().unwrap();
    let known = BTreeSet::from(["CloudWatchMetrics", "Timestamp"]);
    assert_eq!(
        aws.keys().map(String::as_str).collect::<BTreeSet<_>>(),
        known
    );
    // A time of this century in milliseconds, not in seconds or nanoseconds.
    let time = aws["Timestamp"].as_i64().unwrap();
    assert!(
        (946_684_800_000..4_102_444_800_000).contains(&time),
        "{time}"
    );
    let directives = aws["CloudWatchMetrics"].as_array().unwrap();
    assert!(!directives.is_empty());
    for directive in directives {
        let namespace = directive["Namespace"].as_str().unwrap();
        assert!((1..=1024).contains(&namespace.len()) && !namespace.starts_with("AWS/"));
        for set in directive["Dimensions"].as_array().unwrap() {
            let set = set.as_array().unwrap();
            assert!((1..=30).contains(&set.len()));
            for dimension in set {
                let name = dimension.as_str().unwrap();
                assert!(
                    (1..=250).contains(&name.len()) && name.is_ascii() && !name.starts_with(':')
                );
                let value = root[name].as_str().unwrap();
                assert!(
                    (1..=1024).contains(&value.len()) && value.is_ascii(),
                    "{value:?}"
                );
            }
        }
        let metrics = directive["Metrics"].as_array().unwrap();
        assert!((1..=100).contains(&metrics.len()));
        let mut names = BTreeSet::new();
        for metric in metrics {
            let name = metric["Name"].as_str().unwrap();
            assert!((1..=1024).contains(&name.len()));
            assert!(names.insert(name), "{name} twice");
            assert!(UNITS.contains(&metric["Unit"].as_str().unwrap()));
            assert!(root[name].is_number(), "{name}: {}", root[name]);
        }
    }
}

/// Returns the lines since the last call, after checking each.
fn lines(env: &TestEnvironment) -> Vec<Value> {
    let lines = env.app.metrics.drain();
    lines.iter().for_each(assert_emf);
    lines
}

/// Splits the lines into those about an integration and those about the function.
fn sorted(lines: Vec<Value>) -> (Vec<Value>, Vec<Value>) {
    lines
        .into_iter()
        .partition(|line| line.get("integration").is_some())
}

fn pick(line: &Value, names: &[&str]) -> Value {
    names
        .iter()
        .map(|name| ((*name).to_owned(), line[*name].clone()))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn whatever_is_measured_makes_a_good_line(
        values in prop::collection::vec(any::<u64>(), metrics::ALL.len()),
        id in "[a-z0-9][a-z0-9-]{0,63}",
        note in "\\PC{0,200}",
        of_one in any::<bool>(),
        millis in 946_684_800_000_i64..4_102_444_800_000,
    ) {
        let at = Timestamp::from_millisecond(millis).unwrap();
        let id = id.try_into().unwrap();
        let line = MetricEvent::new(at, of_one.then_some(&id));
        let line = metrics::ALL.iter().zip(values).fold(line, |line, (metric, value)| line.value(*metric, value));
        assert_emf(&line.property("outcome", note).to_json("falcon-posture-sync"));
    }
}

#[tokio::test]
async fn a_run_is_one_line_and_a_tick_is_one() {
    let env = TestEnvironment::connected(&GeneratorSpec {
        hosts: 200,
        devices: 60,
        ..GeneratorSpec::default()
    })
    .await;
    lines(&env);
    env.requests();
    let answer = env.sync().await;
    let asked = |side| env.sims.requests().of(side).len();
    let (falcon, tailscale) = (asked(Side::Falcon), asked(Side::Tailscale));
    let (runs, ticks) = sorted(lines(&env));
    assert_eq!((runs.len(), ticks.len()), (1, 1));
    let run = &runs[0];
    assert_eq!(
        pick(
            run,
            &[
                "integration",
                "function",
                "runId",
                "outcome",
                "Success",
                "Failed",
                "Paused",
                "Held"
            ]
        ),
        json!({
            "integration": "corp", "function": "falcon-posture-sync", "runId": env.last_run(), "outcome": "synced",
            "Success": 1, "Failed": 0, "Paused": 0, "Held": 0
        })
    );
    for (metric, field) in [
        ("FalconHosts", "providerHostCount"),
        ("PossibleMatched", "possibleMatchedCount"),
        ("Matched", "matchedCount"),
        ("Written", "written"),
        ("Removed", "removed"),
        ("Refused", "failed"),
    ] {
        assert_eq!(run[metric], answer[field], "{metric}");
    }
    assert_eq!(
        run["Findings"],
        answer["findings"].as_array().unwrap().len()
    );
    assert_eq!(run["FalconRequests"], falcon);
    assert_eq!(run["TailscaleRequests"], tailscale);
    assert!(run["FalconQuotaRemaining"].as_u64().unwrap() > 5_000);
    assert_eq!(run["SecondsSinceSuccess"], 0);
    assert_eq!(
        pick(&ticks[0], &["Integrations", "Paused", "Held"]),
        json!({"Integrations": 1, "Paused": 0, "Held": 0})
    );
    assert_eq!(
        run["_aws"]["CloudWatchMetrics"][0]["Dimensions"],
        json!([["function", "integration"], ["function"]])
    );
    // A dry run, or a run with nothing to do, writes no line.
    env.ask(json!({"command": "sync", "integration": "corp", "dryRun": true}))
        .await;
    env.update(json!({"enabled": false})).await;
    env.ask(json!({"command": "sync", "integration": "corp"}))
        .await;
    assert_eq!(lines(&env), Vec::<Value>::new());
}

#[tokio::test]
async fn a_tick_tells_of_all_integrations_and_also_where_there_is_none() {
    let env = TestEnvironment::empty().await;
    env.sync().await;
    let (runs, ticks) = sorted(lines(&env));
    assert_eq!(runs.len(), 0);
    let told = ["Integrations", "SecondsSinceSuccess", "Paused", "Held"];
    assert_eq!(
        pick(&ticks[0], &told),
        json!({"Integrations": 0, "SecondsSinceSuccess": 0, "Paused": 0, "Held": 0})
    );
    let spec = GeneratorSpec::plain(10, 5);
    env.load(&spec);
    env.connect(json!({})).await;
    let labs = Integration::connect(&env, Account::new("labs"), &spec).await;
    env.ask(labs.requested()).await;
    env.app.clock.advance(Duration::from_mins(90));
    env.ask(labs.requested()).await;
    lines(&env);
    env.sync().await;
    let (_, ticks) = sorted(lines(&env));
    // `corp` has never run, so the time counts since it was connected.
    assert_eq!(ticks[0]["Integrations"], 2);
    assert!(
        ticks[0]["SecondsSinceSuccess"].as_u64().unwrap() > 90 * 60,
        "{}",
        ticks[0]
    );
}

#[tokio::test]
async fn a_pause_is_told_by_the_run_that_meets_it_and_by_each_that_finds_it() {
    let env = TestEnvironment::synced().await;
    env.services
        .put_secret("corp/falcon", json!({"clientId": "x", "clientSecret": "y"}));
    lines(&env);
    env.sync().await;
    let (runs, _) = sorted(lines(&env));
    assert_eq!(
        pick(
            &runs[0],
            &[
                "outcome",
                "errorKind",
                "Paused",
                "Success",
                "Failed",
                "FalconHosts"
            ]
        ),
        json!({"outcome": "paused", "errorKind": "authentication", "Paused": 1, "Success": 0, "Failed": 0, "FalconHosts": null})
    );
    env.app.clock.advance(Duration::from_mins(10));
    env.sync().await;
    let (runs, ticks) = sorted(lines(&env));
    assert_eq!(
        pick(
            &runs[0],
            &["outcome", "Paused", "Success", "FalconRequests"]
        ),
        json!({"outcome": "paused", "Paused": 1, "Success": null, "FalconRequests": null})
    );
    assert_eq!(runs[0]["SecondsSinceSuccess"], 12 * 60);
    assert_eq!(ticks[0]["Paused"], 1);
}

#[tokio::test]
async fn what_is_repeated_is_counted() {
    let env = TestEnvironment::synced().await;
    let hosts = Matcher::side(Side::Falcon).path("/devices");
    env.sims.faults().add(Fault::status(hosts, 503));
    lines(&env);
    env.sync().await;
    let (runs, _) = sorted(lines(&env));
    assert_eq!(
        pick(
            &runs[0],
            &["FalconRequests", "FalconRetries", "TailscaleRetries"]
        ),
        json!({"FalconRequests": 4, "FalconRetries": 1, "TailscaleRetries": 0})
    );
}

/// Each log line of the built function is JSON. Each line of a run has the run's id.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_lines_of_json_that_carry_the_run() {
    let env = TestEnvironment::live(GeneratorSpec::plain(60, 40)).await;
    // One call is retried, and one device is rejected.
    let hosts = Matcher::side(Side::Falcon).path("/devices");
    env.sims.faults().add(Fault::status(hosts, 503));
    let function = Process::start(&env, &[]).await;
    function.ask("run-a", &json!({"command": "sync"})).await;
    function.ask("run-b", &json!({"command": "sync"})).await;
    let printed = function.end();
    let lines: Vec<Value> = printed
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let (measured, logged): (Vec<&Value>, Vec<&Value>) =
        lines.iter().partition(|line| line.get("_aws").is_some());
    for line in &measured {
        assert_emf(line);
    }
    let runs: Vec<&Value> = measured
        .iter()
        .filter_map(|line| line.get("runId"))
        .collect();
    assert_eq!(runs, ["run-a", "run-b"]);
    let tells =
        |line: &Value, run: &str| line.to_string().contains(&format!("\"run_id\":\"{run}\""));
    for line in &logged {
        assert!(tells(line, "run-a") || tells(line, "run-b"), "{line}");
    }
    assert!(
        logged.len() >= 3,
        "two runs and a repeated call:\n{printed}"
    );
    let repeated = logged
        .iter()
        .filter(|line| line.to_string().contains("is made again"));
    assert_eq!(repeated.count(), 1, "once");
}
