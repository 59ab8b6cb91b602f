//! One function with its integration, in its own weather.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use aws_simulators::lambda::NoAnswer;
use posture_simulators::{Device, Host};
use serde_dynamo::from_item;
use serde_json::{Value, json};

use super::dice::Dice;
use super::health::Health;
use super::weather::{Ways, Weather};
use crate::company::{Company, Tally, audited};
use crate::process::Process;
use crate::world::Stage;

/// So often Lambda asks again where a function failed.
const RETRIES: usize = 2;
/// So many ticks lie between two looks at the process.
const LOOK: usize = 50;

type Scores = BTreeMap<String, i64>;

pub(super) struct Lane {
    company: Company,
    process: Process,
    weather: Weather,
    _ways: Ways,
    dice: Dice,
    away: Vec<Host>,
    /// Devices that have come so far: each has an id that no other one had before.
    devices: usize,
    outcomes: BTreeMap<String, usize>,
    /// Why runs failed.
    errors: BTreeMap<String, usize>,
    audited: Tally,
    /// The last audit record that was read.
    read: String,
    health: Health,
}

impl Lane {
    pub(super) async fn start(stage: &Stage, company: Company, seed: u64) -> Self {
        let weather = Weather::new(!seed);
        let ways = weather.ways(stage).await;
        Self {
            company,
            process: Process::start(stage, &ways.variables()).await,
            weather,
            _ways: ways,
            dice: Dice::new(seed),
            away: Vec::new(),
            devices: 0,
            outcomes: BTreeMap::new(),
            errors: BTreeMap::new(),
            audited: Tally::new(),
            read: "0".to_owned(),
            health: Health::default(),
        }
    }

    pub(super) async fn run(&mut self, stage: &Stage, ticks: usize) {
        for n in 1..=ticks {
            self.stir(stage);
            self.tick(stage, n).await;
            if n.is_multiple_of(LOOK) {
                self.health.sample(self.process.id());
            }
        }
    }

    /// Changes the world a little.
    fn stir(&mut self, stage: &Stage) {
        if self.dice.hundredths(50) {
            let n = self.dice.below(1000);
            self.company.move_a_score(stage, n);
        }
        let falcon = stage.sims.falcon();
        if self.dice.hundredths(5) && self.away.len() < 2 {
            let hosts = self.company.hosts(stage);
            let aid = &self.dice.one_of(&hosts).device_id;
            let host = falcon.remove_host(&self.company.name, aid).unwrap();
            self.away.extend(host);
        } else if self.dice.hundredths(10) {
            self.bring_hosts_back(stage);
        }
        if self.dice.hundredths(5) {
            self.replace_a_device(stage);
        }
    }

    fn bring_hosts_back(&mut self, stage: &Stage) {
        for host in self.away.drain(..) {
            let falcon = stage.sims.falcon();
            falcon.put_host(&self.company.name, host).unwrap();
        }
    }

    /// A device leaves, and the same machine comes as another one.
    fn replace_a_device(&mut self, stage: &Stage) {
        let (tailscale, tailnet) = (stage.sims.tailscale(), &self.company.tailnet);
        let devices = tailscale.devices(tailnet).unwrap();
        let leaves = self.dice.one_of(&devices);
        tailscale.remove_device(tailnet, &leaves.node_id).unwrap();
        self.devices += 1;
        let node = format!("n{}{:04}CNTRL", self.company.name, self.devices);
        let comes = Device::new(&node, &leaves.hostname, leaves.serials());
        tailscale.put_device(tailnet, comes).unwrap();
    }

    /// One run, and what is to be said of the world after it.
    async fn tick(&mut self, stage: &Stage, n: usize) {
        let before = self.company.scores(stage);
        let outcome = self.invoke(&format!("{}-{n}", self.company.name)).await;
        let (now, right) = (self.company.scores(stage), self.company.expected(stage));
        if ["synced", "unchanged"].contains(&outcome.as_str()) {
            assert_eq!(now, right, "{} after tick {n}", self.company.name);
        } else {
            assert_nothing_wrong(&before, &now, &right);
        }
        self.read_audit(stage).await;
        let logged = self.company.logged(stage);
        for (change, times) in &self.audited {
            let really = logged.get(change).unwrap_or(&0);
            assert!(times <= really, "after tick {n}: {change:?}, {times} times");
        }
        *self.outcomes.entry(outcome).or_default() += 1;
    }

