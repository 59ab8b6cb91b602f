//! Findings: facts about devices and scores that a person should know, with a count, examples and a remedy.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::text::truncate_bytes;

/// A fact that a run noticed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub(crate) kind: FindingKind,
    pub(crate) count: usize,
    /// The first [`EXAMPLES`](Self::EXAMPLES), in order.
    pub(crate) examples: Vec<String>,
    pub(crate) remedy: String,
}

/// The kinds of findings. The names are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum FindingKind {
    /// Devices that had a score and no longer report a serial number.
    LostIdentity,
    /// Falcon or the tailnet shows none of the recorded devices.
    SuspiciousObservation,
    /// Devices that report no posture identity.
    NoIdentity,
    /// Devices with a serial that Falcon does not know.
    Unmatched,
    /// Matched devices without an assessment.
    Unassessed,
    /// Matched devices whose hosts are older than `maxHostAgeDays`.
    StaleHosts,
    /// Connected devices whose sensor was not seen for a day or longer.
    SilentSensors,
    /// Devices whose hosts are of another platform.
    OtherPlatform,
    /// Devices whose host is isolated from the network.
    Contained,
    /// Hosts that show another serial than when they decided a score.
    ChangedSerials,
    /// Devices that report invalid serial numbers.
    PlaceholderSerials,
    /// Serials that several machines share.
    SharedSerials,
    /// Assessments whose score is not a whole number from 0 to 100.
    InvalidScores,
    /// Parts of the integration's state that this version cannot read.
    UnreadableState,
    /// Devices that the run left out, because Tailscale did not answer for them or their record cannot be read.
    UnreadableDevices,
    /// Devices whose write by an earlier run may still take effect.
    UnsettledWrites,
    /// Devices that the tailnet's listing lacks, and that are not looked up yet.
    UnconfirmedDevices,
    /// Falcon's listing has a few hosts fewer than its total.
    ShortListing,
    /// Scores that fell by more than 20 points, of more than a fifth of the devices.
    ScoresFell,
    /// Attributes that Tailscale rejected.
    RefusedWrites,
    /// Removals that wait for the second look.
    WaitingRemovals,
    /// Removals that the guard holds back.
    HeldRemovals,
    /// Tailscale's own Falcon integration runs in the same tailnet.
    NativeIntegration,
}

impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

