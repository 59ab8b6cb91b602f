//! The expected outcome of each cell of the table.

use super::call_sites::{CallSite, Server};
use super::invariants::Excuses;
use super::kinds::Kind;

/// The outcome of a run with a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// Completed, with this outcome.
    Completed(&'static str),
    /// This outcome, with an error of this kind that names the service.
    Ended(&'static str, &'static str, &'static str),
    /// The invocation fails with this `errorType`. The status reports it if it could be written.
    InvocationFailed(&'static str, StatusAfter),
    /// Runs are requested of each integration.
    Requested,
    /// The integration is connected. True if its event was sent.
    Connected(bool),
}

/// The status after a failed invocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StatusAfter {
    /// The failure of the storage.
    Failure,
    /// The success of the run: only the response was lost.
    Success,
    /// The status of the run before.
    Unchanged,
}

/// Returns the expected outcome if all calls of a call site fail.
pub(super) fn expected(call_site: CallSite, kind: Kind) -> Expected {
    match call_site.server() {
        Server::Falcon | Server::Tailscale => upstream(call_site, kind),
        Server::DynamoDb => dynamodb(call_site, kind),
        Server::Services => services(call_site, kind),
    }
}

fn upstream(call_site: CallSite, kind: Kind) -> Expected {
    let side = match call_site.server() {
        Server::Falcon => "Falcon",
        _ => "Tailscale",
    };
    let failed = |class| Expected::Ended("failed", class, side);
    let paused = |class| Expected::Ended("paused", class, side);
    if is_one_devices(call_site, kind) {
        return Expected::Completed("synced");
    }
    match (call_site, kind) {
        // The body of the response to a write is not read, but for a page.
        (
            CallSite::Patch(_) | CallSite::PatchOfOne,
            Kind::Truncated | Kind::WrongJson | Kind::Empty,
        )
        // Each batch is rejected for its content, down to the single device.
        | (CallSite::Patch(_), Kind::NotFound)
        // The second batch has so few devices that each is tried alone.
        | (CallSite::Patch(2), Kind::Forbidden) => Expected::Completed("synced"),
        (_, Kind::Unauthorized)
        | (CallSite::FalconToken | CallSite::TailscaleToken, Kind::Forbidden) => {
            paused("authentication")
        }
        // Tailscale's token says that it has the scope.
        (_, Kind::Forbidden) if call_site.server() == Server::Tailscale => failed("configuration"),
        (_, Kind::Forbidden) => paused("missingScope"),
        (CallSite::Devices, Kind::NotFound) => failed("configuration"),
        // This is the response to an expired cursor.
        (CallSite::Hosts(2..) | CallSite::Scores(2..), Kind::NotFound) => failed("incomplete"),
        (_, Kind::TooMany) => failed("rateLimited"),
        (_, Kind::NotFound | Kind::WrongJson | Kind::Blocked | Kind::LoginPage) => {
            failed("protocol")
        }
        (_, _) => failed("unavailable"),
    }
}

/// Returns whether the fault is the trouble of the devices that it meets: they are left out and named, and the others go on.
pub(super) fn is_one_devices(call_site: CallSite, kind: Kind) -> bool {
    match call_site {
        CallSite::DeviceLookUp | CallSite::LookUpOfOne | CallSite::Attributes => !matches!(
            kind,
            // The whole server is down.
            Kind::Refused | Kind::Unauthorized | Kind::TooMany
        ),
        CallSite::PatchOfOne => matches!(
            kind,
            Kind::Forbidden
                | Kind::NotFound
                | Kind::Failing
                | Kind::Html
                | Kind::Blocked
                | Kind::LoginPage
        ),
        _ => false,
    }
}

fn services(call_site: CallSite, kind: Kind) -> Expected {
    let failed = Expected::Ended("failed", "unavailable", "Secrets Manager");
    match (call_site, kind) {
        // A person must repair a missing or forbidden secret.
        (CallSite::FalconSecret | CallSite::TailscaleSecret, Kind::Forbidden | Kind::NotFound) => {
            Expected::Ended("paused", "authentication", "Secrets Manager")
        }
        // Without the version, the secret is fetched again.
        (CallSite::SecretVersion, Kind::Forbidden | Kind::NotFound | Kind::Empty) => {
            Expected::Completed("synced")
        }
        (CallSite::Requests, Kind::Empty) => Expected::Requested,
        (CallSite::Requests, _) => Expected::InvocationFailed("Events", StatusAfter::Unchanged),
        (CallSite::Announcement, kind) => Expected::Connected(kind == Kind::Empty),
        (_, _) => failed,
    }
}

fn dynamodb(call_site: CallSite, kind: Kind) -> Expected {
    let told = match (call_site, kind) {
        // The body of the response to these writes is not needed.
        (
            CallSite::Pending
            | CallSite::StrikeOut
            | CallSite::Record(_)
            | CallSite::Forget
            | CallSite::Absences
            | CallSite::Finish,
            Kind::Empty,
        ) => return Expected::Completed("synced"),
        (CallSite::Finish, kind) if kind.spoils() => StatusAfter::Success,
        (CallSite::Integrations | CallSite::Lease | CallSite::Finish, _) | (_, Kind::Refused) => {
            StatusAfter::Unchanged
        }
        (_, _) => StatusAfter::Failure,
    };
    Expected::InvocationFailed("Storage", told)
}

/// Returns the deviations that such a fault excuses.
pub(super) fn excuses(call_site: CallSite, kind: Kind) -> Excuses {
    let goes_down = kind == Kind::Refused;
    let lost = kind.spoils() && kind != Kind::Empty;
    let old_status = match expected(call_site, kind) {
        Expected::InvocationFailed(_, told) => told == StatusAfter::Unchanged,
        Expected::Requested | Expected::Connected(_) => true,
        Expected::Completed(_) | Expected::Ended(..) => false,
    };
    Excuses {
        unrecorded: match call_site {
            // Batches are written in parallel, so the response to the other one can be lost with the connection.
            CallSite::Patch(_) | CallSite::PatchOfOne => {
                matches!(kind, Kind::Reset | Kind::Stall | Kind::Refused)
            }
            CallSite::Record(_) => kind != Kind::Empty,
            // An earlier run could not record.
            CallSite::Attributes | CallSite::StrikeOut => true,
            _ => false,
        },
        late: false,
        uncounted: matches!(call_site, CallSite::Record(_)) && (lost || goes_down),
        old_status,
        lease: match call_site {
            CallSite::Lease => lost || kind == Kind::Empty,
            CallSite::Finish => !kind.spoils(),
            CallSite::Integrations => false,
            _ => goes_down && call_site.server() == Server::DynamoDb,
        },
    }
}

/// True if the run cannot release its lease.
pub(super) fn leaves_lease(call_site: CallSite, kind: Kind) -> bool {
    excuses(call_site, kind).lease
}
