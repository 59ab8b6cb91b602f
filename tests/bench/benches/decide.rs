//! Benchmarks a run's decisions, join and plan, over tenants of growing size.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use falcon_posture_sync::domain::inventory::device::{Device, Devices, Identity, NodeId, Presence};
use falcon_posture_sync::domain::inventory::host::{Aid, Assessment, FalconInventory, Host, Score};
use falcon_posture_sync::domain::inventory::platform::Platform;
use falcon_posture_sync::domain::inventory::record::{ExpiredRecords, NodeRecord, NodeRecords};
use falcon_posture_sync::domain::inventory::serial::Serial;
use falcon_posture_sync::domain::matching::{MatchOutcome, MatchRules, Matches, join};
use falcon_posture_sync::domain::plan::lifetime::Lifetime;
use falcon_posture_sync::domain::plan::{PlanRules, plan};
use falcon_posture_sync::settings::{AttributeKey, OnMissing};
use jiff::Timestamp;
use posture_simulators::{DataSet, GeneratorSpec, PostureIdentity, generate};

/// Hosts and devices.
const SIZES: [(usize, usize); 3] = [(1_000, 500), (10_000, 5_000), (100_000, 20_000)];

fn account(world: &DataSet) -> FalconInventory {
    let hosts = world.hosts.iter().map(|host| Host {
        aid: Aid::from(host.device_id.as_str()),
        serial: host
            .serial_number
            .as_deref()
            .and_then(|text| Serial::parse(text).ok()),
        hostname: host.hostname.as_deref().map(Into::into),
        first_seen: None,
        last_seen: host.last_seen.as_deref().and_then(|time| time.parse().ok()),
        platform: Platform::parse(host.platform_name.as_deref().unwrap_or_default()),
        is_contained: false,
    });
    let scores = world.scores.iter().filter_map(|(aid, score)| {
        let score = score.as_i64().and_then(Score::new)?;
        Some((Aid::from(aid.as_str()), Assessment::Score(score)))
    });
    let mut account = FalconInventory::default();
    account.extend(
        hosts.map(|host| (host.aid.clone(), host)).collect(),
        scores.collect(),
    );
    account
}

fn devices(world: &DataSet) -> Devices {
    let devices = world.devices.iter().map(|device| Device {
        node_id: NodeId(device.node_id.as_str().into()),
        name: device.name.as_str().into(),
        hostname: device.hostname.as_str().into(),
        user: device.user.as_str().into(),
        os: device.os.as_str().into(),
        is_external: false,
        is_ephemeral: false,
        presence: match &device.last_seen {
            Some(time) if !device.connected_to_control => Presence::Away {
                last_seen: time.parse().ok(),
            },
            _ => Presence::Connected,
        },
        has_multiple_connections: false,
        identity: match &device.posture_identity {
            Some(PostureIdentity::Serials { serial_numbers }) => {
                Identity::Serials(serial_numbers.iter().map(Into::into).collect())
            }
            _ => Identity::Missing,
        },
    });
    devices
        .map(|device| (device.node_id.clone(), device))
        .collect()
}

/// Returns the node records: the present scores, and another score for each hundredth device.
fn records(joined: &Matches, key: &AttributeKey, now: Timestamp) -> NodeRecords {
    let scored = joined.outcomes.iter().filter_map(|(node, outcome)| {
        let MatchOutcome::Scored(evidence) = outcome else {
            return None;
        };
        Some((node, evidence))
    });
    scored
        .enumerate()
        .map(|(number, (node, evidence))| {
            let other = Score::new(i64::from(evidence.score.get() / 2));
            let score = other.filter(|_| number % 100 == 0);
            let written = NodeRecord {
                key: key.clone(),
                score: score.unwrap_or(evidence.score),
                aid: evidence.aid.clone(),
                serial: evidence.serial.to_string().into(),
                name: node.to_string().into(),
                run_id: "earlier".into(),
                is_ephemeral: false,
                absence: None,
                written_at: Some(now),
                expiry: Some(Lifetime::from_hours(168, now).end()),
            };
            (node.clone(), written)
        })
        .collect()
}

fn decide(criterion: &mut Criterion) {
    let key = AttributeKey::default();
    for (hosts, size) in SIZES {
        let world = generate(&GeneratorSpec::plain(hosts, size));
        let (account, devices) = (account(&world), devices(&world));
        let newest = account.hosts.values().filter_map(|host| host.last_seen);
        let now = newest.max().unwrap_or_default();
        let rules = MatchRules::with_defaults(now);
        let joined = join(&account, &devices, &NodeRecords::new(), &rules);
        let records = records(&joined, &key, now);
        let plan_rules = PlanRules {
            key: &key,
            on_missing: OnMissing::Delete,
            lifetime: Lifetime::from_hours(168, now),
        };
        let mut group = criterion.benchmark_group("decide");
        group.throughput(Throughput::Elements(
            u64::try_from(hosts).unwrap_or(u64::MAX),
        ));
        group.bench_function(BenchmarkId::new("join", hosts), |bencher| {
            bencher.iter(|| {
                join(
                    black_box(&account),
                    black_box(&devices),
                    black_box(&records),
                    &rules,
                )
            });
        });
        group.bench_function(BenchmarkId::new("plan", hosts), |bencher| {
            bencher.iter(|| {
                plan(
                    black_box(&joined),
                    black_box(&devices),
                    black_box(&records),
                    &ExpiredRecords::new(),
                    &plan_rules,
                )
            });
        });
    }
}

criterion_group!(benches, decide);
criterion_main!(benches);
