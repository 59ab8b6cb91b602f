//! One sync of one integration, in one screen:
//! lease, pause -> settle -> observe -> join -> plan -> guard -> apply -> record.
//!
//! A run takes no hints: whatever asked for it, it reads the present settings and does the same work, and a second run
//! finds nothing to do.

mod answer;
mod apply;
mod failure;
mod look;
mod observe;
mod removal;
mod report;
mod request;
mod run;
mod settle;

use crate::app::{App, Invocation};
use crate::domain::matching::{Matches, join};
use crate::domain::plan::guard::{GuardedPlan, guard};
use crate::domain::plan::{Plan, Unconfirmed, doubts, plan};
use crate::domain::status::lost_identity::LostIdentity;
use crate::settings::Settings;
use crate::store::{FinishOutcome, StoreError};

pub use answer::{PlannedChange, SyncResponse};
pub use failure::SyncError;
pub use look::{Inspection, Snapshot, Unavailable, With, look};
pub use request::{SyncRequest, Trigger};

use observe::{Confirmation, Observation};
use report::Report;
use run::Run;
use settle::{SkippedDevices, settle};

/// Carries the scores of one integration over.
///
/// # Errors
/// Only for faults of our own, and for an integration that does not exist. What an upstream refuses is an answer.
pub async fn sync(
    world: &App,
    request: &SyncRequest,
    invocation: &Invocation,
) -> Result<SyncResponse, StoreError> {
    if request.dry_run {
        return preview(world, request, invocation).await;
    }
    loop {
        let Some(mut run) = Run::begin(world, request, invocation).await? else {
            return Ok(SyncResponse::skipped(
                request,
                invocation,
                "another run of it is under way",
            ));
        };
        let (report, finished) = if let Some(report) = run.at_rest().await {
            (report, run.leave().await?)
        } else {
            let report = work(&run)
                .await
                .with_unreadable_state(&run.integration.unreadable);
            let finished = run.finish(&report).await?;
            (report, finished)
        };
        match finished {
            FinishOutcome::Released => return run.answer(report),
            FinishOutcome::Overtaken => return run.answer(report.overtaken()),
            FinishOutcome::SettingsChanged => {}
        }
    }
}

/// What a sync would do. It never takes the lease and is given nothing that could write.
async fn preview(
    world: &App,
    request: &SyncRequest,
    invocation: &Invocation,
) -> Result<SyncResponse, StoreError> {
    let mut run = Run::look(world, request, invocation).await?;
    if run.integration.removal.is_some() {
        return Ok(SyncResponse::skipped(
            request,
            invocation,
            "it is being removed",
        ));
    }
    if let Some(pause) = run.paused().await {
        return run.answer(Report::paused(&pause));
    }
    let report = match decide(&run, SkippedDevices::new()).await {
        Ok(decided) => Report::planned(decided),
        Err(failure) => Report::failed(failure),
    };
    run.answer(report.with_unreadable_state(&run.integration.unreadable))
}

async fn work(run: &Run<'_>) -> Report {
    match &run.integration.removal {
        Some(removal) => removal::carry_out(run, removal).await,
        None => carry_over(run).await,
    }
}

/// The run itself, whatever comes of it.
async fn carry_over(run: &Run<'_>) -> Report {
    match settle_and_decide(run).await {
        Ok(decided) => {
            let writer = decided.seen.clients.tailscale.writer();
            let applied = apply::apply(run, &decided.guarded.plan, &writer).await;
            Report::applied(decided, applied)
        }
        Err(failure) => Report::failed(failure),
    }
}

async fn settle_and_decide(run: &Run<'_>) -> Result<Decision, SyncError> {
    let skipped = settle(run).await?;
    decide(run, skipped).await
}

/// What a run has seen, and what it means to do about it.
#[derive(Debug)]
pub struct Decision {
    seen: Observation,
    joined: Matches,
    confirmed: Confirmation,
    lost: Vec<LostIdentity>,
    guarded: GuardedPlan,
}

async fn decide(run: &Run<'_>, skipped: SkippedDevices) -> Result<Decision, SyncError> {
    let settings: &Settings = run.settings()?;
    // Boxed: so many things side by side make a large future.
    let mut seen = Box::pin(observe::observe(run, settings, skipped)).await?;
    let mut judged = Proposal::new(run, settings, &seen);
    let confirmed = observe::confirm(run, settings, &mut seen, &judged).await;
    if confirmed.looked {
        judged = Proposal::new(run, settings, &seen);
    }
    let Proposal { joined, plan } = judged;
    let guarded = guard(
        plan.without(&confirmed.open),
        seen.ground(&joined),
        settings.max_removals,
        run.request.allow_mass_removal,
    );
    let lost = run.lost(&seen, &joined);
    Ok(Decision {
        seen,
        joined,
        confirmed,
        lost,
        guarded,
    })
}

/// What follows from what was seen.
struct Proposal {
    joined: Matches,
    plan: Plan,
}

impl Proposal {
    fn new(run: &Run<'_>, settings: &Settings, seen: &Observation) -> Self {
        let joined = join(&seen.falcon, &seen.devices, run.seen_since(settings));
        let plan = plan(
            &joined,
            &seen.devices,
            &seen.records,
            &settings.attribute_key,
            settings.on_missing,
        )
        .without_devices(&seen.skipped);
        Self { joined, plan }
    }

    /// What it rests on without having been seen.
    fn doubts(&self, seen: &Observation) -> Unconfirmed {
        doubts(&self.plan, &self.joined, &seen.devices)
    }
}
