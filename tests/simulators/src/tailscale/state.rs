//! The state behind the Tailscale routes.

use std::collections::{BTreeMap, BTreeSet};

use axum::body::Bytes;
use jiff::Timestamp;
use serde_json::Value;

use super::model::{Attribute, Change, Device, Tailnet, WriteCounts};

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) tailnets: BTreeMap<String, Tenant>,
    /// Tokens by access token.
    pub(crate) tokens: BTreeMap<String, Token>,
    pub(crate) issued: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) tailnet: String,
    pub(crate) scopes: BTreeSet<String>,
    pub(crate) expires: Timestamp,
}

/// A tailnet's data.
#[derive(Debug)]
pub(crate) struct Tenant {
    pub(crate) config: Tailnet,
    /// Devices by node id.
    pub(crate) devices: BTreeMap<String, Device>,
    /// Node id by legacy id.
    legacy_ids: BTreeMap<String, String>,
    /// Attributes by node id, then key. Nodes without attributes are absent.
    pub(crate) attributes: BTreeMap<String, BTreeMap<String, Attribute>>,
    pub(crate) keys: Keys,
    pub(crate) changes: Vec<Change>,
    pub(crate) writes: WriteCounts,
    last_change: u64,
    /// No attribute expires before this time, so most requests skip the search.
    next_expiry: Option<Timestamp>,
    /// The latest device lists (`fields=default`, `fields=all`), until a device changes.
    pub(crate) lists: [Option<Bytes>; 2],
}

impl Tenant {
    pub(crate) fn new(config: Tailnet) -> Self {
        Self {
            config,
            devices: BTreeMap::new(),
            legacy_ids: BTreeMap::new(),
            attributes: BTreeMap::new(),
            keys: Keys::default(),
            changes: Vec::new(),
            writes: WriteCounts::default(),
            last_change: 0,
            next_expiry: None,
            lists: [None, None],
        }
    }

    pub(crate) fn clear_lists(&mut self) {
        self.lists = [None, None];
    }

    pub(crate) fn put_device(&mut self, device: Device) {
        self.clear_lists();
        self.legacy_ids
            .insert(device.id.clone(), device.node_id.clone());
        self.devices.insert(device.node_id.clone(), device);
    }

    pub(crate) fn remove_device(&mut self, node_id: &str) -> Option<Device> {
        let device = self.devices.remove(node_id)?;
        self.clear_lists();
        self.legacy_ids.remove(&device.id);
        for key in self
            .attributes
            .remove(node_id)
            .unwrap_or_default()
            .into_keys()
        {
            self.keys.release(&key);
        }
        Some(device)
    }

    /// Returns a device by either id.
    pub(crate) fn device(&self, id: &str) -> Option<&Device> {
        let node_id = self.legacy_ids.get(id).map_or(id, String::as_str);
        self.devices.get(node_id)
    }

    /// Sets (`Some`) or deletes (`None`) an attribute. The caller has checked the rules.
    pub(crate) fn write(
        &mut self,
        node_id: &str,
        key: &str,
        new: Option<Attribute>,
        comment: Option<&str>,
        now: Timestamp,
    ) {
        let set = self.attributes.entry(node_id.to_owned()).or_default();
        let old = set.get(key).cloned();
        if old == new {
            self.writes.unchanged += 1;
            self.drop_if_empty(node_id);
            return;
        }
        if let Some(attribute) = &new {
            set.insert(key.to_owned(), attribute.clone());
            if old.is_none() {
                self.keys.acquire(key, &attribute.value);
            }
            self.next_expiry = self.next_expiry.into_iter().chain(attribute.expiry).min();
        } else {
            set.remove(key);
            self.keys.release(key);
        }
        self.drop_if_empty(node_id);
        let (old, new) = (
            old.map(|attribute| attribute.value),
            new.map(|attribute| attribute.value),
        );
        if old != new {
            self.last_change += 1;
            self.changes.push(Change {
                seq: self.last_change,
                time: now,
                node_id: node_id.to_owned(),
                key: key.to_owned(),
                old,
                new,
                comment: comment.map(str::to_owned),
            });
        }
    }

    fn drop_if_empty(&mut self, node_id: &str) {
        if self.attributes.get(node_id).is_some_and(BTreeMap::is_empty) {
            self.attributes.remove(node_id);
        }
    }

    /// Removes expired attributes.
    pub(crate) fn expire(&mut self, now: Timestamp) {
        if self.next_expiry.is_none_or(|next| next > now) {
            return;
        }
        let all = self.attributes.iter().flat_map(|(node, set)| {
            set.iter()
                .map(move |(key, attribute)| (node, key, attribute.expiry))
        });
        let due: Vec<(String, String)> = all
            .filter(|(_, _, expiry)| expiry.is_some_and(|at| at <= now))
            .map(|(node, key, _)| (node.clone(), key.clone()))
            .collect();
        for (node, key) in due {
            self.write(&node, &key, None, Some("expired"), now);
        }
        self.next_expiry = self
            .attributes
            .values()
            .flat_map(BTreeMap::values)
            .filter_map(|attribute| attribute.expiry)
            .min();
    }
}

/// Type of a value; all values of a key in a tailnet share one type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Number,
    Flag,
}

impl Kind {
    pub(crate) fn of(value: &Value) -> Option<Self> {
        if value.is_string() {
            Some(Self::Text)
        } else if value.is_number() {
            Some(Self::Number)
        } else {
            value.is_boolean().then_some(Self::Flag)
        }
    }
}

/// The keys of a tailnet: their spelling while in use, and their permanent type ("determined when
/// the first value is written").
#[derive(Clone, Debug, Default)]
pub(crate) struct Keys {
    /// Spelling and number of nodes by lower-cased key.
    spellings: BTreeMap<String, (String, usize)>,
    kinds: BTreeMap<String, Kind>,
}

impl Keys {
    /// Returns the spelling in use if it differs from this one.
    pub(crate) fn conflicting_spelling(&self, key: &str) -> Option<&str> {
        let (spelling, holders) = self.spellings.get(&key.to_lowercase())?;
        (*holders > 0 && spelling != key).then_some(spelling)
    }

    pub(crate) fn kind(&self, key: &str) -> Option<Kind> {
        self.kinds.get(key).copied()
    }

    pub(crate) fn acquire(&mut self, key: &str, value: &Value) {
        let (spelling, holders) = self.spellings.entry(key.to_lowercase()).or_default();
        key.clone_into(spelling);
        *holders += 1;
        if let Some(kind) = Kind::of(value) {
            self.kinds.entry(key.to_owned()).or_insert(kind);
        }
    }

    pub(crate) fn release(&mut self, key: &str) {
        if let Some((_, holders)) = self.spellings.get_mut(&key.to_lowercase()) {
            *holders = holders.saturating_sub(1);
        }
    }
}
