//! The Tailscale side of a data set.

use super::rng::{SeededRng, rounded_share};
use super::{DAY_S, GeneratorSpec, Machine, Node};
use crate::tailscale::{Device, PostureIdentity};

/// Kind of a node.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    External,
    NoIdentity,
    Disabled,
    Unmatched,
    Matched,
    /// Reports the serial of an earlier matched node: the old node of a reinstalled client, which stays offline.
    Repeated,
}

/// Assigns the exact number of each role in random order.
fn shuffled_roles(spec: &GeneratorSpec, rng: &mut SeededRng) -> Vec<Role> {
    let of_all = |fraction| rounded_share(spec.devices, fraction);
    let mut roles = vec![Role::External; of_all(spec.external)];
    roles.resize(
        (roles.len() + of_all(spec.no_identity)).min(spec.devices),
        Role::NoIdentity,
    );
    roles.resize(
        (roles.len() + of_all(spec.disabled_identity)).min(spec.devices),
        Role::Disabled,
    );
    let with_serials = spec.devices - roles.len();
    let matched = rounded_share(with_serials, spec.overlap);
    roles.resize(
        roles.len() + rounded_share(matched, spec.several_nodes),
        Role::Repeated,
    );
    roles.resize(
        roles.len() + matched - rounded_share(matched, spec.several_nodes),
        Role::Matched,
    );
    roles.resize(spec.devices, Role::Unmatched);
    let order = rng.shuffled(roles.len());
    order
        .into_iter()
        .filter_map(|index| roles.get(index).copied())
        .collect()
}

pub(super) fn devices(
    spec: &GeneratorSpec,
    machines: &[Machine],
    rng: &mut SeededRng,
) -> Vec<Node> {
    let known: Vec<(usize, &Machine)> = machines
        .iter()
        .enumerate()
        .filter(|(_, machine)| machine.serial.is_some())
        .collect();
    let order = rng.shuffled(known.len());
    // more nodes than machines: the list of machines repeats
    let mut fresh = order
        .iter()
        .cycle()
        .filter_map(|index| known.get(*index).copied());
    let mut used: Vec<(usize, &Machine)> = Vec::new();
    let shuffled_roles = shuffled_roles(spec, rng);
    let mut devices = Vec::with_capacity(shuffled_roles.len());
    for (number, role) in shuffled_roles.into_iter().enumerate() {
        let machine = match role {
            Role::Matched => fresh.next(),
            Role::Repeated => rng.choice(&used).copied().or_else(|| fresh.next()),
            Role::External if number % 2 == 0 => rng.choice(&known).copied(),
            Role::External | Role::NoIdentity | Role::Disabled | Role::Unmatched => None,
        };
        used.extend(machine.filter(|_| role == Role::Matched));
        let (index, machine) = machine.unzip();
        devices.push(Node {
            machine: index,
            device: device(spec, rng, number, role, machine),
        });
    }
    devices
}

fn device(
    spec: &GeneratorSpec,
    rng: &mut SeededRng,
    number: usize,
    role: Role,
    machine: Option<&Machine>,
) -> Device {
    let own = rng.letters(10);
    let serial = match machine.and_then(|machine| machine.serial.as_deref()) {
        Some(serial) => rng.respell(spec, serial),
        None if rng.chance(spec.placeholder_serial) => rng.placeholder(),
        None => format!("TS{number:06}{own}"),
    };
    let mut serials = vec![serial];
    if rng.chance(spec.multi_serial) {
        // baseboard and chassis: the latter is often a placeholder or repeats the product's serial
        serials.push(format!(".{}.CN{}.", rng.letters(7), rng.letters(9)));
        let chassis = if rng.chance(0.5) {
            rng.placeholder()
        } else {
            serials.first().cloned().unwrap_or_default()
        };
        serials.push(chassis);
    }
    let hostname = machine.map_or_else(
        || format!("node-{number:06}"),
        |machine| machine.hostname.clone(),
    );
    let mut device = Device::new(
        &format!("n{number:06}{}CNTRL", rng.letters(6)),
        &hostname,
        serials,
    );
    device.id = format!(
        "{}",
        10_000_000_000_000_u64 + 7919 * u64::try_from(number).unwrap_or(0)
    );
    device.name = format!("{hostname}-{number}.tail0sim.ts.net");
    device.user = format!("user{:04}@example.com", rng.below(2000));
    let os = match machine.map(|machine| machine.platform) {
        Some("Windows") => "windows",
        Some("Linux") => "linux",
        Some(_) => "macOS",
        None => ["iOS", "linux", "windows", "macOS"]
            .get(rng.index(4))
            .copied()
            .unwrap_or("linux"),
    };
    os.clone_into(&mut device.os);
    device.created = rng.time_ago(spec, 30 * DAY_S, 700 * DAY_S);
    device.connected_to_control = rng.chance(0.7) && role != Role::Repeated;
    device.last_seen = (!device.connected_to_control).then(|| rng.time_ago(spec, 600, 20 * DAY_S));
    device.is_external = role == Role::External;
    match role {
        Role::NoIdentity => device.posture_identity = None,
        Role::External if machine.is_none() => device.posture_identity = None,
        Role::Disabled => device.posture_identity = Some(PostureIdentity::disabled()),
        Role::External | Role::Unmatched | Role::Matched | Role::Repeated => {}
    }
    device
}
