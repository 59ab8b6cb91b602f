//! The context of one run: its lease, its deadline, its clients and its journal.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::{join, try_join};
use jiff::{SignedDuration, Timestamp};

use super::error::SyncError;
use super::request::SyncRequest;
use crate::app::{App, Invocation};
use crate::clock::Deadline;
use crate::domain::audit::{AuditContext, SYSTEM_ACTOR};
use crate::domain::inventory::device::NodeId;
use crate::domain::inventory::host::Hosts;
use crate::domain::inventory::record::NodeRecords;
use crate::domain::plan::deprovision::{Attributes, Removal};
use crate::domain::plan::guard::GuardedPlan;
use crate::domain::plan::journal::{
    JournalEntry, MAX_JOURNAL_BYTES, journal_key, pending_removals,
};
use crate::domain::plan::{Change, Plan};
use crate::domain::status::Status;
use crate::domain::status::error_kind::Service;
use crate::domain::status::pause::{Pause, PauseContext};
use crate::falcon::Falcon;
use crate::settings::{FieldError, Settings};
use crate::store::{FinishOutcome, Integration, Settlement, StoreError};
use crate::tailscale::Tailscale;
use crate::upstream::retry::CallBudget;

/// Time kept back for recording the run. A run with less than four times as much keeps back a quarter.
const RECORDING_TIME: Duration = Duration::from_secs(10);

/// The time over which the guard counts removals.
const GUARD_WINDOW: SignedDuration = SignedDuration::from_hours(24);

/// The versions of the secrets that the run connected with.
#[derive(Debug, Default)]
struct SecretVersions {
    falcon: Option<String>,
    tailscale: Option<String>,
}

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
    /// The term of its lease.
    term: &'a str,
    /// The status after the previous run; empty before the first.
    pub(super) previous: Status,
    pub(super) budget: CallBudget,
    pub(super) started: Timestamp,
    /// True if the tokens of earlier looks are used.
    pub(super) resumes_sessions: bool,
    /// The pause to extend if the credential is rejected again.
    pub(super) previous_pause: Option<Pause>,
    secret_versions: Mutex<SecretVersions>,
    /// The journal entries that the run has stored. `None` marks one whose writes are all recorded.
    journal: Mutex<BTreeMap<String, Option<JournalEntry>>>,
    /// The keys of the entries of earlier runs that are settled and removed.
    settled: Mutex<BTreeSet<String>>,
}

impl<'a> Run<'a> {
    /// Takes the lease of this term, or renews it. Returns `None` if another run holds the lease.
    pub(super) async fn acquire(
        app: &'a App,
        request: &'a SyncRequest,
        invocation: &'a Invocation,
        term: &'a str,
    ) -> Result<Option<Self>, StoreError> {
        let (store, now) = (&app.store, app.clock.now());
        let (id, run_id, deadline) = (&request.integration, &invocation.id, invocation.deadline);
        let integration = store.acquire(id, run_id, term, now, deadline).await?;
        let run = |integration| Self::new(app, request, invocation, term, integration, now);
        Ok(integration.map(run))
    }

    /// Creates a run that reads only and holds no lease.
    pub(super) async fn read_only(
        app: &'a App,
        request: &'a SyncRequest,
        invocation: &'a Invocation,
    ) -> Result<Self, StoreError> {
        let now = app.clock.now();
        let integration = app.store.integration(&request.integration).await?;
        Ok(Self::new(app, request, invocation, "", integration, now))
    }

