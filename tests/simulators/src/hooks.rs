//! State changes in the middle of a listing: closures for tests in the same process, scripts for
//! other processes.

use std::fmt;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::clock::Clock;
use crate::falcon::{Falcon, Host};
use crate::faults::{Fault, Faults};
use crate::late::LateRequests;
use crate::lock;
use crate::matching::{Matcher, RequestInfo};
use crate::tailscale::{Device, Tailscale};

type Closure = Arc<dyn Fn(&RequestInfo) + Send + Sync>;
type Shared<T> = Arc<Mutex<Vec<T>>>;

/// Moment of a script.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum When {
    /// Before the response to the `count`th selected request is computed.
    Before(Nth),
    /// After the response to the `count`th selected request is computed and before it is sent: this
    /// response shows the old state, every later one the new state.
    After(Nth),
}

/// The `count`th selected request from now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nth {
    /// The service of the request.
    pub side: crate::Side,
    /// Restricts the selection to this method.
    #[serde(default)]
    pub method: Option<String>,
    /// Restricts the selection to paths with this prefix.
    #[serde(default)]
    pub path_prefix: Option<String>,
    /// Number of the selected request, from 1.
    #[serde(default = "first")]
    pub count: u64,
}

fn first() -> u64 {
    1
}

/// A change of the simulated services.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum Action {
    /// Sets a Falcon score, to any JSON value.
    SetScore {
        /// Account.
        account: String,
        /// Agent id.
        aid: String,
        /// The score.
        score: Value,
    },
    /// Removes an assessment.
    RemoveScore {
        /// Account.
        account: String,
        /// Agent id.
        aid: String,
    },
    /// Adds or replaces a host.
    PutHost {
        /// Account.
        account: String,
        /// The host.
        host: Host,
    },
    /// Removes a host and keeps its score.
    RemoveHost {
        /// Account.
        account: String,
        /// Agent id.
        aid: String,
    },
    /// Hides a host.
    HideHost {
        /// Account.
        account: String,
        /// Agent id.
        aid: String,
    },
    /// Adds or replaces a device.
    PutDevice {
        /// Tailnet.
        tailnet: String,
        /// The device.
        device: Box<Device>,
    },
    /// Removes a device and its attributes.
    RemoveDevice {
        /// Tailnet.
        tailnet: String,
        /// Node id.
        node_id: String,
    },
    /// Sets an attribute regardless of the API's rules, as an administrator's tool would; `null`
    /// removes the attribute.
    SetAttribute {
        /// Tailnet.
        tailnet: String,
        /// Node id.
        node_id: String,
        /// Key.
        key: String,
        /// The value.
        value: Value,
    },
    /// Invalidates all Falcon tokens.
    ExpireFalconTokens {},
    /// Invalidates all Tailscale access tokens.
    ExpireTailscaleTokens {},
    /// Moves the clock forward.
    AdvanceClock {
        /// Seconds.
        seconds: u64,
    },
    /// Adds a fault.
    AddFault {
        /// The fault.
        fault: Fault,
    },
}

/// Actions and their moment. A script runs once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Script {
    /// `{"before":{…}}` or `{"after":{…}}`.
    #[serde(flatten)]
    pub when: When,
    /// The actions, in order.
    #[serde(rename = "do")]
    pub actions: Vec<Action>,
}

/// The state that actions change.
#[derive(Clone, Debug)]
pub(crate) struct SimulatorState {
    pub(crate) clock: Clock,
    pub(crate) falcon: Falcon,
    pub(crate) tailscale: Tailscale,
    pub(crate) faults: Faults,
    pub(crate) late: LateRequests,
}

impl SimulatorState {
    /// Performs an action. A missing target is ignored, since a script has no caller to report to.
    fn perform(&self, action: Action) {
        match action {
            Action::SetScore {
                account,
                aid,
                score,
            } => drop(self.falcon.set_score(&account, &aid, score)),
            Action::RemoveScore { account, aid } => drop(self.falcon.remove_score(&account, &aid)),
            Action::PutHost { account, host } => drop(self.falcon.put_host(&account, host)),
            Action::RemoveHost { account, aid } => drop(self.falcon.remove_host(&account, &aid)),
            Action::HideHost { account, aid } => drop(self.falcon.hide_host(&account, &aid)),
            Action::PutDevice { tailnet, device } => {
                drop(self.tailscale.put_device(&tailnet, *device));
            }
            Action::RemoveDevice { tailnet, node_id } => {
                drop(self.tailscale.remove_device(&tailnet, &node_id));
            }
            Action::SetAttribute {
                tailnet,
                node_id,
                key,
                value,
            } => {
                drop(
                    self.tailscale
                        .set_attribute(&tailnet, &node_id, &key, value),
                );
            }
            Action::ExpireFalconTokens {} => self.falcon.expire_tokens(),
            Action::ExpireTailscaleTokens {} => self.tailscale.expire_tokens(),
            Action::AdvanceClock { seconds } => {
                self.clock.advance(std::time::Duration::from_secs(seconds));
            }
            Action::AddFault { fault } => self.faults.add(fault),
        }
    }
}

/// All pending closures and scripts.
#[derive(Clone, Default)]
pub(crate) struct Hooks {
    closures: Shared<(Matcher, Closure)>,
    scripts: Shared<Script>,
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks")
            .field("scripts", &self.scripts)
            .finish_non_exhaustive()
    }
}

impl Hooks {
    pub(crate) fn on_request(
        &self,
        requests: Matcher,
        closure: impl Fn(&RequestInfo) + Send + Sync + 'static,
    ) {
        lock(&self.closures).push((requests, Arc::new(closure)));
    }

    pub(crate) fn add(&self, script: Script) {
        lock(&self.scripts).push(script);
    }

    pub(crate) fn clear(&self) {
        lock(&self.closures).clear();
        lock(&self.scripts).clear();
    }

    pub(crate) fn before(&self, seen: &RequestInfo, state: &SimulatorState) {
        // called without the lock: a closure may add hooks and change state
        let closures: Vec<_> = lock(&self.closures)
            .iter()
            .filter(|(requests, _)| requests.matches(seen))
            .cloned()
            .collect();
        for (_, closure) in closures {
            closure(seen);
        }
        self.run_due(seen, state, |when| match when {
            When::Before(nth) => Some(nth),
            When::After(_) => None,
        });
    }

    pub(crate) fn after(&self, seen: &RequestInfo, state: &SimulatorState) {
        self.run_due(seen, state, |when| match when {
            When::After(nth) => Some(nth),
            When::Before(_) => None,
        });
    }

    fn run_due(
        &self,
        seen: &RequestInfo,
        state: &SimulatorState,
        side: impl Fn(&mut When) -> Option<&mut Nth>,
    ) {
        let mut due = Vec::new();
        lock(&self.scripts).retain_mut(|script| {
            let Some(nth) = side(&mut script.when) else {
                return true;
            };
            let matcher = Matcher {
                side: nth.side,
                method: nth.method.clone(),
                path_prefix: nth.path_prefix.clone(),
            };
            if !matcher.matches(seen) {
                return true;
            }
            nth.count = nth.count.saturating_sub(1);
            if nth.count > 0 {
                return true;
            }
            due.append(&mut script.actions);
            false
        });
        for action in due {
            state.perform(action);
        }
    }
}
