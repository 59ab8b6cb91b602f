//! A process of the function whose secrets contain the canary, and the outputs of that process.

use std::sync::Arc;
use std::time::Duration;

use aws_simulators::endpoints;
use aws_simulators::lambda::NoAnswer;
use falcon_posture_sync::clock::Clock;
use posture_simulators::{Account, Device, GeneratorSpec, Host, Tailnet};
use serde_json::{Value, json};

use super::canaries::{API_KEY, Evidence, FALCON_SECRET, OAUTH_SECRET};
use super::echo::Echo;
use crate::environment::{TAILNET, TestEnvironment, corp};
use crate::process::Process;
use crate::process::relay::Relay;

/// The log level: JSON lines as deployed, or everything as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Info,
    Trace,
}

impl Level {
    pub(super) fn variables(self) -> [(&'static str, String); 2] {
        let (level, format) = match self {
            Self::Info => ("INFO", "JSON"),
            Self::Trace => ("TRACE", "Text"),
        };
        [
            ("AWS_LAMBDA_LOG_LEVEL", level.to_owned()),
            ("AWS_LAMBDA_LOG_FORMAT", format.to_owned()),
        ]
    }
}

/// Enough time to reach each request of a run and its first retries.
pub(super) const SHORT: Duration = Duration::from_secs(2);
pub(super) const LONG: Duration = Duration::from_mins(1);

/// A process, its environment, and its outputs so far.
pub(super) struct Instance {
    pub(super) env: TestEnvironment,
    /// Receives all requests, if it was requested.
    pub(super) echo: Arc<Echo>,
    process: Process,
    _relays: Vec<Relay>,
    asked: usize,
    evidence: Evidence,
}

/// Hosts, scores and devices that were removed to make a run look them up.
pub(super) struct Stirred {
    host: Host,
    unscored: String,
    device: Device,
}

impl Instance {
    /// `corp` is connected. With `echo`, every request goes through it.
    pub(super) async fn start(level: Level, through_echo: bool) -> Self {
        let env = world().await;
        let echo = Arc::new(Echo::default());
        let mut variables = level.variables().to_vec();
        let mut relays = Vec::new();
        if through_echo {
            let falcon = env.sims.falcon_url("us-1");
            for (name, base) in [
                ("FALCON_CLOUDS_EXTRA", falcon),
                ("TAILSCALE_API_URL", env.sims.tailscale_url()),
            ]
            .into_iter()
            .chain(endpoints(env.dynamodb.url(), &env.services.url()))
            {
                let relay = Relay::to(&base, echo.clone()).await;
                let prefix = if name == "FALCON_CLOUDS_EXTRA" {
                    "us-1="
                } else {
                    ""
                };
                variables.push((name, format!("{prefix}{}", relay.url())));
                relays.push(relay);
            }
        }
        let process = Process::start(&env, &variables).await;
        let mut instance = Self {
            env,
            echo,
            process,
            _relays: relays,
            asked: 0,
            evidence: Evidence::default(),
        };
        instance.ask(connect(json!({}))).await.unwrap();
        instance
    }

    /// Asks the function, and keeps the answer as evidence.
    pub(super) async fn ask(&mut self, payload: Value) -> Result<Value, Value> {
        self.ask_within(LONG, payload).await
    }

    pub(super) async fn ask_within(
        &mut self,
        time: Duration,
        payload: Value,
    ) -> Result<Value, Value> {
        self.asked += 1;
        let id = format!("run-{}", self.asked);
        let said = match self.process.invoke(&id, &payload, time).await {
            Ok(answer) => Ok(answer),
            Err(NoAnswer::Error(error)) => Err(error),
            Err(NoAnswer::Died) => panic!("{payload} ended it: {}", self.process.output()),
        };
        match &said {
            Ok(answer) => self.evidence.add_json("an answer", answer),
            Err(error) => self.evidence.add_json("an error", error),
        }
        said
    }

    /// Keeps the status of the last run as evidence, before the next run overwrites it.
    pub(super) async fn note_status(&mut self) {
        for item in self.env.items("integrations").await {
            self.evidence.add_json("the table integrations", &item);
        }
    }

