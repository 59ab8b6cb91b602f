//! Random cases: settings, some machines, and steps that change them.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

/// A case.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) settings: Value,
    pub(super) machines: Vec<Machine>,
    pub(super) steps: Vec<Step>,
}

/// A machine with a sensor and a node.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    pub(super) platform: usize,
    pub(super) score: u8,
    pub(super) is_connected: bool,
    /// The hours since its sensor and, if it is away, its node were last seen, if the sensor is silent.
    pub(super) silent_hours: Option<i64>,
}

/// Some changes, time that passes, and a run.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) moves: Vec<Move>,
    pub(super) minutes: u64,
}

/// A change of the world. The first number selects a host or a device, a second one a variant or another host.
#[derive(Clone, Copy, Debug)]
pub(super) enum Move {
    Score(usize, u8),
    /// A score that is none, or a whole number in another form.
    OddScore(usize, usize),
    Unscore(usize),
    Hide(usize),
    RemoveHost(usize),
    /// Puts all hidden and removed hosts back.
    ReturnHosts,
    /// Another sensor on the same machine; the old record stays.
    Reimage(usize, u8),
    /// Another machine with the serial of this one, and with a sensor.
    Clone(usize, u8),
    /// Another name, or the name of another machine.
    Rename(usize, usize),
    Contain(usize, usize),
    Lift(usize),
    Silence(usize),
    Report(usize),
    /// Falcon's clock stands still for all sensors but the quiet machines', or goes on.
    SilenceAll(bool),
    /// The record loses its time.
    ForgetTime(usize),
    Platform(usize, usize),
    /// The record gets another machine's serial, or a filler.
    HostSerial(usize, usize),
    /// The device goes offline, and so does its sensor.
    Away(usize),
    /// Only the node goes offline.
    Disconnect(usize),
    /// The device comes back, and so does its sensor.
    Back(usize),
    Connect(usize),
    Leave(usize),
    /// Another node with the serial of this one, with another name or the same.
    Join(usize, usize),
    /// The old node stays, offline.
    Reinstall(usize),
    Multiple(usize, bool),
    ForgetIdentity(usize, usize),
    /// The node reports other serials, or more.
    Serials(usize, usize),
    Os(usize, usize),
    /// A node of another tailnet with the serial of this one.
    External(usize),
}

pub(super) fn case() -> impl Strategy<Value = Case> {
    let steps = prop_oneof![2 => vec(step(), 1..=3), 1 => vec(step(), 4..=6)];
    (settings(), vec(machine(), 1..=5), steps).prop_map(|(settings, machines, steps)| Case {
        settings,
        machines,
        steps,
    })
}

fn settings() -> impl Strategy<Value = Value> {
    (
        prop_oneof![4 => Just(json!("withhold")), 1 => Just(json!("lowest"))],
        prop_oneof![4 => Just(json!("withhold")), 1 => Just(json!("ignore"))],
        prop_oneof![4 => Just(json!("delete")), 1 => Just(json!("keep"))],
        prop_oneof![4 => Just(json!(30)), 1 => Just(json!(3))],
        prop_oneof![4 => Just(json!(168)), 1 => Just(json!(48)), 1 => Just(Value::Null)],
        prop_oneof![Just(0), Just(25)],
        prop_oneof![3 => Just(json!([])), 1 => Just(json!(["TRAPS03*", "!SN-12345"]))],
        prop_oneof![3 => Just(168), 1 => Just(30), 1 => Just(8760)],
    )
        .prop_map(
            |(shared, contained, missing, age, silence, remove_after, ignored, ttl)| {
                json!({
                    "onSharedSerial": shared, "onContained": contained, "onMissing": missing,
                    "maxHostAgeDays": age, "maxSilenceHours": silence,
                    "removeAfterMinutes": remove_after, "ignoredSerials": ignored,
                    "scoreTtlHours": ttl,
                })
            },
        )
}

fn machine() -> impl Strategy<Value = Machine> {
    let hours = select(vec![2, 23, 25, 47, 60, 100, 170, 300, 725]);
    (
        0..3_usize,
        0..=100_u8,
        prop::bool::weighted(0.7),
        option::weighted(0.3, hours),
    )
        .prop_map(|(platform, score, is_connected, silent_hours)| Machine {
            platform,
            score,
            is_connected,
            silent_hours,
        })
}

fn step() -> impl Strategy<Value = Step> {
    const HOUR: u64 = 60;
    const DAY: u64 = 24 * HOUR;
    let minutes = prop_oneof![
        3 => select(vec![0, 5, 15, 30]),
        2 => select(vec![6 * HOUR, 20 * HOUR, 26 * HOUR]),
        1 => select(vec![3 * DAY, 8 * DAY, 35 * DAY]),
    ];
    (vec(a_move(), 0..5), minutes).prop_map(|(moves, minutes)| Step { moves, minutes })
}

fn a_move() -> impl Strategy<Value = Move> {
    let n = 0..24_usize;
    let on = |make: fn(usize) -> Move| (0..24_usize).prop_map(make);
    let two = |make: fn(usize, usize) -> Move| {
        (0..24_usize, 0..24_usize).prop_map(move |(one, two)| make(one, two))
    };
    let falcon = prop_oneof![
        3 => (n.clone(), 0..=100_u8).prop_map(|(n, score)| Move::Score(n, score)),
        1 => two(Move::OddScore),
        1 => on(Move::Unscore),
        2 => on(Move::Hide),
        1 => on(Move::RemoveHost),
        2 => Just(Move::ReturnHosts),
        2 => (n.clone(), 0..=100_u8).prop_map(|(n, score)| Move::Reimage(n, score)),
        2 => (n.clone(), 0..=100_u8).prop_map(|(n, score)| Move::Clone(n, score)),
        1 => two(Move::Rename),
        2 => two(Move::Contain),
        1 => on(Move::Lift),
        3 => on(Move::Silence),
        2 => on(Move::Report),
        2 => any::<bool>().prop_map(Move::SilenceAll),
        1 => on(Move::ForgetTime),
        1 => two(Move::Platform),
        2 => two(Move::HostSerial),
    ];
    let tailnet = prop_oneof![
        2 => on(Move::Away),
        1 => on(Move::Disconnect),
        2 => on(Move::Back),
        1 => on(Move::Connect),
        1 => on(Move::Leave),
        3 => two(Move::Join),
        2 => on(Move::Reinstall),
        1 => (n, any::<bool>()).prop_map(|(n, on)| Move::Multiple(n, on)),
        1 => two(Move::ForgetIdentity),
        2 => two(Move::Serials),
        1 => two(Move::Os),
        1 => on(Move::External),
    ];
    prop_oneof![4 => falcon, 3 => tailnet]
}
