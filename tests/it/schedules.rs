//! Random worlds with random changes and faults. The invariants hold after each run, and a last run without faults makes
//! everything right.

mod runner;
mod schedule;

use std::time::Duration;

use tokio::runtime::Builder;

use crate::random_cases::check_cases;
use runner::Runner;
use schedule::schedule;

fn check(name: &'static str) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let mut runner = runtime.block_on(Runner::open(Duration::from_millis(600)));
    check_cases(file!(), name, 200, &schedule(), |schedule| {
        let violations = runtime.block_on(runner.perform(&schedule));
        if violations.is_empty() {
            Ok(())
        } else {
            Err(violations.join("\n"))
        }
    });
}

#[test]
fn whatever_goes_wrong_the_next_good_run_makes_it_right() {
    check("whatever_goes_wrong_the_next_good_run_makes_it_right");
}

#[test]
fn whatever_goes_wrong_the_next_good_run_makes_it_right_too() {
    check("whatever_goes_wrong_the_next_good_run_makes_it_right_too");
}
