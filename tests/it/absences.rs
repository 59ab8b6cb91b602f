//! Laws about absence over days, for fleets of 1 to 400 devices: an outage of either side takes access away from nobody
//! without a person having been told before.
//!
//! The model runs the heart of a sync (join, plan, second look, guard) against a tailnet, records and an audit trail in memory.
//! The laws count what happened in the tailnet, by the rules of the design.

use std::collections::{BTreeMap, BTreeSet};

use falcon_posture_sync::domain::inventory::device::{Device, Devices, Identity, NodeId, Presence};
use falcon_posture_sync::domain::inventory::host::{Aid, Assessment, FalconInventory, Host, Score};
use falcon_posture_sync::domain::inventory::platform::Platform;
use falcon_posture_sync::domain::inventory::record::{ExpiredRecords, NodeRecord, NodeRecords};
use falcon_posture_sync::domain::inventory::serial::Serial;
use falcon_posture_sync::domain::matching::{MatchRules, join};
use falcon_posture_sync::domain::plan::absence::take_waiting;
use falcon_posture_sync::domain::plan::guard::{GuardInputs, GuardedPlan, find_suspicion, guard};
use falcon_posture_sync::domain::plan::lifetime::Lifetime;
use falcon_posture_sync::domain::plan::{Change, PlanRules, plan};
use falcon_posture_sync::settings::{MaxRemovals, OnMissing};
use jiff::{SignedDuration, Timestamp};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

const START: Timestamp = Timestamp::constant(1_768_478_400, 0);
const DAY: SignedDuration = SignedDuration::from_hours(24);
const INTERVAL: SignedDuration = SignedDuration::from_mins(15);
const RUNS_PER_DAY: usize = 96;

/// What a run sees of the fleet.
#[derive(Clone, Debug, Default)]
struct Sight {
    /// Devices without their Falcon host.
    hostless: BTreeSet<usize>,
    /// Devices that the tailnet does not list.
    unlisted: BTreeSet<usize>,
    /// No score of the account is valid.
    is_invalid: bool,
    /// The account has no host at all.
    is_empty: bool,
}

/// A removal from the tailnet that no person let pass.
#[derive(Clone, Copy, Debug)]
struct Loss {
    at: Timestamp,
    device: usize,
}

struct Model {
    size: usize,
    now: Timestamp,
    max: MaxRemovals,
    remove_after: SignedDuration,
    records: NodeRecords,
    /// The devices that hold an attribute in the tailnet.
    holders: BTreeSet<usize>,
    /// The removals that the audit trail tells.
    audit: Vec<(Timestamp, NodeId)>,
    /// The changes that a run made and did not record.
    unrecorded: Vec<Change>,
    losses: Vec<Loss>,
    /// The times of the runs that found a device absent, without a break, by device.
    absent_runs: BTreeMap<usize, Vec<Timestamp>>,
}

fn node(device: usize) -> NodeId {
    NodeId(format!("n{device:03}").into())
}

fn number(node: &NodeId) -> usize {
    node.0[1..].parse().unwrap()
}

fn score(device: usize) -> Score {
    Score::new(30 + i64::try_from(device % 70).unwrap()).unwrap()
}

impl Model {
    /// A fleet whose devices all hold their score.
    fn synced(size: usize, max: MaxRemovals, remove_after: SignedDuration) -> Self {
        let mut model = Self {
            size,
            now: START,
            max,
            remove_after,
            records: NodeRecords::new(),
            holders: BTreeSet::new(),
            audit: Vec::new(),
            unrecorded: Vec::new(),
            losses: Vec::new(),
            absent_runs: BTreeMap::new(),
        };
        model.run(&Sight::default(), 0, false);
        assert_eq!(model.holders.len(), size);
        model
    }

    fn falcon(&self, sight: &Sight) -> FalconInventory {
        let mut falcon = FalconInventory::default();
        // Five hosts of the account belong to no device of the tailnet.
        let hosts = (0..self.size + 5).filter(|n| !sight.is_empty && !sight.hostless.contains(n));
        for n in hosts {
            let aid = Aid::from(format!("{n:032x}").as_str());
            let host = Host {
                aid: aid.clone(),
                serial: Serial::parse(&format!("C02X{n:04}")).ok(),
                hostname: None,
                first_seen: None,
                last_seen: Some(self.now),
                platform: Platform::Other,
                is_contained: false,
            };
            let assessment = if sight.is_invalid {
                Assessment::Invalid("NaN".to_owned())
            } else {
                Assessment::Score(score(n))
            };
            falcon.extend([(aid.clone(), host)].into(), [(aid, assessment)].into());
        }
        falcon
    }

    fn devices(&self, sight: &Sight) -> Devices {
        let listed = (0..self.size).filter(|n| !sight.unlisted.contains(n));
        let device = |n: usize| Device {
            node_id: node(n),
            name: format!("laptop-{n}.ts.net").into(),
            hostname: format!("laptop-{n}").into(),
            user: "".into(),
            os: "".into(),
            is_external: false,
            is_ephemeral: false,
            presence: Presence::Connected,
            has_multiple_connections: false,
            identity: Identity::Serials([format!("C02X{n:04}").into()].into_iter().collect()),
        };
        listed.map(|n| (node(n), device(n))).collect()
    }

