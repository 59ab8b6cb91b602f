//! The table of faults: each call of a run, failing in each way for as long as the run lasts.
//!
//! After the run into the fault everything is true: what the tailnet holds, the audit trail, the status. After the next
//! run everything is right, and the one after that has nothing to do.

mod expected;
pub(crate) mod kinds;
pub(crate) mod lane;
pub(crate) mod meddler;
pub(crate) mod places;
mod row;
pub(crate) mod verdict;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Mutex;
use std::thread;

use tokio::runtime::Builder;

use kinds::Kind;
use places::Place;
use row::{Cell, Row};

pub(crate) const PLACES: [Place; 28] = [
    Place::Integrations,
    Place::Lease,
    Place::FalconSecret,
    Place::TailscaleSecret,
    Place::SecretVersion,
    Place::FalconToken,
    Place::TailscaleToken,
    Place::Records,
    Place::Hosts(1),
    Place::Hosts(2),
    Place::Scores(1),
    Place::Scores(2),
    Place::Scores(3),
    Place::Devices,
    Place::HostLookUp,
    Place::ScoreLookUp,
    Place::DeviceLookUp,
    Place::Attributes,
    Place::StrikeOut,
    Place::Pending,
    Place::Patch(1),
    Place::Patch(2),
    Place::Record(1),
    Place::Record(2),
    Place::Forget,
    Place::Finish,
    Place::Requests,
    Place::Announcement,
];

/// So many rows are worked out at once: more than there are processors, since each waits at its stalls.
const THREADS: usize = 5;

type Table = BTreeMap<Place, Vec<Cell>>;

#[test]
fn each_call_fails_in_each_way_and_the_next_run_makes_it_good() {
    let left = Mutex::new(PLACES.into());
    let table: Table = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(|| rows(&left))).collect();
        let rows = threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap());
        rows.collect()
    });
    // Not by a macro, whose output a passing test keeps to itself.
    let shown = std::io::stderr()
        .lock()
        .write_all(markdown(&table).as_bytes());
    shown.unwrap();
    let mut complaints = Vec::new();
    for (place, cells) in &table {
        for (kind, cell) in Kind::ALL.iter().zip(cells) {
            let told = cell.complaints.iter();
            complaints.extend(told.map(|complaint| format!("{place}, {kind}: {complaint}")));
        }
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

/// Takes one row after another, until none is left.
fn rows(left: &Mutex<Vec<Place>>) -> Vec<(Place, Vec<Cell>)> {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let next = || left.lock().unwrap().pop();
    std::iter::from_fn(next)
        .map(|place| (place, runtime.block_on(Row::cells(place))))
        .collect()
}

fn markdown(table: &Table) -> String {
    let mut text = "\n| fault at |".to_owned();
    for kind in Kind::ALL {
        let _ = write!(text, " {kind} |");
    }
    text.push_str("\n| --- |");
    text.push_str(&" --- |".repeat(Kind::ALL.len()));
    for place in PLACES {
        let _ = write!(text, "\n| {place} |");
        for cell in &table[&place] {
            let mark = if cell.complaints.is_empty() {
                ""
            } else {
                " (!)"
            };
            let _ = write!(text, " {}{mark} |", cell.text);
        }
    }
    text.push_str("\n\n");
    text
}
