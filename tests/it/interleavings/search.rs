//! Breadth-first search through all states.

use std::collections::{HashSet, VecDeque};
use std::fmt::Debug;
use std::hash::{BuildHasher as _, Hash, RandomState};

/// A system whose states are searched.
pub(super) trait Model {
    type State: Clone + Hash;
    type Action: Clone + Debug;

    fn start(&self) -> Self::State;

    fn actions(&self, state: &Self::State) -> Vec<Self::Action>;

    fn next(&self, state: &Self::State, action: &Self::Action) -> Self::State;

    /// Returns what is wrong with a state.
    fn violation(&self, state: &Self::State) -> Option<String>;
}

/// The result of a search.
#[derive(Debug)]
pub(super) struct Found {
    /// The number of different states.
    pub(super) states: usize,
    /// The shortest way to a violation, and what is wrong there.
    pub(super) violation: Option<String>,
}

/// Searches all states, or until the first violation.
///
/// States are told apart by 64 bits. With a million states, two have the same bits once in 37 million searches.
pub(super) fn search<M: Model>(model: &M) -> Found {
    let hasher = RandomState::new();
    let start = model.start();
    let mut seen = HashSet::from([hasher.hash_one(&start)]);
    // The way to each state: its predecessor, and the action that leads from there.
    let mut ways: Vec<(usize, Option<M::Action>)> = vec![(0, None)];
    let mut open = VecDeque::from([(0, start)]);
    while let Some((index, state)) = open.pop_front() {
        if let Some(violation) = model.violation(&state) {
            let steps = way(&ways, index);
            let violation = format!("{violation}\n  after {}", steps.join("\n        "));
            return Found {
                states: seen.len(),
                violation: Some(violation),
            };
        }
        for action in model.actions(&state) {
            let next = model.next(&state, &action);
            if seen.insert(hasher.hash_one(&next)) {
                ways.push((index, Some(action)));
                open.push_back((ways.len() - 1, next));
            }
        }
    }
    Found {
        states: seen.len(),
        violation: None,
    }
}

fn way<A: Debug>(ways: &[(usize, Option<A>)], mut index: usize) -> Vec<String> {
    let mut steps = Vec::new();
    while let (before, Some(action)) = &ways[index] {
        steps.push(format!("{action:?}"));
        index = *before;
    }
    steps.reverse();
    steps
}
