//! Random cases that are worlds of their own: one environment plays them all, and a failed one is made smaller.

use std::cell::RefCell;

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, FileFailurePersistence, TestCaseError, TestRunner};

/// Cases of each test. Two tests of a kind run in parallel.
const CASES: u32 = 500;

/// Plays random cases, and panics with the smallest one that fails. Failed cases are stored next to `source_file`, and tried
/// first.
pub(crate) fn check_cases<S: Strategy>(
    source_file: &'static str,
    test_name: &'static str,
    max_shrink_iters: u32,
    cases: &S,
    perform: impl FnMut(S::Value) -> Result<(), String>,
) {
    let config = Config {
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        source_file: Some(source_file),
        test_name: Some(test_name),
        max_shrink_iters,
        ..Config::with_cases(CASES)
    };
    let perform = RefCell::new(perform);
    let result = TestRunner::new(config).run(cases, |case| {
        let perform = &mut *perform.borrow_mut();
        perform(case).map_err(TestCaseError::fail)
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}
