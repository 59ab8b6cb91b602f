//! Laws about absence over days, for fleets of 1 to 400 devices: an outage of either side takes access away from nobody
//! without a person having been told before.
//!
//! The model runs the heart of a sync (join, plan, second look, guard) against a tailnet, records and an audit trail in memory.
//! The laws count what happened in the tailnet, by the rules of the design.

mod model;

use std::collections::BTreeSet;

use falcon_posture_sync::domain::plan::guard::GuardedPlan;
use falcon_posture_sync::settings::MaxRemovals;
use jiff::SignedDuration;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use model::*;

fn max_removals() -> impl Strategy<Value = MaxRemovals> {
    prop_oneof![
        3 => Just(MaxRemovals::default()),
        1 => (0..=100_u8, 0..20_u32).prop_map(|(percent, at_least)| MaxRemovals { percent, at_least }),
    ]
}

fn size() -> impl Strategy<Value = usize> {
    prop_oneof![1 => 1..12_usize, 1 => 12..=400_usize]
}

/// Devices of a fleet, as a share of it.
fn first(size: usize, part: usize, of: usize) -> BTreeSet<usize> {
    (0..size * part / of).collect()
}

/// A way in which many devices go missing, run by run, for good.
#[derive(Clone, Copy, Debug)]
enum Outage {
    /// A fifth of what is left in each run.
    FifthARun,
    /// Ten devices in each run.
    TenARun,
    /// All hosts at once: the credential of another account.
    OtherAccount,
    /// The account shows no host.
    EmptyListing,
    /// The account shows a third of the hosts: the API client lost a host group.
    HostGroups,
    /// No score of the account is valid.
    InvalidScores,
    /// The tailnet lists no device.
    EmptyTailnet,
}

const OUTAGES: [Outage; 7] = [
    Outage::FifthARun,
    Outage::TenARun,
    Outage::OtherAccount,
    Outage::EmptyListing,
    Outage::HostGroups,
    Outage::InvalidScores,
    Outage::EmptyTailnet,
];

