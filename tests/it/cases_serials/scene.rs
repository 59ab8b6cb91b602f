//! A world that is written as in the reports: hosts and scores of Falcon, and devices of the tailnet.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use posture_simulators::{Device, Host};
use serde_json::{Value, json};

use crate::environment::{TAILNET, TestEnvironment};
use crate::oracle::{Oracle, Settings};

/// An environment and an oracle with the same settings.
pub(super) struct Scene {
    pub(super) env: TestEnvironment,
    oracle: Oracle,
}

impl Scene {
    pub(super) async fn new(settings: Value) -> Self {
        let env = TestEnvironment::empty().await;
        env.connect(settings.clone()).await;
        let mut all = json!({"removeAfterMinutes": 0});
        let Value::Object(settings) = settings else {
            panic!("settings are an object");
        };
        all.as_object_mut().unwrap().extend(settings);
        Self {
            env,
            oracle: Oracle::new(Settings::from_json(&all)),
        }
    }

    /// Puts hosts and nodes. `hoursAgo` of a host is the time since it was seen; fields that are missing are ordinary.
    pub(super) fn put(&self, world: &Value) {
        let list = |side: &str| world[side].as_array().cloned().unwrap_or_default();
        let now = self.env.app.clock.now();
        for host in list("falcon") {
            let text = |name: &str| host[name].as_str().unwrap_or_default();
            let ago = SignedDuration::from_hours(host["hoursAgo"].as_i64().unwrap_or(1));
            let aid = aid(text("aid"));
            let mut record = Host::new(
                &aid,
                text("serial_number"),
                text("hostname"),
                &(now - ago).to_string(),
            );
            record.platform_name = host["platform_name"].as_str().map(str::to_owned);
            record.status = host["status"].as_str().map(str::to_owned);
            record.hostname = host["hostname"].as_str().map(str::to_owned);
            record.first_seen = host["installedHoursAgo"]
                .as_i64()
                .map(|hours| (now - SignedDuration::from_hours(hours)).to_string());
            let falcon = self.env.sims.falcon();
            falcon.put_host("corp", record).unwrap();
            if !host["score"].is_null() {
                let score = host["score"].clone();
                falcon.set_score("corp", &aid, score).unwrap();
            }
        }
        for node in list("tailnet") {
            let id = node["nodeId"].as_str().unwrap();
            let serials: Vec<String> =
                serde_json::from_value(node["serialNumbers"].clone()).unwrap();
            let hostname = node["hostname"].as_str().unwrap_or(id);
            let mut device = Device::new(id, hostname, serials);
            node["os"]
                .as_str()
                .unwrap_or("macOS")
                .clone_into(&mut device.os);
            device.connected_to_control = node["connectedToControl"].as_bool().unwrap_or(true);
            device.last_seen = node["hoursAgo"]
                .as_i64()
                .map(|hours| (now - SignedDuration::from_hours(hours)).to_string());
            let tailscale = self.env.sims.tailscale();
            tailscale.put_device(TAILNET, device).unwrap();
        }
    }

    /// Runs, and compares the attributes with the oracle and with these.
    pub(super) async fn run(&mut self, attributes: Value) -> Value {
        let sync = json!({"command": "sync", "integration": "corp", "allowMassRemoval": 1000});
        let answer = self.env.ask(sync).await;
        let wanted: BTreeMap<String, i64> = serde_json::from_value(attributes).unwrap();
        let world = self.env.world();
        let expected = self.oracle.run(&world);
        assert_eq!(expected.attributes, wanted, "{:#?}", expected.reasons);
        assert_eq!(self.env.scores(), wanted, "{answer:#}");
        answer
    }

    pub(super) async fn explain(&self, device: &str) -> String {
        let payload = json!({"command": "explain", "integration": "corp", "device": device});
        self.env.ask(payload).await.to_string()
    }
}

pub(super) fn aid(word: &str) -> String {
    let bytes = word.bytes();
    let number = bytes.fold(0_u128, |number, byte| (number << 8) | u128::from(byte));
    format!("{number:032x}")
}
