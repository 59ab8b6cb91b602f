//! The world as the oracle takes it, and what the oracle says.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{TAILNET, TestEnvironment};
use crate::oracle::{Oracle, Record, Settings, World, oracle};

impl TestEnvironment {
    /// The data of both sides.
    pub(crate) fn world(&self) -> World {
        self.world_of("corp", TAILNET)
    }

    /// The data of an account and a tailnet.
    pub(crate) fn world_of(&self, account: &str, tailnet: &str) -> World {
        self.heartbeat();
        World {
            hosts: self.sims.falcon().hosts(account).unwrap(),
            scores: self.sims.falcon().scores(account).unwrap(),
            devices: self.sims.tailscale().devices(tailnet).unwrap(),
            now: self.app.clock.now(),
        }
    }

    /// The scores that the tailnet should hold if nothing was written before, with the settings that most tests have.
    pub(crate) fn expected(&self) -> BTreeMap<String, i64> {
        oracle(&Settings::default(), &self.world())
    }

    /// The scores that the devices should have after what was recorded: who had a shared serial first keeps it.
    pub(crate) async fn expected_after_records(&self) -> BTreeMap<String, i64> {
        let reasons = self
            .oracle(Settings::default())
            .await
            .run(&self.world())
            .reasons;
        let scores = reasons.into_iter();
        scores
            .filter_map(|(node, reason)| Some((node, reason.score?)))
            .collect()
    }

    /// An oracle that goes on from the records.
    pub(crate) async fn oracle(&self, settings: Settings) -> Oracle {
        let records = self.items("nodes").await.into_iter();
        let records = records.map(|item| {
            let text = |name: &str| item[name].as_str().unwrap().to_owned();
            let record = Record {
                score: item["score"].as_i64().unwrap(),
                serial: text("serial").trim().to_lowercase(),
                absent_since: time(&item["absentSince"]),
                ends: time(&item["expiry"]).unwrap_or(jiff::Timestamp::MAX),
            };
            (text("nodeId"), record)
        });
        Oracle::with_records(settings, records.collect())
    }
}

fn time(value: &Value) -> Option<jiff::Timestamp> {
    value.as_str().map(|text| text.parse().unwrap())
}