impl Outage {
    fn sight(self, size: usize, run: usize) -> Sight {
        let hostless = match self {
            Self::FifthARun => {
                let left = (0..=run).fold(size, |left, _| left - left.div_ceil(5).min(left));
                (left..size).collect()
            }
            Self::TenARun => first(size.min(10 * (run + 1)), 1, 1),
            Self::OtherAccount => first(size, 1, 1),
            Self::HostGroups => first(size, 2, 3),
            Self::EmptyListing | Self::InvalidScores | Self::EmptyTailnet => BTreeSet::new(),
        };
        Sight {
            hostless,
            unlisted: match self {
                Self::EmptyTailnet => first(size, 1, 1),
                _ => BTreeSet::new(),
            },
            is_invalid: matches!(self, Self::InvalidScores),
            is_empty: matches!(self, Self::EmptyListing),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 12,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Over a week, also if runs die after they have written, an outage takes no more away than the guard allows in one day.
    /// What was held does not drain away. Once the outage ends, everybody who lost the score has it again.
    #[test]
    fn an_outage_of_a_week_takes_no_more_than_one_day_allows(
        size in size(), max in max_removals(), outage in select(&OUTAGES[..]), deaths in vec(prop::bool::weighted(0.1), 96),
    ) {
        let mut model = Model::synced(size, max, SignedDuration::from_mins(25));
        let mut held_since = None;
        for run in 0..7 * RUNS_PER_DAY {
            let sight = outage.sight(size, run);
            let losses = model.losses.len();
            let guarded = model.run(&sight, 0, deaths[run % deaths.len()]);
            if held_since.is_some() {
                prop_assert_eq!(model.losses.len(), losses, "run {}: what was held drains away", run);
                prop_assert!(guarded.held.is_some(), "run {}", run);
            }
            if guarded.held.is_some() {
                held_since.get_or_insert(run);
            }
        }
        if size > 4 && max.percent < 50 {
            prop_assert!(held_since.is_some(), "an outage of this size is held");
        }
        model.run(&Sight::default(), 0, false);
        let end = model.run(&Sight::default(), 0, false);
        prop_assert_eq!(end.held, None);
        prop_assert_eq!(model.holders.len(), size);
        prop_assert!(model.records.values().all(|record| record.absence.is_none()));
    }

    /// Whatever is absent for less than `removeAfterMinutes` at a time changes nothing, however many and however often.
    #[test]
    fn a_flicker_changes_nothing(
        size in size(), minutes in 16..=180_i64, shares in vec(0..=100_usize, 40), is_invalid: bool,
    ) {
        let remove_after = SignedDuration::from_mins(minutes);
        let mut model = Model::synced(size, MaxRemovals { percent: 100, at_least: 1_000 }, remove_after);
        let longest = usize::try_from((minutes - 1) / 15).unwrap();
        for (n, share) in shares.into_iter().enumerate() {
            let sight = Sight {
                hostless: (0..size).filter(|device| (device * 37 + n * 11) % 100 < share).collect(),
                is_invalid,
                ..Sight::default()
            };
            for _ in 0..=(n % (longest + 1)).min(longest) {
                model.run(&sight, 0, n % 7 == 0);
            }
            model.run(&Sight::default(), 0, n % 5 == 0);
            prop_assert!(model.losses.is_empty());
            prop_assert_eq!(model.holders.len(), size);
        }
    }

    /// Devices come and go at random for days: the laws hold at each loss, and who is absent at the end and not held has no score.
    #[test]
    fn the_laws_hold_whatever_comes_and_goes(
        size in size(), max in max_removals(), minutes in select(&[0_i64, 25, 60][..]), seed in 0..1_000_usize,
        deaths in vec(prop::bool::weighted(0.1), 96), stay in 1..40_usize,
    ) {
        let mut model = Model::synced(size, max, SignedDuration::from_mins(minutes));
        let mut last = GuardedPlan::default();
        let mut sight = Sight::default();
        for run in 0..3 * RUNS_PER_DAY {
            let is_absent = |device: &usize| (device * 7919 + (run / stay) * 104_729 + seed * 31).is_multiple_of(23);
            sight.hostless = (0..size).filter(is_absent).collect();
            last = model.run(&sight, 0, deaths[run % deaths.len()]);
        }
        let waiting = last.waiting.iter().map(|waiting| number(&waiting.change.node_id));
        let held = last.held.iter().flat_map(|held| &held.removals).map(|change| number(&change.node_id));
        let keep: BTreeSet<usize> = waiting.chain(held).collect();
        for device in 0..size {
            let is_absent = sight.hostless.contains(&device);
            prop_assert_eq!(model.holders.contains(&device), !is_absent || keep.contains(&device), "{}", device);
        }
    }

    /// A person lets pass as many as they say, the longest absent first and then by node id. What came later waits.
    #[test]
    fn a_person_lets_pass_the_number_that_was_looked_at(size in 20..200_usize, early in 10..20_usize, allowed in 0..20_usize) {
        let max = MaxRemovals { percent: 0, at_least: 0 };
        let mut model = Model::synced(size, max, SignedDuration::from_mins(25));
        let early: BTreeSet<usize> = (size - early..size).collect();
        let all: BTreeSet<usize> = (0..size).collect();
        for run in 0..8 {
            let hostless = if run < 3 { early.clone() } else { all.clone() };
            model.run(&Sight { hostless, ..Sight::default() }, 0, false);
        }
        prop_assert_eq!(model.holders.len(), size, "all are held");
        model.run(&Sight { hostless: all, ..Sight::default() }, allowed, false);
        let gone: BTreeSet<usize> = (0..size).filter(|device| !model.holders.contains(device)).collect();
        let expected: BTreeSet<usize> = early.iter().copied().chain(0..size - early.len()).take(allowed).collect();
        prop_assert_eq!(gone, expected);
        prop_assert!(model.losses.is_empty(), "what a person let pass counts for nothing");
    }
}
