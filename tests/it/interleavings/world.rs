//! The world of the model: Tailscale, Falcon, the tables, the runs, and what can happen.

mod steps;

use std::collections::BTreeSet;

use super::Protocol;
use super::runs::{Run, Step, Write};
use super::search::Model;
use super::tables::{Audited, Entry, EventId, NEVER, Tables};

/// The events that can happen, each with its maximum number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Faults {
    /// Invocations.
    pub(super) runs: u8,
    /// All invocations have the same request id.
    pub(super) one_id: bool,
    /// Changes of the score in Falcon: to another one, or none.
    pub(super) moves: u8,
    /// Runs that die.
    pub(super) crashes: u8,
    /// Calls that take effect or not, without an answer.
    pub(super) lost: u8,
    /// Requests without an answer that are still on their way, or that arrive twice.
    pub(super) late: u8,
    /// Leases that are taken before they expire: the clocks are apart.
    pub(super) steals: u8,
    /// Runs that are still there a quarter of an hour later.
    pub(super) stalls: u8,
    /// Values that somebody else sets.
    pub(super) hands: u8,
    /// The integration is removed; true keeps its attributes.
    pub(super) removal: Option<bool>,
    /// Scores expire after this number of epochs. A run in a later epoch renews them.
    pub(super) life: Option<u8>,
}

impl Faults {
    pub(super) const NONE: Self = Self {
        runs: 0,
        one_id: false,
        moves: 0,
        crashes: 0,
        lost: 0,
        late: 0,
        steals: 0,
        stalls: 0,
        hands: 0,
        removal: None,
        life: None,
    };
}

/// A score that somebody else sets.
const BY_HAND: u8 = 99;

/// The attribute of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Held {
    pub(super) score: u8,
    /// The epoch at whose beginning the score expires.
    pub(super) ends: u8,
}

/// A request to Tailscale on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Request {
    entry: Entry,
    /// The attempt of its run.
    attempt: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct State {
    /// The events that may still happen.
    left: Faults,
    epoch: u8,
    /// Journal entries so far.
    entries: u8,
    /// Acquisitions so far.
    terms: u8,
    /// The score in Falcon.
    deserved: Option<u8>,
    value: Option<Held>,
    is_by_hand: bool,
    /// The changes in Tailscale's log that are ours.
    log: BTreeSet<(EventId, Option<u8>, Option<u8>)>,
    on_their_way: Vec<Request>,
    removal: Option<bool>,
    tables: Tables,
    runs: Vec<Run>,
}

/// An event. Runs are named by their index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// An invocation begins.
    Begin,
    /// A run makes its next step.
    Step(usize),
    /// It takes the lease although it has not expired.
    Steal(usize),
    /// The next step takes effect, and has no answer.
    Unheard(usize),
    /// The next step fails.
    Fail(usize),
    Crash(usize),
    /// A request takes effect.
    Arrive(Request),
    /// A request takes effect, and will do so again.
    ArriveTwice(Request),
    /// A request comes to nothing.
    Vanish(Request),
    /// A quarter of an hour passes. Runs that still wait are stopped, but for this one.
    Pass(Option<usize>),
    /// The score in Falcon changes.
    Move(Option<u8>),
    Hand,
    Remove,
}

pub(super) struct Interleavings {
    pub(super) protocol: Protocol,
    pub(super) faults: Faults,
}

impl Model for Interleavings {
    type State = State;
    type Action = Action;

    fn start(&self) -> State {
        State {
            left: self.faults,
            epoch: 0,
            entries: 0,
            terms: 0,
            deserved: Some(1),
            value: None,
            is_by_hand: false,
            log: BTreeSet::new(),
            on_their_way: Vec::new(),
            removal: None,
            tables: Tables::default(),
            runs: Vec::new(),
        }
    }

