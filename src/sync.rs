//! One sync of one integration: recover, observe, join, plan, confirm, guard, apply, record.
//!
//! A run takes no hints from its trigger: it reads the present settings and does the same work each time, so a second
//! run finds nothing to do.

mod apply;
mod confirm;
mod decision;
mod deprovision;
mod error;
mod fetch;
mod finish;
mod observe;
mod recover;
mod report;
mod request;
mod response;
mod run;
mod snapshot;
mod subject;

use crate::app::{App, Invocation};
use crate::domain::inventory::device::Devices;
use crate::domain::inventory::record::NodeRecords;
use crate::domain::plan::absence::take_waiting;
use crate::domain::plan::guard::{GuardedPlan, guard};
use crate::domain::plan::lifetime::Lifetime;
use crate::domain::snapshot::Snapshot;
use crate::domain::status::lost_identity::find_lost;
use crate::settings::{IgnoredSerials, IntegrationId, Settings};
use crate::store::{FinishOutcome, StoreError};

pub use error::SyncError;
pub use request::{SyncRequest, Trigger};
pub use response::{PlannedChange, SyncResponse};
pub use snapshot::Unavailable;
pub(crate) use subject::Subject;

use decision::{Decision, Proposal};
use observe::Observation;
use recover::Recovery;
use report::Report;
use run::Run;

/// Syncs one integration: takes its lease, does the work, records how it went and gives the lease back.
///
/// # Errors
/// Failures of DynamoDB, and an integration that does not exist. A failure of another service is part of the response.
pub async fn sync(
    app: &App,
    request: &SyncRequest,
    invocation: &Invocation,
) -> Result<SyncResponse, StoreError> {
    if request.dry_run {
        return dry_run(app, request, invocation).await;
    }
    let term = format!("{:016x}", fastrand::u64(..));
    loop {
        let Some(mut run) = Run::acquire(app, request, invocation, &term).await? else {
            let reason = "another run of it is in progress";
            return Ok(SyncResponse::skipped(request, &invocation.id, reason));
        };
        let (report, finished) = if let Some(report) = finish::skip_report(&mut run).await {
            (report, run.release_lease().await?)
        } else {
            let report = execute(&run)
                .await
                .with_unreadable_state(&run.integration.unreadable);
            let finished = finish::record(&run, &report).await?;
            (report, finished)
        };
        match finished {
            FinishOutcome::Released => return finish::response(&run, report),
            FinishOutcome::LeaseLost => return finish::response(&run, report.overtaken()),
            FinishOutcome::SettingsChanged => {}
        }
    }
}

async fn execute(run: &Run<'_>) -> Report {
    match &run.integration.removal {
        Some(removal) => deprovision::deprovision(run, removal).await,
        None => reconcile(run).await.unwrap_or_else(Report::failed),
    }
}

/// Recovers, decides and applies. The caller records the report.
async fn reconcile(run: &Run<'_>) -> Result<Report, SyncError> {
    let recovery = recover::unrecorded_writes(run, false).await?.complete()?;
    let decision = decide(run, recovery).await?;
    let (observation, guarded) = (&decision.observation, &decision.guarded);
    run.record_absences(guarded, &observation.records).await?;
    let writer = observation.clients.tailscale.writer();
    let applied = apply::apply(run, &guarded.plan, &writer).await;
    Ok(Report::applied(decision, applied))
}

/// Observes, joins, plans, confirms, leaves the rest to the second look, and guards. It only reads: a dry run, `explain` and `preview` end here.
async fn decide(run: &Run<'_>, recovery: Recovery) -> Result<Decision, SyncError> {
    let settings = run.settings()?;
    // Boxed: the future of the concurrent listings is large.
    let observation = Box::pin(observe::both_sides(run, settings, recovery)).await?;
    decide_on(run, settings, observation).await
}

