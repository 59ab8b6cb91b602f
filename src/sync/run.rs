//! One run: its lease, its deadline, and what it leaves behind.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

mod account;
mod crawl;
mod native;

use super::failure::SyncError;
use super::observe::Observation;
use super::report::Report;
use super::request::SyncRequest;
use crate::app::{App, Invocation};
use crate::clock::Deadline;
use crate::domain::audit;
use crate::domain::inventory::host::Hosts;
use crate::domain::matching::Matches;
use crate::domain::plan::Change;
use crate::domain::plan::deprovision::{Attributes, Removal};
use crate::domain::plan::journal::{JournalEntry, JournalKey, intents};
use crate::domain::status::RunOutcome;
use crate::domain::status::error_kind::Service;
use crate::domain::status::lost_identity::{self, LostIdentity};
use crate::domain::status::pause::{Pause, PauseContext};
use crate::settings::{InvalidSettings, Settings};
use crate::store::{FinishOutcome, Integration, RunRecord, StoreError, WriteCondition};
use crate::upstream::retry::CallBudget;

/// Left of a run's time for recording what it did: work stops this much before the end, or at three quarters of a very
/// short time.
const RESERVE: Duration = Duration::from_secs(10);

/// Who changes attributes, in the audit records of nodes.
const ACTOR: &str = "falcon-posture-sync";

/// The versions of the secrets that a run signs in with.
#[derive(Debug, Default)]
struct Versions {
    falcon: Option<String>,
    tailscale: Option<String>,
}

/// What this run meant to write, by the stored notes of it. Where there is nothing, all of it is recorded.
type Open = BTreeMap<JournalKey, Option<JournalEntry>>;

/// A run of one integration.
#[derive(Debug)]
pub(super) struct Run<'a> {
    pub(super) world: &'a App,
    pub(super) request: &'a SyncRequest,
    pub(super) integration: Integration,
    pub(super) budget: CallBudget,
    invocation: &'a Invocation,
    started: Timestamp,
    versions: Mutex<Versions>,
    open: Mutex<Open>,
    /// The pause whose row of refusals another refusal would go on with.
    row: Option<Pause>,
}

impl<'a> Run<'a> {
    /// Takes the lease. None if another run has it.
    pub(super) async fn begin(
        world: &'a App,
        request: &'a SyncRequest,
        invocation: &'a Invocation,
    ) -> Result<Option<Self>, StoreError> {
        let now = world.clock.now();
        let integration = world
            .store
            .acquire(
                &request.integration,
                &invocation.id,
                now,
                invocation.deadline,
            )
            .await?;
        Ok(integration.map(|integration| Self::of(world, request, invocation, integration, now)))
    }

    /// Looks on, without the lease.
    pub(super) async fn look(
        world: &'a App,
        request: &'a SyncRequest,
        invocation: &'a Invocation,
    ) -> Result<Self, StoreError> {
        let now = world.clock.now();
        let integration = world.store.integration(&request.integration).await?;
        Ok(Self::of(world, request, invocation, integration, now))
    }

