//! The context of one run: its lease, its deadline, its clients and its journal.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::{join, try_join};
use jiff::{SignedDuration, Timestamp};

use super::error::SyncError;
use super::request::SyncRequest;
use crate::app::{App, Invocation};
use crate::clock::Deadline;
use crate::domain::audit::{AuditContext, SYSTEM_ACTOR};
use crate::domain::inventory::device::Devices;
use crate::domain::inventory::host::Hosts;
use crate::domain::matching::Matches;
use crate::domain::plan::deprovision::{Attributes, Removal};
use crate::domain::plan::journal::{JournalEntry, JournalKey, journal_entry};
use crate::domain::plan::{Change, NodeRecords};
use crate::domain::status::error_kind::Service;
use crate::domain::status::lost_identity::{self, LostIdentity};
use crate::domain::status::pause::{Pause, PauseContext};
use crate::falcon::Falcon;
use crate::settings::{FieldError, Settings};
use crate::store::{FinishOutcome, Integration, StoreError};
use crate::tailscale::Tailscale;
use crate::upstream::retry::CallBudget;

/// Time kept back for recording the run. A run with less than four times as much keeps back a quarter.
const RECORDING_TIME: Duration = Duration::from_secs(10);

/// The versions of the secrets that the run connected with.
#[derive(Debug, Default)]
struct SecretVersions {
    falcon: Option<String>,
    tailscale: Option<String>,
}

/// The stored journal entries of this run. `None` marks an entry whose writes are all recorded.
type RunJournal = BTreeMap<JournalKey, Option<JournalEntry>>;

/// Both clients, each with a token.
#[derive(Debug)]
pub(super) struct Clients {
    pub(super) falcon: Falcon,
    pub(super) tailscale: Tailscale,
}

/// The context of a run of one integration.
#[derive(Debug)]
pub(super) struct Run<'a> {
    pub(super) app: &'a App,
    pub(super) request: &'a SyncRequest,
    pub(super) invocation: &'a Invocation,
    pub(super) integration: Integration,
    pub(super) budget: CallBudget,
    pub(super) started: Timestamp,
    /// The pause to extend if the credential is rejected again.
    pub(super) previous_pause: Option<Pause>,
    secret_versions: Mutex<SecretVersions>,
    journal: Mutex<RunJournal>,
}

impl<'a> Run<'a> {
    /// Takes the lease. Returns `None` if another run holds it.
    pub(super) async fn acquire(
        app: &'a App,
        request: &'a SyncRequest,
        invocation: &'a Invocation,
    ) -> Result<Option<Self>, StoreError> {
        let now = app.clock.now();
        let integration = app
            .store
            .acquire(
                &request.integration,
                &invocation.id,
                now,
                invocation.deadline,
            )
            .await?;
        Ok(integration.map(|integration| Self::new(app, request, invocation, integration, now)))
    }

    /// Creates a run that reads only and holds no lease.
    pub(super) async fn read_only(
        app: &'a App,
        request: &'a SyncRequest,
        invocation: &'a Invocation,
    ) -> Result<Self, StoreError> {
        let now = app.clock.now();
        let integration = app.store.integration(&request.integration).await?;
        Ok(Self::new(app, request, invocation, integration, now))
    }

    fn new(
        app: &'a App,
        request: &'a SyncRequest,
        invocation: &'a Invocation,
        integration: Integration,
        started: Timestamp,
    ) -> Self {
        let deadline = Deadline::new(app.clock.clone(), invocation.deadline);
        let recording_time = RECORDING_TIME.min(deadline.remaining() / 4);
        let deadline = deadline.minus(recording_time);
        Self {
            app,
            request,
            invocation,
            previous_pause: integration.pause.clone(),
            integration,
            budget: CallBudget::new(app.retries, app.clock.clone(), deadline),
            started,
            secret_versions: Mutex::default(),
            journal: Mutex::default(),
        }
    }

    pub(super) fn id(&self) -> &str {
        &self.invocation.id
    }

    pub(super) fn settings(&self) -> Result<&Settings, SyncError> {
        let settings = self
            .integration
            .settings
            .as_ref()
            .map_err(FieldError::clone)?;
        self.app.config.validate(settings)?;
        Ok(settings)
    }