/// Decides on the devices that `find` names, by fewer requests if the account is large. Whatever would take their score away is
/// decided on the complete observation: it depends on all devices whether the guard holds it.
async fn decide_about<F>(run: &Run<'_>, find: F) -> Result<Decision, SyncError>
where
    F: AsyncFnOnce(&Devices, &NodeRecords, &IgnoredSerials) -> Result<Subject, StoreError>,
{
    let settings = run.settings()?;
    if subject::is_cheaper(run)
        && let Some(observation) = observe::subject_only(run, settings, find).await?
    {
        let decision = Box::pin(decide_on(run, settings, observation)).await?;
        let GuardedPlan { plan, waiting, .. } = &decision.guarded;
        let takes_away = plan.removals().next().is_some() || !waiting.is_empty();
        if !takes_away && !decision.matches.has_silent_device() {
            return Ok(decision);
        }
    }
    decide(run, Recovery::default()).await
}

async fn decide_on(
    run: &Run<'_>,
    settings: &Settings,
    mut observation: Observation,
) -> Result<Decision, SyncError> {
    // Join and plan.
    let proposal = Proposal::new(run, settings, &observation);
    let is_complete = observation.subject.is_none();
    let suspicion = observation.suspicion(&proposal.matches, settings);
    let suspicion = suspicion.filter(|_| is_complete);
    let (proposal, confirmation) =
        confirm::missing_data(run, settings, &mut observation, proposal).await;
    let Proposal { matches, plan } = proposal;
    let mut plan = plan.without_devices(&confirmation.unresolved);
    let waiting = take_waiting(&mut plan, run.started, settings.remove_after());
    let recent_removals = run
        .recent_removals(&plan, |node| observation.leaves_out(node))
        .await?;
    let inputs = observation.guard_inputs(run, settings, suspicion.as_deref(), &recent_removals);
    let guarded = guard(plan, waiting, inputs);
    let (records, devices) = (&observation.records, &observation.devices);
    let before = &run.previous.lost_identity;
    Ok(Decision {
        lost_identities: find_lost(before, records, &matches, devices, run.started),
        observation,
        matches,
        confirmation,
        guarded,
        lifetime: Lifetime::new(settings, run.started),
    })
}

/// Returns the plan of a sync. It takes no lease and has no client that writes.
async fn dry_run(
    app: &App,
    request: &SyncRequest,
    invocation: &Invocation,
) -> Result<SyncResponse, StoreError> {
    let mut run = Run::read_only(app, request, invocation).await?;
    let report = match unavailable(&mut run).await {
        Some(Unavailable::Failed(error)) => Report::failed(error),
        Some(Unavailable::Paused(pause)) => return finish::response(&run, Report::paused(&pause)),
        Some(Unavailable::Removing) => {
            let reason = "it is being removed";
            return Ok(SyncResponse::skipped(request, &invocation.id, reason));
        }
        None => match decide(&run, Recovery::default()).await {
            Ok(decision) => Report::planned(decision),
            Err(error) => Report::failed(error),
        },
    };
    let report = report.with_unreadable_state(&run.integration.unreadable);
    finish::response(&run, report)
}

/// Returns what the next run of an integration would observe and plan. It takes no lease, and the result holds no client.
///
/// # Errors
/// Failures of DynamoDB, and an integration that does not exist.
pub async fn inspect(
    app: &App,
    integration: &IntegrationId,
    include_policy: bool,
    invocation: &Invocation,
) -> Result<Result<Snapshot, Unavailable>, StoreError> {
    let decide = async |run: &Run<'_>| decide(run, Recovery::default()).await;
    look(app, integration, include_policy, invocation, decide).await
}

/// Returns what the next run would observe and plan for the devices that `find` names, as [`inspect`] does. The snapshot says
/// nothing about other devices. `find` is not called where a listing of everything takes as few requests.
///
/// # Errors
/// As [`inspect`], and those of `find`.
pub(crate) async fn inspect_devices<F>(
    app: &App,
    integration: &IntegrationId,
    invocation: &Invocation,
    find: F,
) -> Result<Result<Snapshot, Unavailable>, StoreError>
where
    F: AsyncFnOnce(&Devices, &NodeRecords, &IgnoredSerials) -> Result<Subject, StoreError>,
{
    let decide = async |run: &Run<'_>| decide_about(run, find).await;
    look(app, integration, false, invocation, decide).await
}

async fn look(
    app: &App,
    integration: &IntegrationId,
    include_policy: bool,
    invocation: &Invocation,
    decide: impl AsyncFnOnce(&Run<'_>) -> Result<Decision, SyncError>,
) -> Result<Result<Snapshot, Unavailable>, StoreError> {
    let request = SyncRequest::automatic(integration.clone());
    let mut run = Run::read_only(app, &request, invocation).await?;
    run.resumes_sessions = true;
    let decision = match unavailable(&mut run).await {
        Some(unavailable) => Err(unavailable),
        None => decide(&run).await.map_err(Unavailable::Failed),
    };
    let snapshot = match decision {
        // Boxed: the future holds the whole observation.
        Ok(decision) => Box::pin(snapshot::take(run, decision, include_policy))
            .await
            .map_err(Unavailable::Failed),
        Err(unavailable) => Err(unavailable),
    };
    match snapshot {
        Err(Unavailable::Failed(SyncError::Store(error))) => Err(error),
        snapshot => Ok(snapshot),
    }
}

/// Returns the reason why the services are not asked, if there is one.
async fn unavailable(run: &mut Run<'_>) -> Option<Unavailable> {
    if run.integration.removal.is_some() {
        return Some(Unavailable::Removing);
    }
    // Boxed: the future of a call to AWS is large.
    let pause = Box::pin(run.active_pause()).await?;
    Some(Unavailable::Paused(pause))
}
