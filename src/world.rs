//! All that the function reaches, built once per cold start.

use aws_config::SdkConfig;
use jiff::Timestamp;

use crate::clock::Clock;
use crate::config::Config;
use crate::domain::audit;
use crate::error::UpstreamError;
use crate::events::EventBus;
use crate::falcon::Falcon;
use crate::http::Http;
use crate::integration::{IntegrationId, Settings};
use crate::metrics::Metrics;
use crate::retry::{Budget, Policy};
use crate::secrets::{FalconCredentials, Secrets, TailscaleCredentials};
use crate::store::Store;
use crate::sync::Pace;
use crate::tailscale::Tailscale;

/// The deployment's settings, the clock, and the way to each service.
#[derive(Debug)]
pub struct World {
    /// The deployment's settings.
    pub config: Config,
    /// The time.
    pub clock: Clock,
    /// The way to Falcon and Tailscale.
    pub http: Http,
    /// How their failures are retried.
    pub retries: Policy,
    /// How large the steps are in which a plan is carried out.
    pub pace: Pace,
    /// The credentials.
    pub secrets: Secrets,
    /// The tables.
    pub store: Store,
    /// The event bus.
    pub events: EventBus,
    /// The metrics.
    pub metrics: Metrics,
}

impl World {
    /// The world as this configuration of the AWS SDK reaches it.
    ///
    /// # Errors
    /// If there is no TLS to be had.
    pub fn new(config: Config, sdk: &SdkConfig) -> Result<Self, reqwest::Error> {
        Ok(Self {
            clock: Clock::system(),
            http: Http::new()?,
            retries: Policy::default(),
            pace: Pace::default(),
            secrets: Secrets::new(aws_sdk_secretsmanager::Client::new(sdk)),
            store: Store::new(aws_sdk_dynamodb::Client::new(sdk), &config),
            events: EventBus::new(
                aws_sdk_eventbridge::Client::new(sdk),
                config.event_bus.clone(),
            ),
            metrics: Metrics::printed(config.function.clone()),
            config,
        })
    }
}

impl World {
    /// What the audit records of one invocation share.
    pub fn audit(
        &self,
        integration: &IntegrationId,
        invocation: &Invocation,
        actor: &str,
    ) -> audit::Context {
        audit::Context {
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
        budget: &Budget,
    ) -> Result<Falcon, UpstreamError> {
        Falcon::sign_in(
            self.http.clone(),
            &self.config.clouds,
            &settings.cloud_id,
            credentials,
            budget.clone(),
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
        budget: &Budget,
    ) -> Result<Tailscale, UpstreamError> {
        Tailscale::sign_in(
            self.http.clone(),
            &self.config.tailscale_api,
            &settings.tailnet,
            credentials,
            budget.clone(),
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
