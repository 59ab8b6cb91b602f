//! What a test sets and reads: tailnets, devices, attributes, and switches for what the
//! documentation leaves open.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A tailnet's configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tailnet {
    /// Its name in paths, beside `-`.
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
    /// Native posture integrations, in the shape of the API's `PostureIntegration`.
    #[serde(default)]
    pub integrations: Vec<Value>,
    /// The policy file, as text (JSON with comments and trailing commas).
    #[serde(default = "open_policy")]
    pub policy: String,
    /// Behaviour that is not documented.
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
    /// A tailnet with one OAuth client of the needed scopes (`devices:core:read`,
    /// `devices:posture_attributes`, `feature_settings:read`, `policy_file:read`) and one API key,
    /// with credentials made from its name.
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
    /// What its tokens may do.
    pub scopes: BTreeSet<String>,
}

/// A workload identity: who presents a fitting token of the trusted issuer gets an access token.
/// The token's signature is not looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FederatedIdentity {
    /// Sent with the token.
    pub client_id: String,
    /// The claim `aud`.
    pub audience: String,
    /// The claim `sub`; `*` at its end matches the rest.
    pub subject: String,
    /// What its tokens may do.
    pub scopes: BTreeSet<String>,
}

/// Whether `PATCH …/device-attributes` is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchEndpoint {
    /// As in the schema.
    #[default]
    Present,
    /// 404 in plain text, as from a control server without the route.
    NotFound,
    /// 405 in plain text.
    MethodNotAllowed,
}

/// How a batch that names an unknown node is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnknownNode {
    /// 400 with a message.
    #[default]
    BadRequest,
    /// 404 with a message.
    NotFound,
    /// 200, and the node is passed over.
    Ignored,
}

/// What a batch without `expiry` does to the expiry that is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OmittedExpiry {
    /// It stays: what JSON Merge Patch says of members not named.
    #[default]
    Kept,
    /// It goes: the attribute is replaced as a whole.
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
    /// One bad entry refuses the whole batch; otherwise the good entries are written and the answer
    /// is still the error.
    pub all_or_nothing: bool,
    /// Larger batches get 400; no limit is documented.
    pub most_batch_nodes: Option<usize>,
    /// Expiry in a batch.
    pub omitted_expiry: OmittedExpiry,
    /// Namespaces that clients may write. The public API: `custom` only.
    pub writable_namespaces: BTreeSet<String>,
    /// How long an access token works.
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

/// What a device reports of itself.
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
    /// These serials.
    pub fn serials<S: Into<String>>(serials: impl IntoIterator<Item = S>) -> Self {
        Self::Serials {
            serial_numbers: serials.into_iter().map(Into::into).collect(),
        }
    }

    /// `{"disabled":true}`.
    pub fn disabled() -> Self {
        Self::Disabled { disabled: true }
    }
}

/// A device: what varies, by the names of the wire. The rest of a record is made up from it, and
/// `extra` overrides or adds any field.
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
    /// The full domain name.
    pub name: String,
    /// The machine's own name.
    pub hostname: String,
    /// Its owner.
    #[serde(default)]
    pub user: String,
    /// `macOS`, `windows`, `linux`, `iOS`.
    #[serde(default)]
    pub os: String,
    /// Shared in from another tailnet.
    #[serde(default)]
    pub is_external: bool,
    /// Connected now; `lastSeen` is then left out of the record.
    #[serde(default)]
    pub connected_to_control: bool,
    /// RFC 3339.
    #[serde(default)]
    pub last_seen: Option<String>,
    /// RFC 3339; `""` in the record of an external device.
    #[serde(default)]
    pub created: String,
    /// Tags.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Several machines use this node's key now; in the record only when true.
    #[serde(default)]
    pub multiple_connections: bool,
    /// Goes when it disconnects.
    #[serde(default)]
    pub is_ephemeral: bool,
    /// Absent when nothing was collected.
    #[serde(default)]
    pub posture_identity: Option<PostureIdentity>,
    /// Any other field of the record, and overrides.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

impl Device {
    /// A Mac, connected, that reports these serials.
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

    /// The serials reported; none when it has not opted in.
    pub fn serials(&self) -> &[String] {
        match &self.posture_identity {
            Some(PostureIdentity::Serials { serial_numbers }) => serial_numbers,
            Some(PostureIdentity::Disabled { .. }) | None => &[],
        }
    }
}

/// A posture attribute that was set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attribute {
    /// A string, a number or a boolean.
    pub value: Value,
    /// Gone after this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiry: Option<Timestamp>,
}

/// A change of an attribute's value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// From 1, over the life of the tailnet.
    pub seq: u64,
    /// When.
    pub time: Timestamp,
    /// Whose.
    pub node_id: String,
    /// Which.
    pub key: String,
    /// `None`: it was not set.
    pub old: Option<Value>,
    /// `None`: it was deleted or has expired.
    pub new: Option<Value>,
    /// As sent with the write; `"expired"` when its time was over.
    pub comment: Option<String>,
}

/// Writes as they were asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WriteCounts {
    /// Batches.
    pub patch_calls: u64,
    /// Node entries of all batches.
    pub patch_nodes: u64,
    /// Single sets.
    pub post_calls: u64,
    /// Single deletes.
    pub delete_calls: u64,
    /// Attributes written with the value and expiry they already had.
    pub unchanged: u64,
}
