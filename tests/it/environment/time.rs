//! Time that passes: for the sensors and devices of the world, for the journal, and for the lease.

use std::collections::BTreeSet;
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use falcon_posture_sync::clock::Clock;
use jiff::{SignedDuration, Timestamp};
use posture_simulators::{Device, Host};
use serde_json::Value;

use super::TestEnvironment;

/// A world that is younger than this needs no heartbeat.
const HEARTBEAT: SignedDuration = SignedDuration::from_hours(1);
/// Hosts and devices that were seen within this time before the last heartbeat are in use. Records of machines that were
/// re-imaged are older.
const IN_USE: SignedDuration = SignedDuration::from_hours(24 * 21);

/// The last heartbeat of the world, and the sensors without one.
#[derive(Debug, Default)]
pub(super) struct Heartbeats {
    last: Option<Timestamp>,
    silent: BTreeSet<String>,
    /// True if the test itself moves the last sights.
    by_hand: bool,
}

/// More than a write can live.
const OUTLIVED: SignedDuration = SignedDuration::from_mins(11);

impl TestEnvironment {
    /// Lets the sensor of this host fall silent: time that passes takes its host's `last_seen` no further.
    pub(crate) fn silence(&self, aid: &str) {
        let mut heartbeats = self.heartbeats.lock().unwrap();
        heartbeats.silent.insert(aid.to_owned());
    }

    /// Puts a removed host back. Its sensor reports at once.
    pub(crate) fn put_host_back(&self, account: &str, host: Host) {
        let host = Host {
            last_seen: Some(self.app.clock.now().to_string()),
            ..host
        };
        self.sims.falcon().put_host(account, host).unwrap();
    }

    /// Forgets the last heartbeat, since the world is new, and who was silent.
    pub(super) fn forget_heartbeats(&self) {
        let mut heartbeats = self.heartbeats.lock().unwrap();
        *heartbeats = Heartbeats {
            by_hand: heartbeats.by_hand,
            ..Heartbeats::default()
        };
    }

    /// Leaves the last sights of all hosts and devices to the test.
    pub(crate) fn end_heartbeats(&self) {
        self.heartbeats.lock().unwrap().by_hand = true;
    }

    /// Moves the last sight of all hosts and devices in use forward by the time since the last heartbeat, so that tests that
    /// let days pass need not do it: sensors go on reporting, and devices go on coming and leaving.
    pub(super) fn heartbeat(&self) {
        let now = self.app.clock.now();
        let mut heartbeats = self.heartbeats.lock().unwrap();
        let last = *heartbeats.last.get_or_insert(now);
        let passed = now.duration_since(last);
        if passed < HEARTBEAT || heartbeats.by_hand {
            return;
        }
        heartbeats.last = Some(now);
        let moved = |text: &mut Option<String>| {
            let seen = text.as_deref().and_then(|text| text.parse().ok());
            if let Some(seen) = seen.filter(|seen| last.duration_since(*seen).abs() < IN_USE) {
                *text = Some((seen + passed).to_string());
            }
        };
        let (falcon, tailscale) = (self.sims.falcon(), self.sims.tailscale());
        for account in falcon.accounts().keys() {
            let silent = &heartbeats.silent;
            let beat = |host: &mut Host| {
                if !silent.contains(&host.device_id) {
                    moved(&mut host.last_seen);
                }
            };
            falcon.update_hosts(account, beat).unwrap();
        }
        for tailnet in tailscale.tailnets().keys() {
            let beat = |device: &mut Device| moved(&mut device.last_seen);
            tailscale.update_devices(tailnet, beat).unwrap();
        }
    }

    /// Lets so much time pass that no write which was sent can take effect any more, so that the next run judges it.
    pub(crate) async fn outlive_writes(&self) {
        self.app.clock.advance(OUTLIVED.unsigned_abs());
        for item in self.items("integrations").await {
            self.age_journal(item["id"].as_str().unwrap()).await;
        }
    }

    /// Makes the journal of an integration older, if it has the time of a function with the system's clock.
    pub(crate) async fn age_journal(&self, id: &str) {
        let item = self.integration(id).await;
        for (key, entry) in item["pending"].as_object().into_iter().flatten() {
            self.age(id, &["pending", key, "sentAt"], &entry["sentAt"])
                .await;
        }
    }

    /// Makes the lease of an integration older, if it has the time of a function with the system's clock.
    pub(crate) async fn age_lease(&self, id: &str) {
        let until = self.integration(id).await["lease"]["until"].take();
        self.age(id, &["lease", "until"], &until).await;
    }

    async fn age(&self, id: &str, path: &[&str], time: &Value) {
        let young = Clock::system().now().saturating_sub(OUTLIVED).unwrap();
        let time: Option<Timestamp> = time.as_str().map(|time| time.parse().unwrap());
        let Some(time) = time.filter(|time| *time > young) else {
            return;
        };
        let aged = time.saturating_sub(2 * OUTLIVED).unwrap();
        let mut update = self
            .tables
            .update_item()
            .table_name("integrations")
            .key("id", AttributeValue::S(id.to_owned()))
            .expression_attribute_values(":time", AttributeValue::S(aged.to_string()));
        let mut names = Vec::new();
        for (n, name) in path.iter().enumerate() {
            names.push(format!("#n{n}"));
            update = update.expression_attribute_names(format!("#n{n}"), *name);
        }
        let update = update.update_expression(format!("SET {} = :time", names.join(".")));
        update.send().await.unwrap();
    }
}

#[tokio::test]
async fn sensors_report_while_time_passes_but_for_the_silent_ones() {
    let env = TestEnvironment::synced().await;
    let hosts = env.sims.falcon().hosts("corp").unwrap();
    env.silence(&hosts[0].device_id);
    env.app.clock.advance(Duration::from_hours(24 * 40));
    env.sync().await;
    let later = env.sims.falcon().hosts("corp").unwrap();
    let seen = |host: &Host| {
        host.last_seen
            .as_ref()
            .unwrap()
            .parse::<Timestamp>()
            .unwrap()
    };
    for (before, after) in hosts.iter().zip(&later).skip(1) {
        let passed = seen(after).duration_since(seen(before));
        assert!(passed >= SignedDuration::from_hours(24 * 40), "{after:?}");
    }
    assert_eq!(seen(&hosts[0]), seen(&later[0]));
}
