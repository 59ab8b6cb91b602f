//! Small random worlds with every trap of real fleets, which change from run to run. After each run the tailnet holds what the
//! oracle says, and nothing else.

mod changes;
mod laws;
mod moves;
mod stage;

use std::cell::RefCell;

use proptest::test_runner::{Config, FileFailurePersistence, TestCaseError, TestRunner};
use tokio::runtime::Builder;

use moves::case;
use stage::Stage;

/// Cases of each of the two tests, which run in parallel.
const CASES: u32 = 500;

/// Failed cases are stored next to this file, and tried first.
fn config(name: &'static str) -> Config {
    Config {
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        source_file: Some(file!()),
        test_name: Some(name),
        max_shrink_iters: 300,
        ..Config::with_cases(CASES)
    }
}

fn check(name: &'static str) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let stage = RefCell::new(runtime.block_on(Stage::open()));
    let result = TestRunner::new(config(name)).run(&case(), |case| {
        runtime
            .block_on(stage.borrow_mut().perform(&case))
            .map_err(TestCaseError::fail)
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

#[test]
fn a_world_of_traps_has_the_scores_that_the_oracle_says() {
    check("a_world_of_traps_has_the_scores_that_the_oracle_says");
}

#[test]
fn a_world_of_traps_has_the_scores_that_the_oracle_says_too() {
    check("a_world_of_traps_has_the_scores_that_the_oracle_says_too");
}