    fn new(
        app: &'a App,
        request: &'a SyncRequest,
        invocation: &'a Invocation,
        term: &'a str,
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
            previous: integration.status.clone().unwrap_or_default(),
            previous_pause: integration.pause.clone(),
            integration,
            term,
            budget: CallBudget::new(app.retries, app.clock.clone(), deadline),
            started,
            resumes_sessions: false,
            secret_versions: Mutex::default(),
            journal: Mutex::default(),
            settled: Mutex::default(),
        }
    }

    pub(super) fn id(&self) -> &str {
        &self.invocation.id
    }

    pub(super) fn term(&self) -> &str {
        self.term
    }

    pub(super) fn settings(&self) -> Result<&Settings, SyncError> {
        let settings = self.integration.settings.as_ref();
        let settings = settings.map_err(FieldError::clone)?;
        self.app.config.validate(settings)?;
        Ok(settings)
    }

    /// Limits the times of hosts to the present.
    pub(super) fn clamp_times(&self, mut hosts: Hosts) -> Hosts {
        let now = self.app.clock.now();
        for host in hosts.values_mut() {
            host.clamp_times(now);
        }
        hosts
    }

    /// Fetches both credentials and exchanges each for a token, or uses that of an earlier look.
    pub(super) async fn connect(&self, settings: &Settings) -> Result<Clients, SyncError> {
        let app = self.app;
        let secrets = try_join(
            app.secrets.falcon(&settings.falcon_secret),
            app.secrets.tailscale(&settings.tailscale_secret),
        );
        // The HTTP client is built while the secrets are fetched.
        let (secrets, _) = join(secrets, app.http_client(Service::Falcon)).await;
        let (falcon, tailscale) = secrets?;
        *lock(&self.secret_versions) = SecretVersions {
            falcon: falcon.version.clone(),
            tailscale: tailscale.version.clone(),
        };
        let budget = &self.budget;
        let (falcon, tailscale) = if self.resumes_sessions {
            let falcon = app.resume_falcon(settings, falcon, budget);
            try_join(falcon, app.resume_tailscale(settings, tailscale, budget)).await?
        } else {
            let falcon = app.connect_falcon(settings, falcon.value, budget);
            let tailscale = app.connect_tailscale(settings, tailscale.value, budget);
            try_join(falcon, tailscale).await?
        };
        Ok(Clients { falcon, tailscale })
    }

    /// Fetches the Tailscale credential and exchanges it for a token.
    pub(super) async fn connect_tailscale(&self) -> Result<Tailscale, SyncError> {
        let (app, settings) = (self.app, self.settings()?);
        let secret = app.secrets.tailscale(&settings.tailscale_secret).await?;
        lock(&self.secret_versions).tailscale = secret.version;
        let tailscale = app.connect_tailscale(settings, secret.value, &self.budget);
        Ok(tailscale.await?)
    }

    /// Returns the active pause. Looks up the secret's version (one call) only if nothing else ended the pause.
    pub(super) async fn active_pause(&mut self) -> Option<Pause> {
        let removal = self.integration.removal.as_ref();
        // A removal that keeps the attributes calls neither service.
        if removal.is_some_and(|removal| removal.attributes == Attributes::Keep) {
            return None;
        }
        let pause = self.integration.pause.clone()?;
        let context = self.pause_context();
        if pause.is_active(context, None) {
            let version = self.current_secret_version(pause.service).await;
            if pause.is_active(context, version.as_deref()) {
                return Some(pause);
            }
            self.previous_pause = None;
        } else if context.is_config_changed {
            self.previous_pause = None;
        }
        None
    }

    pub(super) fn pause_context(&self) -> PauseContext {
        let status = self.integration.status.as_ref();
        let synced_version = status.map(|status| status.config_version);
        PauseContext {
            now: self.app.clock.now(),
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
        match service {
            Service::SecretsManager => self.current_secret_version(service).await,
            Service::Falcon => lock(&self.secret_versions).falcon.clone(),
            Service::Tailscale | Service::Deployment => {
                lock(&self.secret_versions).tailscale.clone()
            }
        }
    }

    /// Returns the bytes of the journal that this run may use: what the entries of earlier runs leave.
    pub(super) fn journal_room(&self) -> usize {
        let settled = lock(&self.settled);
        let earlier = self.integration.pending.iter();
        let left = earlier.filter(|(key, _)| !settled.contains(*key));
        let bytes: usize = left.map(|(_, entry)| entry.stored_bytes()).sum();
        MAX_JOURNAL_BYTES.saturating_sub(bytes)
    }

    /// Stores the nth journal entry of the run, and removes those that are recorded.
    ///
    /// # Errors
    /// [`StoreError::Overtaken`] if another run holds the lease by now, so that nothing may be written; or DynamoDB's.
    pub(super) async fn put_journal(
        &self,
        n: usize,
        entry: JournalEntry,
    ) -> Result<(), StoreError> {
        let (store, id) = (&self.app.store, &self.integration.id);
        let (key, recorded) = (journal_key(self.term, n), self.recorded_keys());
        store
            .put_journal(id, Some(self.term), &key, &entry, &recorded)
            .await?;
        let mut journal = lock(&self.journal);
        journal.retain(|key, _| !recorded.contains(key));
        journal.insert(key, Some(entry));
        Ok(())
    }

    /// Marks a journal entry whose writes are all recorded. The next entry or the end of the run removes it from the table.
    pub(super) fn mark_recorded(&self, n: usize) {
        let key = journal_key(self.term, n);
        lock(&self.journal).insert(key, None);
    }

    pub(super) fn recorded_keys(&self) -> Vec<String> {
        let journal = lock(&self.journal);
        let recorded = journal.iter().filter(|(_, entry)| entry.is_none());
        recorded.map(|(key, _)| key.clone()).collect()
    }

    /// Restores this run's journal after the lease was lost, so that the next run checks what was written: by another clock it
    /// may have been judged too early. What can take effect no more was judged for good.
    pub(super) async fn restore_journal(&self) -> Result<(), StoreError> {
        let entries = std::mem::take(&mut *lock(&self.journal));
        let (store, id) = (&self.app.store, &self.integration.id);
        for (key, entry) in entries {
            let now = self.app.clock.now();
            let Some(entry) = entry.filter(|entry| !entry.is_settled(now)) else {
                continue;
            };
            match store.put_journal(id, None, &key, &entry, &[]).await {
                // The integration is gone, and all that its journal held was settled.
                Err(StoreError::Overtaken { .. }) => return Ok(()),
                result => result?,
            }
        }
        Ok(())
    }

    /// Records changes of this run that were sent at this time.
    pub(super) async fn record(
        &self,
        changes: &[Change],
        sent_at: Timestamp,
    ) -> Result<(), StoreError> {
        let context = self.audit_context(SYSTEM_ACTOR);
        let store = &self.app.store;
        store.record_changes(&context, changes, sent_at).await
    }

    /// Records what became of writes in an earlier run's journal entry, in its name, and removes them from the entry.
    pub(super) async fn settle(
        &self,
        (key, entry): (&str, &JournalEntry),
        settlement: &Settlement,
        is_whole: bool,
    ) -> Result<(), StoreError> {
        let context = AuditContext {
            run_id: entry.run_id.clone(),
            ..self.audit_context(SYSTEM_ACTOR)
        };
        let store = &self.app.store;
        store
            .settle(self.term, &context, (key, entry), settlement, is_whole)
            .await?;
        if is_whole {
            lock(&self.settled).insert(key.to_owned());
        }
        Ok(())
    }

    fn audit_context(&self, actor: &str) -> AuditContext {
        self.app
            .audit_context(&self.integration.id, self.invocation, actor)
    }

    /// Returns the device of each removal in the last 24 hours that no person let pass. Reads the audit trail only for a plan
    /// that removes something.
    ///
    /// A removal that an earlier run journalled counts, too, as long as its device is left out: it may have been made.
    pub(super) async fn recent_removals(
        &self,
        plan: &Plan,
        is_left_out: impl Fn(&NodeId) -> bool,
    ) -> Result<Vec<NodeId>, StoreError> {
        if plan.removals().next().is_none() {
            return Ok(Vec::new());
        }
        let (store, id) = (&self.app.store, &self.integration.id);
        let since = self.started.saturating_sub(GUARD_WINDOW);
        let since = since.unwrap_or(Timestamp::MIN);
        let mut removals = store.removals_since(id, since).await?;
        let pending = pending_removals(&self.integration.pending);
        removals.extend(pending.filter(is_left_out));
        Ok(removals)
    }

    /// Stores in the records which devices were found absent, and which are present again.
    pub(super) async fn record_absences(
        &self,
        guarded: &GuardedPlan,
        records: &NodeRecords,
    ) -> Result<(), StoreError> {
        let updates = guarded.absence_updates(records, self.started);
        let (store, id) = (&self.app.store, &self.integration.id);
        store.update_absences(id, &updates, records).await
    }

    /// Gives the lease back without a record. The status stays that of the last run.
    pub(super) async fn release_lease(&self) -> Result<FinishOutcome, StoreError> {
        let (id, version) = (&self.integration.id, self.integration.config_version);
        self.app.store.release(id, self.term, version).await
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
        store.delete_integration(self.term, version, &record).await
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