impl FindingKind {
    pub(crate) const fn remedy(self) -> &'static str {
        match self {
            Self::LostIdentity => {
                "Their users have lost access, or keep the last score with onMissing `keep`. Check whether Device \
                 Identity Collection was switched off in the tailnet. On the device, set the system policy \
                 PostureChecking to `always` (macOS, Windows) or run `tailscale set --report-posture` (Linux)."
            }
            Self::SuspiciousObservation => {
                "Check whether the credentials still belong to the right account and tailnet. No attribute is \
                 removed meanwhile. If the observation is right, the status has the command that lets the \
                 removals pass."
            }
            Self::NoIdentity => {
                "Switch on Device Identity Collection in the tailnet, and on Linux run `tailscale set --report-posture` \
                 on the device."
            }
            Self::Unmatched => {
                "Where the example names a host, the sensor is there, and its serial number has to be set right. \
                 Otherwise install the Falcon sensor on the device, or check whether its host is hidden or in another \
                 Falcon account."
            }
            Self::Unassessed => {
                "Falcon has not assessed the host. Check in the Falcon console whether Zero Trust Assessment \
                 covers its platform."
            }
            Self::StaleHosts => {
                "The sensor has not reported for longer than maxHostAgeDays: bring it back online or raise the limit."
            }
            Self::SilentSensors => {
                "The device is connected and its Falcon sensor is not heard of: it is stopped, blocked or uninstalled. \
                 Check the sensor on the device. After maxSilenceHours the device has no score."
            }
            Self::OtherPlatform => {
                "Falcon knows the serial number from another operating system: a second system on the same machine, \
                 or a machine with a copied serial number. Install the sensor on the system that joined the tailnet."
            }
            Self::Contained => {
                "The host is isolated from the network in Falcon, so the device has no score. Release it in the \
                 Falcon console, or set onContained to `ignore`."
            }
            Self::ChangedSerials => {
                "Machines that were cloned with a sensor in the image share one sensor id, and Falcon shows the \
                 serial number of whichever reported last. Install the sensor for such images as CrowdStrike \
                 documents it."
            }
            Self::PlaceholderSerials => {
                "The machine reports a placeholder instead of a serial number. Its other serial numbers are used, \
                 if it has any; otherwise set one in the firmware."
            }
            Self::SharedSerials => {
                "Several machines report one serial number. With onSharedSerial `withhold` it serves only the device \
                 that is known by it, with `lowest` each gets the lowest score: that is for containers on one \
                 server, and for pools of clones. Give any other machine its own serial number; a text that is \
                 none belongs into ignoredSerials."
            }
            Self::InvalidScores => {
                "Falcon returned a score that is not an integer from 0 to 100, so it counts as no assessment. If \
                 it persists, report it to CrowdStrike."
            }
            Self::UnreadableState => {
                "Another version of the function wrote it, or somebody edited the item. It counts as absent. The \
                 run rewrites status and pause; the next `make update` rewrites the rest."
            }
            Self::UnreadableDevices => {
                "The run left these devices out; the others are synced, and the next run tries again. If Tailscale \
                 does not answer for a device, check whether it opens in the admin console, or remove it there. If \
                 a record cannot be read, somebody edited it: delete that item of the nodes table."
            }
            Self::UnsettledWrites => {
                "Tailscale did not confirm a write of these devices, so the run left them out. The next run after that \
                 time reads what they hold, and goes on. Nothing needs to be done."
            }
            Self::UnconfirmedDevices => {
                "Each run looks up 100 of them, and removes nothing before. Nothing needs to be done."
            }
            Self::ShortListing => {
                "Falcon counts hosts that it does not list. Hosts that are missing are looked up before anything is \
                 removed. If it persists, check in the Falcon console whether the API client sees all host groups."
            }
            Self::ScoresFell => {
                "The scores are written. If that is a surprise, check in the Falcon console which assessment \
                 changed."
            }
            Self::RefusedWrites => {
                "Tailscale rejected the attribute of these devices; the others are written. See the message, and \
                 check whether the attribute key is in use with another type."
            }
            Self::WaitingRemovals => {
                "The next run after that time removes them, unless it finds the devices present. Bring the sensor \
                 or the device back before then, or raise removeAfterMinutes."
            }
            Self::HeldRemovals => {
                "More attributes would be removed within 24 hours than maxRemovals allows, or more than half of \
                 them. Check the cause; the status has the command that lets them pass."
            }
            Self::NativeIntegration => {
                "Both integrations work, and each writes its own key. Rules that name `falcon:ztaScore` use \
                 Tailscale's integration. Move them to your key, then remove that integration in the admin console."
            }
        }
    }
}

/// Maximum bytes of an example: it has names that devices chose, and an item holds 400 kB.
const MAX_EXAMPLE_BYTES: usize = 300;

impl Finding {
    /// Maximum examples of a finding.
    pub const EXAMPLES: usize = 5;

    /// Replaces the remedy of the kind.
    #[must_use]
    pub(crate) fn with_remedy(mut self, remedy: &str) -> Self {
        remedy.clone_into(&mut self.remedy);
        self
    }

    /// Makes a finding from all its cases; `None` if there are none.
    pub(crate) fn new(kind: FindingKind, cases: impl IntoIterator<Item = String>) -> Option<Self> {
        let mut cases = cases.into_iter();
        let examples = cases.by_ref().take(Self::EXAMPLES);
        let examples = examples.map(|example| truncate_bytes(&example, MAX_EXAMPLE_BYTES));
        let examples: Vec<String> = examples.collect();
        let count = examples.len() + cases.count();
        (count > 0).then(|| Self {
            kind,
            count,
            examples,
            remedy: kind.remedy().to_owned(),
        })
    }
}
