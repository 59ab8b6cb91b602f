//! Inputs and outputs of a test: tailnets, devices, attributes, and switches for undocumented
//! behaviour.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A tailnet's configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tailnet {
    /// Its name in paths; `-` works too.
    pub name: String,
    /// OAuth clients.
    #[serde(default)]
    pub oauth_clients: Vec<OAuthClient>,
    /// API access tokens of a person with all permissions.
    #[serde(default)]
    pub api_keys: BTreeSet<String>,
    /// Workload identities.
    #[serde(default)]
    pub federated_identities: Vec<FederatedIdentity>,
    /// `postureIdentityCollectionOn`; without it no device shows its serials.
    #[serde(default = "on")]
    pub identity_collection: bool,
    /// Native posture integrations, in the form of the API's `PostureIntegration`.
    #[serde(default)]
    pub integrations: Vec<Value>,
    /// The policy file, as text (JSON with comments and trailing commas).
    #[serde(default = "open_policy")]
    pub policy: String,
    /// Undocumented behaviour.
    #[serde(default)]
    pub switches: Switches,
}

fn on() -> bool {
    true
}

fn open_policy() -> String {
    "{\n\t// everything may talk to everything\n\t\"grants\": [{\"src\": [\"*\"], \"dst\": [\"*\"], \"ip\": [\"*\"]}],\n}\n".to_owned()
}

impl Tailnet {
    /// Returns a tailnet with one OAuth client of the needed scopes (`devices:core:read`,
    /// `devices:posture_attributes`, `feature_settings:read`, `policy_file:read`) and one API key.
    /// Their credentials are derived from its name.
    pub fn new(name: &str) -> Self {
        let slug: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        let scopes = [
            "devices:core:read",
            "devices:posture_attributes",
            "feature_settings:read",
            "policy_file:read",
        ];
        Self {
            name: name.to_owned(),
            oauth_clients: vec![OAuthClient {
                client_id: format!("k{slug}CNTRL"),
                client_secret: format!("tskey-client-k{slug}CNTRL-secret"),
                scopes: scopes.into_iter().map(str::to_owned).collect(),
            }],
            api_keys: BTreeSet::from([format!("tskey-api-k{slug}CNTRL-key")]),
            federated_identities: Vec::new(),
            identity_collection: true,
            integrations: Vec::new(),
            policy: open_policy(),
            switches: Switches::default(),
        }
    }
}

/// An OAuth client ("trust credential").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OAuthClient {
    /// Not needed for a token: the secret alone identifies the client.
    pub client_id: String,
    /// `tskey-client-…`.
    pub client_secret: String,
    /// Scopes of its tokens.
    pub scopes: BTreeSet<String>,
}

/// A workload identity: a matching token of the trusted issuer gets an access token. The token's
/// signature is not checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FederatedIdentity {
    /// The client id in the token request.
    pub client_id: String,
    /// The required claim `aud`.
    pub audience: String,
    /// The required claim `sub`; a final `*` matches the rest.
    pub subject: String,
    /// Scopes of its tokens.
    pub scopes: BTreeSet<String>,
}

/// State of `PATCH …/device-attributes`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchEndpoint {
    /// The endpoint exists, as in the schema.
    #[default]
    Present,
    /// 404 in plain text, as from a control server without the route.
    NotFound,
    /// 405 in plain text.
    MethodNotAllowed,
}

/// Response to a batch that names an unknown node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnknownNode {
    /// 400 with a message.
    #[default]
    BadRequest,
    /// 404 with a message.
    NotFound,
    /// 200, and the node is ignored.
    Ignored,
}

/// Effect of a batch without `expiry` on the present expiry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OmittedExpiry {
    /// The expiry stays: JSON Merge Patch keeps members that it does not name.
    #[default]
    Kept,
    /// The expiry is removed: the batch replaces the whole attribute.
    Cleared,
}

/// Behaviour that the documentation leaves open or that differs between control servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Switches {
    /// The batch endpoint.
    pub batch: BatchEndpoint,
    /// Unknown nodes in a batch.
    pub unknown_node: UnknownNode,
    /// One bad entry rejects the whole batch. Otherwise the good entries are written and the
    /// response is the same error.
    pub all_or_nothing: bool,
    /// Larger batches get 400; no limit is documented.
    pub most_batch_nodes: Option<usize>,
    /// Expiry in a batch.
    pub omitted_expiry: OmittedExpiry,
    /// Namespaces that clients may write. The public API allows `custom` only.
    pub writable_namespaces: BTreeSet<String>,
    /// Lifetime of an access token.
    pub token_lifetime_s: u64,
}

impl Default for Switches {
    fn default() -> Self {
        Self {
            batch: BatchEndpoint::default(),
            unknown_node: UnknownNode::default(),
            all_or_nothing: true,
            most_batch_nodes: None,
            omitted_expiry: OmittedExpiry::default(),
            writable_namespaces: BTreeSet::from(["custom".to_owned()]),
            token_lifetime_s: 3600,
        }
    }
}