    fn actions(&self, state: &State) -> Vec<Action> {
        let mut actions = Vec::new();
        let left = state.left;
        if left.runs > 0 && !state.tables.is_deleted {
            actions.push(Action::Begin);
        }
        for (n, run) in state.runs.iter().enumerate() {
            match run.step {
                Step::Wait(write) => {
                    if write.is_made {
                        actions.push(Action::Step(n));
                    }
                    let is_on_its_way = state.request(write).is_some();
                    if left.lost > 0 && (!is_on_its_way || left.late > 0) {
                        actions.push(Action::Unheard(n));
                        if write.attempts < 2 {
                            actions.push(Action::Fail(n));
                        }
                    }
                }
                step => {
                    actions.push(Action::Step(n));
                    if step == Step::Acquire && left.steals > 0 && state.tables.lease.is_some() {
                        actions.push(Action::Steal(n));
                    }
                    if left.lost > 0 && is_call(step) {
                        actions.extend([Action::Unheard(n), Action::Fail(n)]);
                    }
                }
            }
            if left.crashes > 0 {
                actions.push(Action::Crash(n));
            }
        }
        for request in &state.on_their_way {
            actions.extend([Action::Arrive(*request), Action::Vanish(*request)]);
            if left.late > 0 && left.lost > 0 {
                actions.push(Action::ArriveTwice(*request));
            }
        }
        let is_needed = !state.runs.is_empty()
            || !state.on_their_way.is_empty()
            || state.tables.lease.is_some()
            || !state.tables.journal.is_empty()
            || left.life.is_some();
        if is_needed && state.epoch < self.faults.runs {
            actions.push(Action::Pass(None));
            if left.stalls > 0 {
                actions.extend((0..state.runs.len()).map(|n| Action::Pass(Some(n))));
            }
        }
        if left.moves > 0 {
            let scores = [None, Some(1), Some(2)];
            let others = scores.into_iter().filter(|score| *score != state.deserved);
            actions.extend(others.map(Action::Move));
        }
        if left.hands > 0 {
            actions.push(Action::Hand);
        }
        if left.removal.is_some() {
            actions.push(Action::Remove);
        }
        actions
    }

    fn next(&self, state: &State, action: &Action) -> State {
        let mut next = state.clone();
        match *action {
            Action::Begin => {
                next.left.runs -= 1;
                next.begin(self.faults.one_id);
            }
            Action::Step(n) => next.step(self.protocol, n, false),
            Action::Steal(n) => {
                next.left.steals -= 1;
                next.step(self.protocol, n, true);
            }
            Action::Unheard(n) => {
                next.left.lost -= 1;
                next.unheard(self.protocol, n);
            }
            Action::Fail(n) => {
                next.left.lost -= 1;
                next.fail(n);
            }
            Action::Crash(n) => {
                next.left.crashes -= 1;
                next.runs.remove(n);
            }
            Action::Arrive(request) => next.arrive(request),
            Action::ArriveTwice(request) => {
                next.left.late -= 1;
                next.arrive(request);
                next.send(request);
            }
            Action::Vanish(request) => next.forget(request),
            Action::Pass(stalled) => next.pass(stalled),
            Action::Move(deserved) => {
                next.left.moves -= 1;
                next.deserved = deserved;
            }
            Action::Hand => {
                next.left.hands -= 1;
                next.value = Some(Held {
                    score: BY_HAND,
                    ends: NEVER,
                });
                next.is_by_hand = true;
            }
            Action::Remove => next.removal = next.left.removal.take(),
        }
        next
    }

