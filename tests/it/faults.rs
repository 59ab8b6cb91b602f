//! The table of faults: each call of a run fails in each way, for as long as the run lasts.
//!
//! After the run with the fault, the invariants hold: attributes, audit trail and status are consistent. The next run makes
//! everything right, and the run after that changes nothing.

pub(crate) mod call_sites;
mod expected;
mod fault_case;
pub(crate) mod fault_proxy;
pub(crate) mod instance;
pub(crate) mod invariants;
pub(crate) mod kinds;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Mutex;
use std::thread;

use tokio::runtime::Builder;

use call_sites::CallSite;
use fault_case::{Cell, FaultCase};
use kinds::Kind;

pub(crate) const CALL_SITES: [CallSite; 32] = [
    CallSite::Integrations,
    CallSite::Lease,
    CallSite::FalconSecret,
    CallSite::TailscaleSecret,
    CallSite::SecretVersion,
    CallSite::FalconToken,
    CallSite::TailscaleToken,
    CallSite::Records,
    CallSite::Hosts(1),
    CallSite::Hosts(2),
    CallSite::Scores(1),
    CallSite::Scores(2),
    CallSite::Scores(3),
    CallSite::Devices,
    CallSite::HostLookUp,
    CallSite::ScoreLookUp,
    CallSite::DeviceLookUp,
    CallSite::LookUpOfOne,
    CallSite::Attributes,
    CallSite::StrikeOut,
    CallSite::Removals,
    CallSite::Absences,
    CallSite::Pending,
    CallSite::Patch(1),
    CallSite::Patch(2),
    CallSite::PatchOfOne,
    CallSite::Record(1),
    CallSite::Record(2),
    CallSite::Forget,
    CallSite::Finish,
    CallSite::Requests,
    CallSite::Announcement,
];

/// Rows that run in parallel: more than there are processors, since each waits for its timeouts.
const THREADS: usize = 5;

type Table = BTreeMap<CallSite, Vec<Cell>>;

#[test]
fn each_call_fails_in_each_way_and_the_next_run_makes_it_good() {
    let left = Mutex::new(CALL_SITES.into());
    let table: Table = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(|| cases(&left))).collect();
        let cases = threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap());
        cases.collect()
    });
    // Not by a macro, whose output a passing test keeps to itself.
    let shown = std::io::stderr()
        .lock()
        .write_all(markdown(&table).as_bytes());
    shown.unwrap();
    let mut violations = Vec::new();
    for (call_site, cells) in &table {
        for (kind, cell) in Kind::ALL.iter().zip(cells) {
            let told = cell.violations.iter();
            violations.extend(told.map(|violation| format!("{call_site}, {kind}: {violation}")));
        }
    }
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}

/// Runs one row after another, until none is left.
fn cases(left: &Mutex<Vec<CallSite>>) -> Vec<(CallSite, Vec<Cell>)> {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let next = || left.lock().unwrap().pop();
    std::iter::from_fn(next)
        .map(|call_site| (call_site, runtime.block_on(FaultCase::cells(call_site))))
        .collect()
}

fn markdown(table: &Table) -> String {
    let mut text = "\n| fault at |".to_owned();
    for kind in Kind::ALL {
        let _ = write!(text, " {kind} |");
    }
    text.push_str("\n| --- |");
    text.push_str(&" --- |".repeat(Kind::ALL.len()));
    for call_site in CALL_SITES {
        let _ = write!(text, "\n| {call_site} |");
        for cell in &table[&call_site] {
            let mark = if cell.violations.is_empty() {
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
