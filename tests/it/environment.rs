//! The environment of one test: both APIs, AWS, and the function between them.

mod deserved;
mod invariants;
mod time;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use aws_simulators::{DynamoDb, Services};
use falcon_posture_sync::app::{App, Invocation, Sessions};
use falcon_posture_sync::clock::Clock;
use falcon_posture_sync::config::Config;
use falcon_posture_sync::events::EventBus;
use falcon_posture_sync::handler::{self, HandlerError};
use falcon_posture_sync::metrics::Metrics;
use falcon_posture_sync::secrets::Secrets;
use falcon_posture_sync::store::Store;
use falcon_posture_sync::tailscale::WriteLimits;
use falcon_posture_sync::upstream::retry::RetryPolicy;
use jiff::SignedDuration;
use posture_simulators::{Account, GeneratorSpec, Matcher, Side, Simulators, Tailnet, generate};
use serde_dynamo::from_item;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::OnceCell;
use tokio::task::block_in_place;

use crate::aws;

pub(crate) const KEY: &str = "custom:ztaScore";
pub(crate) const TAILNET: &str = "example.com";

/// The function and its servers. Integration `corp` carries scores from account `corp` to tailnet `example.com`.
pub(crate) struct TestEnvironment {
    pub(crate) sims: Simulators,
    pub(crate) services: Services,
    pub(crate) app: App,
    pub(crate) tables: Client,
    pub(crate) dynamodb: DynamoDb,
    /// The Cognito identity that invokes the function, if any.
    pub(crate) caller: Option<String>,
    /// The alias that is invoked, if any.
    pub(crate) alias: Option<String>,
    runs: AtomicUsize,
    heartbeats: Mutex<time::Heartbeats>,
}

impl TestEnvironment {
    /// An empty account and an empty tailnet, with valid credentials and no integration.
    pub(crate) async fn empty() -> Self {
        let sims = Simulators::builder()
            .regions(["us-1", "us-2"])
            .start()
            .await
            .unwrap();
        let services = Services::start().await.unwrap();
        let dynamodb = DynamoDb::start().await.unwrap();
        let dynamodb_sdk = aws::sdk(dynamodb.url());
        let clock = Clock::fixed_at(GeneratorSpec::default().now);
        let env = Self {
            app: app(
                &variables(&sims),
                clock,
                &dynamodb_sdk,
                &aws::sdk(&services.url()),
            ),
            tables: Client::new(&dynamodb_sdk),
            sims,
            services,
            dynamodb,
            caller: None,
            alias: None,
            runs: AtomicUsize::new(0),
            heartbeats: Mutex::default(),
        };
        env.share_clock();
        env.sims.falcon().put_account(Account::new("corp"));
        env.sims.tailscale().put_tailnet(Tailnet::new(TAILNET));
        env.services
            .put_secret("corp/falcon", falcon_secret("corp"));
        env.services
            .put_secret("corp/tailscale", tailscale_secret(TAILNET));
        env
    }

    /// Generated hosts and devices, and `corp` connected.
    pub(crate) async fn connected(spec: &GeneratorSpec) -> Self {
        let env = Self::empty().await;
        env.load(spec);
        env.connect(json!({})).await;
        env
    }

    /// Generated hosts and devices, and `corp` connected. Uses the system's clock, as processes and simulators do.
    pub(crate) async fn live(spec: GeneratorSpec) -> Self {
        let mut env = Self::empty().await;
        env.set_clock(Clock::system());
        env.begin_again(spec).await;
        env
    }

    /// Gives the function another clock, and the simulators with it.
    pub(crate) fn set_clock(&mut self, clock: Clock) {
        self.app.clock = clock;
        self.share_clock();
    }

    fn share_clock(&self) {
        let clock = self.app.clock.clone();
        self.sims.clock().follow(move || clock.now());
    }

    /// Replaces the world and the tables: the state after [`TestEnvironment::live`], much faster.
    pub(crate) async fn begin_again(&self, spec: GeneratorSpec) {
        self.clear(spec);
        self.connect(json!({})).await;
    }

    /// Replaces the world and the tables, without an integration.
    pub(crate) fn clear(&self, spec: GeneratorSpec) {
        self.dynamodb.clear().unwrap();
        let now = self.app.clock.now();
        self.load(&GeneratorSpec { now, ..spec });
    }

    /// 60 hosts and 40 devices, each with one host, and `corp` connected and synced once.
    pub(crate) async fn synced() -> Self {
        let env = Self::connected(&GeneratorSpec::plain(60, 40)).await;
        assert_eq!(env.sync().await["outcome"], "synced");
        env
    }

    pub(crate) fn load(&self, spec: &GeneratorSpec) {
        self.forget_heartbeats();
        let world = generate(spec);
        self.sims.falcon().load("corp", &world).unwrap();
        self.sims.tailscale().load(TAILNET, &world).unwrap();
    }

