//! What each cell of the table should come to.

use super::call_sites::{CallSite, Server};
use super::invariants::Excuses;
use super::kinds::Kind;

/// What a run into a fault comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// To an end, with this outcome.
    Through(&'static str),
    /// To this outcome, for an error of this class that names who failed.
    Short(&'static str, &'static str, &'static str),
    /// The invocation itself fails, with this `errorType`. The status tells of it where it could be written.
    Fault(&'static str, Told),
    /// Runs are requested of each integration.
    Requested,
    /// The integration is connected; whether its event is on its way.
    Connected(bool),
}

/// Whose the status is after a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// The run's, which failed for want of storage.
    Fault,
    /// The run's, as if nothing had happened: only the answer was lost.
    Success,
    /// The run's before.
    Nothing,
}

/// What should come of a fault that befalls every call of one call_site.
pub(super) fn expected(call_site: CallSite, kind: Kind) -> Came {
    match call_site.server() {
        Server::Falcon | Server::Tailscale => upstream(call_site, kind),
        Server::DynamoDb => dynamodb(call_site, kind),
        Server::Services => services(call_site, kind),
    }
}

fn upstream(call_site: CallSite, kind: Kind) -> Came {
    let side = match call_site.server() {
        Server::Falcon => "Falcon",
        _ => "Tailscale",
    };
    let failed = |class| Came::Short("failed", class, side);
    let paused = |class| Came::Short("paused", class, side);
    match (call_site, kind) {
        // What does not exist any more is what was asked; the body of a write's answer is of no account.
        (CallSite::DeviceLookUp, Kind::NotFound)
        | (CallSite::Patch(_), Kind::NotFound | Kind::Truncated | Kind::WrongJson | Kind::Empty) => {
            Came::Through("synced")
        }
        // A device that cannot be asked is left out, and here nobody can be asked.
        (
            CallSite::Attributes,
            Kind::Reset
            | Kind::Stall
            | Kind::NotFound
            | Kind::Failing
            | Kind::Html
            | Kind::Truncated
            | Kind::WrongJson
            | Kind::Empty,
        ) => Came::Through("unchanged"),
        (_, Kind::Unauthorized)
        | (CallSite::FalconToken | CallSite::TailscaleToken, Kind::Forbidden) => {
            paused("authentication")
        }
        (_, Kind::Forbidden) => paused("missingScope"),
        (CallSite::Devices, Kind::NotFound) => failed("configuration"),
        // An expired cursor is answered so.
        (CallSite::Hosts(2..) | CallSite::Scores(2..), Kind::NotFound) => failed("incomplete"),
        (_, Kind::TooMany) => failed("rateLimited"),
        // What is spoilt where a device is looked up is a 404.
        (_, Kind::NotFound | Kind::WrongJson)
        | (CallSite::DeviceLookUp, Kind::Truncated | Kind::Empty) => failed("protocol"),
        (_, _) => failed("unavailable"),
    }
}

fn services(call_site: CallSite, kind: Kind) -> Came {
    let failed = Came::Short("failed", "unavailable", "Secrets Manager");
    match (call_site, kind) {
        // A credential that is not there, or not for us, is for a person to mend.
        (CallSite::FalconSecret | CallSite::TailscaleSecret, Kind::Forbidden | Kind::NotFound) => {
            Came::Short("paused", "authentication", "Secrets Manager")
        }
        // A version that is not told is a reason to fetch the secret.
        (CallSite::SecretVersion, Kind::Forbidden | Kind::NotFound | Kind::Empty) => {
            Came::Through("synced")
        }
        (CallSite::Requests, Kind::Empty) => Came::Requested,
        (CallSite::Requests, _) => Came::Fault("Events", Told::Nothing),
        (CallSite::Announcement, kind) => Came::Connected(kind == Kind::Empty),
        (_, _) => failed,
    }
}

fn dynamodb(call_site: CallSite, kind: Kind) -> Came {
    let told = match (call_site, kind) {
        // The answer to these writes holds nothing that is needed.
        (
            CallSite::Pending
            | CallSite::StrikeOut
            | CallSite::Record(_)
            | CallSite::Forget
            | CallSite::Finish,
            Kind::Empty,
        ) => return Came::Through("synced"),
        (CallSite::Finish, kind) if kind.spoils() => Told::Success,
        (CallSite::Integrations | CallSite::Lease | CallSite::Finish, _) | (_, Kind::Refused) => {
            Told::Nothing
        }
        (_, _) => Told::Fault,
    };
    Came::Fault("Storage", told)
}

/// What may be amiss after it.
pub(super) fn excuses(call_site: CallSite, kind: Kind) -> Excuses {
    let goes_down = kind == Kind::Refused;
    let lost = kind.spoils() && kind != Kind::Empty;
    let old_status = match expected(call_site, kind) {
        Came::Fault(_, told) => told == Told::Nothing,
        Came::Requested | Came::Connected(_) => true,
        Came::Through(_) | Came::Short(..) => false,
    };
    Excuses {
        unrecorded: match call_site {
            // Chunks are written side by side, so the other one's answer may be lost with the connection.
            CallSite::Patch(_) => matches!(kind, Kind::Reset | Kind::Stall | Kind::Refused),
            CallSite::Record(_) => kind != Kind::Empty,
            // This is about a run before that could not record.
            CallSite::Attributes | CallSite::StrikeOut => true,
            _ => false,
        },
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

/// Whether the lease must be left behind, not only may.
pub(super) fn leaves_lease(call_site: CallSite, kind: Kind) -> bool {
    excuses(call_site, kind).lease
}
