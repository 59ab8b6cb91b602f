//! The tables and their conditions, for one integration and one device.
//!
//! `agreement` compares them with the real store, so that what the model finds holds for the code.

use std::collections::BTreeMap;

use falcon_posture_sync::domain::inventory::device::NodeId;
use falcon_posture_sync::domain::inventory::host::{Aid, Score};
use falcon_posture_sync::domain::inventory::record::{NodeRecord, NodeRecords};
use falcon_posture_sync::domain::plan::journal::JournalEntry;
use falcon_posture_sync::domain::plan::{Change, DesiredAttribute};
use jiff::{SignedDuration, Timestamp};

use super::Protocol;
use crate::environment::KEY;

pub(super) const NODE: &str = "nDEVICE01CNTRL";

/// Minutes by which the clock advances: more than a lease, and more than a request can live.
const MINUTES_PER_EPOCH: i64 = 16;

/// The number of an acquisition of the lease.
pub(super) type Term = u8;

/// The number of a request id.
pub(super) type RunId = u8;

/// When an entry was stored: the time to the quarter of an hour, and the number of the entry, as its millisecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SentAt {
    pub(super) epoch: u8,
    pub(super) number: u8,
}

impl SentAt {
    pub(super) fn time(self) -> Timestamp {
        let minutes = SignedDuration::from_mins(MINUTES_PER_EPOCH * i64::from(self.epoch));
        START + minutes + SignedDuration::from_millis(self.number.into())
    }
}

/// The end of an attribute that stays: no epoch.
pub(super) const NEVER: u8 = u8::MAX;

/// The end as the code knows it: at the beginning of an epoch.
pub(super) fn expiry(ends: u8) -> Option<Timestamp> {
    let start = SentAt {
        epoch: ends,
        number: 0,
    };
    (ends != NEVER).then(|| start.time())
}

const START: Timestamp = Timestamp::constant(1_800_000_000, 0);

/// The time at the beginning of an epoch, after its last entry.
pub(super) fn time(epoch: u8) -> Timestamp {
    SentAt {
        epoch,
        number: u8::MAX,
    }
    .time()
}

/// A journal entry about the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Entry {
    pub(super) run: RunId,
    pub(super) sent_at: SentAt,
    /// The score to write; `None` removes the attribute.
    pub(super) new: Option<u8>,
    /// The epoch at whose beginning the score expires.
    pub(super) ends: u8,
}

impl Entry {
    /// The entry as the code stores it.
    pub(super) fn to_code(self) -> JournalEntry {
        let change = change(None, self);
        JournalEntry::new(&run_id(self.run), &[change], self.sent_at.time())
    }
}

/// The key of an entry: the term, and the number of the entry in it.
pub(super) type Key = (Term, u8);

/// The node record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Record {
    pub(super) score: u8,
    pub(super) run: RunId,
    pub(super) ends: u8,
}

impl Record {
    pub(super) fn is_alive(self, epoch: u8) -> bool {
        self.ends > epoch
    }

    pub(super) fn to_code(self) -> NodeRecord {
        NodeRecord {
            key: KEY.to_owned().try_into().unwrap(),
            score: Score::new(self.score.into()).unwrap(),
            aid: Aid::from("a"),
            serial: "S1".into(),
            name: "laptop".into(),
            written_at: None,
            expiry: expiry(self.ends),
            run_id: run_id(self.run).into(),
            is_ephemeral: false,
            absence: None,
        }
    }
}

pub(super) fn records(record: Option<Record>) -> NodeRecords {
    let record = record.map(|record| (NodeId(NODE.into()), record.to_code()));
    record.into_iter().collect()
}

pub(super) fn run_id(run: RunId) -> String {
    format!("run-{run}")
}

/// The change of an entry, to a device with this record.
pub(super) fn change(record: Option<Record>, entry: Entry) -> Change {
    let old = record.filter(|record| record.is_alive(entry.sent_at.epoch));
    let expired = record.filter(|_| old.is_none());
    Change {
        node_id: NodeId(NODE.into()),
        name: "laptop".into(),
        hostname: "laptop".into(),
        old: old.map(Record::to_code),
        expired: expired.map(|record| run_id(record.run).into()),
        new: entry.new.map(|score| DesiredAttribute {
            key: KEY.to_owned().try_into().unwrap(),
            score: Score::new(score.into()).unwrap(),
            aid: Aid::from("a"),
            serial: "S1".into(),
            falcon_hostname: None,
            expiry: expiry(entry.ends),
        }),
        reason: String::new(),
        is_approved: false,
        is_immediate: false,
        is_ephemeral: false,
    }
}

/// The id of an audit record: the time of the write, and the run.
pub(super) type EventId = (SentAt, RunId);

/// An audit record, and the entry that it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Audit {
    pub(super) entry: SentAt,
    pub(super) audited: Audited,
}

