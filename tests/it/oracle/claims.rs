//! Which host speaks for a device.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use posture_simulators::Device;

use super::hosts::{
    Claimant, claimant, device_platform, is_superseded, overlap, serials_of, short, time,
};
use super::{Reason, Record, Settings, World, has_no_identity, serials};

const DAY: SignedDuration = SignedDuration::from_hours(24);
/// All hosts and devices at one time, under these settings and records.
pub(super) struct Claims<'a> {
    settings: &'a Settings,
    records: &'a BTreeMap<String, Record>,
    now: Timestamp,
    /// The hosts of each serial.
    hosts: BTreeMap<String, Vec<Claimant>>,
    own: Vec<&'a Device>,
    /// The own devices that report each serial.
    reporting: BTreeMap<String, Vec<&'a Device>>,
    /// True if Falcon's clock is doubted instead of the sensors.
    doubts_silence: bool,
}

impl<'a> Claims<'a> {
    pub(super) fn new(
        settings: &'a Settings,
        records: &'a BTreeMap<String, Record>,
        world: &'a World,
    ) -> Self {
        let own = world.devices.iter().filter(|device| !device.is_external);
        let mut claims = Self {
            settings,
            records,
            now: world.now,
            hosts: BTreeMap::new(),
            own: own.collect(),
            reporting: BTreeMap::new(),
            doubts_silence: false,
        };
        for host in &world.hosts {
            if let Some(host) = claimant(settings, world, host) {
                let group = claims.hosts.entry(host.serial.clone()).or_default();
                group.push(host);
            }
        }
        for device in &claims.own {
            for serial in serials_of(settings, device) {
                claims.reporting.entry(serial).or_default().push(device);
            }
        }
        claims.doubts_silence = claims.is_silence_doubtful();
        claims
    }

    /// Three or more, and more than a fifth, of the connected devices that have a host are silent beyond the limit.
    ///
    /// A device has a host if one would speak for it but for its silence. Hosts that do not count for another reason (age,
    /// platform, sharing) say nothing about Falcon's clock: a fleet's dead records must not end the rule of silence for ever.
    fn is_silence_doubtful(&self) -> bool {
        let Some(limit) = self.settings.max_silence else {
            return false;
        };
        let connected = self.own.iter().filter(|device| device.connected_to_control);
        let hosts = connected.map(|device| {
            let mut speakers = self.speakers(device);
            speakers.retain(|host| !self.is_too_old(host));
            speakers
        });
        let with_host: Vec<Vec<&Claimant>> = hosts.filter(|hosts| !hosts.is_empty()).collect();
        let is_silent =
            |hosts: &&Vec<&Claimant>| hosts.iter().all(|host| self.is_silent(host, limit));
        let silent = with_host.iter().filter(is_silent).count();
        silent >= 3 && 5 * silent > with_host.len()
    }

    /// Rule 1: a host that was superseded is not live, and neither is one that was not seen within 24 h of the most recently
    /// seen one of its serial.
    fn is_live(&self, host: &Claimant) -> bool {
        let group = self.of_serial(&host.serial);
        if is_superseded(host, group) {
            return false;
        }
        let others = group.iter().filter(|other| !is_superseded(other, group));
        let newest = others.filter_map(|other| other.last_seen).max();
        // A host without a time cannot be told to be dead. The limits of age, silence and rises see to it.
        match (host.last_seen, newest) {
            (Some(seen), Some(newest)) => newest.duration_since(seen) <= DAY,
            _ => true,
        }
    }

    fn of_serial(&self, serial: &str) -> &[Claimant] {
        self.hosts
            .get(serial)
            .map(Vec::as_slice)
            .unwrap_or_default()
    }

    fn live(&self, serial: &str) -> impl Iterator<Item = &Claimant> {
        let hosts = self.of_serial(serial).iter();
        hosts.filter(|host| self.is_live(host))
    }

    fn reporting(&self, serial: &str) -> &[&'a Device] {
        self.reporting
            .get(serial)
            .map(Vec::as_slice)
            .unwrap_or_default()
    }

    /// Rule 2. A host without a time was not seen within any limit.
    fn is_too_old(&self, host: &Claimant) -> bool {
        let age = host.last_seen.map(|seen| self.now.duration_since(seen));
        let limit = self.settings.max_age;
        limit.is_some_and(|limit| age.is_none_or(|age| age > limit))
    }

    /// Rule 2, of a connected device.
    fn is_silent(&self, host: &Claimant, limit: SignedDuration) -> bool {
        let silence = host.last_seen.map(|seen| self.now.duration_since(seen));
        silence.is_none_or(|silence| silence > limit)
    }