    /// Clamps each host's `last_seen` to the present.
    pub(super) fn clamp_last_seen(&self, mut hosts: Hosts) -> Hosts {
        let now = self.app.clock.now();
        for host in hosts.values_mut() {
            host.clamp_last_seen(now);
        }
        hosts
    }

    /// Returns the age limit of hosts (`maxHostAgeDays`), if the integration has one.
    pub(super) fn min_last_seen(&self, settings: &Settings) -> Option<Timestamp> {
        settings.max_host_age_days.map(|days| {
            self.started
                .saturating_sub(SignedDuration::from_hours(24 * i64::from(days)))
                .unwrap_or(Timestamp::MIN)
        })
    }

    /// Fetches both credentials and exchanges each for a token.
    pub(super) async fn connect(&self, settings: &Settings) -> Result<Clients, SyncError> {
        let app = self.app;
        let secrets = try_join(
            app.secrets.falcon(&settings.falcon_secret),
            app.secrets.tailscale(&settings.tailscale_secret),
        );
        // The HTTP client is built while the secrets are fetched.
        let (secrets, _) = join(secrets, app.http_client(Service::Falcon)).await;
        let (falcon, tailscale) = secrets?;
        self.remember_secret_versions(falcon.version, tailscale.version);
        let (falcon, tailscale) = try_join(
            app.connect_falcon(settings, falcon.value, &self.budget),
            app.connect_tailscale(settings, tailscale.value, &self.budget),
        )
        .await?;
        Ok(Clients { falcon, tailscale })
    }

    /// Fetches the Tailscale credential and exchanges it for a token.
    pub(super) async fn connect_tailscale(
        &self,
        settings: &Settings,
    ) -> Result<Tailscale, SyncError> {
        let app = self.app;
        let secret = app.secrets.tailscale(&settings.tailscale_secret).await?;
        self.remember_secret_versions(None, secret.version);
        let tailscale = app
            .connect_tailscale(settings, secret.value, &self.budget)
            .await?;
        Ok(tailscale)
    }

    fn remember_secret_versions(&self, falcon: Option<String>, tailscale: Option<String>) {
        *lock(&self.secret_versions) = SecretVersions { falcon, tailscale };
    }

    pub(super) fn is_disabled(&self) -> bool {
        let disabled = self.integration.settings.as_ref().is_ok_and(|s| !s.enabled);
        disabled && !self.request.force && self.integration.removal.is_none()
    }

    /// Returns the active pause. Looks up the secret's version (one call) only if nothing else ended the pause.
    pub(super) async fn active_pause(&mut self) -> Option<Pause> {
        // A removal that keeps the attributes calls neither service.
        let keeps_attributes = |removal: &Removal| removal.attributes == Attributes::Keep;
        if self
            .integration
            .removal
            .as_ref()
            .is_some_and(keeps_attributes)
        {
            return None;
        }
        let pause = self.integration.pause.clone()?;
        let mut context = self.pause_context();
        if pause.is_active(context) {
            let version = self.current_secret_version(pause.service).await;
            context.secret_version = version.as_deref();
            if pause.is_active(context) {
                return Some(pause);
            }
            self.previous_pause = None;
        } else if context.is_config_changed {
            self.previous_pause = None;
        }
        None
    }