    /// Runs once, as the schedule does. A run that `dies` has written to the tailnet and recorded nothing of it.
    fn run(&mut self, sight: &Sight, allowed: usize, dies: bool) -> GuardedPlan {
        for change in std::mem::take(&mut self.unrecorded) {
            self.record(&change);
        }
        let (falcon, devices) = (self.falcon(sight), self.devices(sight));
        self.note_absences(sight, &devices);
        let matches = join(
            &falcon,
            &devices,
            &self.records,
            &MatchRules::with_defaults(self.now),
        );
        let plan_rules = PlanRules {
            key: &"custom:ztaScore".to_owned().try_into().unwrap(),
            on_missing: OnMissing::Delete,
            lifetime: Lifetime::from_hours(168, self.now),
        };
        let expired = ExpiredRecords::new();
        let mut planned = plan(&matches, &devices, &self.records, &expired, &plan_rules);
        // Tailscale still has each device that its listing lacks.
        planned.departed.clear();
        let suspicion = find_suspicion(
            &falcon,
            &devices,
            &self.records,
            &matches,
            OnMissing::Delete,
        );
        let waiting = take_waiting(&mut planned, self.now, self.remove_after);
        let since = self.now - DAY;
        let recent = self.audit.iter().filter(|(at, _)| *at >= since);
        let recent_removals: Vec<NodeId> = recent.map(|(_, node)| node.clone()).collect();
        let guarded = guard(
            planned,
            waiting,
            GuardInputs {
                integration: &"corp".to_owned().try_into().unwrap(),
                now: self.now,
                suspicion: suspicion.as_deref(),
                records: &self.records,
                recent_removals: &recent_removals,
                max: self.max,
                allowed,
            },
        );
        for (node, absence) in guarded.absence_updates(&self.records, self.now) {
            self.records.get_mut(&node).unwrap().absence = absence;
        }
        let before = self.holders.clone();
        for change in &guarded.plan.changes {
            let device = number(&change.node_id);
            if change.new.is_some() {
                self.holders.insert(device);
            } else {
                assert!(self.holders.remove(&device));
                if !change.is_approved {
                    let at = self.now;
                    self.losses.push(Loss { at, device });
                }
            }
        }
        if dies {
            self.unrecorded.clone_from(&guarded.plan.changes);
        } else {
            for change in &guarded.plan.changes {
                self.record(change);
            }
        }
        self.check_laws(&before);
        self.now += INTERVAL;
        guarded
    }

    fn record(&mut self, change: &Change) {
        let Some(new) = &change.new else {
            self.records.remove(&change.node_id);
            if !change.is_approved {
                self.audit.push((self.now, change.node_id.clone()));
            }
            return;
        };
        let record = NodeRecord {
            key: new.key.clone(),
            score: new.score,
            aid: new.aid.clone(),
            serial: new.serial.clone(),
            name: change.name.clone(),
            written_at: Some(self.now),
            expiry: None,
            run_id: "run".into(),
            is_ephemeral: false,
            absence: None,
        };
        self.records.insert(change.node_id.clone(), record);
    }

    /// Notes which listed devices deserve no score in this run. A device that is not listed is neither present nor absent.
    fn note_absences(&mut self, sight: &Sight, devices: &Devices) {
        for n in (0..self.size).filter(|n| devices.contains_key(&node(*n))) {
            if sight.hostless.contains(&n) || sight.is_empty || sight.is_invalid {
                self.absent_runs.entry(n).or_default().push(self.now);
            } else {
                self.absent_runs.remove(&n);
            }
        }
    }

    /// Checks the laws about the losses of this run. `before` are the devices that held an attribute when it began.
    fn check_laws(&self, before: &BTreeSet<usize>) {
        let new: Vec<&Loss> = self
            .losses
            .iter()
            .filter(|loss| loss.at == self.now)
            .collect();
        for loss in &new {
            let runs = &self.absent_runs[&loss.device];
            let first = runs.first().copied().unwrap();
            assert!(
                self.now.duration_since(first) >= self.remove_after,
                "device {} was found absent since {first} only, and lost its score at {}",
                loss.device,
                self.now
            );
            assert!(runs.len() > 1 || self.remove_after.is_zero());
        }
        if new.is_empty() {
            return;
        }
        let day: Vec<&Loss> = self
            .losses
            .iter()
            .filter(|loss| loss.at > self.now - DAY)
            .collect();
        let devices: BTreeSet<usize> = day.iter().map(|loss| loss.device).collect();
        let base = before.union(&devices).count();
        let share = base * usize::from(self.max.percent) / 100;
        let most = share.max(usize::try_from(self.max.at_least).unwrap());
        assert!(
            day.len() <= most,
            "{} of {base} in a day at {}",
            day.len(),
            self.now
        );
        assert!(
            devices.len() == 1 || 2 * day.len() <= base,
            "{} of {base}",
            day.len()
        );
    }
}

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