    /// Connects `corp` with these settings in place of the defaults.
    pub(crate) async fn connect(&self, settings: Value) -> Value {
        self.ask(json!({"command": "connect", "integration": corp(settings), "actor": "amelie"}))
            .await
    }

    /// Connects `corp` with these settings, without a check.
    pub(crate) async fn connect_unchecked(&self, settings: Value) {
        self.ask(json!({"command": "connect", "integration": corp(settings), "check": false}))
            .await;
    }

    /// Changes settings of `corp`.
    pub(crate) async fn update(&self, changes: Value) -> Value {
        self.ask(json!({"command": "update", "integration": "corp", "changes": changes, "actor": "amelie"}))
            .await
    }

    /// Advances the clock by a minute and asks the function, which must answer.
    pub(crate) async fn ask(&self, payload: Value) -> Value {
        self.try_ask(payload)
            .await
            .unwrap_or_else(|error| panic!("{}", chain(&error)))
    }

    /// Advances the clock by a minute and asks the function.
    pub(crate) async fn try_ask(&self, payload: Value) -> Result<Value, HandlerError> {
        self.ask_within(Duration::from_mins(15), payload).await
    }

    /// Asks the function with this timeout.
    pub(crate) async fn ask_within(
        &self,
        time: Duration,
        payload: Value,
    ) -> Result<Value, HandlerError> {
        self.app.clock.advance(Duration::from_mins(1));
        self.heartbeat();
        let run = self.runs.fetch_add(1, Ordering::SeqCst) + 1;
        let invocation = Invocation {
            id: format!("run-{run}"),
            caller: self.caller.clone(),
            alias: self.alias.clone(),
            function_arn: "arn:aws:lambda:us-east-1:123456789012:function:falcon-posture-sync"
                .to_owned(),
            deadline: self
                .app
                .clock
                .now()
                .saturating_add(SignedDuration::try_from(time).unwrap())
                .unwrap(),
        };
        // Boxed: the future is large.
        Box::pin(handler::handle(&self.app, payload, &invocation)).await
    }

    /// The item of an integration.
    pub(crate) async fn integration(&self, id: &str) -> Value {
        let items = self.items("integrations").await;
        items.into_iter().find(|item| item["id"] == id).unwrap()
    }

    /// The id of the latest run.
    pub(crate) fn last_run(&self) -> String {
        format!("run-{}", self.runs.load(Ordering::SeqCst))
    }

    /// The function's environment variables.
    pub(crate) fn variables(&self) -> BTreeMap<&'static str, String> {
        variables(&self.sims)
    }

    /// Sets the score of the host that determines the fourth record to 4.
    pub(crate) async fn lower_a_score(&self) {
        let record = &self.items("nodes").await[3];
        let aid = record["aid"].as_str().unwrap();
        self.sims.falcon().set_score("corp", aid, 4).unwrap();
    }

    /// A scheduled run.
    pub(crate) async fn sync(&self) -> Value {
        self.ask(json!({"command": "sync"})).await
    }

    /// A forced sync of `corp`.
    pub(crate) async fn force(&self) -> Value {
        self.ask(json!({"command": "sync", "integration": "corp", "force": true}))
            .await
    }

    /// The scores that the tailnet holds under our key, by node.
    pub(crate) fn scores(&self) -> BTreeMap<String, i64> {
        self.scores_at(KEY)
    }

    pub(crate) fn scores_at(&self, key: &str) -> BTreeMap<String, i64> {
        let attributes = self.sims.tailscale().attributes(TAILNET).unwrap();
        attributes
            .into_iter()
            .filter_map(|(node, values)| Some((node, values.get(key)?.as_i64().unwrap())))
            .collect()
    }

    /// Requests by route since the last call. Clears the request log.
    pub(crate) fn requests(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for side in [Side::Falcon, Side::Tailscale] {
            for entry in self.sims.requests().of(side) {
                *counts
                    .entry(format!("{} {}", entry.method, entry.path))
                    .or_default() += 1;
            }
        }
        self.sims.requests().clear();
        counts
    }

    /// All items of a table, as JSON, in the order of their keys.
    pub(crate) async fn items(&self, table: &str) -> Vec<Value> {
        let mut items = Vec::new();
        let mut pages = self
            .tables
            .scan()
            .table_name(table)
            .into_paginator()
            .items()
            .send();
        while let Some(item) = pages.next().await {
            items.push(from_item::<_, Value>(item.unwrap()).unwrap());
        }
        let key = |item: &Value| {
            ["id", "nodeId", "eventId"].map(|key| item[key].as_str().unwrap_or_default().to_owned())
        };
        items.sort_by_key(key);
        items
    }

    /// The audit records of nodes.
    pub(crate) async fn node_audit(&self) -> Vec<Value> {
        let mut records = self.items("audit").await;
        records.retain(|record| record["target"]["type"] == "Node");
        records
    }

    /// The item of `corp`.
    pub(crate) async fn corp(&self) -> Value {
        self.integration("corp").await
    }

    /// Changes one attribute of `corp`'s item by hand, and its version with it.
    pub(crate) async fn edit(&self, attribute: &str, value: AttributeValue) {
        self.tables
            .update_item()
            .table_name("integrations")
            .key("id", AttributeValue::S("corp".to_owned()))
            .update_expression("SET #a = :a ADD configVersion :one")
            .expression_attribute_names("#a", attribute)
            .expression_attribute_values(":a", value)
            .expression_attribute_values(":one", AttributeValue::N("1".to_owned()))
            .send()
            .await
            .unwrap();
    }

    /// Sets another run id in a node record.
    pub(crate) fn take_record(&self, node: &str) -> impl Future<Output = ()> + Send + 'static {
        let take = self
            .tables
            .update_item()
            .table_name("nodes")
            .key("integrationId", AttributeValue::S("corp".to_owned()))
            .key("nodeId", AttributeValue::S(node.to_owned()))
            .update_expression("SET runId = :other")
            .expression_attribute_values(":other", AttributeValue::S("other".to_owned()));
        async move {
            take.send().await.unwrap();
        }
    }

    /// Runs `action` once, before the first of these requests is answered. The client waits for it, so the test needs a
    /// runtime with several threads.
    pub(crate) fn during(
        &self,
        requests: Matcher,
        action: impl Future<Output = ()> + Send + 'static,
    ) {
        self.during_with_runtime(requests, move |runtime| runtime.block_on(action));
    }

    /// Runs `action` once, before the first of these requests is answered. For an action that invokes the function, whose future
    /// cannot change threads.
    pub(crate) fn during_with_runtime(
        &self,
        requests: Matcher,
        action: impl FnOnce(Handle) + Send + 'static,
    ) {
        let runtime = Handle::current();
        let clock = self.app.clock.clone();
        let action = Mutex::new(Some(action));
        self.sims.on_request(requests, move |_| {
            clock.advance(Duration::from_millis(1));
            let first = action.lock().unwrap().take(); // Without the lock: the action may lead to such a request.
            if let Some(action) = first {
                let runtime = runtime.clone();
                // Other threads go on with what waits for this one.
                block_in_place(|| thread::spawn(move || action(runtime)).join().unwrap());
            }
        });
    }
}

