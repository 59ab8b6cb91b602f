//! Changes of state in the middle of a crawl: closures for tests in the same process, scripts for
//! those outside it.

use std::fmt;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::clock::Clock;
use crate::falcon::{Falcon, Host};
use crate::faults::{Fault, Faults};
use crate::lock;
use crate::matching::{Matcher, Seen};
use crate::tailscale::{Device, Tailscale};

type Closure = Arc<dyn Fn(&Seen) + Send + Sync>;
type Shared<T> = Arc<Mutex<Vec<T>>>;

/// When a script runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum When {
    /// Before the `count`th selected request is answered.
    Before(Nth),
    /// Once the answer of the `count`th selected request is made, before it is sent: the client
    /// gets the state of before, and everything it asks next sees the state of after.
    After(Nth),
}

/// The `count`th selected request from now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nth {
    /// The service asked.
    pub side: crate::Side,
    /// Only this method.
    #[serde(default)]
    pub method: Option<String>,
    /// Only paths that start like this.
    #[serde(default)]
    pub path_prefix: Option<String>,
    /// Which of the selected requests, from 1.
    #[serde(default = "first")]
    pub count: u64,
}

fn first() -> u64 {
    1
}

/// Something that happens to the simulated world.
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
    /// Takes an assessment away.
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
    /// Removes a host, and leaves its score.
    RemoveHost {
        /// Account.
        account: String,
        /// Agent id.
        aid: String,
    },
    /// Moves a host to the hidden ones.
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
    /// Sets an attribute past the API's rules, as an administrator's tool would; `null` removes it.
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
    /// All Falcon tokens are invalid from now on.
    ExpireFalconTokens {},
    /// All Tailscale access tokens are invalid from now on.
    ExpireTailscaleTokens {},
    /// Puts the clock forward.
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

/// Actions and their moment; a script runs once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Script {
    /// `{"before":{…}}` or `{"after":{…}}`.
    #[serde(flatten)]
    pub when: When,
    /// In this order.
    #[serde(rename = "do")]
    pub actions: Vec<Action>,
}

/// What actions act on.
#[derive(Clone, Debug)]
pub(crate) struct Stage {
    pub(crate) clock: Clock,
    pub(crate) falcon: Falcon,
    pub(crate) tailscale: Tailscale,
    pub(crate) faults: Faults,
}

impl Stage {
    /// An action on something that is not there does nothing: a script cannot fail.
    fn act(&self, action: Action) {
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

/// All closures and scripts that wait.
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
        closure: impl Fn(&Seen) + Send + Sync + 'static,
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

    pub(crate) fn before(&self, seen: &Seen, stage: &Stage) {
        // called without the lock: a closure may add hooks and change state
        let closures: Vec<_> = lock(&self.closures)
            .iter()
            .filter(|(requests, _)| requests.matches(seen))
            .cloned()
            .collect();
        for (_, closure) in closures {
            closure(seen);
        }
        self.run_due(seen, stage, |when| match when {
            When::Before(nth) => Some(nth),
            When::After(_) => None,
        });
    }

    pub(crate) fn after(&self, seen: &Seen, stage: &Stage) {
        self.run_due(seen, stage, |when| match when {
            When::After(nth) => Some(nth),
            When::Before(_) => None,
        });
    }

    fn run_due(&self, seen: &Seen, stage: &Stage, side: impl Fn(&mut When) -> Option<&mut Nth>) {
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
            stage.act(action);
        }
    }
}
