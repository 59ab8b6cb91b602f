//! Random cases: a world and some steps, each with changes of the world and a run with faults.

use posture_simulators::{Effect, GeneratorSpec};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::faults::CALL_SITES;
use crate::faults::call_sites::CallSite;
use crate::faults::fault_proxy::Fault;
use crate::faults::kinds::Kind;

/// A case.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    pub(super) world: GeneratorSpec,
    pub(super) steps: Vec<Step>,
}

/// Some changes of the world, and a run.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) moves: Vec<Move>,
    pub(super) faults: Vec<Fault>,
    /// Time that passes before the run.
    pub(super) minutes: u64,
    /// The arrival of requests that an earlier run sent and that are still on their way.
    pub(super) arrival: Arrival,
    pub(super) forced: bool,
    pub(super) cold: bool,
}

/// When requests that are still on their way take effect.
#[derive(Clone, Copy, Debug)]
pub(super) enum Arrival {
    Before,
    /// Before this request of the run to Tailscale.
    During(usize),
    Later,
    Never,
}

/// A change of the world. A number selects a host or device.
#[derive(Clone, Copy, Debug)]
pub(super) enum Move {
    Score(usize, u8),
    Unscore(usize),
    Hide(usize),
    RemoveHost(usize),
    /// Puts all removed hosts back.
    RestoreHosts,
    RemoveDevice(usize),
    /// Puts the removed machines back, as new nodes.
    RestoreDevices,
    ForgetIdentity(usize),
    /// Sets `onMissing`: keep or delete.
    Keep(bool),
    /// Another `attributeKey`, or the first one.
    Key(bool),
}

pub(super) fn schedule() -> impl Strategy<Value = Schedule> {
    // Mostly few: bugs that many steps find, few steps usually find, too.
    let steps = prop_oneof![2 => vec(step(), 1..=2), 1 => vec(step(), 3..=4)];
    (world(), steps).prop_map(|(world, steps)| Schedule { world, steps })
}

/// The share of hosts or devices with a special case: mostly none.
fn share() -> impl Strategy<Value = f64> {
    prop_oneof![2 => Just(0.0), 1 => Just(0.2), 1 => Just(0.5)]
}

fn world() -> impl Strategy<Value = GeneratorSpec> {
    (
        (0..1000_u64, 3..=12_usize, 0..=4_usize),
        (share(), share(), share(), share()),
        (share(), share(), share(), share()),
    )
        .prop_map(
            |((seed, devices, more_hosts), (one, two, three, four), (five, six, seven, eight))| {
                GeneratorSpec {
                    seed,
                    duplicate_serial: one,
                    multi_serial: two,
                    placeholder_serial: three,
                    unassessed: four,
                    no_identity: five,
                    external: six,
                    several_nodes: seven,
                    odd_spelling: eight,
                    ..GeneratorSpec::plain(devices + more_hosts, devices)
                }
            },
        )
}

fn step() -> impl Strategy<Value = Step> {
    (
        vec(a_move(), 0..5),
        vec(fault(), 0..=3),
        // Scores are renewed after 42 hours, and end after a week.
        prop_oneof![6 => Just(0), 2 => 1..20_u64, 2 => 20..4000_u64, 1 => 4000..15_000_u64],
        arrival(),
        prop::bool::weighted(0.3),
        prop::bool::weighted(0.2),
    )
        .prop_map(|(moves, faults, minutes, arrival, forced, cold)| Step {
            moves,
            faults,
            minutes,
            arrival,
            forced,
            cold,
        })
}

fn arrival() -> impl Strategy<Value = Arrival> {
    prop_oneof![
        2 => Just(Arrival::Before),
        3 => (0..6_usize).prop_map(Arrival::During),
        3 => Just(Arrival::Later),
        1 => Just(Arrival::Never),
    ]
}

fn a_move() -> impl Strategy<Value = Move> {
    let one = 0..16_usize;
    prop_oneof![
        8 => (one.clone(), 0..=100_u8).prop_map(|(host, score)| Move::Score(host, score)),
        2 => one.clone().prop_map(Move::Unscore),
        1 => one.clone().prop_map(Move::Hide),
        2 => one.clone().prop_map(Move::RemoveHost),
        2 => Just(Move::RestoreHosts),
        2 => one.clone().prop_map(Move::RemoveDevice),
        2 => Just(Move::RestoreDevices),
        1 => one.prop_map(Move::ForgetIdentity),
        1 => any::<bool>().prop_map(Move::Keep),
        1 => any::<bool>().prop_map(Move::Key),
    ]
}

fn fault() -> impl Strategy<Value = Fault> {
    (
        call_site(),
        kind(),
        0..3_usize,
        option::weighted(0.6, 1..=6_usize),
        prop_oneof![
            2 => Just(Effect::Never),
            2 => Just(Effect::Now),
            2 => Just(Effect::Late),
            1 => Just(Effect::Twice),
        ],
    )
        .prop_map(|(call_site, kind, after, times, effect)| Fault {
            call_site,
            kind,
            after,
            // Each stall takes the full timeout.
            times: if kind == Kind::Stall { Some(1) } else { times },
            effect,
        })
}

/// Chooses writes more often than reads.
fn call_site() -> impl Strategy<Value = CallSite> {
    let is_write = |call_site: &CallSite| {
        matches!(
            call_site,
            CallSite::Pending
                | CallSite::Patch(_)
                | CallSite::Record(_)
                | CallSite::Forget
                | CallSite::Finish
                | CallSite::StrikeOut
        )
    };
    // A run of `corp` alone puts no event.
    let of_a_run = CALL_SITES
        .into_iter()
        .filter(|call_site| !matches!(call_site, CallSite::Requests | CallSite::Announcement));
    let (writes, others): (Vec<CallSite>, Vec<CallSite>) = of_a_run.partition(is_write);
    prop_oneof![
        4 => prop::sample::select(writes),
        4 => prop::sample::select(others),
        // A write that comes late needs a later run, too.
        1 => (1..=2_usize).prop_map(CallSite::Patch),
    ]
}

fn kind() -> impl Strategy<Value = Kind> {
    let all = Kind::ALL.into_iter().filter(|kind| *kind != Kind::Stall);
    prop_oneof![
        30 => prop::sample::select(all.collect::<Vec<_>>()),
        1 => Just(Kind::Stall),
    ]
}
