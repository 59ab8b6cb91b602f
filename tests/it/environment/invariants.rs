//! The invariants that hold after each run.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{KEY, TAILNET, TestEnvironment};

impl TestEnvironment {
    /// Asserts the invariants after each run: the lease is free, and each change that the tailnet logged has exactly one
    /// audit record.
    pub(crate) async fn assert_sound(&self) {
        assert_eq!(self.corp().await["lease"], Value::Null, "the lease is free");
        self.assert_audited().await;
    }

    /// Asserts that each change that the tailnet logged has exactly one audit record.
    pub(crate) async fn assert_audited(&self) {
        let logged: BTreeMap<(String, String), usize> = count(
            self.sims
                .tailscale()
                .changes(TAILNET)
                .unwrap()
                .into_iter()
                // The function does not record the expiry of a score.
                .filter(|change| change.comment.as_deref() != Some("expired"))
                .map(|change| {
                    (
                        change.node_id,
                        transition(change.old.as_ref(), change.new.as_ref()),
                    )
                }),
        );
        let audited: BTreeMap<(String, String), usize> =
            count(self.node_audit().await.iter().map(|record| {
                let value = |side: &str| record[side].get(KEY).cloned();
                (
                    record["target"]["id"].as_str().unwrap().to_owned(),
                    transition(value("old").as_ref(), value("new").as_ref()),
                )
            }));
        assert_eq!(
            audited, logged,
            "the audit is the tailnet's own log of changes"
        );
    }
}

fn transition(old: Option<&Value>, new: Option<&Value>) -> String {
    format!("{old:?} -> {new:?}")
}

fn count<K: Ord>(keys: impl Iterator<Item = K>) -> BTreeMap<K, usize> {
    let mut counts = BTreeMap::new();
    for key in keys {
        *counts.entry(key).or_default() += 1;
    }
    counts
}