/// The function with these variables, this clock, short backoffs, and these settings of the SDK.
pub(crate) fn app(
    variables: &BTreeMap<&'static str, String>,
    clock: Clock,
    dynamodb: &SdkConfig,
    others: &SdkConfig,
) -> App {
    let config = Config::from_lookup(|name| variables.get(name).cloned()).unwrap();
    App {
        clock,
        http: OnceCell::new(),
        retries: RetryPolicy {
            initial_backoff: Duration::from_millis(1),
            max_backoff: Duration::from_millis(20),
            ..RetryPolicy::default()
        },
        // Small batches, so that small worlds need several.
        write_limits: WriteLimits {
            batch_size: 50,
            ..WriteLimits::default()
        },
        secrets: Secrets::new(others),
        store: Store::new(dynamodb, &config),
        events: EventBus::new(others, config.event_bus.clone()),
        metrics: Metrics::in_memory(config.function.clone()),
        sessions: Sessions::default(),
        config,
    }
}

/// The settings of `corp`, with these in place of the defaults.
pub(crate) fn corp(settings: Value) -> Value {
    let mut integration = json!({
        "id": "corp", "provider": "falcon", "cloudId": "us-1",
        "falconSecret": "corp/falcon", "tailscaleSecret": "corp/tailscale",
        // Most tests are about one run. `absences` has the laws about the second look.
        "removeAfterMinutes": 0
    });
    let Value::Object(others) = settings else {
        panic!("settings are an object");
    };
    integration.as_object_mut().unwrap().extend(others);
    integration
}

pub(crate) fn chain(error: &HandlerError) -> String {
    falcon_posture_sync::text::error_chain(error)
}

pub(crate) fn falcon_secret(account: &str) -> Value {
    let account = Account::new(account);
    json!({"clientId": account.client_id, "clientSecret": account.client_secret})
}

pub(crate) fn tailscale_secret(tailnet: &str) -> Value {
    let client = &Tailnet::new(tailnet).oauth_clients[0];
    json!({"clientId": client.client_id, "clientSecret": client.client_secret})
}

fn variables(sims: &Simulators) -> BTreeMap<&'static str, String> {
    let clouds = format!(
        "us-1={},us-2={}",
        sims.falcon_url("us-1"),
        sims.falcon_url("us-2")
    );
    BTreeMap::from([
        ("INTEGRATIONS_TABLE", "integrations".to_owned()),
        ("NODES_TABLE", "nodes".to_owned()),
        ("AUDIT_TABLE", "audit".to_owned()),
        ("TAILSCALE_API_URL", sims.tailscale_url()),
        ("FALCON_CLOUDS_EXTRA", clouds),
    ])
}
