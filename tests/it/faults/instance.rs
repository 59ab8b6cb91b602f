//! A function that reaches all servers through the fault proxy.

use std::time::Duration;

use aws_config::SdkConfig;
use falcon_posture_sync::handler::HandlerError;
use falcon_posture_sync::secrets::Secrets;
use falcon_posture_sync::upstream::retry::RetryPolicy;
use lambda_runtime::Diagnostic;
use posture_simulators::GeneratorSpec;
use serde_json::{Value, json};

use super::call_sites::Server;
use super::fault_proxy::{FaultProxy, Relays};
use crate::aws::impatient_sdk;
use crate::environment::{TestEnvironment, app};

/// A function, its environment, and the proxy.
pub(crate) struct Instance {
    pub(crate) env: TestEnvironment,
    pub(crate) proxy: FaultProxy,
    pub(crate) relays: Relays,
    services: SdkConfig,
}

/// The result of an invocation: its answer, or `errorType` and `errorMessage`.
pub(crate) type Outcome = Result<Value, (String, String)>;

impl Instance {
    /// Starts without an integration. Listings have pages of at most this many records; calls have this timeout.
    pub(crate) async fn start(longest_page: usize, timeout: Duration) -> Self {
        let mut env = TestEnvironment::empty().await;
        env.sims.falcon().configure(|settings| {
            settings.longest_page = Some(longest_page);
            settings.tokens_per_minute = 1_000_000;
        });
        let proxy = FaultProxy::default();
        let relays = proxy.between(&env).await;
        let mut variables = env.variables();
        let falcon = format!("us-1={}", relays.url(Server::Falcon));
        variables.insert("FALCON_CLOUDS_EXTRA", falcon);
        variables.insert("TAILSCALE_API_URL", relays.url(Server::Tailscale));
        let services = impatient_sdk(&relays.url(Server::Services), timeout);
        let dynamodb = impatient_sdk(&relays.url(Server::DynamoDb), timeout);
        let clock = env.app.clock.clone();
        env.app = app(&variables, clock, &dynamodb, &services);
        env.app.retries = RetryPolicy {
            max_attempts: 2,
            max_backoff: Duration::from_millis(2),
            request_timeout: timeout,
            ..env.app.retries
        };
        Self {
            env,
            proxy,
            relays,
            services,
        }
    }

    /// Replaces the world and the tables, and connects `corp`.
    pub(crate) async fn reset(&mut self, spec: &GeneratorSpec) {
        self.proxy.disarm();
        self.relays.up().await;
        self.env.clear(spec.clone());
        self.env.connect_unchecked(json!({})).await;
    }

    /// Replaces the world and the tables, connects `corp` and syncs it once.
    pub(crate) async fn begin_again(&mut self, spec: &GeneratorSpec) {
        self.reset(spec).await;
        assert_eq!(self.env.sync().await["outcome"], "synced");
    }

    /// Forgets the cached secrets, as a cold start does.
    pub(crate) fn forget_secrets(&mut self) {
        self.env.app.secrets = Secrets::new(&self.services);
    }

    /// Invokes the function.
    pub(crate) async fn invoke(&self, payload: Value) -> Outcome {
        let outcome = self.env.try_ask(payload).await;
        outcome.map_err(|error: HandlerError| {
            let diagnostic = Diagnostic::from(error);
            (diagnostic.error_type, diagnostic.error_message)
        })
    }

    /// A forced run, which no pause prevents.
    pub(crate) async fn force(&self) -> Outcome {
        self.invoke(json!({"command": "sync", "integration": "corp", "force": true}))
            .await
    }
}