    fn of(
        world: &'a App,
        request: &'a SyncRequest,
        invocation: &'a Invocation,
        integration: Integration,
        started: Timestamp,
    ) -> Self {
        let deadline = Deadline::new(world.clock.clone(), invocation.deadline);
        let reserve = RESERVE.min(deadline.left() / 4);
        Self {
            world,
            request,
            row: integration.pause.clone(),
            integration,
            budget: CallBudget::new(world.retries, world.clock.clone(), deadline.less(reserve)),
            invocation,
            started,
            versions: Mutex::default(),
            open: Mutex::default(),
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
            .map_err(InvalidSettings::clone)?;
        self.world.config.accept(settings)?;
        Ok(settings)
    }

    /// Hosts as they can have been seen by now.
    pub(super) fn seen(&self, mut hosts: Hosts) -> Hosts {
        let now = self.world.clock.now();
        for host in hosts.values_mut() {
            host.seen_by(now);
        }
        hosts
    }

    /// Since when a host must have been seen to count, if the integration says so.
    pub(super) fn seen_since(&self, settings: &Settings) -> Option<Timestamp> {
        settings.max_host_age_days.map(|days| {
            self.started
                .saturating_sub(SignedDuration::from_hours(24 * i64::from(days)))
                .unwrap_or(Timestamp::MIN)
        })
    }

    /// What there is to say if this run has nothing to do: the integration is disabled or paused.
    pub(super) async fn at_rest(&mut self) -> Option<Report> {
        if self.is_idle() {
            return Some(Report::skipped("it is disabled"));
        }
        let pause = self.paused().await?;
        tracing::info!(
            integration = %self.integration.id,
            run_id = self.id(),
            side = %pause.side,
            until = %pause.until,
            "{} is paused until {}",
            self.integration.id,
            pause.until,
        );
        self.measure_pause();
        Some(Report::paused(&pause))
    }

    fn is_idle(&self) -> bool {
        let disabled = self.integration.settings.as_ref().is_ok_and(|s| !s.enabled);
        disabled && !self.request.force && self.integration.removal.is_none()
    }

    /// The pause that keeps this run from working, if one is in force. Looking for a new version of the secret costs
    /// one call, and is done only where nothing else has ended the pause.
    pub(super) async fn paused(&mut self) -> Option<Pause> {
        let calls_nobody = |removal: &Removal| removal.attributes == Attributes::Keep;
        if self.integration.removal.as_ref().is_some_and(calls_nobody) {
            return None;
        }
        let pause = self.integration.pause.clone()?;
        let mut present = self.present();
        if pause.holds(present) {
            let version = self.secret_version(pause.side).await;
            present.secret_version = version.as_deref();
            if pause.holds(present) {
                return Some(pause);
            }
            self.row = None;
        } else if present.config_changed {
            self.row = None;
        }
        None
    }

    fn present(&self) -> PauseContext<'static> {
        let worked_by = self.integration.status.as_ref().map(|s| s.config_version);
        PauseContext {
            now: self.world.clock.now(),
            secret_version: None,
            config_changed: worked_by != Some(self.integration.config_version),
            force: self.request.force,
        }
    }

    pub(super) fn note_secrets(&self, falcon: Option<String>, tailscale: Option<String>) {
        *self.versions.lock().unwrap_or_else(PoisonError::into_inner) =
            Versions { falcon, tailscale };
    }

    /// The present version of the secret that a refusal by this side is about. Where Secrets Manager refuses, it may be
    /// either of the two, so both count.
    async fn secret_version(&self, side: Service) -> Option<String> {
        let settings = self.integration.settings.as_ref().ok()?;
        let secrets = &self.world.secrets;
        match side {
            Service::Falcon => secrets
                .current_version(&settings.falcon_secret)
                .await
                .ok()?,
            Service::Tailscale => secrets
                .current_version(&settings.tailscale_secret)
                .await
                .ok()?,
            Service::Secrets => {
                let (falcon, tailscale) = futures::future::try_join(
                    secrets.current_version(&settings.falcon_secret),
                    secrets.current_version(&settings.tailscale_secret),
                )
                .await
                .ok()?;
                let or_none =
                    |version: Option<String>| version.unwrap_or_else(|| "none".to_owned());
                Some(format!("{} {}", or_none(falcon), or_none(tailscale)))
            }
        }
    }

    /// The version that was refused.
    async fn refused_version(&self, side: Service) -> Option<String> {
        if side == Service::Secrets {
            return self.secret_version(side).await;
        }
        let versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        match side {
            Service::Falcon => versions.falcon.clone(),
            Service::Tailscale | Service::Secrets => versions.tailscale.clone(),
        }
    }

    /// Stores what is about to be written, in the run's nth note. It fails where the lease is another run's by now.
    pub(super) async fn intend(&self, n: usize, changes: &[Change]) -> Result<(), StoreError> {
        let (note, intents) = (JournalKey::of(self.id(), n), intents(changes));
        let store = &self.world.store;
        let noted = store.intend(
            &self.integration.id,
            self.id(),
            &note,
            &intents,
            WriteCondition::HoldsLease,
        );
        noted.await?;
        self.open().insert(note, Some(intents));
        Ok(())
    }

