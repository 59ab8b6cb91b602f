//! A second integration in an environment: a Falcon account, a tailnet, and their secrets.

use std::collections::{BTreeMap, BTreeSet};

use posture_simulators::{Account, Device, GeneratorSpec, Host, Tailnet, generate};
use serde_json::{Value, json};

use crate::environment::{KEY, TAILNET, TestEnvironment, falcon_secret, tailscale_secret};
use crate::oracle::{Settings, oracle};

/// Occurrences of each change of a value: node, old value, new value.
pub(crate) type Tally = BTreeMap<(String, Option<i64>, Option<i64>), usize>;

/// An integration, with its Falcon account and its tailnet.
#[derive(Clone, Debug)]
pub(crate) struct Integration {
    /// The name of the integration and of the account.
    pub(crate) name: String,
    pub(crate) tailnet: String,
}

impl Integration {
    /// The integration that every environment has.
    pub(crate) fn corp() -> Self {
        Self {
            name: "corp".to_owned(),
            tailnet: TAILNET.to_owned(),
        }
    }

    /// Connects another integration.
    pub(crate) async fn connect(
        env: &TestEnvironment,
        account: Account,
        spec: &GeneratorSpec,
    ) -> Self {
        let (name, cloud) = (account.name.clone(), account.region.clone());
        let tailnet = format!("{name}.example.com");
        let world = generate(spec);
        env.sims.falcon().put_account(account);
        env.sims.falcon().load(&name, &world).unwrap();
        env.sims.tailscale().put_tailnet(Tailnet::new(&tailnet));
        env.sims.tailscale().load(&tailnet, &world).unwrap();
        let (falcon, tailscale) = (format!("{name}/falcon"), format!("{name}/tailscale"));
        env.services.put_secret(&falcon, falcon_secret(&name));
        env.services
            .put_secret(&tailscale, tailscale_secret(&tailnet));
        env.connect(json!({
            "id": name, "cloudId": cloud, "falconSecret": falcon, "tailscaleSecret": tailscale
        }))
        .await;
        Self { name, tailnet }
    }

    /// The event that requests a sync of this integration alone, as a scheduled run sends it if there are several.
    pub(crate) fn requested(&self) -> Value {
        json!({
            "source": "falcon-posture-sync", "detail-type": "Posture Sync Requested",
            "detail": {"integration": self.name, "reason": "schedule"}
        })
    }

    /// The scores that the tailnet holds.
    pub(crate) fn scores(&self, env: &TestEnvironment) -> BTreeMap<String, i64> {
        let attributes = env.sims.tailscale().attributes(&self.tailnet).unwrap();
        attributes
            .into_iter()
            .filter_map(|(node, values)| Some((node, values.get(KEY)?.as_i64().unwrap())))
            .collect()
    }

    /// The scores that the tailnet should hold.
    pub(crate) fn expected(&self, env: &TestEnvironment) -> BTreeMap<String, i64> {
        oracle(
            &Settings::default(),
            &env.world_of(&self.name, &self.tailnet),
        )
    }

    pub(crate) fn hosts(&self, env: &TestEnvironment) -> Vec<Host> {
        env.sims.falcon().hosts(&self.name).unwrap()
    }

    /// Changes the score of one of the hosts that are matched with a device.
    pub(crate) fn move_a_score(&self, env: &TestEnvironment, n: usize) {
        let devices = env.sims.tailscale().devices(&self.tailnet).unwrap();
        let serials: BTreeSet<&String> = devices.iter().flat_map(Device::serials).collect();
        let mut hosts = self.hosts(env);
        hosts.retain(|host| serials.contains(host.serial_number.as_ref().unwrap()));
        let aid = &hosts[n % hosts.len()].device_id;
        let falcon = env.sims.falcon();
        let score = falcon.scores(&self.name).unwrap()[aid].as_u64().unwrap();
        let moved = (score + 17) % 101;
        falcon.set_score(&self.name, aid, moved).unwrap();
    }

    /// The item of the integration.
    pub(crate) async fn item(&self, env: &TestEnvironment) -> Value {
        env.integration(&self.name).await
    }

    /// The changes that the tailnet logged.
    pub(crate) fn logged(&self, env: &TestEnvironment) -> Tally {
        let score = |value: Option<Value>| value.map(|value| value.as_i64().unwrap());
        let changes = env.sims.tailscale().changes(&self.tailnet).unwrap();
        tally(
            changes
                .into_iter()
                .map(|change| (change.node_id, score(change.old), score(change.new))),
        )
    }

    /// The changes that were audited.
    pub(crate) async fn audited(&self, env: &TestEnvironment) -> Tally {
        let records = self.audit(env).await;
        tally(records.iter().map(audited))
    }

    /// The audit records of the devices.
    pub(crate) async fn audit(&self, env: &TestEnvironment) -> Vec<Value> {
        let mut records = env.node_audit().await;
        records.retain(|record| record["integrationId"] == self.name.as_str());
        records
    }

    /// Asserts that the lease is free, and that each change that the tailnet logged has exactly one audit record.
    pub(crate) async fn assert_sound(&self, env: &TestEnvironment) {
        assert_eq!(self.item(env).await["lease"], Value::Null);
        assert_eq!(self.audited(env).await, self.logged(env));
    }
}

/// The change of a value in an audit record.
pub(crate) fn audited(record: &Value) -> (String, Option<i64>, Option<i64>) {
    let score = |side: &str| record[side].get(KEY).map(|score| score.as_i64().unwrap());
    let node = record["target"]["id"].as_str().unwrap();
    (node.to_owned(), score("old"), score("new"))
}

pub(crate) fn tally(changes: impl Iterator<Item = (String, Option<i64>, Option<i64>)>) -> Tally {
    let mut tally = Tally::new();
    for change in changes {
        *tally.entry(change).or_default() += 1;
    }
    tally
}
