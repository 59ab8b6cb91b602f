//! The Tailscale side: tokens, devices, posture attributes, settings, policy file.
//!
//! Shapes and rules follow the published `OpenAPI` schema and documentation. Where the schema and
//! the service differ (bodies of `null`), the service takes precedence. A behaviour that neither
//! describes is a switch of the tailnet, see [`Switches`].

mod access;
mod attributes;
mod devices;
mod model;
mod routes;
mod state;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::clock::Clock;
use crate::generate::DataSet;
use crate::reply::{Call, Reply};
use crate::{NotFound, lock};

pub use model::{
    Attribute, BatchEndpoint, Change, Device, FederatedIdentity, OAuthClient, OmittedExpiry,
    PostureIdentity, Switches, Tailnet, UnknownNode, WriteCounts,
};
use state::{State, Tenant};

/// The state of the Tailscale side. Clones share it, so a hook can own a clone.
#[derive(Clone, Debug)]
pub struct Tailscale {
    clock: Clock,
    state: Arc<Mutex<State>>,
}

impl Tailscale {
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            clock,
            state: Arc::default(),
        }
    }

    pub(crate) fn answer(&self, call: &Call) -> Reply {
        routes::answer(&mut lock(&self.state), call, self.clock.now())
    }

    /// Adds a tailnet, or changes an existing one's configuration and keeps its devices and
    /// attributes.
    pub fn put_tailnet(&self, tailnet: Tailnet) {
        let mut state = lock(&self.state);
        match state.tailnets.get_mut(&tailnet.name) {
            Some(tenant) => {
                tenant.config = tailnet;
                tenant.clear_lists();
            }
            None => drop(
                state
                    .tailnets
                    .insert(tailnet.name.clone(), Tenant::new(tailnet)),
            ),
        }
    }

    /// Changes the configuration of a tailnet.
    ///
    /// # Errors
    /// `NotFound` when no tailnet has this name, as in every method that names a tailnet.
    pub fn configure(
        &self,
        tailnet: &str,
        change: impl FnOnce(&mut Tailnet),
    ) -> Result<(), NotFound> {
        self.tenant(tailnet, |tenant| {
            change(&mut tenant.config);
            tenant.clear_lists();
        })
    }

    /// Removes a tailnet with its data.
    pub fn remove_tailnet(&self, name: &str) {
        let mut state = lock(&self.state);
        state.tailnets.remove(name);
        state.tokens.retain(|_, token| token.tailnet != name);
    }

    /// Returns the configurations by name.
    pub fn tailnets(&self) -> BTreeMap<String, Tailnet> {
        let state = lock(&self.state);
        state
            .tailnets
            .iter()
            .map(|(name, tenant)| (name.clone(), tenant.config.clone()))
            .collect()
    }

    /// Replaces a tailnet's devices; attributes, key types and the change log start empty.
    ///
    /// # Errors
    /// No such tailnet.
    pub fn load(&self, tailnet: &str, data: &DataSet) -> Result<(), NotFound> {
        self.tenant(tailnet, |tenant| {
            *tenant = Tenant::new(tenant.config.clone());
            for device in &data.devices {
                tenant.put_device(device.clone());
            }
        })
    }

    /// Adds or replaces a device and keeps its attributes.
    ///
    /// # Errors
    /// No such tailnet.
    pub fn put_device(&self, tailnet: &str, device: Device) -> Result<(), NotFound> {
        self.tenant(tailnet, |tenant| tenant.put_device(device))
    }

    /// Changes the devices. The ids must stay.
    ///
    /// # Errors
    /// No such tailnet.
    pub fn update_devices(
        &self,
        tailnet: &str,
        change: impl FnMut(&mut Device),
    ) -> Result<(), NotFound> {
        self.tenant(tailnet, |tenant| {
            tenant.devices.values_mut().for_each(change);
            tenant.clear_lists();
        })
    }

    /// Removes a device and, without a log entry, its attributes. Returns the removed device.
    ///
    /// # Errors
    /// No such tailnet.
    pub fn remove_device(&self, tailnet: &str, node_id: &str) -> Result<Option<Device>, NotFound> {
        self.tenant(tailnet, |tenant| tenant.remove_device(node_id))
    }

    /// Returns the devices by node id.
    ///
    /// # Errors
    /// No such tailnet.
    pub fn devices(&self, tailnet: &str) -> Result<Vec<Device>, NotFound> {
        self.tenant(tailnet, |tenant| tenant.devices.values().cloned().collect())
    }

    /// Returns the attributes that clients set, without the built-in ones: `{node id: {key:
    /// value}}`. Nodes without attributes are absent.
    ///
    /// # Errors
    /// No such tailnet.
    pub fn attributes(
        &self,
        tailnet: &str,
    ) -> Result<BTreeMap<String, BTreeMap<String, Value>>, NotFound> {
        let now = self.clock.now();
        self.tenant(tailnet, |tenant| {
            tenant.expire(now);
            let values = |set: &BTreeMap<String, Attribute>| {
                set.iter()
                    .map(|(key, attribute)| (key.clone(), attribute.value.clone()))
                    .collect()
            };
            tenant
                .attributes
                .iter()
                .map(|(node, set)| (node.clone(), values(set)))
                .collect()
        })
    }

    /// Returns one attribute with its expiry.
    ///
    /// # Errors
    /// No such tailnet.
    pub fn attribute(
        &self,
        tailnet: &str,
        node_id: &str,
        key: &str,
    ) -> Result<Option<Attribute>, NotFound> {
        let now = self.clock.now();
        self.tenant(tailnet, |tenant| {
            tenant.expire(now);
            tenant
                .attributes
                .get(node_id)
                .and_then(|set| set.get(key))
                .cloned()
        })
    }

    /// Sets an attribute regardless of all rules, as the native integration or a person in the
    /// console would; `null` removes the attribute. The change log shows the comment `"simulator"`.
    ///
    /// # Errors
    /// No such tailnet.
    pub fn set_attribute(
        &self,
        tailnet: &str,
        node_id: &str,
        key: &str,
        value: impl Into<Value>,
    ) -> Result<(), NotFound> {
        let (now, value) = (self.clock.now(), value.into());
        self.tenant(tailnet, |tenant| {
            let attribute = (!value.is_null()).then_some(Attribute {
                value,
                expiry: None,
            });
            tenant.write(node_id, key, attribute, Some("simulator"), now);
        })
    }

    /// Returns every change of a value, oldest first. Setting the present value is no change.
    ///
    /// # Errors
    /// No such tailnet.
    pub fn changes(&self, tailnet: &str) -> Result<Vec<Change>, NotFound> {
        let now = self.clock.now();
        self.tenant(tailnet, |tenant| {
            tenant.expire(now);
            tenant.changes.clone()
        })
    }

    /// Returns the number of requested writes, including those that changed nothing.
    ///
    /// # Errors
    /// No such tailnet.
    pub fn writes(&self, tailnet: &str) -> Result<WriteCounts, NotFound> {
        self.tenant(tailnet, |tenant| tenant.writes)
    }

    /// Empties the change log and the write counts.
    ///
    /// # Errors
    /// No such tailnet.
    pub fn clear_changes(&self, tailnet: &str) -> Result<(), NotFound> {
        self.tenant(tailnet, |tenant| {
            tenant.changes.clear();
            tenant.writes = WriteCounts::default();
        })
    }

    /// Invalidates every access token of an OAuth client: the next call with one gets 401.
    pub fn expire_tokens(&self) {
        lock(&self.state).tokens.clear();
    }

    /// Removes all tailnets and tokens.
    pub fn reset(&self) {
        *lock(&self.state) = State::default();
    }

    fn tenant<T>(
        &self,
        tailnet: &str,
        use_it: impl FnOnce(&mut Tenant) -> T,
    ) -> Result<T, NotFound> {
        let mut state = lock(&self.state);
        let tenant = state.tailnets.get_mut(tailnet);
        tenant
            .map(use_it)
            .ok_or_else(|| NotFound(format!("tailnet {tailnet}")))
    }
}
