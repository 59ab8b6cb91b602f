//! An embedded DynamoDB with the function's three tables.

use dynoxide::Database;
use serde_json::{Value, from_value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::Error;

/// A DynamoDB server of the real protocol, until it is dropped. It stores its items in memory.
#[derive(Debug)]
pub struct DynamoDb {
    url: String,
    database: Tables,
    server: JoinHandle<()>,
}

impl DynamoDb {
    /// Starts a server with the three tables, empty.
    ///
    /// # Errors
    /// No port is free, or a table cannot be created.
    pub async fn start() -> Result<Self, Error> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let database = Database::memory()?;
        let server = tokio::spawn(dynoxide::server::serve_on(listener, database.clone()));
        let database = Tables(database);
        database.create()?;
        Ok(Self {
            url,
            database,
            server,
        })
    }

    /// Where it listens: `http://127.0.0.1:1234`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Replaces the tables by empty ones.
    ///
    /// # Errors
    /// A table cannot be deleted or created.
    pub fn clear(&self) -> Result<(), Error> {
        self.database.delete()?;
        self.database.create()
    }
}

impl Drop for DynamoDb {
    fn drop(&mut self) {
        self.server.abort();
    }
}

struct Tables(Database);

impl Tables {
    fn create(&self) -> Result<(), Error> {
        for definition in definitions() {
            self.0.create_table(from_value(definition)?)?;
        }
        Ok(())
    }

    fn delete(&self) -> Result<(), Error> {
        for definition in definitions() {
            let name = json!({"TableName": definition["TableName"]});
            self.0.delete_table(from_value(name)?)?;
        }
        Ok(())
    }
}

// The database itself has no `Debug`.
impl std::fmt::Debug for Tables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tables")
    }
}

/// The tables as `infra/state.yaml` defines them.
fn definitions() -> [Value; 3] {
    let key = |name: &str, kind: &str| json!({"AttributeName": name, "KeyType": kind});
    let text = |name: &str| json!({"AttributeName": name, "AttributeType": "S"});
    [
        json!({
            "TableName": "integrations", "BillingMode": "PAY_PER_REQUEST",
            "KeySchema": [key("id", "HASH")],
            "AttributeDefinitions": [text("id")],
        }),
        json!({
            "TableName": "nodes", "BillingMode": "PAY_PER_REQUEST",
            "KeySchema": [key("integrationId", "HASH"), key("nodeId", "RANGE")],
            "AttributeDefinitions": [text("integrationId"), text("nodeId")],
        }),
        json!({
            "TableName": "audit", "BillingMode": "PAY_PER_REQUEST",
            "KeySchema": [key("integrationId", "HASH"), key("eventId", "RANGE")],
            "AttributeDefinitions": [text("integrationId"), text("eventId"), text("targetId")],
            "GlobalSecondaryIndexes": [{
                "IndexName": "target",
                "KeySchema": [key("targetId", "HASH"), key("eventId", "RANGE")],
                "Projection": {"ProjectionType": "ALL"},
            }],
        }),
    ]
}
