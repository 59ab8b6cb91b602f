//! Simulators of the used parts of AWS: [`DynamoDb`], [`Services`] (Secrets Manager and EventBridge), and Lambda's
//! runtime API around a process of the function ([`lambda::Process`]).
//!
//! ```no_run
//! use std::path::Path;
//! use std::time::Duration;
//!
//! use aws_simulators::lambda::Process;
//! use aws_simulators::{DynamoDb, Services, endpoints};
//! use serde_json::json;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), aws_simulators::Error> {
//! let dynamodb = DynamoDb::start().await?;
//! let services = Services::start().await?;
//! services.put_secret("corp/falcon", json!({"clientId": "id", "clientSecret": "secret"}));
//!
//! let variables = endpoints(dynamodb.url(), &services.url());
//! let process = Process::start(Path::new("target/debug/falcon-posture-sync"), 256, variables).await?;
//! let payload = json!({"command": "status"});
//! let answer = process.invoke("run-1", &payload, Duration::from_mins(15)).await?;
//! println!("{} in {:?}", answer.value, answer.took);
//! # Ok(()) }
//! ```

pub mod lambda;

mod dynamodb;
mod services;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use dynamodb::DynamoDb;
pub use services::{ServiceState, Services};

/// The reason why a simulator or a process does not start.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// The variables that lead the SDK to these servers.
pub fn endpoints(dynamodb: &str, services: &str) -> [(&'static str, String); 3] {
    [
        ("AWS_ENDPOINT_URL_DYNAMODB", dynamodb.to_owned()),
        ("AWS_ENDPOINT_URL_SECRETS_MANAGER", services.to_owned()),
        ("AWS_ENDPOINT_URL_EVENTBRIDGE", services.to_owned()),
    ]
}

/// A lock that outlives a panic elsewhere, so that one failed assertion does not become two.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
