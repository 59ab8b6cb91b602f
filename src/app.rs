//! The clients and settings that every command uses, built once per cold start.

use jiff::Timestamp;
use tokio::sync::OnceCell;

use crate::aws::sdk_config;
use crate::clock::{Clock, Deadline};
use crate::config::Config;
use crate::domain::audit::AuditContext;
use crate::domain::status::error_kind::Service;
use crate::events::EventBus;
use crate::falcon::{Falcon, FalconSession};
use crate::metrics::Metrics;
use crate::secrets::{FalconCredentials, Secrets, TailscaleCredentials, Versioned};
use crate::settings::{CloudId, IntegrationId, SecretName, Settings};
use crate::store::Store;
use crate::tailscale::{Tailscale, TailscaleSession, WriteLimits};
use crate::text::error_chain;
use crate::upstream::client::{ApiClient, HttpClient};
use crate::upstream::error::{Operation, UpstreamError};
use crate::upstream::retry::{CallBudget, RetryPolicy};
use crate::upstream::sessions::HeldSessions;

/// The deployment's settings, the clock, and a client of each service.
#[derive(Debug)]
pub struct App {
    /// The deployment's settings.
    pub config: Config,
    /// The time source of deadlines and records.
    pub clock: Clock,
    /// The HTTP client for Falcon and Tailscale, built on first use: it loads the TLS roots, which takes a good part of a
    /// cold start.
    pub http: OnceCell<HttpClient>,
    /// Retries of calls to Falcon and Tailscale.
    pub retries: RetryPolicy,
    /// Limits of the writes to Tailscale.
    pub write_limits: WriteLimits,
    /// Reads credentials from Secrets Manager.
    pub secrets: Secrets,
    /// Reads and writes the tables.
    pub store: Store,
    /// Publishes events on the bus.
    pub events: EventBus,
    /// Emits CloudWatch metrics.
    pub metrics: Metrics,
    /// Sessions that read-only looks hold while the process is warm.
    pub sessions: Sessions,
}

/// The sessions of read-only looks. A rotated secret has another version, and so another session. A sync signs in itself: it
/// must find out that a credential was revoked.
#[derive(Debug, Default)]
pub struct Sessions {
    falcon: HeldSessions<(CloudId, SecretName), FalconSession>,
    tailscale: HeldSessions<SecretName, TailscaleSession>,
}

impl App {
    /// Creates the clients that this configuration describes.
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
            secrets: Secrets::new(&secrets_manager),
            store: Store::new(&dynamodb, &config),
            events: EventBus::new(&event_bridge, config.event_bus.clone()),
            metrics: Metrics::to_stdout(config.function.clone()),
            sessions: Sessions::default(),
            config,
        }
    }

    /// Returns the budget of an invocation: calls may be made and retried until Lambda ends it.
    pub(crate) fn budget(&self, invocation: &Invocation) -> CallBudget {
        let deadline = Deadline::new(self.clock.clone(), invocation.deadline);
        CallBudget::new(self.retries, self.clock.clone(), deadline)
    }

    /// Returns the fields that all audit records of an invocation share.
    pub(crate) fn audit_context(
        &self,
        integration: &IntegrationId,
        invocation: &Invocation,
        actor: &str,
    ) -> AuditContext {
        AuditContext {
            integration: integration.clone(),
            run_id: invocation.id.clone(),
            actor: actor.to_owned(),
            retention_days: self.config.audit_retention_days.get(),
        }
    }

    /// Returns the shared HTTP client, building it on first use. Building loads the TLS roots, so start it in parallel with
    /// another await.
    pub(crate) async fn http_client(&self, side: Service) -> Result<HttpClient, UpstreamError> {
        let http = self.http.get_or_try_init(async || HttpClient::new()).await;
        // The AWS SDK loads its own TLS roots, so this can fail even though the SDK started.
        http.cloned().map_err(|error| {
            Operation::new(side, "HTTP client", "").misconfigured(
                None,
                format!("it cannot be built: {}", error_chain(&error)),
                "check that SSL_CERT_FILE and SSL_CERT_DIR, if set, lead to certificates",
            )
        })
    }

    pub(crate) async fn connect_falcon(
        &self,
        settings: &Settings,
        credentials: FalconCredentials,
        budget: &CallBudget,
    ) -> Result<Falcon, UpstreamError> {
        let http = self.http_client(Service::Falcon).await?;
        let client = ApiClient::new(http, budget.clone());
        let clouds = &self.config.clouds;
        Falcon::sign_in(client, clouds, &settings.cloud_id, credentials).await
    }

    pub(crate) async fn connect_tailscale(
        &self,
        settings: &Settings,
        credentials: TailscaleCredentials,
        budget: &CallBudget,
    ) -> Result<Tailscale, UpstreamError> {
        let http = self.http_client(Service::Tailscale).await?;
        let client = ApiClient::new(http, budget.clone());
        let api = &self.config.tailscale_api;
        Tailscale::sign_in(client, api, &settings.tailnet, credentials).await
    }

    /// Connects for a look: with the session of an earlier look, if its token is still valid.
    pub(crate) async fn resume_falcon(
        &self,
        settings: &Settings,
        secret: Versioned<FalconCredentials>,
        budget: &CallBudget,
    ) -> Result<Falcon, UpstreamError> {
        let Versioned { value, version } = secret;
        let (held, now) = (&self.sessions.falcon, self.clock.now());
        let key = (settings.cloud_id.clone(), settings.falcon_secret.clone());
        if let Some(session) = held.get(&key, version.as_deref(), now) {
            let http = self.http_client(Service::Falcon).await?;
            let client = ApiClient::new(http, budget.clone());
            return Ok(Falcon::resume(client, session, value));
        }
        let falcon = self.connect_falcon(settings, value, budget).await?;
        held.hold(key, version, falcon.session(), now);
        Ok(falcon)
    }

    /// Connects for a look, as [`App::resume_falcon`].
    pub(crate) async fn resume_tailscale(
        &self,
        settings: &Settings,
        secret: Versioned<TailscaleCredentials>,
        budget: &CallBudget,
    ) -> Result<Tailscale, UpstreamError> {
        let Versioned { value, version } = secret;
        let (held, now) = (&self.sessions.tailscale, self.clock.now());
        let key = settings.tailscale_secret.clone();
        if let Some(session) = held.get(&key, version.as_deref(), now) {
            let http = self.http_client(Service::Tailscale).await?;
            let client = ApiClient::new(http, budget.clone());
            let (api, tailnet) = (&self.config.tailscale_api, &settings.tailnet);
            return Ok(Tailscale::resume(client, api, tailnet, session, value));
        }
        let tailscale = self.connect_tailscale(settings, value, budget).await?;
        held.hold(key, version, tailscale.session(), now);
        Ok(tailscale)
    }
}

/// One invocation of the function.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// Lambda's request id. It names the run in records, events and logs. A retry by Lambda has the same id.
    pub id: String,
    /// The time at which Lambda ends the invocation.
    pub deadline: Timestamp,
    /// The caller's Cognito identity, if Lambda passes one.
    pub caller: Option<String>,
    /// The function's ARN in the call, with the alias if there is one.
    pub function_arn: String,
    /// The alias of the function in the call.
    pub alias: Option<String>,
}