    /// A forced run, so that the next one starts from an ordinary state.
    pub(super) async fn calm(&mut self) {
        self.env.outlive_writes().await;
        let answer = self.ask(force()).await.unwrap();
        let good = ["synced", "unchanged"].map(Value::from);
        assert!(good.contains(&answer["outcome"]), "{answer:#}");
    }

    /// Changes a score, and removes a host, a score and a device: the next run must look them up, and write.
    pub(super) async fn stir(&self) -> Stirred {
        let nodes = self.env.items("nodes").await;
        let text = |n: usize, name: &str| nodes[n][name].as_str().unwrap().to_owned();
        let (falcon, tailscale) = (self.env.sims.falcon(), self.env.sims.tailscale());
        let host = falcon.remove_host("corp", &text(0, "aid")).unwrap();
        let unscored = text(1, "aid");
        falcon.remove_score("corp", &unscored).unwrap();
        let device = tailscale
            .remove_device(TAILNET, &text(2, "nodeId"))
            .unwrap();
        let score = (nodes[3]["score"].as_i64().unwrap() + 1) % 101;
        falcon.set_score("corp", &text(3, "aid"), score).unwrap();
        Stirred {
            host: host.unwrap(),
            unscored,
            device: device.unwrap(),
        }
    }

    pub(super) fn restore(&self, stirred: Stirred) {
        let Stirred {
            host,
            unscored,
            device,
        } = stirred;
        let (falcon, tailscale) = (self.env.sims.falcon(), self.env.sims.tailscale());
        falcon.put_host("corp", host).unwrap();
        falcon.set_score("corp", &unscored, 50).unwrap();
        tailscale.put_device(TAILNET, device).unwrap();
    }

    /// Returns all outputs: answers, log lines, items and events.
    pub(super) async fn end(mut self) -> Evidence {
        self.note_status().await;
        for table in ["nodes", "audit"] {
            for item in self.env.items(table).await {
                self.evidence.add_json(format!("the table {table}"), &item);
            }
        }
        for event in &self.env.services.state().events {
            self.evidence.add_json("an event", event);
        }
        let printed = self.process.end();
        assert!(printed.contains("corp"), "it prints");
        for line in printed.lines() {
            self.evidence.add("the log", line);
        }
        self.evidence
    }
}

async fn world() -> TestEnvironment {
    let mut env = TestEnvironment::empty().await;
    env.set_clock(Clock::system());
    let now = env.app.clock.now();
    env.load(&GeneratorSpec {
        now,
        ..GeneratorSpec::plain(12, 12)
    });
    env.sims.falcon().put_account(Account {
        client_secret: FALCON_SECRET.to_owned(),
        ..Account::new("corp")
    });
    env.sims
        .tailscale()
        .configure(TAILNET, |tailnet| {
            OAUTH_SECRET.clone_into(&mut tailnet.oauth_clients[0].client_secret);
            tailnet.api_keys = [API_KEY.to_owned()].into();
        })
        .unwrap();
    env.services.put_secret("corp/falcon", falcon_secret());
    env.services.put_secret("corp/tailscale", oauth_secret());
    env.services
        .put_secret("corp/key", json!({"apiKey": API_KEY}));
    env
}

pub(super) fn falcon_secret() -> Value {
    json!({"clientId": Account::new("corp").client_id, "clientSecret": FALCON_SECRET})
}

pub(super) fn oauth_secret() -> Value {
    let id = &Tailnet::new(TAILNET).oauth_clients[0].client_id;
    json!({"clientId": id, "clientSecret": OAUTH_SECRET})
}

pub(super) fn force() -> Value {
    // Each case removes something, and there are many in a day.
    json!({"command": "sync", "integration": "corp", "force": true, "allowMassRemoval": 1000})
}

/// A `connect` of `corp` with these settings in place of the defaults.
pub(super) fn connect(settings: Value) -> Value {
    json!({"command": "connect", "integration": corp(settings), "actor": "amelie"})
}
