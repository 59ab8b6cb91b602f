//! What each cell of the table should come to.

use super::kinds::Kind;
use super::places::{Place, Server};
use super::verdict::Excuses;

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

/// What should come of a fault that befalls every call of one place.
pub(super) fn expected(place: Place, kind: Kind) -> Came {
    match place.server() {
        Server::Falcon | Server::Tailscale => upstream(place, kind),
        Server::DynamoDb => dynamodb(place, kind),
        Server::Services => services(place, kind),
    }
}

fn upstream(place: Place, kind: Kind) -> Came {
    let side = match place.server() {
        Server::Falcon => "Falcon",
        _ => "Tailscale",
    };
    let failed = |class| Came::Short("failed", class, side);
    let paused = |class| Came::Short("paused", class, side);
    match (place, kind) {
        // What does not exist any more is what was asked; the body of a write's answer is of no account.
        (Place::DeviceLookUp, Kind::NotFound)
        | (Place::Patch(_), Kind::NotFound | Kind::Truncated | Kind::WrongJson | Kind::Empty) => {
            Came::Through("synced")
        }
        // A device that cannot be asked is left out, and here nobody can be asked.
        (
            Place::Attributes,
            Kind::Reset
            | Kind::Stall
            | Kind::NotFound
            | Kind::Failing
            | Kind::Html
            | Kind::Truncated
            | Kind::WrongJson
            | Kind::Empty,
        ) => Came::Through("unchanged"),
        (_, Kind::Unauthorized) | (Place::FalconToken | Place::TailscaleToken, Kind::Forbidden) => {
            paused("authentication")
        }
        (_, Kind::Forbidden) => paused("missingScope"),
        (Place::Devices, Kind::NotFound) => failed("configuration"),
        // An expired cursor is answered so.
        (Place::Hosts(2..) | Place::Scores(2..), Kind::NotFound) => failed("incomplete"),
        (_, Kind::TooMany) => failed("rateLimited"),
        // What is spoilt where a device is looked up is a 404.
        (_, Kind::NotFound | Kind::WrongJson)
        | (Place::DeviceLookUp, Kind::Truncated | Kind::Empty) => failed("protocol"),
        (_, _) => failed("unavailable"),
    }
}

fn services(place: Place, kind: Kind) -> Came {
    let failed = Came::Short("failed", "unavailable", "Secrets Manager");
    match (place, kind) {
        // A credential that is not there, or not for us, is for a person to mend.
        (Place::FalconSecret | Place::TailscaleSecret, Kind::Forbidden | Kind::NotFound) => {
            Came::Short("paused", "authentication", "Secrets Manager")
        }
        // A version that is not told is a reason to fetch the secret.
        (Place::SecretVersion, Kind::Forbidden | Kind::NotFound | Kind::Empty) => {
            Came::Through("synced")
        }
        (Place::Requests, Kind::Empty) => Came::Requested,
        (Place::Requests, _) => Came::Fault("Events", Told::Nothing),
        (Place::Announcement, kind) => Came::Connected(kind == Kind::Empty),
        (_, _) => failed,
    }
}

fn dynamodb(place: Place, kind: Kind) -> Came {
    let told = match (place, kind) {
        // The answer to these writes holds nothing that is needed.
        (
            Place::Pending | Place::StrikeOut | Place::Record(_) | Place::Forget | Place::Finish,
            Kind::Empty,
        ) => return Came::Through("synced"),
        (Place::Finish, kind) if kind.spoils() => Told::Success,
        (Place::Integrations | Place::Lease | Place::Finish, _) | (_, Kind::Refused) => {
            Told::Nothing
        }
        (_, _) => Told::Fault,
    };
    Came::Fault("Storage", told)
}

/// What may be amiss after it.
pub(super) fn excuses(place: Place, kind: Kind) -> Excuses {
    let goes_down = kind == Kind::Refused;
    let lost = kind.spoils() && kind != Kind::Empty;
    let old_status = match expected(place, kind) {
        Came::Fault(_, told) => told == Told::Nothing,
        Came::Requested | Came::Connected(_) => true,
        Came::Through(_) | Came::Short(..) => false,
    };
    Excuses {
        unrecorded: match place {
            // Chunks are written side by side, so the other one's answer may be lost with the connection.
            Place::Patch(_) => matches!(kind, Kind::Reset | Kind::Stall | Kind::Refused),
            Place::Record(_) => kind != Kind::Empty,
            // This is about a run before that could not record.
            Place::Attributes | Place::StrikeOut => true,
            _ => false,
        },
        uncounted: matches!(place, Place::Record(_)) && (lost || goes_down),
        old_status,
        lease: match place {
            Place::Lease => lost || kind == Kind::Empty,
            Place::Finish => !kind.spoils(),
            Place::Integrations => false,
            _ => goes_down && place.server() == Server::DynamoDb,
        },
    }
}

/// Whether the lease must be left behind, not only may.
pub(super) fn leaves_lease(place: Place, kind: Kind) -> bool {
    excuses(place, kind).lease
}
