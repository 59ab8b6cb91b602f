//! The effect of each move on the simulators.

use jiff::{SignedDuration, Timestamp};
use posture_simulators::{Device, Host, PostureIdentity};
use serde_json::{Value, json};

use super::moves::Move;
use super::stage::{Stage, aid, serial};
use crate::environment::TAILNET;

const STATUSES: [&str; 4] = [
    "contained",
    "containment_pending",
    "lift_containment_pending",
    "Contained",
];

impl Stage {
    pub(super) fn change(&mut self, change: Move) {
        match change {
            Move::Silence(_) | Move::Report(_) | Move::SilenceAll(_) | Move::ReturnHosts => {
                self.change_sensors(change);
            }
            Move::Away(_)
            | Move::Disconnect(_)
            | Move::Back(_)
            | Move::Connect(_)
            | Move::Leave(_)
            | Move::Join(..)
            | Move::Reinstall(_)
            | Move::Multiple(..)
            | Move::ForgetIdentity(..)
            | Move::Serials(..)
            | Move::Os(..)
            | Move::External(_) => self.change_node(change),
            _ => self.change_host(change),
        }
    }

    fn change_sensors(&mut self, change: Move) {
        match change {
            Move::Silence(n) => {
                if let Some(host) = self.host(n) {
                    self.silent.insert(host.device_id);
                }
            }
            Move::Report(n) => {
                if let Some(host) = self.host(n) {
                    self.silent.remove(&host.device_id);
                }
            }
            Move::SilenceAll(true) => {
                let hosts = self.env.sims.falcon().hosts("corp").unwrap();
                let ids = hosts.into_iter().map(|host| host.device_id);
                self.silent.extend(ids.filter(|id| *id >= aid(3)));
            }
            Move::SilenceAll(false) => self.silent.clear(),
            _ => {
                let gone: Vec<Host> = self.gone.drain(..).collect();
                for host in gone {
                    self.put_host(host);
                }
            }
        }
    }

    fn change_host(&mut self, change: Move) {
        let falcon = self.env.sims.falcon().clone();
        let (Move::Score(n, _)
        | Move::OddScore(n, _)
        | Move::Unscore(n)
        | Move::Hide(n)
        | Move::RemoveHost(n)
        | Move::Reimage(n, _)
        | Move::Clone(n, _)
        | Move::Rename(n, _)
        | Move::Contain(n, _)
        | Move::Lift(n)
        | Move::ForgetTime(n)
        | Move::Platform(n, _)
        | Move::HostSerial(n, _)) = change
        else {
            unreachable!("a move of a host");
        };
        let Some(mut host) = self.host(n) else {
            return;
        };
        let id = host.device_id.clone();
        match change {
            Move::Score(_, score) => falcon.set_score("corp", &id, score).unwrap(),
            Move::OddScore(_, kind) => {
                let score = [
                    json!(71.0),
                    json!("80"),
                    json!(101),
                    json!(55.5),
                    Value::Null,
                ];
                let score = score[kind % score.len()].clone();
                falcon.set_score("corp", &id, score).unwrap();
            }
            Move::Unscore(_) => drop(falcon.remove_score("corp", &id).unwrap()),
            Move::Hide(_) => {
                falcon.hide_host("corp", &id).unwrap();
                self.gone.push(host);
            }
            Move::RemoveHost(_) => self.gone.extend(falcon.remove_host("corp", &id).unwrap()),
            Move::Reimage(_, score) => {
                self.silent.insert(id);
                host.first_seen = Some(self.installation().to_string());
                host.last_seen.clone_from(&host.first_seen);
                self.put_new_host(host, score);
            }
            Move::Clone(_, score) => {
                let installed = self.installation() - SignedDuration::from_hours(10 * 24);
                host.first_seen = Some(installed.to_string());
                host.last_seen = Some(self.now().to_string());
                host.hostname = host.hostname.map(|name| format!("{name}-clone"));
                self.put_new_host(host, score);
            }
            Move::Rename(_, kind) => {
                let names = [
                    format!("machine-{}", 3 + kind % 5),
                    format!("Machine-{}.example.com", 3 + kind % 5),
                    "renamed".to_owned(),
                ];
                host.hostname = Some(names[kind % names.len()].clone());
                self.put_host(host);
            }
            Move::Contain(_, kind) => {
                host.status = Some(STATUSES[kind % STATUSES.len()].to_owned());
                self.put_host(host);
            }
            Move::Lift(_) => {
                host.status = None;
                self.put_host(host);
            }
            Move::ForgetTime(_) => {
                self.silent.insert(id);
                host.last_seen = None;
                self.put_host(host);
            }
            Move::Platform(_, kind) => {
                let names = [
                    Some("Mac"),
                    Some("Windows"),
                    Some("Linux"),
                    Some("ChromeOS"),
                    None,
                ];
                host.platform_name = names[kind % names.len()].map(str::to_owned);
                self.put_host(host);
            }
            Move::HostSerial(_, other) => {
                host.serial_number = Some(respelled(&serial(3 + other % 10), other));
                self.put_host(host);
            }
            _ => unreachable!("a move of a host"),
        }
    }

