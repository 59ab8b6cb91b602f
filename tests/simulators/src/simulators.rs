//! Both services running: starting, addresses, latency, faults, the log.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use serde::Serialize;

use crate::clock::Clock;
use crate::control;
use crate::exchange::{Endpoint, World};
use crate::falcon::Falcon;
use crate::faults::Faults;
use crate::hooks::{Hooks, Script, Stage};
use crate::journal::Journal;
use crate::lock;
use crate::matching::{Matcher, Seen, Side};
use crate::net::{Bound, Connection, Server};
use crate::tailscale::Tailscale;

/// Where the simulators listen, as the binary prints it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Urls {
    /// By region.
    pub falcon: BTreeMap<String, String>,
    /// Tailscale's API; paths start with `/api/v2`.
    pub tailscale: String,
    /// The control interface, when there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control: Option<String>,
}

/// How to start; ports of 0 are chosen by the system.
#[derive(Clone, Debug)]
pub struct Builder {
    regions: Vec<String>,
    falcon_port: u16,
    tailscale_port: u16,
    control_port: Option<u16>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            regions: vec!["us-1".to_owned()],
            falcon_port: 0,
            tailscale_port: 0,
            control_port: None,
        }
    }
}

impl Builder {
    /// One Falcon server for each of these regions, in place of one for `us-1`.
    #[must_use]
    pub fn regions<S: Into<String>>(mut self, regions: impl IntoIterator<Item = S>) -> Self {
        self.regions = regions.into_iter().map(Into::into).collect();
        self
    }

    /// The port of the first region; the others follow it.
    #[must_use]
    pub fn falcon_port(mut self, port: u16) -> Self {
        self.falcon_port = port;
        self
    }

    /// The port of the Tailscale side.
    #[must_use]
    pub fn tailscale_port(mut self, port: u16) -> Self {
        self.tailscale_port = port;
        self
    }

    /// With the control interface, on this port.
    #[must_use]
    pub fn control_port(mut self, port: u16) -> Self {
        self.control_port = Some(port);
        self
    }

    /// Starts all servers.
    ///
    /// # Errors
    /// A port is taken.
    pub async fn start(self) -> io::Result<Simulators> {
        let mut doors = Vec::new();
        for (port, region) in (self.falcon_port..).zip(&self.regions) {
            let port = if self.falcon_port == 0 { 0 } else { port };
            doors.push((region.clone(), Bound::to(port).await?));
        }
        let regions = doors
            .iter()
            .map(|(region, door)| (region.clone(), door.url()))
            .collect();
        let clock = Clock::default();
        let falcon = Falcon::new(clock.clone(), regions);
        let tailscale = Tailscale::new(clock.clone());
        let stage = Stage {
            clock,
            falcon,
            tailscale,
            faults: Faults::default(),
        };
        let world = World {
            stage,
            hooks: Hooks::default(),
            journal: Journal::default(),
            latency: Arc::default(),
            answer_times: Arc::default(),
        };

        let mut falcon = BTreeMap::new();
        for (region, door) in doors {
            let endpoint = Endpoint::Falcon {
                region: region.as_str().into(),
            };
            falcon.insert(region, Server::start(door, router(&world, endpoint)));
        }
        let door = Bound::to(self.tailscale_port).await?;
        let tailscale = Server::start(door, router(&world, Endpoint::Tailscale));
        let core = Arc::new(Core {
            world,
            servers: Servers { falcon, tailscale },
        });

        let control = match self.control_port {
            None => None,
            Some(port) => {
                let door = Bound::to(port).await?;
                Some(Server::start(door, control::router(Arc::clone(&core))))
            }
        };
        Ok(Simulators { control, core })
    }
}

fn router(world: &World, endpoint: Endpoint) -> Router {
    let world = world.clone();
    Router::new().fallback(
        move |ConnectInfo(connection): ConnectInfo<Connection>, request: Request| {
            let (world, endpoint) = (world.clone(), endpoint.clone());
            async move { world.exchange(&endpoint, connection, request).await }
        },
    )
}

#[derive(Debug)]
struct Servers {
    falcon: BTreeMap<String, Server>,
    tailscale: Server,
}

/// What tests and the control interface work with.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) world: World,
    servers: Servers,
}

impl Core {
    pub(crate) fn urls(&self) -> Urls {
        let falcon = self
            .servers
            .falcon
            .iter()
            .map(|(region, server)| (region.clone(), server.url()))
            .collect();
        Urls {
            falcon,
            tailscale: self.servers.tailscale.url(),
            control: None,
        }
    }