    /// Returns whether silence withholds this host from this device.
    fn is_withheld_for_silence(&self, host: &Claimant, device: &Device) -> bool {
        let limit = self.settings.max_silence.filter(|_| !self.doubts_silence);
        device.connected_to_control && limit.is_some_and(|limit| self.is_silent(host, limit))
    }

    /// Rule 4, whatever `onSharedSerial` says.
    fn is_shared(&self, serial: &str) -> bool {
        let live: Vec<&Claimant> = self.live(serial).collect();
        let by_hosts = live.iter().any(|one| {
            let differs = |other: &&Claimant| other.name != one.name;
            live.iter()
                .copied()
                .filter(differs)
                .any(|other| overlap(one, other))
        });
        let reporting = self.reporting(serial).iter();
        let connected = reporting
            .clone()
            .filter(|device| device.connected_to_control);
        by_hosts
            || connected.count() > 1
            || reporting.clone().any(|device| device.multiple_connections)
    }

    /// Returns the hosts that speak for a device by one serial: live, of its platform, and by the rule about sharing. Age and
    /// silence are judged afterwards, so that a contained host withholds the score however long it was not seen.
    fn speakers_by(&self, device: &Device, serial: &str) -> Vec<&Claimant> {
        let platform = device_platform(device);
        let mut hosts: Vec<&Claimant> = self
            .live(serial)
            .filter(|host| match (host.platform, platform) {
                (Some(host), Some(device)) => host == device,
                _ => true,
            })
            .collect();
        if device.is_external || !self.is_shared(serial) || self.settings.lowest_of_shared {
            return hosts;
        }
        // The records of all own devices that report the serial count, connected or not.
        let names_serial = |node: &&String| {
            let record = self.records.get(*node);
            record.is_some_and(|record| record.serial == serial)
        };
        let reporting = self.reporting(serial).iter();
        let owners: Vec<&String> = reporting
            .map(|device| &device.node_id)
            .filter(names_serial)
            .collect();
        // Only the host name decides, not the name in the tailnet, which may have a number at its end.
        let name = short(&device.hostname);
        let has_name = |host: &&Claimant| !name.is_empty() && host.name == name;
        // A live host of its name speaks for it also where that one is of another platform, and then nobody does: a live system
        // from a stick must not have the score of another machine with the serial.
        let is_named = self.live(serial).any(|host| has_name(&host));
        let is_owner = owners.contains(&&device.node_id);
        match owners.len() {
            // A node that several machines use has one record, and that record names it: it is served like any other.
            1 if is_owner && !is_named => {}
            1 if is_owner => hosts.retain(has_name),
            1 => hosts.clear(),
            0 => hosts.retain(has_name),
            _ if is_owner => hosts.retain(has_name),
            _ => hosts.clear(),
        }
        hosts
    }

    fn speakers(&self, device: &Device) -> Vec<&Claimant> {
        let serials = serials_of(self.settings, device);
        let by = serials
            .iter()
            .map(|serial| self.speakers_by(device, serial));
        by.flatten().collect()
    }

    /// Returns the reason of a device.
    pub(super) fn reason(&self, device: &Device) -> Reason {
        let serials = serials_of(self.settings, device);
        let hosts: Vec<&Claimant> = serials
            .iter()
            .flat_map(|serial| self.of_serial(serial))
            .collect();
        let speakers = self.speakers(device);
        let standings: BTreeMap<String, &'static str> = hosts
            .iter()
            .map(|host| (host.aid.clone(), self.standing(host, device, &speakers)))
            .collect();
        let counting = speakers
            .iter()
            .filter(|host| standings[&host.aid] == "scored");
        let lowest = counting.clone().filter_map(|host| host.score).min();
        let deciding: Vec<&&Claimant> = counting.filter(|host| host.score == lowest).collect();
        // Of several hosts with the lowest score, one that was seen lately is enough, and decides.
        let may_rise = deciding.iter().any(|host| self.may_rise_by(host, device));
        let order = |host: &&&&Claimant| (!self.may_rise_by(host, device), host.aid.clone());
        let first = deciding.iter().min_by_key(order);
        let is_contained =
            !self.settings.ignores_contained && speakers.iter().any(|host| host.is_contained);
        let any = |standing: &str| standings.values().any(|other| *other == standing);
        let verdict = if device.is_external {
            "external"
        } else if has_no_identity(device) {
            "noIdentity"
        } else if serials.is_empty() {
            "noSerial"
        } else if hosts.is_empty() {
            "unmatched"
        } else if is_contained {
            "contained"
        } else if lowest.is_some() {
            "scored"
        } else if any("unassessed") || any("invalid") {
            "unassessed"
        // Of several reasons, the last one in the order of the rules: that host was the nearest to a score.
        } else if any("shared") {
            "sharedSerial"
        } else if any("otherPlatform") {
            "otherPlatform"
        } else if any("silent") {
            "silent"
        } else {
            "stale"
        };
        let is_scored = verdict == "scored";
        let texts = device.serials().iter();
        Reason {
            verdict,
            score: lowest.filter(|_| is_scored),
            decides: first.filter(|_| is_scored).map(|host| host.aid.clone()),
            serials: texts
                .map(|text| serials::serial(self.settings, text).is_some())
                .collect(),
            may_rise,
            serial: first.map(|host| host.serial.clone()).unwrap_or_default(),
            hosts: rank(&hosts, &standings, |host| self.may_rise_by(host, device)),
        }
    }

