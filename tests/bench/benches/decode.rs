//! Benchmarks reading a page of hosts, a page of scores and a device listing, from a local socket to the domain's
//! values.
//!
//! The decoders are private, so the benchmark calls the clients, and a server sends prepared bodies. The figures
//! include the loopback socket and HTTP client.

use std::collections::BTreeMap;
use std::io::Write as _;

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::{get, post};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use falcon_posture_sync::clock::{Clock, Deadline};
use falcon_posture_sync::domain::fetch::ranges::ranges;
use falcon_posture_sync::falcon::Falcon;
use falcon_posture_sync::secrets::{FalconCredentials, TailscaleCredentials};
use falcon_posture_sync::settings::{CloudId, Settings};
use falcon_posture_sync::tailscale::Tailscale;
use falcon_posture_sync::upstream::client::{ApiClient, HttpClient};
use falcon_posture_sync::upstream::retry::{CallBudget, RetryPolicy};
use flate2::Compression;
use flate2::write::GzEncoder;
use posture_simulators::net::{Bound, Server};
use posture_simulators::{DataSet, GeneratorSpec, generate};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

type Trouble = Box<dyn std::error::Error>;

/// Sizes of the largest pages.
const HOSTS: usize = 10_000;
const SCORES: usize = 1_000;
const DEVICES: usize = 5_000;
/// Bytes of padding that bring a device's record to the 1.8 kB of real records.
const REST_OF_A_DEVICE: usize = 1_400;

fn page(records: &[Value]) -> Bytes {
    let total = records.len();
    let pagination = json!({"offset": 0, "limit": total, "total": total, "after": ""});
    let body = json!({
        "meta": {"query_time": 0.01, "pagination": pagination, "trace_id": "61fdb7f7"},
        "resources": records,
        "errors": null,
    });
    body.to_string().into()
}

fn hosts(world: &DataSet) -> Bytes {
    let record = |host: &posture_simulators::Host| {
        json!({
            "device_id": host.device_id, "serial_number": host.serial_number, "hostname": host.hostname,
            "last_seen": host.last_seen,
        })
    };
    page(&world.hosts.iter().map(record).collect::<Vec<_>>())
}

fn scores(world: &DataSet) -> Bytes {
    let record = |(aid, score)| json!({"aid": aid, "score": score});
    page(
        &world
            .scores
            .iter()
            .take(SCORES)
            .map(record)
            .collect::<Vec<_>>(),
    )
}

fn devices(world: &DataSet) -> Bytes {
    let record = |device: &posture_simulators::Device| {
        let mut record = json!(device);
        record["clientConnectivity"] = json!({"endpoints": ["x".repeat(REST_OF_A_DEVICE)]});
        record
    };
    let records: Vec<Value> = world.devices.iter().map(record).collect();
    json!({ "devices": records }).to_string().into()
}

fn gzip(body: &Bytes) -> Result<Bytes, Trouble> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body)?;
    Ok(encoder.finish()?.into())
}

/// Starts a server that sends these bodies. It compresses the hosts, as Falcon does.
async fn serve(hosts: Bytes, scores: Bytes, devices: Bytes) -> Result<Server, Trouble> {
    let token = || async {
        let token = json!({"access_token": "t", "token_type": "bearer", "expires_in": 100_000});
        (StatusCode::CREATED, token.to_string())
    };
    let json = [("content-type", "application/json")];
    let routes = Router::new()
        .route("/oauth2/token", post(token))
        .route("/api/v2/oauth/token", post(token))
        .route(
            "/devices/combined/devices/v1",
            get(move || async move { ([("content-encoding", "gzip")], hosts) }),
        )
        .route(
            "/zero-trust-assessment/queries/assessments/v1",
            get(move || async move { (json, scores) }),
        )
        .route(
            "/api/v2/tailnet/-/devices",
            get(move || async move { (json, devices) }),
        );
    Ok(Server::start(Bound::to(0).await?, routes))
}

async fn sign_in(url: &str) -> Result<(Falcon, Tailscale), Trouble> {
    let clock = Clock::system();
    let deadline = Deadline::new(clock.clone(), jiff::Timestamp::MAX);
    let budget = CallBudget::new(RetryPolicy::default(), clock, deadline);
    let client = ApiClient::new(HttpClient::new()?, budget);
    let settings = Settings::parse(
        json!({
            "id": "bench", "provider": "falcon", "cloudId": "bench", "falconSecret": "s/f", "tailscaleSecret": "s/t",
        }),
        "integration",
    )?;
    let clouds: BTreeMap<CloudId, _> = [(settings.cloud_id.clone(), url.parse()?)].into();
    let falcon = Falcon::sign_in(
        client.clone(),
        &clouds,
        &settings.cloud_id,
        FalconCredentials {
            client_id: "id".to_owned(),
            client_secret: SecretString::from("secret"),
            member_cid: None,
        },
    );
    let tailscale = TailscaleCredentials::OAuth {
        client_id: "id".to_owned(),
        client_secret: SecretString::from("secret"),
    };
    let base = url.parse()?;
    let tailscale = Tailscale::sign_in(client, &base, &settings.tailnet, tailscale);
    Ok((falcon.await?, tailscale.await?))
}

fn bench(criterion: &mut Criterion) -> Result<(), Trouble> {
    let world = generate(&GeneratorSpec::plain(HOSTS, DEVICES));
    let (hosts, scores, devices) = (hosts(&world), scores(&world), devices(&world));
    let sizes = [&hosts, &scores, &devices].map(|body| u64::try_from(body.len()));
    let [of_hosts, of_scores, of_devices] = sizes;
    let runtime = Runtime::new()?;
    let server = runtime.block_on(serve(gzip(&hosts)?, scores, devices))?;
    let (falcon, tailscale) = &runtime.block_on(sign_in(&server.url()))?;

    let whole = ranges(&[]);
    let mut group = criterion.benchmark_group("decode");
    group.throughput(Throughput::Bytes(of_hosts?));
    group.bench_function("10,000 hosts", |bencher| {
        bencher.to_async(&runtime).iter(|| falcon.hosts());
    });
    group.throughput(Throughput::Bytes(of_scores?));
    group.bench_function("1,000 scores", |bencher| {
        bencher.to_async(&runtime).iter(|| falcon.scores(&whole));
    });
    group.throughput(Throughput::Bytes(of_devices?));
    group.bench_function("5,000 devices", |bencher| {
        bencher.to_async(&runtime).iter(|| tailscale.devices());
    });
    group.finish();
    // A failed read returns nothing and is fast, so the result is checked once before measuring.
    let read = runtime.block_on(async {
        Ok::<_, Trouble>((
            falcon.hosts().await?.len(),
            falcon.scores(&whole).await?.len(),
            tailscale.devices().await?.len(),
        ))
    })?;
    if read == (HOSTS, SCORES, DEVICES) {
        Ok(())
    } else {
        Err(format!("not all was read: {read:?}").into())
    }
}

fn decode(criterion: &mut Criterion) {
    let done = bench(criterion);
    assert!(done.is_ok(), "{done:?}");
}

criterion_group!(benches, decode);
criterion_main!(benches);
