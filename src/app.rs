//! All that the function reaches, built once per cold start.

use jiff::Timestamp;
use tokio::sync::OnceCell;

use crate::aws::sdk_config;
use crate::clock::Clock;
use crate::config::Config;
use crate::domain::audit;
use crate::domain::status::error_kind::Service;
use crate::events::EventBus;
use crate::falcon::Falcon;
use crate::metrics::Metrics;
use crate::secrets::{FalconCredentials, Secrets, TailscaleCredentials};
use crate::settings::{IntegrationId, Settings};
use crate::store::Store;
use crate::tailscale::{Tailscale, WriteLimits};
use crate::text::error_chain;
use crate::upstream::client::{ApiClient, HttpClient};
use crate::upstream::error::UpstreamError;
use crate::upstream::operation::Operation;
use crate::upstream::retry::{CallBudget, RetryPolicy};

/// The deployment's settings, the clock, and the way to each service.
#[derive(Debug)]
pub struct App {
    /// The deployment's settings.
    pub config: Config,
    /// The time.
    pub clock: Clock,
    /// The way to Falcon and Tailscale, once it is needed: it reads the system's TLS roots, as the SDK does for itself at
    /// the start, and that is a good part of a start.
    pub http: OnceCell<HttpClient>,
    /// How their failures are retried.
    pub retries: RetryPolicy,
    /// Limits of the writes to Tailscale.
    pub write_limits: WriteLimits,
    /// The credentials.
    pub secrets: Secrets,
    /// The tables.
    pub store: Store,
    /// The event bus.
    pub events: EventBus,
    /// The metrics.
    pub metrics: Metrics,
}

impl App {
    /// The world as this configuration reaches it.
    pub fn new(config: Config) -> Self {
        let aws = &config.aws;
        let dynamodb = sdk_config(aws, aws.dynamodb.as_deref());
        let secrets_manager = sdk_config(aws, aws.secrets_manager.as_deref());
        let event_bridge = sdk_config(aws, aws.event_bridge.as_deref());
        Self {
            clock: Clock::system(),
            http: OnceCell::new(),
            retries: RetryPolicy::default(),
            write_limits: WriteLimits::default(),
            secrets: Secrets::new(aws_sdk_secretsmanager::Client::new(&secrets_manager)),
            store: Store::new(aws_sdk_dynamodb::Client::new(&dynamodb), &config),
            events: EventBus::new(
                aws_sdk_eventbridge::Client::new(&event_bridge),
                config.event_bus.clone(),
            ),
            metrics: Metrics::to_stdout(config.function.clone()),
            config,
        }
    }

    /// The way to Falcon and Tailscale. Whoever has something to wait for may ask for it meanwhile.
    ///
    /// # Errors
    /// If there is no TLS to be had.
    pub async fn http(&self, side: Service) -> Result<HttpClient, UpstreamError> {
        let http = self.http.get_or_try_init(async || HttpClient::new()).await;
        http.cloned().map_err(|error| no_tls(side, &error))
    }
}

/// Without any roots, the SDK would not even have started; but the two libraries read them each in its own way.
fn no_tls(side: Service, error: &reqwest::Error) -> UpstreamError {
    let client = Operation::new(side, "the HTTP client", "");
    let problem = format!("it cannot be built: {}", error_chain(error));
    client.misconfigured(
        None,
        problem,
        "see that SSL_CERT_FILE and SSL_CERT_DIR, if they are set, lead to certificates",
    )
}

impl App {
    /// What the audit records of one invocation share.
    pub fn audit(
        &self,
        integration: &IntegrationId,
        invocation: &Invocation,
        actor: &str,
    ) -> audit::AuditContext {
        audit::AuditContext {
            integration: integration.clone(),
            run_id: invocation.id.clone(),
            actor: actor.to_owned(),
            retention_days: self.config.audit_retention_days.get(),
        }
    }

    /// Signs in to Falcon.
    ///
    /// # Errors
    /// See [`Falcon::sign_in`].
    pub async fn falcon(
        &self,
        settings: &Settings,
        credentials: FalconCredentials,
        budget: &CallBudget,
    ) -> Result<Falcon, UpstreamError> {
        Falcon::sign_in(
            ApiClient::new(self.http(Service::Falcon).await?, budget.clone()),
            &self.config.clouds,
            &settings.cloud_id,
            credentials,
        )
        .await
    }

    /// Signs in to Tailscale.
    ///
    /// # Errors
    /// See [`Tailscale::sign_in`].
    pub async fn tailscale(
        &self,
        settings: &Settings,
        credentials: TailscaleCredentials,
        budget: &CallBudget,
    ) -> Result<Tailscale, UpstreamError> {
        Tailscale::sign_in(
            ApiClient::new(self.http(Service::Tailscale).await?, budget.clone()),
            &self.config.tailscale_api,
            &settings.tailnet,
            credentials,
        )
        .await
    }
}

/// What is known of one invocation.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// Lambda's request id. It names the run in records, events and logs; a retry by Lambda has the same one.
    pub id: String,
    /// When Lambda will end it.
    pub deadline: Timestamp,
    /// Who invokes, where Lambda tells it: a Cognito identity.
    pub caller: Option<String>,
    /// The ARN that it came by.
    pub function_arn: String,
    /// The alias of the function that it came by, if it came by one.
    pub alias: Option<String>,
}
