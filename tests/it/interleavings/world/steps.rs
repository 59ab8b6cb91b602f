//! The steps of a run in the world, and the ways in which a step can fail.

use super::super::Protocol;
use super::super::runs::{Step, Write};
use super::super::tables::{Entry, Key, NEVER, Record, SentAt, Settled, time};
use super::{Request, State, give_up};

impl State {
    /// The next step of a run has no answer, after it took effect. A write is given up, and its request may be on its way.
    pub(super) fn unheard(&mut self, protocol: Protocol, n: usize) {
        if let Step::Wait(write) = self.runs[n].step {
            self.left.late -= u8::from(self.request(write).is_some());
            self.runs[n].step = give_up(write);
            return;
        }
        let before = self.runs[n].clone();
        let runs = self.runs.len();
        self.step(protocol, n, false);
        if self.runs.len() == runs {
            self.runs[n] = before;
            self.give_up(n);
        }
    }

    /// The next step of a run does not take effect; a write without an answer is sent again.
    pub(super) fn fail(&mut self, n: usize) {
        if let Step::Wait(write) = self.runs[n].step {
            self.left.late -= u8::from(self.request(write).is_some());
            self.runs[n].step = Step::Send(write);
            return;
        }
        self.give_up(n);
    }

    /// A run ends early, since a call failed.
    fn give_up(&mut self, n: usize) {
        let run = &mut self.runs[n];
        run.step = match run.step {
            Step::Record(write) | Step::Keep(write) => give_up(write),
            Step::Journal(..)
            | Step::ReadRecord
            | Step::Ask(_)
            | Step::Settle(_)
            | Step::RecordSettled(_)
            | Step::Observe
            | Step::ForgetExpired
            | Step::ReadUnknown
            | Step::RecordUnknown(_)
            | Step::DeleteRecord => Step::Finish {
                recorded: None,
                open: None,
            },
            // Nothing can be recorded: the run is over.
            Step::Acquire | Step::Finish { .. } | Step::Restore(_) | Step::Delete(_) => {
                self.runs.remove(n);
                return;
            }
            Step::Send(_) | Step::Wait(_) => return,
        };
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each step of a run")]
    pub(super) fn step(&mut self, protocol: Protocol, n: usize, steals: bool) {
        let mut run = self.runs[n].clone();
        let lease = run.lease();
        let tables = &mut self.tables;
        let finish = |recorded, open| Step::Finish { recorded, open };
        match run.step {
            Step::Acquire => {
                if !tables.acquire(protocol, lease, steals) {
                    self.runs.remove(n);
                    return;
                }
                run.removal = self.removal;
                run.pending = tables
                    .journal
                    .iter()
                    .map(|(key, entry)| (*key, *entry))
                    .collect();
                run.recover(self.epoch, protocol.has_times);
            }
            Step::ReadRecord => {
                run.step = if run.is_unrecorded(tables.record) {
                    Step::Ask(tables.record)
                } else if run.removal == Some(true) {
                    // Its entry may still be young: it is settled with the others.
                    run.pending.remove(0);
                    run.recover(self.epoch, protocol.has_times);
                    run.step
                } else {
                    Step::Settle(Settled::NotMade)
                };
            }
            Step::Ask(record) => {
                let now = (self.epoch, protocol.has_times);
                if let Some(settled) = run.judge(record, self.value, now) {
                    run.step = Step::Settle(settled);
                } else {
                    run.pending.remove(0);
                    run.recover(self.epoch, protocol.has_times);
                }
            }
            Step::Settle(settled) => {
                let entry = run.pending[0];
                let at = self.stamp(protocol, entry.1);
                let tables = &mut self.tables;
                if protocol.has_one_transaction {
                    if tables.settle(protocol, lease, entry, settled, at) {
                        run.pending.remove(0);
                        run.recover(self.epoch, protocol.has_times);
                    } else {
                        run.step = finish(None, None);
                    }
                } else {
                    let may = tables.holds_lease(protocol, lease);
                    run.step = if may && tables.journal.remove(&entry.0).is_some() {
                        Step::RecordSettled(settled)
                    } else {
                        finish(None, None)
                    };
                }
            }
            Step::RecordSettled(settled) => {
                let (_, entry) = run.pending.remove(0);
                let at = self.stamp(protocol, entry);
                self.tables.record_settled(entry, settled, at);
                run.recover(self.epoch, protocol.has_times);
            }
            Step::Observe => {
                // A score that expired before the run began does not count.
                let alive = tables.record.filter(|record| record.is_alive(run.epoch));
                let held = alive.map(|record| record.score);
                let life = self.left.life.map(|life| run.epoch + life);
                let is_renewed = |record: Record| life.is_none_or(|life| record.ends == life);
                let deserved = if run.removal == Some(false) {
                    None
                } else {
                    self.deserved
                };
                run.step = if run.is_left_out {
                    finish(None, None)
                } else if held != deserved {
                    Step::Journal(tables.record, deserved)
                } else if alive.is_none() && tables.record.is_some() {
                    Step::ForgetExpired
                } else if deserved.is_some() && !alive.is_none_or(is_renewed) {
                    Step::Journal(tables.record, deserved)
                } else if run.removal == Some(false) {
                    Step::Delete(None)
                } else {
                    finish(None, None)
                };
            }
            Step::Journal(old, new) => {
                self.entries += 1;
                let sent_at = SentAt {
                    epoch: self.epoch,
                    number: self.entries,
                };
                let name = if protocol.has_terms { run.term } else { run.id };
                let (key, entry) = (
                    (name, run.entries),
                    Entry {
                        run: run.id,
                        sent_at,
                        new,
                        ends: self.left.life.map_or(NEVER, |life| run.epoch + life),
                    },
                );
                run.entries += 1;
                run.step = if tables.put_journal(protocol, Some(lease), key, entry, None) {
                    Step::Send(Write {
                        key,
                        entry,
                        old,
                        attempts: 0,
                        is_made: false,
                    })
                } else {
                    finish(None, None)
                };
            }
            Step::Send(write) => {
                let attempts = write.attempts + 1;
                self.send(Request {
                    entry: write.entry,
                    attempt: attempts,
                });
                run.step = Step::Wait(Write {
                    attempts,
                    is_made: false,
                    ..write
                });
            }
            Step::Wait(write) => {
                // A request with an answer does not take effect again.
                if let Some(request) = self.request(write) {
                    self.forget(request);
                }
                run.step = Step::Record(write);
            }
            Step::Record(write) => {
                let at = self.stamp(protocol, write.entry);
                let is_recorded = self.tables.record(write.old, write.entry, at);
                run.step = if !is_recorded {
                    give_up(write)
                } else if write.attempts > 1 && protocol.keeps_uncertain {
                    Step::Keep(write)
                } else if run.removal == Some(false) {
                    Step::Delete(Some(write.key))
                } else {
                    finish(Some(write.key), None)
                };
            }
            Step::Keep(write) => {
                // In the model a run has one batch, so the entry simply stays.
                run.step = finish(None, Some((write.key, write.entry)));
            }
            Step::Finish { recorded, open } => {
                let recorded: Vec<Key> = recorded.into_iter().collect();
                let is_finished = tables.finish(protocol, lease, &recorded);
                let now = time(self.epoch);
                match open.filter(|(_, entry)| !entry.to_code().is_settled(now)) {
                    Some(open) if !is_finished => run.step = Step::Restore(open),
                    _ => {
                        self.runs.remove(n);
                        return;
                    }
                }
            }
            Step::Restore((key, entry)) => {
                tables.put_journal(protocol, None, key, entry, None);
                self.runs.remove(n);
                return;
            }
            Step::ReadUnknown => {
                let left = tables.journal.iter().next();
                run.step = match left {
                    None => Step::DeleteRecord,
                    Some((key, entry)) => {
                        run.pending = vec![(*key, *entry)];
                        Step::RecordUnknown(if run.is_unrecorded(tables.record) {
                            Settled::Unknown(tables.record)
                        } else {
                            Settled::NotMade
                        })
                    }
                };
            }
            Step::RecordUnknown(settled) => {
                let entry = run.pending.remove(0);
                let at = self.stamp(protocol, entry.1);
                run.step = if self.tables.settle(protocol, lease, entry, settled, at) {
                    Step::ReadUnknown
                } else {
                    finish(None, None)
                };
            }
            Step::ForgetExpired => {
                tables.record = None;
                run.step = if run.removal == Some(false) {
                    Step::Delete(None)
                } else {
                    finish(None, None)
                };
            }
            Step::DeleteRecord => {
                tables.record = None;
                run.step = Step::Delete(None);
            }
            Step::Delete(recorded) => {
                if tables.delete(protocol, lease) {
                    self.runs.remove(n);
                    return;
                }
                // The run repeats if the lease is its own; here the next run does.
                run.step = finish(recorded, None);
            }
        }
        self.runs[n] = run;
    }

    /// The time of the audit record of an entry. Without fixed ids it is the present time.
    fn stamp(&mut self, protocol: Protocol, entry: Entry) -> SentAt {
        if protocol.has_fixed_ids {
            return entry.sent_at;
        }
        self.entries += 1;
        SentAt {
            epoch: self.epoch,
            number: self.entries,
        }
    }
}