    fn violation(&self, state: &State) -> Option<String> {
        let mut audited = BTreeSet::new();
        for ((_, run), audit) in &state.tables.audit {
            let id = (audit.entry, *run);
            if !audited.insert(id) {
                return Some(format!("{id:?} is audited twice: {state:#?}"));
            }
            if let Audited::Changed(old, new) = audit.audited
                && self.faults.hands == 0
                && !state.log.contains(&(id, old, new))
            {
                return Some(format!("{audit:?} never happened: {state:#?}"));
            }
        }
        if !state.runs.is_empty() || !state.on_their_way.is_empty() {
            return None;
        }
        let state = self.healed(state);
        let known = |(sent_at, run): &EventId| {
            let mut audit = state.tables.audit.iter();
            audit.any(|((_, by), audit)| (audit.entry, by) == (*sent_at, run))
        };
        if let Some((id, old, new)) = state.log.iter().find(|(id, ..)| !known(id)) {
            return Some(format!(
                "{old:?} to {new:?} of {id:?} is not audited: {state:#?}"
            ));
        }
        let record = state.tables.record.map(|record| Held {
            score: record.score,
            ends: record.ends,
        });
        let is_right = if state.is_by_hand {
            true
        } else if state.tables.is_deleted {
            record.is_none() && (state.removal == Some(true) || state.value.is_none())
        } else {
            state.value.map(|held| held.score) == state.deserved && record == state.value
        };
        let is_clean = state.tables.is_deleted || state.tables.journal.is_empty();
        (!is_right || !is_clean).then(|| format!("left wrong: {state:#?}"))
    }
}

/// Returns whether a step calls a service. The others are a run's own.
fn is_call(step: Step) -> bool {
    !matches!(step, Step::Send(_) | Step::Wait(_))
}

impl Interleavings {
    /// Two undisturbed runs, each a quarter of an hour later.
    fn healed(&self, state: &State) -> State {
        let mut state = state.clone();
        for _ in 0..2 {
            state.pass(None);
            if state.tables.is_deleted {
                break;
            }
            state.begin(false);
            while let Some(run) = state.runs.first() {
                if let Step::Wait(write) = run.step
                    && let Some(request) = state.request(write)
                {
                    state.arrive(request);
                }
                state.step(self.protocol, 0, false);
            }
        }
        state
    }
}

impl State {
    fn begin(&mut self, one_id: bool) {
        self.terms += 1;
        self.runs.push(Run {
            id: if one_id { 1 } else { self.terms },
            term: self.terms,
            epoch: self.epoch,
            step: Step::Acquire,
            pending: Vec::new(),
            is_left_out: false,
            removal: None,
            entries: 0,
        });
    }

    /// A quarter of an hour: leases expire, requests take effect no more, Lambda stops what runs.
    fn pass(&mut self, stalled: Option<usize>) {
        self.epoch += 1;
        self.value = self.value.filter(|held| held.ends > self.epoch);
        self.on_their_way.clear();
        let stalled = stalled.map(|n| {
            self.left.stalls -= 1;
            self.runs.swap_remove(n)
        });
        self.runs.clear();
        self.runs.extend(stalled.map(|mut run| {
            // It sends nothing so long after its journal entry.
            if let Step::Send(write) | Step::Wait(write) = run.step {
                run.step = give_up(write);
            }
            run
        }));
    }

    fn request(&self, write: Write) -> Option<Request> {
        let mut requests = self.on_their_way.iter();
        let is_its =
            |request: &&Request| request.entry == write.entry && request.attempt == write.attempts;
        requests.find(is_its).copied()
    }

    fn send(&mut self, request: Request) {
        self.on_their_way.push(request);
        self.on_their_way.sort();
    }

    fn forget(&mut self, request: Request) {
        let mut requests = self.on_their_way.iter();
        if let Some(index) = requests.position(|one| *one == request) {
            self.on_their_way.remove(index);
        }
    }

    /// A request takes effect.
    fn arrive(&mut self, request: Request) {
        self.forget(request);
        let Entry {
            run,
            sent_at,
            new,
            ends,
        } = request.entry;
        let old = self.value.map(|held| held.score);
        if old != new {
            self.log.insert(((sent_at, run), old, new));
            self.is_by_hand = false;
        }
        self.value = new.map(|score| Held { score, ends });
        for run in &mut self.runs {
            if let Step::Wait(write) = &mut run.step
                && (write.entry, write.attempts) == (request.entry, request.attempt)
            {
                write.is_made = true;
            }
        }
    }
}

/// The end of a run whose write may have been made.
fn give_up(write: Write) -> Step {
    Step::Finish {
        recorded: None,
        open: Some((write.key, write.entry)),
    }
}
