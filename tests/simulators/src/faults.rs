//! Faults: the requests that fail, and the kinds of failure.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::lock;
use crate::matching::{Matcher, RequestInfo, Side};

/// Kind of a request's failure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FaultKind {
    /// This status, with the API's own form of error unless a body is given.
    Status {
        /// The HTTP status.
        code: u16,
        /// Headers in addition to the usual ones.
        #[serde(default)]
        headers: BTreeMap<String, String>,
        /// Replaces the API's error.
        #[serde(default)]
        body: Option<String>,
    },
    /// The connection is reset before the first byte of a response.
    Reset,
    /// The head and half of the body arrive, then the connection is reset.
    ResetMidBody,
    /// No response: until the client gives up, or until a reset after `ms`.
    Stall {
        /// Milliseconds to the reset.
        #[serde(default)]
        ms: Option<u64>,
    },
    /// A complete response whose JSON stops in the middle.
    TruncatedJson,
    /// A complete response of valid JSON in the wrong form.
    WrongJson {
        /// Replaces `{"resources":"none","devices":7,"attributes":[]}`.
        #[serde(default)]
        body: Option<Value>,
    },
    /// The status of the response without its body.
    EmptyBody,
    /// A load balancer's 503 page.
    Html,
    /// The body arrives slowly, over this time in total.
    SlowBody {
        /// Milliseconds from the first to the last byte.
        ms: u64,
    },
}

impl FaultKind {
    /// Returns the name in the request log.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Status { .. } => "status",
            Self::Reset => "reset",
            Self::ResetMidBody => "reset_mid_body",
            Self::Stall { .. } => "stall",
            Self::TruncatedJson => "truncated_json",
            Self::WrongJson { .. } => "wrong_json",
            Self::EmptyBody => "empty_body",
            Self::Html => "html",
            Self::SlowBody { .. } => "slow_body",
        }
    }

    /// Returns whether the fault changes a response, which must therefore be computed first. Other
    /// faults replace the response.
    pub(crate) fn damages_response(&self) -> bool {
        match self {
            Self::ResetMidBody | Self::TruncatedJson | Self::EmptyBody | Self::SlowBody { .. } => {
                true
            }
            Self::Status { .. }
            | Self::Reset
            | Self::Stall { .. }
            | Self::WrongJson { .. }
            | Self::Html => false,
        }
    }
}

/// The effect of a request with a fault: none, or one at a certain time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Not at all. Kinds that change a response take effect at once.
    #[default]
    Never,
    /// At once: only the response is lost.
    Now,
    /// When [`LateRequests::release`](crate::LateRequests::release) is called.
    Late,
    /// At once, and again when [`LateRequests::release`](crate::LateRequests::release) is called.
    Twice,
}

/// A fault and the requests that it affects.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The service of the request.
    pub side: Side,
    /// Restricts the fault to this method.
    #[serde(default)]
    pub method: Option<String>,
    /// Restricts the fault to paths with this prefix.
    #[serde(default)]
    pub path_prefix: Option<String>,
    /// Number of selected requests that pass first.
    #[serde(default)]
    pub nth: u64,
    /// Number of times that the fault applies; `None` (JSON `null`) means always.
    #[serde(default = "once")]
    pub times: Option<u64>,
    /// The effect of the request.
    #[serde(default)]
    pub effect: Effect,
    /// Kind of the failure.
    pub kind: FaultKind,
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "the default of a field that can be null"
)]
fn once() -> Option<u64> {
    Some(1)
}

impl Fault {
    /// Affects the next selected request, once.
    pub fn new(requests: Matcher, kind: FaultKind) -> Self {
        let Matcher {
            side,
            method,
            path_prefix,
        } = requests;
        Self {
            side,
            method,
            path_prefix,
            nth: 0,
            times: Some(1),
            effect: Effect::Never,
            kind,
        }
    }

    /// Answers with a status alone.
    pub fn status(requests: Matcher, code: u16) -> Self {
        Self::new(
            requests,
            FaultKind::Status {
                code,
                headers: BTreeMap::new(),
                body: None,
            },
        )
    }

    /// Lets this number of selected requests pass first.
    #[must_use]
    pub fn after(mut self, requests: u64) -> Self {
        self.nth = requests;
        self
    }

    /// Applies this number of times.
    #[must_use]
    pub fn times(mut self, times: u64) -> Self {
        self.times = Some(times);
        self
    }

    /// Applies until it is cleared.
    #[must_use]
    pub fn always(mut self) -> Self {
        self.times = None;
        self
    }

    /// Lets the request take effect and loses its response.
    #[must_use]
    pub fn processed(mut self) -> Self {
        self.effect = Effect::Now;
        self
    }

    /// Loses the response of a request that is still on its way, and takes effect later.
    #[must_use]
    pub fn late(mut self) -> Self {
        self.effect = Effect::Late;
        self
    }

    /// Lets the request take effect, loses its response, and lets it take effect again later.
    #[must_use]
    pub fn twice(mut self) -> Self {
        self.effect = Effect::Twice;
        self
    }

    /// Returns whether the request takes effect before its response.
    pub(crate) fn takes_effect(&self) -> bool {
        match self.effect {
            Effect::Now | Effect::Twice => true,
            Effect::Never => self.kind.damages_response(),
            Effect::Late => false,
        }
    }

    /// Returns whether the request takes effect after its response.
    pub(crate) fn is_late(&self) -> bool {
        matches!(self.effect, Effect::Late | Effect::Twice)
    }

    fn selects(&self, seen: &RequestInfo) -> bool {
        let matcher = Matcher {
            side: self.side,
            method: self.method.clone(),
            path_prefix: self.path_prefix.clone(),
        };
        matcher.matches(seen)
    }
}

/// The ordered list of faults. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<Vec<Fault>>>);

impl Faults {
    /// Appends a fault.
    pub fn add(&self, fault: Fault) {
        lock(&self.0).push(fault);
    }

    /// Removes all faults.
    pub fn clear(&self) {
        lock(&self.0).clear();
    }

    /// Returns the remaining faults; `nth` and `times` count down.
    pub fn pending(&self) -> Vec<Fault> {
        lock(&self.0).clone()
    }

    /// Returns the fault of this request: the first due fault in the list. Earlier faults count the
    /// request, later faults do not.
    pub(crate) fn take(&self, seen: &RequestInfo) -> Option<Fault> {
        let mut faults = lock(&self.0);
        let mut due = None;
        for (index, fault) in faults.iter_mut().enumerate() {
            if !fault.selects(seen) {
                continue;
            }
            if fault.nth > 0 {
                fault.nth -= 1;
                continue;
            }
            if let Some(times) = &mut fault.times {
                if *times == 0 {
                    continue;
                }
                *times -= 1;
            }
            due = Some(index);
            break;
        }
        let index = due?;
        let fault = faults.get(index).cloned();
        faults.retain(|fault| fault.times != Some(0));
        fault
    }
}