    /// Takes note that all that was stored by [`Run::intend`] has come to its end, and is recorded.
    pub(super) fn close(&self, n: usize) {
        self.open().insert(JournalKey::of(self.id(), n), None);
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn closed(&self) -> Vec<JournalKey> {
        let open = self.open();
        let closed = open.iter().filter(|(_, intents)| intents.is_none());
        closed.map(|(note, _)| note.clone()).collect()
    }

    /// Records accepted changes.
    pub(super) async fn record(&self, changes: &[Change]) -> Result<(), StoreError> {
        self.record_for(self.id(), changes).await
    }

    /// Records changes that a run, this one or another, has made.
    pub(super) async fn record_for(
        &self,
        run_id: &str,
        changes: &[Change],
    ) -> Result<(), StoreError> {
        let context = audit::AuditContext {
            run_id: run_id.to_owned(),
            ..self.audit(ACTOR)
        };
        self.world
            .store
            .record(&context, changes, self.world.clock.now())
            .await
    }

    /// The devices that lost their identity, known from before or seen now.
    pub(super) fn lost(&self, seen: &Observation, joined: &Matches) -> Vec<LostIdentity> {
        let before = self.integration.status.as_ref();
        let before = before.map_or(&[][..], |status| &status.lost_identity);
        lost_identity::lost(before, &seen.records, joined, &seen.devices, self.started)
    }

    fn audit(&self, actor: &str) -> audit::AuditContext {
        self.world
            .audit(&self.integration.id, self.invocation, actor)
    }

    /// The integration goes, with the audit record of its removal in the name of whoever asked for that.
    async fn end(&self, removal: &Removal) -> Result<FinishOutcome, StoreError> {
        let Integration {
            id,
            config_version,
            stored,
            ..
        } = &self.integration;
        let now = self.world.clock.now();
        let record = self.audit(&removal.actor).removed(stored, removal, now);
        self.world
            .store
            .end(id, self.id(), *config_version, &record)
            .await
    }

    /// Writes the status and gives the lease back. This is the one record of the run, in the table and in the log.
    pub(super) async fn finish(&self, report: &Report) -> Result<FinishOutcome, StoreError> {
        let announced = self.announce(report).await;
        let status = self.status(report, announced);
        let pause = match report.refused_by {
            Some(side) => {
                let version = self.refused_version(side).await;
                let error = report
                    .trouble
                    .as_ref()
                    .map_or_else(String::new, ToString::to_string);
                Some(Pause::after(
                    self.row.as_ref(),
                    side,
                    error,
                    version,
                    self.present(),
                ))
            }
            None if report.outcome == RunOutcome::Failed => self.row.clone(),
            None => None,
        };
        self.log(report, &status);
        self.measure(report, &status);
        if let Some(removal) = self.integration.removal.as_ref().filter(|_| report.ends) {
            return self.end(removal).await;
        }
        let finish = RunRecord {
            id: &self.integration.id,
            owner: &self.invocation.id,
            config_version: self.integration.config_version,
            status: &status,
            pause: pause.as_ref(),
            closed: &self.closed(),
        };
        let finished = self.world.store.finish(&finish).await?;
        if finished == FinishOutcome::Overtaken {
            tracing::warn!(
                integration = %self.integration.id,
                run_id = self.id(),
                "the lease ran out before the run was recorded; another run goes on"
            );
            self.leave_open().await?;
        }
        Ok(finished)
    }

    /// What this run may have written after it had lost its lease is the next one's to find out.
    async fn leave_open(&self) -> Result<(), StoreError> {
        let (id, run_id) = (&self.integration.id, self.id());
        let store = &self.world.store;
        let open = std::mem::take(&mut *self.open());
        for (note, intents) in open {
            let Some(intents) = intents else { continue };
            match store
                .intend(
                    id,
                    run_id,
                    &note,
                    &intents,
                    WriteCondition::IntegrationExists,
                )
                .await
            {
                // The integration is gone, and its attributes with it.
                Err(StoreError::Overtaken { .. }) => return Ok(()),
                done => done?,
            }
        }
        Ok(())
    }

    /// Gives the lease back without having done anything. The status stays that of the last run.
    pub(super) async fn leave(&self) -> Result<FinishOutcome, StoreError> {
        self.world
            .store
            .release(
                &self.integration.id,
                self.id(),
                self.integration.config_version,
            )
            .await
    }
}
