//! Time that passes for the journal and the lease.

use aws_sdk_dynamodb::types::AttributeValue;
use falcon_posture_sync::clock::Clock;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::TestEnvironment;

/// More than a write can live.
const OUTLIVED: SignedDuration = SignedDuration::from_mins(11);

impl TestEnvironment {
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