    fn change_node(&mut self, change: Move) {
        let (Move::Away(n)
        | Move::Disconnect(n)
        | Move::Back(n)
        | Move::Connect(n)
        | Move::Leave(n)
        | Move::Join(n, _)
        | Move::Reinstall(n)
        | Move::Multiple(n, _)
        | Move::ForgetIdentity(n, _)
        | Move::Serials(n, _)
        | Move::Os(n, _)
        | Move::External(n)) = change
        else {
            unreachable!("a move of a node");
        };
        let Some(mut device) = self.device(n) else {
            return;
        };
        match change {
            Move::Away(_) | Move::Disconnect(_) => {
                self.disconnect(&mut device);
                if let (Move::Away(_), Some(aid)) = (change, self.sensor_of(&device)) {
                    self.silent.insert(aid);
                }
            }
            Move::Back(_) | Move::Connect(_) => {
                device.connected_to_control = true;
                device.last_seen = None;
                if let (Move::Back(_), Some(aid)) = (change, self.sensor_of(&device)) {
                    self.silent.remove(&aid);
                }
            }
            Move::Leave(_) => {
                if !self.has_left {
                    let tailscale = self.env.sims.tailscale();
                    tailscale.remove_device(TAILNET, &device.node_id).unwrap();
                    self.has_left = true;
                }
                return;
            }
            Move::Join(_, kind) => {
                device = self.new_node(&device);
                if kind % 3 > 0 {
                    device.hostname = format!("machine-{}", 3 + kind);
                }
                device.connected_to_control = true;
                device.last_seen = None;
                device.multiple_connections = false;
            }
            Move::Reinstall(_) => {
                let node = self.new_node(&device);
                self.disconnect(&mut device);
                self.put_device(node);
            }
            Move::Multiple(_, on) => device.multiple_connections = on,
            Move::ForgetIdentity(_, kind) => {
                let identities = [
                    None,
                    Some(PostureIdentity::disabled()),
                    Some(PostureIdentity::serials([""; 0])),
                ];
                device
                    .posture_identity
                    .clone_from(&identities[kind % identities.len()]);
            }
            Move::Serials(_, kind) => {
                let mut serials = vec![serial(3 + kind % 6)];
                if kind > 8 {
                    serials.extend(device.serials().iter().cloned());
                }
                if kind > 16 {
                    serials.insert(0, serial(kind));
                }
                let serials = serials.iter().map(|serial| respelled(serial, kind));
                device.posture_identity =
                    Some(PostureIdentity::serials(serials.collect::<Vec<_>>()));
            }
            Move::Os(_, kind) => {
                let names = ["macOS", "windows", "linux", "iOS", ""];
                names[kind % names.len()].clone_into(&mut device.os);
            }
            Move::External(_) => {
                device = self.new_node(&device);
                device.is_external = true;
            }
            _ => unreachable!("a move of a node"),
        }
        self.put_device(device);
    }

    fn disconnect(&self, device: &mut Device) {
        if device.connected_to_control {
            device.connected_to_control = false;
            device.last_seen = Some(self.now().to_string());
        }
    }

    /// A host that something may happen to.
    fn host(&self, n: usize) -> Option<Host> {
        let quiet = aid(3);
        let mut hosts = self.env.sims.falcon().hosts("corp").unwrap();
        hosts.retain(|host| host.device_id >= quiet);
        (!hosts.is_empty()).then(|| hosts.swap_remove(n % hosts.len()))
    }

    /// A node that something may happen to.
    fn device(&self, n: usize) -> Option<Device> {
        let mut devices = self.env.sims.tailscale().devices(TAILNET).unwrap();
        devices.retain(|device| device.node_id.as_str() >= "n0003");
        (!devices.is_empty()).then(|| devices.swap_remove(n % devices.len()))
    }

    /// The sensor with the serial of a node.
    fn sensor_of(&self, device: &Device) -> Option<String> {
        let hosts = self.env.sims.falcon().hosts("corp").unwrap();
        let mut hosts = hosts.into_iter().filter(|host| {
            let serial = host.serial_number.as_ref();
            serial.is_some_and(|serial| device.serials().contains(serial))
        });
        hosts.next_back().map(|host| host.device_id)
    }

    fn put_host(&self, host: Host) {
        self.env.sims.falcon().put_host("corp", host).unwrap();
    }

    fn put_new_host(&mut self, host: Host, score: u8) {
        self.arrivals += 1;
        let device_id = aid(100 + self.arrivals);
        self.env
            .sims
            .falcon()
            .set_score("corp", &device_id, score)
            .unwrap();
        self.put_host(Host {
            device_id,
            status: None,
            ..host
        });
    }

    /// A time within the last minute that no other host has: after the last report of all others.
    fn installation(&self) -> Timestamp {
        let ago = 50 - i64::try_from(self.arrivals % 50).unwrap();
        self.now() - SignedDuration::from_secs(ago)
    }

    fn put_device(&self, device: Device) {
        self.env
            .sims
            .tailscale()
            .put_device(TAILNET, device)
            .unwrap();
    }

    /// Another node like this one. Ids of nodes are never reused.
    fn new_node(&mut self, like: &Device) -> Device {
        self.arrivals += 1;
        let node = format!("n{:04}CNTRL", 100 + self.arrivals);
        Device {
            os: like.os.clone(),
            posture_identity: like.posture_identity.clone(),
            connected_to_control: like.connected_to_control,
            last_seen: like.last_seen.clone(),
            ..Device::new(&node, &like.hostname, [""; 0])
        }
    }
}

/// A serial in the spelling of some firmware.
fn respelled(serial: &str, n: usize) -> String {
    match n % 4 {
        0 => serial.to_lowercase(),
        1 => format!(" {serial} "),
        _ => serial.to_owned(),
    }
}
