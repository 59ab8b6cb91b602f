//! Which of the Falcon hosts with one serial number speaks for the machine, and why the others do not.

use std::collections::{BTreeSet, HashMap};

use jiff::{SignedDuration, Timestamp};
use smallvec::SmallVec;

use crate::domain::inventory::host::{Assessment, FalconInventory, Host, Score};
use crate::domain::inventory::serial::Serial;

/// Of several hosts with one serial, those seen within this time of the most recently seen one are taken to be alive;
/// the others are what re-imaging left behind.
pub const ALIVE_WITHIN: SignedDuration = SignedDuration::from_hours(24);

/// The hosts of each serial, in the order of their sensors' ids. They are judged when they are asked for: most of a large
/// account's are no devices of the tailnet.
#[derive(Debug)]
pub struct HostsBySerial<'a> {
    falcon: &'a FalconInventory,
    seen_since: Option<Timestamp>,
    /// For looking up only, so that its order shows nowhere.
    hosts: HashMap<&'a Serial, SmallVec<[&'a Host; 1]>>,
    shared: BTreeSet<&'a Serial>,
}

/// A host that claims to be the machine with its serial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// The host.
    pub host: &'a Host,
    /// What its claim is worth.
    pub standing: CandidateStatus<'a>,
}

/// The claims to one serial: nearly always a single one.
pub type Candidates<'a> = SmallVec<[Candidate<'a>; 1]>;

/// What a host's claim is worth among the hosts of its serial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CandidateStatus<'a> {
    /// Alive, and of the living with a score it has the lowest; of several with the same, the first by sensor.
    Lowest(Score),
    /// Alive, and another one has the lowest.
    Behind(Score),
    /// Alive, without an assessment.
    Unassessed,
    /// Alive, and what Falcon gives as its score is none.
    Invalid(&'a str),
    /// What re-imaging left behind: the most recently seen host of the serial was seen then, long after it.
    Superseded(Timestamp),
    /// Not superseded, but not seen since the age limit, or never at a known time.
    Stale,
}

impl CandidateStatus<'_> {
    /// Whether the host is alive, assessed or not.
    pub fn is_alive(self) -> bool {
        match self {
            Self::Lowest(_) | Self::Behind(_) | Self::Unassessed | Self::Invalid(_) => true,
            Self::Superseded(_) | Self::Stale => false,
        }
    }

    /// Whether the host is alive and has no usable score.
    pub fn lacks_score(self) -> bool {
        matches!(self, Self::Unassessed | Self::Invalid(_))
    }
}

impl<'a> HostsBySerial<'a> {
    /// The claims of all hosts that have a usable serial. `seen_since` is the age limit, if there is one.
    pub fn of(falcon: &'a FalconInventory, seen_since: Option<Timestamp>) -> Self {
        let mut hosts: HashMap<&Serial, SmallVec<[&Host; 1]>> =
            HashMap::with_capacity(falcon.hosts.len());
        let mut shared = BTreeSet::new();
        for host in falcon.hosts.values() {
            let Some(serial) = &host.serial else { continue };
            let of_serial = hosts.entry(serial).or_default();
            if !of_serial.is_empty() {
                shared.insert(serial);
            }
            of_serial.push(host);
        }
        Self {
            falcon,
            seen_since,
            hosts,
            shared,
        }
    }

    /// The hosts with a serial; none if Falcon does not know it.
    pub fn with(&self, serial: &Serial) -> Candidates<'a> {
        let hosts = self.hosts.get(serial);
        hosts.map_or_else(Candidates::new, |hosts| {
            judge(hosts, self.falcon, self.seen_since)
        })
    }

    /// Each serial that several hosts have, with these.
    pub fn shared(&self) -> impl Iterator<Item = (&'a Serial, Candidates<'a>)> {
        self.shared
            .iter()
            .map(|serial| (*serial, self.with(serial)))
    }
}

/// Judges the hosts of one serial.
fn judge<'a>(
    hosts: &[&'a Host],
    falcon: &'a FalconInventory,
    seen_since: Option<Timestamp>,
) -> Candidates<'a> {
    let newest = hosts.iter().filter_map(|host| host.last_seen).max();
    let mut claims: Candidates<'a> = hosts
        .iter()
        .map(|host| Candidate {
            host,
            standing: standing(host, falcon, newest, seen_since),
        })
        .collect();
    let scored = claims.iter_mut().filter_map(|claim| match claim.standing {
        CandidateStatus::Behind(score) => Some((score, claim)),
        _ => None,
    });
    if let Some((score, lowest)) = scored.min_by_key(|(score, claim)| (*score, &claim.host.aid)) {
        lowest.standing = CandidateStatus::Lowest(score);
    }
    claims
}

/// What a host's claim is worth before the scores are compared.
fn standing<'a>(
    host: &Host,
    falcon: &'a FalconInventory,
    newest: Option<Timestamp>,
    seen_since: Option<Timestamp>,
) -> CandidateStatus<'a> {
    // A host without a time cannot be ruled out as an old record, so it keeps its say.
    if let (Some(seen), Some(newest)) = (host.last_seen, newest)
        && newest.duration_since(seen) > ALIVE_WITHIN
    {
        return CandidateStatus::Superseded(newest);
    }
    if seen_since.is_some_and(|limit| host.last_seen < Some(limit)) {
        return CandidateStatus::Stale;
    }
    match falcon.scores.get(&host.aid) {
        Some(Assessment::Score(score)) => CandidateStatus::Behind(*score),
        Some(Assessment::Invalid(text)) => CandidateStatus::Invalid(text),
        None => CandidateStatus::Unassessed,
    }
}