    /// Rule 7: the host was seen at most 24 h before the device was. A device without a time counts as seen now.
    fn may_rise_by(&self, host: &Claimant, device: &Device) -> bool {
        let seen = device.last_seen.as_deref();
        let seen = seen.filter(|_| !device.connected_to_control);
        let seen = time(self.now, seen).unwrap_or(self.now);
        host.last_seen
            .is_some_and(|host| seen.duration_since(host) <= DAY)
    }

    /// The status of a host for a device before the scores are compared.
    fn standing(&self, host: &Claimant, device: &Device, speakers: &[&Claimant]) -> &'static str {
        let platform = device_platform(device);
        if !self.is_live(host) {
            "superseded"
        } else if self.is_too_old(host) {
            "stale"
        } else if self.is_withheld_for_silence(host, device) {
            "silent"
        } else if host.platform.is_some() && platform.is_some() && host.platform != platform {
            "otherPlatform"
        } else if !speakers.iter().any(|speaker| speaker.aid == host.aid) {
            "shared"
        } else if host.is_contained && !self.settings.ignores_contained {
            "contained"
        } else if host.score.is_some() {
            "scored"
        } else if host.has_assessment {
            "invalid"
        } else {
            "unassessed"
        }
    }

    /// Returns the findings that rest on hosts and devices together.
    pub(super) fn findings(&self) -> BTreeMap<&'static str, BTreeSet<String>> {
        let mut findings: BTreeMap<&'static str, BTreeSet<String>> = BTreeMap::new();
        let mut add = |kind, subject: &str| {
            findings.entry(kind).or_default().insert(subject.to_owned());
        };
        for device in &self.own {
            let node = &device.node_id;
            let speakers = self.speakers(device);
            let latest = speakers.iter().filter_map(|host| host.last_seen).max();
            // A host without a time was not seen within any limit.
            let is_silent = latest.is_none_or(|seen| self.now.duration_since(seen) > DAY);
            if device.connected_to_control && !speakers.is_empty() && is_silent {
                add("silentSensors", node);
            }
            if speakers.iter().any(|host| host.is_contained) && !self.settings.ignores_contained {
                add("contained", node);
            }
            // A second system on one machine is nobody's trouble while each device has a score.
            let reason = self.reason(device);
            let has_score =
                reason.score.is_some() && (reason.may_rise || self.records.contains_key(node));
            if !has_score
                && reason
                    .hosts
                    .values()
                    .any(|standing| *standing == "otherPlatform")
            {
                add("otherPlatform", node);
            }
        }
        for serial in self.reporting.keys() {
            if self.is_shared(serial) && self.live(serial).next().is_some() {
                add("sharedSerials", serial);
            }
        }
        if self.doubts_silence {
            add("suspiciousObservation", "silence");
        }
        findings
    }
}

/// Tells the hosts with a score apart: of each serial one is the lowest, and the others are behind it.
fn rank(
    hosts: &[&Claimant],
    standings: &BTreeMap<String, &'static str>,
    may_rise: impl Fn(&Claimant) -> bool,
) -> BTreeMap<String, &'static str> {
    let scored = |host: &&&Claimant| standings[&host.aid] == "scored";
    let place = |host: &Claimant| (host.score, !may_rise(host), host.aid.clone());
    let ranked = hosts.iter().map(|host| {
        let mut others = hosts.iter().filter(scored);
        let rank = match standings[&host.aid] {
            "scored"
                if others
                    .any(|other| other.serial == host.serial && place(other) < place(host)) =>
            {
                "behind"
            }
            "scored" => "lowest",
            standing => standing,
        };
        (host.aid.clone(), rank)
    });
    ranked.collect()
}
