//! Properties of `domain`, over random small worlds with few serials, so that most of them collide.

mod world;

use std::collections::{BTreeMap, BTreeSet};

use falcon_posture_sync::domain::inventory::device::{Device, Identity, NodeId, Presence};
use falcon_posture_sync::domain::inventory::host::{Assessment, FalconInventory, Host, Score};
use falcon_posture_sync::domain::inventory::record::Absence;
use falcon_posture_sync::domain::inventory::record::NodeRecords;
use falcon_posture_sync::domain::inventory::serial::Serial;
use falcon_posture_sync::domain::matching::{MatchOutcome, join};
use falcon_posture_sync::domain::plan::confirm::{Lookups, Unconfirmed, find_unconfirmed};
use falcon_posture_sync::domain::plan::guard::{GuardInputs, find_suspicion, guard};
use falcon_posture_sync::domain::plan::journal::{JournalEntry, WriteOutcome, write_outcome};
use falcon_posture_sync::domain::plan::{Change, Plan};
use falcon_posture_sync::settings::{MaxRemovals, OnContained, OnMissing, OnSharedSerial};
use jiff::SignedDuration;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

use world::*;

/// Failed cases are stored next to this file, and tried first.
fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::with_cases(512)
    }
}

proptest! {
    #![proptest_config(config())]

    /// Every device has exactly one outcome, and the counts are those of the outcomes.
    #[test]
    fn each_device_has_one_outcome(account in account(), devices in devices(), records in records(), rules in rules()) {
        let joined = join(&account, &devices, &records, &rules);
        prop_assert!(joined.outcomes.keys().eq(devices.keys()));
        let matched = joined.outcomes.values().filter(|outcome| outcome.has_host()).count();
        prop_assert_eq!(joined.counts.matched, matched);
        prop_assert!(joined.counts.matched <= joined.counts.possible_matched);
        prop_assert!(joined.counts.possible_matched <= devices.len());
    }

    /// The order in which pages and devices come does not matter.
    #[test]
    fn order_does_not_matter(
        account in account(), devices in devices(), records in records(), rotation in 0..8_usize, rules in rules(),
    ) {
        let mut hosts: Vec<Host> = account.hosts.values().cloned().collect();
        hosts.reverse();
        let middle = rotation.min(hosts.len());
        hosts.rotate_left(middle);
        let mut other = FalconInventory::default();
        for host in hosts {
            other.extend([(host.aid.clone(), host)].into(), BTreeMap::new());
        }
        for (aid, score) in account.scores.iter().rev() {
            other.extend(BTreeMap::new(), BTreeMap::from([(aid.clone(), score.clone())]));
        }
        // Neither does the order in which a device reports its serials.
        let mut mirrored = devices.clone();
        for device in mirrored.values_mut() {
            if let Identity::Serials(serials) = &mut device.identity {
                serials.reverse();
            }
        }
        let one = planned(&join(&account, &devices, &records, &rules), &devices, &records, OnMissing::Delete);
        let two = planned(&join(&other, &mirrored, &records, &rules), &mirrored, &records, OnMissing::Delete);
        prop_assert_eq!(one.to_string(), two.to_string());
    }

    /// The score of a device is at most that of each live host that has a serial of its own, is of its platform, and is
    /// within the limits.
    #[test]
    fn nobody_gets_more_than_the_lowest_claimant(
        account in account(), devices in devices(), records in records(), rules in rules(),
    ) {
        let joined = join(&account, &devices, &records, &rules);
        for (node, outcome) in &joined.outcomes {
            let MatchOutcome::Scored(evidence) = outcome else { continue };
            let device = &devices[node];
            prop_assert!(matches!(device.identity, Identity::Serials(_)), "a score without serials");
            for serial in device.serials(&rules.ignored_serials) {
                let reporting = devices.values().filter(|other| {
                    let Identity::Serials(texts) = &other.identity else { return false };
                    !other.is_external && texts.iter().any(|text| Serial::parse(text).as_ref() == Ok(&serial))
                });
                let hosts = account.hosts.values().filter(|host| host.serial.as_ref() == Some(&serial));
                let names: BTreeSet<_> = hosts.clone().filter_map(|host| host.hostname.clone()).collect();
                let is_shared = names.len() > 1
                    || reporting.clone().any(|one| one.has_multiple_connections)
                    || reporting.filter(|one| one.is_connected()).count() > 1;
                if is_shared && rules.on_shared_serial == OnSharedSerial::Withhold {
                    continue;
                }
                let newest = hosts.clone().filter_map(|host| host.last_seen).max();
                let restart = hosts.clone().filter_map(|host| host.first_seen).max();
                for host in hosts {
                    let age = host.last_seen.zip(newest).map(|(seen, newest)| newest.duration_since(seen));
                    let is_live = age.is_none_or(|age| age <= SignedDuration::from_hours(24))
                        && (host.last_seen.is_none() || restart <= host.last_seen);
                    let within = |hours: i64| host.last_seen >= Some(NOW - SignedDuration::from_hours(hours));
                    let counts = is_live
                        && host.platform.may_be(device.platform())
                        && rules.max_age_days.is_none_or(|days| within(24 * i64::from(days)))
                        && (!device.is_connected() || rules.max_silence_hours.is_none_or(|hours| within(i64::from(hours))));
                    if let (true, Some(Assessment::Score(score))) = (counts, account.scores.get(&host.aid)) {
                        prop_assert!(evidence.score <= *score, "{node} has {evidence:?}, {host:?} has {score}");
                    }
                }
            }
        }
    }

    /// A score comes from a host that has it, and the device has that host's serial and platform. It rises, or is the first
    /// one, only if the host was seen at most a day before the device was.
    #[test]
    fn a_score_is_nobodys_invention(account in account(), devices in devices(), records in records(), rules in rules()) {
        let joined = join(&account, &devices, &records, &rules);
        for (node, outcome) in &joined.outcomes {
            let MatchOutcome::Scored(evidence) = outcome else { continue };
            let (host, device) = (&account.hosts[&evidence.aid], &devices[node]);
            match (evidence.unwitnessed, &account.scores[&evidence.aid]) {
                (None, Assessment::Score(score)) => prop_assert_eq!(evidence.score, *score),
                (Some(unwitnessed), Assessment::Score(score)) => {
                    prop_assert_eq!(unwitnessed, *score);
                    prop_assert!(unwitnessed > evidence.score);
                    prop_assert_eq!(evidence.score, records[node].score);
                }
                (_, Assessment::Invalid(text)) => panic!("a score from {text}"),
            }
            prop_assert_eq!(host.serial.as_ref(), Some(&evidence.serial));
            prop_assert!(!device.is_external);
            prop_assert!(host.platform.may_be(device.platform()));
            prop_assert!(!host.is_contained || rules.on_contained == OnContained::Ignore);
            let oldest = rules.max_age_days.map(|days| NOW - SignedDuration::from_hours(24 * i64::from(days)));
            prop_assert!(oldest.is_none_or(|oldest| host.last_seen >= Some(oldest)));
        }
        for change in planned(&joined, &devices, &records, OnMissing::Delete).changes {
            let Some(new) = change.new.as_ref().filter(|_| change.raises()) else { continue };
            let device = &devices[&change.node_id];
            let device_seen = match device.presence {
                Presence::Away { last_seen: Some(seen) } => seen,
                _ => NOW,
            };
            let earliest = device_seen - SignedDuration::from_hours(24);
            prop_assert!(account.hosts[&new.aid].last_seen >= Some(earliest), "{change}");
        }
    }

    /// A device that joins with the serial of a connected one gets no score by it.
    #[test]
    fn who_joins_later_gets_nothing(
        account in account(), devices in devices(), records in records(), rules in rules(), hostname in "[pqr]",
    ) {
        prop_assume!(rules.on_shared_serial == OnSharedSerial::Withhold);
        let before = join(&account, &devices, &records, &rules);
        for (node, outcome) in &before.outcomes {
            let MatchOutcome::Scored(evidence) = outcome else { continue };
            let owner = &devices[node];
            let others = records.iter().any(|(other, record)| other != node && record.serial == evidence.serial.as_str());
            let is_known = records.get(node).is_some_and(|record| record.serial == evidence.serial.as_str());
            if !owner.is_connected() || !is_known || others {
                continue;
            }
            let thief = Device {
                node_id: NodeId("nThief".into()),
                hostname: hostname.as_str().into(),
                identity: Identity::Serials([evidence.serial.as_str().into()].into_iter().collect()),
                is_external: false,
                ..owner.clone()
            };
            let mut joined = devices.clone();
            joined.insert(thief.node_id.clone(), thief.clone());
            let after = join(&account, &joined, &records, &rules);
            prop_assert!(!matches!(after.outcomes[&thief.node_id], MatchOutcome::Scored(_)));
        }
    }

    /// After a plan is applied, the next plan is empty. Where the records of several devices named a shared serial and none
    /// of them may have it, the names of the hosts decide anew, once.
    #[test]
    fn a_plan_carried_out_leaves_nothing(
        account in account(), devices in devices(), records in records(), on_missing in on_missing(), rules in rules(),
    ) {
        let mut records = records;
        let plan_now = |records: &NodeRecords| {
            planned(&join(&account, &devices, records, &rules), &devices, records, on_missing)
        };
        for _ in 0..2 {
            records = applied(&plan_now(&records), &records);
        }
        let last = plan_now(&records);
        prop_assert!(last.is_empty(), "{last}");
    }

    /// After a plan is applied, each device has the score that it should have, and nothing else.
    #[test]
    fn what_is_written_is_what_is_deserved(account in account(), devices in devices(), records in records(), rules in rules()) {
        let joined = join(&account, &devices, &records, &rules);
        let plan = planned(&joined, &devices, &records, OnMissing::Delete);
        let written: BTreeMap<NodeId, Score> =
            applied(&plan, &records).into_iter().map(|(node, written)| (node, written.score)).collect();
        let deserved: BTreeMap<NodeId, Score> = joined
            .outcomes
            .into_iter()
            .filter_map(|(node, outcome)| match outcome {
                MatchOutcome::Scored(evidence) => Some((node, evidence.score)),
                _ => None,
            })
            .collect();
        prop_assert_eq!(written, deserved);
    }

    /// A run can die at any point: whichever writes were accepted, and whichever of these were recorded, recovery makes the
    /// records agree with the devices.
    #[test]
    fn what_was_left_open_is_settled(
        account in account(), devices in devices(), records in records(), on_missing in on_missing(),
        rules in rules(), fates in vec(0..3_u8, 8),
    ) {
        let joined = join(&account, &devices, &records, &rules);
        let meant = planned(&joined, &devices, &records, on_missing);
        let writes = [meant.changes, meant.renewals].concat();
        let part = |least: u8| Plan {
            changes: writes.iter().zip(&fates).filter(|(_, fate)| **fate >= least).map(|(c, _)| c.clone()).collect(),
            ..Plan::default()
        };
        let tailnet = applied(&part(1), &records);
        let recorded = applied(&part(2), &records);
        let open = JournalEntry::new("before", &writes, NOW).unrecorded(&recorded);
        let outcome = |change: &Change| write_outcome(change, Some(&attributes(&tailnet, &change.node_id)), NOW);
        prop_assert!(open.iter().all(|change| outcome(change) != WriteOutcome::Unknown), "nobody else writes");
        let changes = open.into_iter().filter(|change| outcome(change) == WriteOutcome::Made).collect();
        let settled = applied(&Plan { changes, ..Plan::default() }, &recorded);
        prop_assert_eq!(values(&settled), values(&tailnet));
    }

    /// The guard changes no write. It holds the removals of an implausible observation, those beyond the limit of a day, and
    /// those that it held before; a person lets as many pass as they say, the longest absent first.
    #[test]
    fn the_guard_holds_removals_only(
        account in account(), devices in devices(), records in records(), percent in 0..=100_u8, at_least in 0..4_u32,
        rules in rules(), allowed in 0..4_usize, on_missing in on_missing(), recent in vec("n[1-9]", 0..4),
        absences in btree_map("n[1-9]", (0..100_i64, prop::bool::ANY), 0..8),
    ) {
        let mut records = records;
        for (node, (minutes, is_held)) in absences {
            let since = NOW - SignedDuration::from_mins(minutes);
            let absence = Absence { since, held_since: is_held.then_some(since) };
            if let Some(record) = records.get_mut(&NodeId(node.into())) {
                record.absence = Some(absence);
            }
        }
        let recent: Vec<NodeId> = recent.into_iter().map(|node| NodeId(node.into())).collect();
        let joined = join(&account, &devices, &records, &rules);
        let before = planned(&joined, &devices, &records, on_missing);
        let suspicion = find_suspicion(&account, &devices, &records, &joined, on_missing);
        let inputs = GuardInputs {
            integration: &"corp".to_owned().try_into().unwrap(), now: NOW, suspicion: suspicion.as_deref(),
            records: &records, recent_removals: &recent, max: MaxRemovals { percent, at_least }, allowed,
        };
        let after = guard(before.clone(), Vec::new(), inputs);

        // The rules of the design, counted anew.
        let listed = records.keys().filter(|node| devices.contains_key(*node)).count();
        let with_host = records.keys().filter(|node| joined.outcomes.get(*node).is_some_and(MatchOutcome::has_host)).count();
        let no_valid_score = !account.scores.values().any(|one| matches!(one, Assessment::Score(_)));
        let none_with_host = records.len() > 1 && with_host == 0 && on_missing == OnMissing::Delete;
        let is_implausible = !records.is_empty()
            && (account.visible == 0 || no_valid_score || none_with_host || records.len() > 1 && listed < records.len() - listed);
        prop_assert_eq!(suspicion.is_some(), is_implausible);
        let due: Vec<&Change> = before.removals().collect();
        let gone: BTreeSet<&NodeId> = recent.iter().filter(|node| !records.contains_key(*node)).collect();
        let base = records.len() + gone.len();
        let removals = recent.len() + due.len();
        let concerned: BTreeSet<&NodeId> = recent.iter().chain(due.iter().map(|change| &change.node_id)).collect();
        let most = (base * usize::from(percent)).div_euclid(100).max(at_least as usize);
        let too_many = removals > most || concerned.len() > 1 && 2 * removals > base;
        let was_held = |change: &Change| change.old.as_ref().unwrap().absence.is_some_and(|absence| absence.held_since.is_some());
        let mut held: Vec<&Change> =
            due.iter().copied().filter(|change| is_implausible || too_many || was_held(change)).collect();
        let since = |change: &Change| change.old.as_ref().unwrap().absence.map_or(NOW, |absence| absence.since);
        held.sort_by_key(|change| (since(change), &change.node_id));
        let (passing, held) = held.split_at(allowed.min(held.len()));

        let still_held: Vec<&NodeId> = after.held.iter().flat_map(|held| &held.removals).map(|change| &change.node_id).collect();
        prop_assert_eq!(&still_held, &held.iter().map(|change| &change.node_id).collect::<Vec<_>>());
        let approved: BTreeSet<&NodeId> =
            after.plan.changes.iter().filter(|change| change.is_approved).map(|change| &change.node_id).collect();
        prop_assert_eq!(&approved, &passing.iter().map(|change| &change.node_id).collect());
        let kept: Vec<&NodeId> = after.plan.changes.iter().map(|change| &change.node_id).collect();
        let expected: Vec<&NodeId> =
            before.changes.iter().map(|change| &change.node_id).filter(|node| !still_held.contains(node)).collect();
        prop_assert_eq!(kept, expected);
        let departures = if is_implausible { before.departed.len().min(allowed - passing.len()) } else { before.departed.len() };
        prop_assert_eq!(after.plan.departed.len(), departures);
        let waits = !held.is_empty() || departures < before.departed.len();
        prop_assert_eq!(after.held.is_some(), waits || is_implausible && allowed == 0);
    }

    /// A removal because of a missing host, score or identity is always confirmed first, and so is a departure. Once
    /// everything is looked up, nothing is open.
    #[test]
    fn removals_for_want_of_something_are_doubted(account in account(), devices in devices(), records in records(), rules in rules()) {
        let joined = join(&account, &devices, &records, &rules);
        let plan = planned(&joined, &devices, &records, OnMissing::Delete);
        let unconfirmed = find_unconfirmed(&plan, &joined, &account, &devices, &rules.ignored_serials, &Lookups::default());
        for change in plan.removals() {
            let is_listed = account.hosts.contains_key(&records[&change.node_id].aid);
            let is_certain = match joined.outcomes[&change.node_id] {
                MatchOutcome::Contained { .. } | MatchOutcome::External => true,
                MatchOutcome::Stale { .. }
                | MatchOutcome::Silent { .. }
                | MatchOutcome::OtherPlatform { .. }
                | MatchOutcome::SharedSerial { .. } => is_listed,
                _ => false,
            };
            prop_assert_eq!(!unconfirmed.nodes.contains(&change.node_id), is_certain);
        }
        let certain = plan.clone().without_devices(&unconfirmed.nodes);
        prop_assert!(certain.departed.is_empty());
        let open = find_unconfirmed(&plan, &joined, &account, &devices, &rules.ignored_serials, &unconfirmed.lookups);
        prop_assert_eq!(open, Unconfirmed::default());
    }
}