/// A device's report about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum PostureIdentity {
    /// SMBIOS serials as reported: up to three and more, not deduplicated, placeholders included.
    Serials {
        /// The serials.
        #[serde(rename = "serialNumbers")]
        serial_numbers: Vec<String>,
    },
    /// The device has not opted in.
    Disabled {
        /// Always `true`.
        disabled: bool,
    },
}

impl PostureIdentity {
    /// Returns an identity with these serials.
    pub fn serials<S: Into<String>>(serials: impl IntoIterator<Item = S>) -> Self {
        Self::Serials {
            serial_numbers: serials.into_iter().map(Into::into).collect(),
        }
    }

    /// Returns `{"disabled":true}`.
    pub fn disabled() -> Self {
        Self::Disabled { disabled: true }
    }
}

/// The varying fields of a device, by their JSON names. The rest of a record is derived from these,
/// and `extra` overrides or adds any field.
#[expect(
    clippy::struct_excessive_bools,
    reason = "the fields of the API's record"
)]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// The preferred id.
    pub node_id: String,
    /// The legacy id, digits.
    pub id: String,
    /// Full domain name.
    pub name: String,
    /// Host name of the machine.
    pub hostname: String,
    /// Owner.
    #[serde(default)]
    pub user: String,
    /// `macOS`, `windows`, `linux` or `iOS`.
    #[serde(default)]
    pub os: String,
    /// True if another tailnet shares the device.
    #[serde(default)]
    pub is_external: bool,
    /// True if the device is connected; the record then omits `lastSeen`.
    #[serde(default)]
    pub connected_to_control: bool,
    /// Time in RFC 3339.
    #[serde(default)]
    pub last_seen: Option<String>,
    /// Time in RFC 3339; `""` in the record of an external device.
    #[serde(default)]
    pub created: String,
    /// Tags.
    #[serde(default)]
    pub tags: Vec<String>,
    /// True if several machines use this node's key; the record shows only true.
    #[serde(default)]
    pub multiple_connections: bool,
    /// True if the device is removed when it disconnects.
    #[serde(default)]
    pub is_ephemeral: bool,
    /// True if no client may manage the device: each call about it is forbidden, also a batch that contains it.
    #[serde(default)]
    pub is_unmanageable: bool,
    /// True if the listing leaves the device out.
    #[serde(default)]
    pub is_unlisted: bool,
    /// Absent when nothing was collected.
    #[serde(default)]
    pub posture_identity: Option<PostureIdentity>,
    /// Additional or overridden fields of the record.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

impl Device {
    /// Returns a connected Mac that reports these serials.
    pub fn new<S: Into<String>>(
        node_id: &str,
        hostname: &str,
        serials: impl IntoIterator<Item = S>,
    ) -> Self {
        let digits = node_id.bytes().fold(7_u64, |sum, byte| {
            sum.wrapping_mul(131).wrapping_add(u64::from(byte))
        });
        Self {
            node_id: node_id.to_owned(),
            id: (digits % 90_000_000_000 + 10_000_000_000).to_string(),
            name: format!("{hostname}.tail0sim.ts.net"),
            hostname: hostname.to_owned(),
            user: "amelie@example.com".to_owned(),
            os: "macOS".to_owned(),
            connected_to_control: true,
            created: "2025-03-01T09:00:00Z".to_owned(),
            posture_identity: Some(PostureIdentity::serials(serials)),
            ..Self::default()
        }
    }

    /// Returns the reported serials; none for a device that has not opted in.
    pub fn serials(&self) -> &[String] {
        match &self.posture_identity {
            Some(PostureIdentity::Serials { serial_numbers }) => serial_numbers,
            Some(PostureIdentity::Disabled { .. }) | None => &[],
        }
    }
}

/// A posture attribute that a client set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attribute {
    /// A string, a number or a boolean.
    pub value: Value,
    /// Time after which the attribute is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiry: Option<Timestamp>,
}

/// A change of an attribute's value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Sequence number, from 1, over the life of the tailnet.
    pub seq: u64,
    /// Time of the change.
    pub time: Timestamp,
    /// Node of the change.
    pub node_id: String,
    /// Key of the attribute.
    pub key: String,
    /// `None`: the attribute was not set.
    pub old: Option<Value>,
    /// `None`: the attribute was deleted or has expired.
    pub new: Option<Value>,
    /// The comment of the write; `"expired"` for an expiry.
    pub comment: Option<String>,
}

/// Counts of requested writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WriteCounts {
    /// Number of batches.
    pub patch_calls: u64,
    /// Number of node entries in all batches.
    pub patch_nodes: u64,
    /// Number of single sets.
    pub post_calls: u64,
    /// Number of single deletes.
    pub delete_calls: u64,
    /// Number of attributes written with their present value and expiry.
    pub unchanged: u64,
}
