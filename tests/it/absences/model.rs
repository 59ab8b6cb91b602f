//! The heart of a sync against a tailnet, records and an audit trail in memory.

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

pub(super) const START: Timestamp = Timestamp::constant(1_768_478_400, 0);
pub(super) const DAY: SignedDuration = SignedDuration::from_hours(24);
pub(super) const INTERVAL: SignedDuration = SignedDuration::from_mins(15);
pub(super) const RUNS_PER_DAY: usize = 96;

/// The part of the fleet that a run sees.
#[derive(Clone, Debug, Default)]
pub(super) struct Sight {
    /// Devices without their Falcon host.
    pub(super) hostless: BTreeSet<usize>,
    /// Devices that the tailnet does not list.
    pub(super) unlisted: BTreeSet<usize>,
    /// No score of the account is valid.
    pub(super) is_invalid: bool,
    /// The account has no host at all.
    pub(super) is_empty: bool,
}

/// A removal from the tailnet that no person let pass.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loss {
    pub(super) at: Timestamp,
    pub(super) device: usize,
}

pub(super) struct Model {
    pub(super) size: usize,
    pub(super) now: Timestamp,
    pub(super) max: MaxRemovals,
    pub(super) remove_after: SignedDuration,
    pub(super) records: NodeRecords,
    /// The devices that hold an attribute in the tailnet.
    pub(super) holders: BTreeSet<usize>,
    /// The removals that the audit trail tells.
    pub(super) audit: Vec<(Timestamp, NodeId)>,
    /// The changes that a run made and did not record.
    pub(super) unrecorded: Vec<Change>,
    pub(super) losses: Vec<Loss>,
    /// The times of the runs that found a device absent, without a break, by device.
    pub(super) absent_runs: BTreeMap<usize, Vec<Timestamp>>,
}

pub(super) fn node(device: usize) -> NodeId {
    NodeId(format!("n{device:03}").into())
}

pub(super) fn number(node: &NodeId) -> usize {
    node.0[1..].parse().unwrap()
}

pub(super) fn score(device: usize) -> Score {
    Score::new(30 + i64::try_from(device % 70).unwrap()).unwrap()
}

impl Model {
    /// A fleet whose devices all hold their score.
    pub(super) fn synced(size: usize, max: MaxRemovals, remove_after: SignedDuration) -> Self {
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

    pub(super) fn falcon(&self, sight: &Sight) -> FalconInventory {
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

    pub(super) fn devices(&self, sight: &Sight) -> Devices {
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
    pub(super) fn run(&mut self, sight: &Sight, allowed: usize, dies: bool) -> GuardedPlan {
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

    pub(super) fn record(&mut self, change: &Change) {
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
    pub(super) fn note_absences(&mut self, sight: &Sight, devices: &Devices) {
        for n in (0..self.size).filter(|n| devices.contains_key(&node(*n))) {
            if sight.hostless.contains(&n) || sight.is_empty || sight.is_invalid {
                self.absent_runs.entry(n).or_default().push(self.now);
            } else {
                self.absent_runs.remove(&n);
            }
        }
    }

    /// Checks the laws about the losses of this run. `before` are the devices that held an attribute when it began.
    pub(super) fn check_laws(&self, before: &BTreeSet<usize>) {
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
