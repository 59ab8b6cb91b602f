//! Meddles with the calls of a run, from between it and the four servers.

use std::sync::{Arc, Mutex, MutexGuard};

use axum::http::header;

use super::call_sites::{CallSite, Classifier, Server};
use super::kinds::Kind;
use crate::process::relay::{Answered, Asked, Delivery, Relay, Watch};
use crate::world::TestEnvironment;

/// A fault, and the calls that it befalls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) call_site: CallSite,
    pub(crate) kind: Kind,
    /// So many calls are let through first.
    pub(crate) after: usize,
    /// How often it happens; for ever, without a number.
    pub(crate) times: Option<usize>,
    /// The call takes effect all the same. Always so for the kinds that spoil an answer, never for those that deny it.
    pub(crate) processed: bool,
}

impl Fault {
    /// Befalls every such call.
    pub(crate) fn always(call_site: CallSite, kind: Kind) -> Self {
        Self {
            call_site,
            kind,
            after: 0,
            times: None,
            processed: false,
        }
    }

    fn is_processed(&self) -> bool {
        self.kind.spoils() || (self.processed && !self.kind.denies())
    }
}

/// A call that went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Met {
    pub(crate) call_site: CallSite,
    pub(crate) kind: Kind,
    /// Whether it took effect.
    pub(crate) processed: bool,
}

/// The faults to come, and those that came.
#[derive(Clone, Default)]
pub(crate) struct FaultProxy(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    classifier: Classifier,
    faults: Vec<Fault>,
    met: Vec<Met>,
}

/// The relays in front of the servers.
pub(crate) struct Relays {
    relays: Vec<(Server, Relay)>,
}

impl FaultProxy {
    pub(crate) fn arm(&self, faults: impl IntoIterator<Item = Fault>) {
        let mut state = self.state();
        state.faults.extend(faults);
        state.met.clear();
    }

    /// No more faults. Those that came.
    pub(crate) fn disarm(&self) -> Vec<Met> {
        let mut state = self.state();
        state.faults.clear();
        std::mem::take(&mut state.met)
    }

    /// Which devices are in the first chunk of changes.
    pub(crate) fn expect_first_chunk(&self, nodes: impl IntoIterator<Item = String>) {
        self.state().classifier.expect_first_chunk(nodes);
    }

    /// Stands between a stage's function and its servers.
    pub(crate) async fn between(&self, stage: &TestEnvironment) -> Relays {
        let mut relays = Vec::new();
        for (server, base) in [
            (Server::Falcon, stage.sims.falcon_url("us-1")),
            (Server::Tailscale, stage.sims.tailscale_url()),
            (Server::DynamoDb, stage.dynamodb.url().to_owned()),
            (Server::Services, stage.services.url()),
        ] {
            let watch = At {
                server,
                proxy: self.clone(),
            };
            relays.push((server, Relay::to(&base, Arc::new(watch)).await));
        }
        Relays { relays }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl Relays {
    pub(crate) fn url(&self, server: Server) -> String {
        let relay = self.relays.iter().find(|(name, _)| *name == server);
        relay.unwrap().1.url()
    }

    /// All take connections again, and nothing is under way.
    pub(crate) async fn up(&self) {
        for (_, relay) in &self.relays {
            relay.quiet().await;
            relay.up().await;
        }
    }
}

/// The proxy at one server.
struct At {
    server: Server,
    proxy: FaultProxy,
}

/// Carries the fault that was chosen for a request to the end of its way.
const CHOSEN: &str = "x-fault";

impl At {
    fn choose(&self, asked: &Asked) -> Option<usize> {
        let mut state = self.proxy.state();
        let call_site = state.classifier.read(asked)?;
        let mut due = None;
        for (index, fault) in state.faults.iter_mut().enumerate() {
            if fault.call_site != call_site || fault.times == Some(0) {
                continue;
            }
            if fault.after > 0 {
                fault.after -= 1;
                continue;
            }
            fault.times = fault.times.map(|times| times - 1);
            due = Some((index, *fault));
            break;
        }
        let (index, fault) = due?;
        state.met.push(Met {
            call_site,
            kind: fault.kind,
            processed: fault.is_processed(),
        });
        Some(index)
    }

    fn chosen(&self, asked: &Asked) -> Option<Fault> {
        let index: usize = asked
            .headers
            .get(CHOSEN)?
            .to_str()
            .unwrap()
            .parse()
            .unwrap();
        // It is gone where the run ended without waiting for the answer, and the faults with it.
        self.proxy.state().faults.get(index).copied()
    }
}

impl Watch for At {
    fn before(&self, asked: &mut Asked) -> Option<Answered> {
        // What is to be spoilt must not come packed.
        asked.headers.remove(header::ACCEPT_ENCODING);
        let index = self.choose(asked)?;
        asked.headers.insert(CHOSEN, index.into());
        let fault = self.chosen(asked)?;
        (!fault.is_processed()).then(Answered::nothing)
    }

    fn after(&self, _: &Asked, _: &Answered) {}

    fn deliver(&self, asked: &Asked, answered: Answered) -> Delivery {
        match self.chosen(asked) {
            Some(fault) => fault.kind.deliver(self.server, answered),
            None => Delivery::Whole(answered),
        }
    }
}
