//! Every interleaving of a few runs with crashes, lost answers, clocks apart and requests that take effect late.
//!
//! The model has one integration and one device. The tables keep their conditions, and the runs make the steps of
//! `src/sync.rs`; what a run decides by the journal is the code of the journal itself. At the end of each interleaving, two
//! undisturbed runs make everything right.
//!
//! Each condition of the protocol can be left out, and then the search finds what goes wrong.

mod agreement;
mod runs;
mod search;
mod tables;
mod world;

use std::io::{Write as _, stderr};

use search::{Found, search};
use world::Faults;

/// The conditions of the protocol. Each can be left out.
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a condition of its own"
)]
struct Protocol {
    /// Lease and journal go by the acquisition, and not by the id of the request.
    has_terms: bool,
    /// An entry is judged only when its requests cannot take effect any more.
    has_times: bool,
    /// One transaction records the writes of another run and removes them from the journal.
    has_one_transaction: bool,
    /// The id of an audit record follows from the journal entry, whoever records it.
    has_fixed_ids: bool,
    /// An entry stays if an attempt had no answer, although a later one was accepted.
    keeps_uncertain: bool,
}

const PROTOCOL: Protocol = Protocol {
    has_terms: true,
    has_times: true,
    has_one_transaction: true,
    has_fixed_ids: true,
    keeps_uncertain: true,
};

fn explore(name: &str, protocol: Protocol, faults: Faults) -> Found {
    let found = search(&world::Interleavings { protocol, faults });
    let report = format!("{name}: {} states\n", found.states);
    // libtest keeps what a passing test prints to itself, but not this.
    stderr().lock().write_all(report.as_bytes()).unwrap();
    found
}

fn assert_sound(name: &str, faults: Faults) {
    let found = explore(name, PROTOCOL, faults);
    if let Some(violation) = found.violation {
        panic!("{name}: {violation}");
    }
}

/// Runs that die, and calls without an answer.
const CRASHES: Faults = Faults {
    runs: 3,
    moves: 2,
    crashes: 2,
    lost: 2,
    ..Faults::NONE
};

/// Requests that take effect after their run has given up, or twice.
const LATE: Faults = Faults {
    crashes: 1,
    late: 2,
    ..CRASHES
};

/// Two deliveries of one event, at once or one after the other.
const ONE_ID: Faults = Faults {
    runs: 2,
    one_id: true,
    moves: 2,
    crashes: 1,
    lost: 1,
    late: 1,
    ..Faults::NONE
};

/// A lease is taken while its run goes on, and a run goes on after its time.
const CLOCKS_APART: Faults = Faults {
    runs: 2,
    moves: 2,
    crashes: 1,
    lost: 1,
    steals: 1,
    stalls: 1,
    ..Faults::NONE
};

/// Somebody else changes the attribute.
const HANDS: Faults = Faults {
    runs: 2,
    moves: 1,
    crashes: 1,
    lost: 1,
    late: 1,
    hands: 1,
    ..Faults::NONE
};

/// Scores expire, and runs renew them.
const ENDS: Faults = Faults {
    runs: 3,
    moves: 1,
    crashes: 1,
    lost: 1,
    late: 1,
    life: Some(2),
    ..Faults::NONE
};

/// The integration is removed.
const fn removal(keeps: bool) -> Faults {
    Faults {
        runs: 3,
        moves: 1,
        crashes: 1,
        lost: 2,
        late: 1,
        removal: Some(keeps),
        ..Faults::NONE
    }
}

#[test]
fn crashes_and_lost_answers_lose_nothing() {
    assert_sound("crashes and lost answers", CRASHES);
}

#[test]
fn late_and_doubled_effects_lose_nothing() {
    assert_sound("late and doubled effects", LATE);
}

#[test]
fn two_deliveries_of_one_event_lose_nothing() {
    assert_sound("two deliveries of one event", ONE_ID);
}

#[test]
fn clocks_apart_lose_nothing() {
    assert_sound("clocks apart", CLOCKS_APART);
}

#[test]
fn hands_hide_no_change() {
    assert_sound("hands", HANDS);
}

#[test]
fn renewals_and_ends_lose_nothing() {
    assert_sound("renewals and ends", ENDS);
}

#[test]
fn a_removal_of_scores_that_end_loses_nothing() {
    let faults = Faults {
        removal: Some(false),
        ..ENDS
    };
    assert_sound("removal of scores that end", faults);
}

#[test]
fn a_removal_loses_nothing() {
    assert_sound("removal", removal(false));
}

#[test]
fn a_removal_that_keeps_the_attributes_loses_nothing() {
    assert_sound("removal with keep", removal(true));
}

/// Asserts that the search finds a fault without one of the conditions.
fn assert_needed(name: &str, without: Protocol, faults: Faults) {
    let found = explore(&format!("without {name}"), without, faults);
    assert!(found.violation.is_some(), "{name}: {found:?}");
}

#[test]
fn without_terms_two_deliveries_of_one_event_go_wrong() {
    let protocol = Protocol {
        has_terms: false,
        ..PROTOCOL
    };
    assert_needed("terms", protocol, ONE_ID);
}

#[test]
fn without_times_a_late_write_is_nobodys() {
    let protocol = Protocol {
        has_times: false,
        ..PROTOCOL
    };
    assert_needed("times", protocol, LATE);
}

#[test]
fn without_one_transaction_a_crash_loses_a_record() {
    let protocol = Protocol {
        has_one_transaction: false,
        ..PROTOCOL
    };
    assert_needed("one transaction", protocol, CRASHES);
}

#[test]
fn without_fixed_ids_a_change_is_recorded_twice() {
    let protocol = Protocol {
        has_fixed_ids: false,
        ..PROTOCOL
    };
    assert_needed("fixed ids", protocol, CLOCKS_APART);
}

#[test]
fn without_its_entry_an_unanswered_attempt_is_nobodys() {
    let protocol = Protocol {
        keeps_uncertain: false,
        ..PROTOCOL
    };
    assert_needed("entries of unanswered attempts", protocol, LATE);
}
