//! Small random worlds with every trap of real fleets, which change from run to run. After each run the tailnet holds what the
//! oracle says, and nothing else.

mod changes;
mod laws;
mod moves;
mod stage;

use tokio::runtime::Builder;

use crate::random_cases::check_cases;
use moves::case;
use stage::Stage;

fn check(name: &'static str) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let mut stage = runtime.block_on(Stage::open());
    check_cases(file!(), name, 300, &case(), |case| {
        runtime.block_on(stage.perform(&case))
    });
}

#[test]
fn a_world_of_traps_has_the_scores_that_the_oracle_says() {
    check("a_world_of_traps_has_the_scores_that_the_oracle_says");
}

#[test]
fn a_world_of_traps_has_the_scores_that_the_oracle_says_too() {
    check("a_world_of_traps_has_the_scores_that_the_oracle_says_too");
}
