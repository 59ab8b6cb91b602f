//! Random worlds with random changes and faults. The invariants hold after each run, and a last run without faults makes
//! everything right.

mod runner;
mod schedule;

use std::cell::RefCell;
use std::time::Duration;

use proptest::test_runner::{Config, FileFailurePersistence, TestCaseError, TestRunner};
use tokio::runtime::Builder;

use runner::Runner;
use schedule::schedule;

/// Cases of each of the two tests, which run in parallel.
const CASES: u32 = 500;

/// Failed cases are stored next to this file, and tried first.
fn config(name: &'static str) -> Config {
    Config {
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        source_file: Some(file!()),
        test_name: Some(name),
        max_shrink_iters: 200,
        ..Config::with_cases(CASES)
    }
}

fn check(name: &'static str) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let check = RefCell::new(runtime.block_on(Runner::open(Duration::from_millis(600))));
    let result = TestRunner::new(config(name)).run(&schedule(), |schedule| {
        let violations = runtime.block_on(check.borrow_mut().perform(&schedule));
        if violations.is_empty() {
            Ok(())
        } else {
            Err(TestCaseError::fail(violations.join("\n")))
        }
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

#[test]
fn whatever_goes_wrong_the_next_good_run_makes_it_right() {
    check("whatever_goes_wrong_the_next_good_run_makes_it_right");
}

#[test]
fn whatever_goes_wrong_the_next_good_run_makes_it_right_too() {
    check("whatever_goes_wrong_the_next_good_run_makes_it_right_too");
}