    pub(super) fn pause_context(&self) -> PauseContext<'static> {
        let status = self.integration.status.as_ref();
        let synced_version = status.map(|status| status.config_version);
        PauseContext {
            now: self.app.clock.now(),
            secret_version: None,
            is_config_changed: synced_version != Some(self.integration.config_version),
            is_forced: self.request.force,
        }
    }

    /// Returns the current version of the secret that a rejection by this service is about. A rejection by Secrets Manager
    /// may be about either secret, so both count.
    async fn current_secret_version(&self, service: Service) -> Option<String> {
        let settings = self.integration.settings.as_ref().ok()?;
        let secrets = &self.app.secrets;
        let falcon = secrets.current_version(&settings.falcon_secret);
        let tailscale = secrets.current_version(&settings.tailscale_secret);
        match service {
            Service::Falcon => falcon.await.ok()?,
            Service::Tailscale => tailscale.await.ok()?,
            Service::SecretsManager | Service::Deployment => {
                let (falcon, tailscale) = try_join(falcon, tailscale).await.ok()?;
                let or_none =
                    |version: Option<String>| version.unwrap_or_else(|| "none".to_owned());
                Some(format!("{} {}", or_none(falcon), or_none(tailscale)))
            }
        }
    }

    /// Returns the version of the secret that was rejected.
    pub(super) async fn rejected_secret_version(&self, service: Service) -> Option<String> {
        if service == Service::SecretsManager {
            return self.current_secret_version(service).await;
        }
        let versions = lock(&self.secret_versions);
        match service {
            Service::Falcon => versions.falcon.clone(),
            Service::Tailscale | Service::SecretsManager | Service::Deployment => {
                versions.tailscale.clone()
            }
        }
    }

    /// Stores the changes that a batch is about to write, as the run's nth journal entry.
    ///
    /// # Errors
    /// [`StoreError::Overtaken`] if another run holds the lease by now, so that nothing may be written; or DynamoDB's.
    pub(super) async fn journal_batch(
        &self,
        n: usize,
        changes: &[Change],
    ) -> Result<(), StoreError> {
        let (key, entry) = (JournalKey::new(self.id(), n), journal_entry(changes));
        let (store, id) = (&self.app.store, &self.integration.id);
        store.put_journal(id, Some(self.id()), &key, &entry).await?;
        lock(&self.journal).insert(key, Some(entry));
        Ok(())
    }

    /// Marks a journal entry whose writes are all recorded. The end of the run removes it from the table.
    pub(super) fn mark_recorded(&self, n: usize) {
        lock(&self.journal).insert(JournalKey::new(self.id(), n), None);
    }

    pub(super) fn recorded_keys(&self) -> Vec<JournalKey> {
        let journal = lock(&self.journal);
        let recorded = journal.iter().filter(|(_, entry)| entry.is_none());
        recorded.map(|(key, _)| key.clone()).collect()
    }

    /// Restores this run's journal after the lease was lost, so that the next run checks what was written.
    pub(super) async fn restore_journal(&self) -> Result<(), StoreError> {
        let journal = std::mem::take(&mut *lock(&self.journal));
        for (key, entry) in journal {
            let Some(entry) = entry else { continue };
            let (store, id) = (&self.app.store, &self.integration.id);
            match store.put_journal(id, None, &key, &entry).await {
                // The integration is gone, and its attributes with it.
                Err(StoreError::Overtaken { .. }) => return Ok(()),
                result => result?,
            }
        }
        Ok(())
    }

    /// Records changes that this run made.
    pub(super) async fn record(&self, changes: &[Change]) -> Result<(), StoreError> {
        self.record_for(self.id(), changes).await
    }

    /// Records changes in the name of the run that made them.
    pub(super) async fn record_for(
        &self,
        run_id: &str,
        changes: &[Change],
    ) -> Result<(), StoreError> {
        let context = AuditContext {
            run_id: run_id.to_owned(),
            ..self.audit_context(SYSTEM_ACTOR)
        };
        let now = self.app.clock.now();
        self.app.store.record_changes(&context, changes, now).await
    }

    pub(super) fn audit_context(&self, actor: &str) -> AuditContext {
        self.app
            .audit_context(&self.integration.id, self.invocation, actor)
    }

    /// Returns the devices that lost their identity, in this observation or an earlier one.
    pub(super) fn lost_identities(
        &self,
        records: &NodeRecords,
        devices: &Devices,
        matches: &Matches,
    ) -> Vec<LostIdentity> {
        let status = self.integration.status.as_ref();
        let known = status.map_or(&[][..], |status| &status.lost_identity);
        lost_identity::find_lost(known, records, matches, devices, self.started)
    }

    /// Gives the lease back without a record. The status stays that of the last run.
    pub(super) async fn release_lease(&self) -> Result<FinishOutcome, StoreError> {
        let Integration {
            id, config_version, ..
        } = &self.integration;
        self.app.store.release(id, self.id(), *config_version).await
    }

    /// Deletes the integration, with the audit record of its removal in the name of the actor who asked for it.
    pub(super) async fn delete_integration(
        &self,
        removal: &Removal,
    ) -> Result<FinishOutcome, StoreError> {
        let now = self.app.clock.now();
        let context = self.audit_context(&removal.actor);
        let record = context.integration_removed(&self.integration.stored, removal, now);
        let (store, version) = (&self.app.store, self.integration.config_version);
        store.delete_integration(version, &record).await
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