    pub(crate) async fn refuse_connections(&self, side: Side) {
        for server in self.of(side) {
            server.stop().await;
        }
    }

    pub(crate) async fn accept_connections(&self, side: Side) -> io::Result<()> {
        for server in self.of(side) {
            server.resume().await?;
        }
        Ok(())
    }

    fn of(&self, side: Side) -> Vec<&Server> {
        match side {
            Side::Falcon => self.servers.falcon.values().collect(),
            Side::Tailscale => vec![&self.servers.tailscale],
        }
    }

    pub(crate) fn set_latency(&self, side: Side, latency: Duration) {
        let latencies: &Mutex<_> = &self.world.latency;
        lock(latencies).insert(side, latency);
    }

    fn set_answer_time(&self, side: Side, time: Duration) {
        lock(&self.world.answer_times).insert(side, time);
    }

    pub(crate) fn reset(&self) {
        let World {
            stage,
            hooks,
            journal,
            latency,
            answer_times,
        } = &self.world;
        stage.falcon.reset();
        stage.tailscale.reset();
        stage.faults.clear();
        stage.clock.reset();
        hooks.clear();
        journal.clear();
        lock(latency).clear();
        lock(answer_times).clear();
    }
}

/// Both services, listening until this is dropped.
#[derive(Debug)]
pub struct Simulators {
    // first, since its requests hold the rest
    control: Option<Server>,
    core: Arc<Core>,
}

impl Simulators {
    /// Falcon in `us-1` and Tailscale, on free ports, without the control interface.
    ///
    /// # Errors
    /// There is no free port.
    pub async fn start() -> io::Result<Self> {
        Builder::default().start().await
    }

    /// To start with other regions, fixed ports, or the control interface.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// All addresses.
    pub fn urls(&self) -> Urls {
        Urls {
            control: self.control.as_ref().map(Server::url),
            ..self.core.urls()
        }
    }

    /// The base URL of a Falcon region, `""` for one that is not served.
    pub fn falcon_url(&self, region: &str) -> String {
        self.core
            .servers
            .falcon
            .get(region)
            .map(Server::url)
            .unwrap_or_default()
    }

    /// The base URL of Tailscale's API, without `/api/v2`.
    pub fn tailscale_url(&self) -> String {
        self.core.servers.tailscale.url()
    }

    /// The base URL of the control interface, `""` without one.
    pub fn control_url(&self) -> String {
        self.control.as_ref().map(Server::url).unwrap_or_default()
    }

    /// The Falcon side's state.
    pub fn falcon(&self) -> &Falcon {
        &self.core.world.stage.falcon
    }

    /// The Tailscale side's state.
    pub fn tailscale(&self) -> &Tailscale {
        &self.core.world.stage.tailscale
    }

    /// The faults to come.
    pub fn faults(&self) -> &Faults {
        &self.core.world.stage.faults
    }

    /// The log of requests.
    pub fn requests(&self) -> &Journal {
        &self.core.world.journal
    }

    /// The clock of both sides.
    pub fn clock(&self) -> &Clock {
        &self.core.world.stage.clock
    }

    /// How long after its request every answer of a side leaves, if no fault befalls it. Unlike a latency, it covers
    /// the simulator's own work, so that what a measured client waits for does not depend on it.
    pub fn set_answer_time(&self, side: Side, time: Duration) {
        self.core.set_answer_time(side, time);
    }

    /// How long every answer of a side is held back.
    pub fn set_latency(&self, side: Side, latency: Duration) {
        self.core.set_latency(side, latency);
    }

    /// Calls this before each selected request is answered, to change state in mid-crawl: clones
    /// of [`Falcon`] and [`Tailscale`] can be moved into it.
    pub fn on_request(&self, requests: Matcher, closure: impl Fn(&Seen) + Send + Sync + 'static) {
        self.core.world.hooks.on_request(requests, closure);
    }

    /// Runs actions at a moment to come.
    pub fn script(&self, script: Script) {
        self.core.world.hooks.add(script);
    }

    /// Stops listening and resets what is connected: clients get "connection refused".
    pub async fn refuse_connections(&self, side: Side) {
        self.core.refuse_connections(side).await;
    }

    /// Listens again, on the same ports.
    ///
    /// # Errors
    /// A port cannot be listened on.
    pub async fn accept_connections(&self, side: Side) -> io::Result<()> {
        self.core.accept_connections(side).await
    }

    /// Back to the state just after the start: no data, no faults, no hooks, an empty log.
    pub fn reset(&self) {
        self.core.reset();
    }
}