/// The content of an audit record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Audited {
    /// The attribute changed.
    Changed(Option<u8>, Option<u8>),
    /// It cannot be told whether the attribute changed to this.
    Unknown(Option<u8>),
}

/// The holder of the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Lease {
    pub(super) run: RunId,
    pub(super) term: Term,
    pub(super) epoch: u8,
}

/// The three tables.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Tables {
    /// True once the integration is deleted.
    pub(super) is_deleted: bool,
    pub(super) lease: Option<Lease>,
    pub(super) journal: BTreeMap<Key, Entry>,
    pub(super) record: Option<Record>,
    pub(super) audit: BTreeMap<EventId, Audit>,
}

/// The outcome of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Settled {
    /// It was made, and the device holds a score with this end.
    Made(Option<Record>, u8),
    NotMade,
    Unknown(Option<Record>),
}

impl Tables {
    /// `Store::acquire`. `steals` takes a lease that has not expired, as a machine whose clock is ahead.
    pub(super) fn acquire(&mut self, protocol: Protocol, lease: Lease, steals: bool) -> bool {
        let is_free = match self.lease {
            None => true,
            Some(held) => {
                steals
                    || held.epoch < lease.epoch
                    || held.term == lease.term
                    || (!protocol.has_terms && held.run == lease.run)
            }
        };
        if is_free && !self.is_deleted {
            self.lease = Some(lease);
        }
        is_free && !self.is_deleted
    }

    pub(super) fn holds_lease(&self, protocol: Protocol, lease: Lease) -> bool {
        self.lease.is_some_and(|held| {
            held.term == lease.term || (!protocol.has_terms && held.run == lease.run)
        })
    }

    /// `Store::put_journal`.
    pub(super) fn put_journal(
        &mut self,
        protocol: Protocol,
        lease: Option<Lease>,
        key: Key,
        entry: Entry,
        recorded: Option<Key>,
    ) -> bool {
        let may = !self.is_deleted && lease.is_none_or(|lease| self.holds_lease(protocol, lease));
        if may {
            self.journal.insert(key, entry);
            if let Some(recorded) = recorded {
                self.journal.remove(&recorded);
            }
        }
        may
    }

    /// `Store::record_changes`, of one change. The audit record has the time `at`.
    pub(super) fn record(&mut self, before: Option<Record>, entry: Entry, at: SentAt) -> bool {
        let is_same = match (before, self.record) {
            (None, None) => true,
            (Some(old), Some(record)) => record.run == old.run,
            _ => false,
        };
        let id = (at, entry.run);
        // A score that has expired is not the old value of the change.
        let old = before.filter(|old| old.is_alive(entry.sent_at.epoch));
        let old = old.map(|old| old.score);
        // A renewal has no audit record.
        let is_renewal = old.is_some() && old == entry.new;
        if !is_same || !is_renewal && self.audit.contains_key(&id) {
            return false;
        }
        let audit = Audit {
            entry: entry.sent_at,
            audited: Audited::Changed(old, entry.new),
        };
        if !is_renewal {
            self.audit.insert(id, audit);
        }
        self.record = entry.new.map(|score| Record {
            score,
            run: entry.run,
            ends: entry.ends,
        });
        true
    }

    /// `Store::settle`, of one device: in one transaction, and on the condition that lease and entry are still there.
    pub(super) fn settle(
        &mut self,
        protocol: Protocol,
        lease: Lease,
        (key, entry): (Key, Entry),
        settled: Settled,
        at: SentAt,
    ) -> bool {
        let mut after = self.clone();
        let has_entry = after.journal.remove(&key).is_some();
        let may = self.holds_lease(protocol, lease) && !self.is_deleted && has_entry;
        let is_recorded = after.record_settled(entry, settled, at);
        if may && is_recorded {
            *self = after;
        }
        may && is_recorded
    }

    /// The records of `Store::settle`.
    pub(super) fn record_settled(&mut self, entry: Entry, settled: Settled, at: SentAt) -> bool {
        match settled {
            Settled::Made(old, ends) => self.record(old, Entry { ends, ..entry }, at),
            Settled::NotMade => true,
            Settled::Unknown(_) => {
                let audit = Audit {
                    entry: entry.sent_at,
                    audited: Audited::Unknown(entry.new),
                };
                self.audit.insert((at, entry.run), audit).is_none()
            }
        }
    }

    /// `Store::finish`; without recorded entries also `Store::release`.
    pub(super) fn finish(&mut self, protocol: Protocol, lease: Lease, recorded: &[Key]) -> bool {
        let may = self.holds_lease(protocol, lease) && !self.is_deleted;
        if may {
            self.lease = None;
            self.journal.retain(|key, _| !recorded.contains(key));
        }
        may
    }

    /// `Store::delete_integration`.
    pub(super) fn delete(&mut self, protocol: Protocol, lease: Lease) -> bool {
        let may = self.holds_lease(protocol, lease) && !self.is_deleted;
        if may {
            self.is_deleted = true;
            self.lease = None;
        }
        may
    }
}