    /// Asks as Lambda does: what failed is asked again, under the same id.
    async fn invoke(&mut self, id: &str) -> String {
        for _ in 0..=RETRIES {
            let time = Duration::from_mins(15);
            let payload = self.company.requested();
            match self.process.invoke(id, &payload, time).await {
                Ok(answer) => {
                    self.note(&answer["error"]);
                    return answer["outcome"].as_str().unwrap().to_owned();
                }
                Err(NoAnswer::Error(error)) => {
                    assert_eq!(error["errorType"], "Storage", "{error:#}");
                    self.note(&error["errorMessage"]);
                }
                Err(NoAnswer::Died) => panic!("{}", self.process.output()),
            }
        }
        "error".to_owned()
    }

    /// Keeps the first half sentence of an error.
    fn note(&mut self, error: &Value) {
        if let Some(error) = error.as_str() {
            let what = error.split([':', '.', ';', '(']).next().unwrap();
            *self.errors.entry(what.trim().to_owned()).or_default() += 1;
        }
    }

    /// Reads the audit records that have come since the last time.
    async fn read_audit(&mut self, stage: &Stage) {
        let text = |text: &str| AttributeValue::S(text.to_owned());
        let mut items = stage
            .tables
            .query()
            .table_name("audit")
            .key_condition_expression("integrationId = :id AND eventId > :read")
            .expression_attribute_values(":id", text(&self.company.name))
            .expression_attribute_values(":read", text(&self.read))
            .into_paginator()
            .items()
            .send();
        while let Some(item) = items.next().await {
            let record: Value = from_item(item.unwrap()).unwrap();
            record["eventId"]
                .as_str()
                .unwrap()
                .clone_into(&mut self.read);
            if record["target"]["type"] == "Node" {
                *self.audited.entry(audited(&record)).or_default() += 1;
            }
        }
    }

    /// The weather clears up: a run or two, and everything is as it should be.
    pub(super) async fn clear_up(&mut self, stage: &Stage) {
        self.weather.calm();
        self.bring_hosts_back(stage);
        let outcome = self.invoke("clear").await;
        assert!(["synced", "unchanged"].contains(&outcome.as_str()));
        assert_eq!(self.company.scores(stage), self.company.expected(stage));
        self.company.assert_sound(stage).await;
        self.read_audit(stage).await;
        assert_eq!(self.audited, self.company.logged(stage));

        assert_eq!(self.invoke("after").await, "unchanged");
        let item = self.company.item(stage).await;
        let status = &item["status"];
        assert_eq!(item["lease"], Value::Null);
        assert_eq!(item["pause"], Value::Null);
        let nothing = [json!(null), json!({})];
        assert!(nothing.contains(&item["pending"]), "{item:#}");
        assert!([json!(null), json!([])].contains(&status["findings"]));
        assert_eq!(status["outcome"], "unchanged");
        assert_eq!(status["consecutiveFailures"], 0);
        assert_eq!(status["lastSuccess"], status["lastSync"]);
        assert_eq!(status["error"], Value::Null);
    }

    pub(super) fn weather(&self) -> &Weather {
        &self.weather
    }

    pub(super) fn summary(&self) -> String {
        format!(
            "{}: {:?} {:?}; {}; {}; {} changes audited\n",
            self.company.name,
            self.outcomes,
            self.errors,
            self.weather.summary(),
            self.health.summary(),
            self.audited.values().sum::<usize>()
        )
    }

    pub(super) fn assert_healthy(self) {
        self.health.assert_flat(&self.company.name);
        let of = |outcome: &str| self.outcomes.get(outcome).unwrap_or(&0);
        let ticks: usize = self.outcomes.values().sum();
        let good = of("synced") + of("unchanged");
        assert!(good * 10 > ticks * 9, "{:?}", self.outcomes);
        assert_eq!(good + of("failed") + of("error"), ticks, "no pause");
        assert!(!self.process.end().contains("panicked"));
    }
}

/// Each attribute is either what it was or what it should be.
fn assert_nothing_wrong(before: &Scores, now: &Scores, right: &Scores) {
    for node in before.keys().chain(now.keys()).chain(right.keys()) {
        let (was, is, should) = (before.get(node), now.get(node), right.get(node));
        assert!(is == was || is == should, "{node}: {is:?}, {was:?} before");
    }
}
