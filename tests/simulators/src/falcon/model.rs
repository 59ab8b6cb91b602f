//! What a test sets: accounts, hosts, and how the service behaves where it is known to vary.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The scope of the host endpoints ("Hosts: Read").
pub(crate) const HOSTS_READ: &str = "hosts:read";
/// The scope of the assessment endpoints ("Zero Trust Assessment: Read").
pub(crate) const ZTA_READ: &str = "zta:read";

/// A customer (CID) and its API client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// How tests and the control interface call it.
    pub name: String,
    /// 32 hex digits.
    pub client_id: String,
    /// 40 characters.
    pub client_secret: String,
    /// The customer, 32 lower-case hex digits; in the records of its hosts.
    pub cid: String,
    /// Flight Control: the child that a token must be asked for by `member_cid`. Several accounts
    /// may share a client and differ in this.
    #[serde(default)]
    pub member_cid: Option<String>,
    /// The cloud it lives in; elsewhere it is answered with 308.
    #[serde(default = "us_1")]
    pub region: String,
    /// `hosts:read`, `zta:read`.
    #[serde(default = "all_scopes")]
    pub scopes: BTreeSet<String>,
    /// `false`: the caller's address is not on the customer's allow-list.
    #[serde(default = "yes")]
    pub ip_allowed: bool,
}

fn us_1() -> String {
    "us-1".to_owned()
}

fn all_scopes() -> BTreeSet<String> {
    BTreeSet::from([HOSTS_READ.to_owned(), ZTA_READ.to_owned()])
}

fn yes() -> bool {
    true
}

impl Account {
    /// An account in `us-1` with both scopes, and credentials made from its name.
    pub fn new(name: &str) -> Self {
        let id = fingerprint(name);
        Self {
            name: name.to_owned(),
            client_id: format!("{id:032x}"),
            client_secret: format!("{:040x}", fingerprint(&format!("{name} secret"))),
            cid: format!("{:032x}", fingerprint(&format!("{name} cid"))),
            member_cid: None,
            region: us_1(),
            scopes: all_scopes(),
            ip_allowed: true,
        }
    }

    /// In another cloud.
    #[must_use]
    pub fn region(mut self, region: &str) -> Self {
        region.clone_into(&mut self.region);
        self
    }

    /// With these scopes only.
    #[must_use]
    pub fn scopes<'a>(mut self, scopes: impl IntoIterator<Item = &'a str>) -> Self {
        self.scopes = scopes.into_iter().map(str::to_owned).collect();
        self
    }
}

/// FNV-1a, 128 bits: ids that look like ids and are the same in every run.
fn fingerprint(text: &str) -> u128 {
    text.bytes()
        .fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash, byte| {
            (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
        })
}

/// A host record: what varies. The rest of a record is made up from it, and `extra` overrides or
/// adds any field, with any JSON value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// The agent id, 32 lower-case hex digits.
    pub device_id: String,
    /// Absent, not empty, when unknown (recorded of a `VirtualBox` host).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial_number: Option<String>,
    /// Absent for a few hosts in ten thousand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<String>,
    /// `Windows`, `Mac`, `Linux`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform_name: Option<String>,
    /// `Workstation`, `Server`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product_type_desc: Option<String>,
    /// Any other field of the record, and overrides.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

impl Host {
    /// A Mac workstation, seen at `last_seen`.
    pub fn new(device_id: &str, serial_number: &str, hostname: &str, last_seen: &str) -> Self {
        Self {
            device_id: device_id.to_owned(),
            serial_number: Some(serial_number.to_owned()),
            hostname: Some(hostname.to_owned()),
            last_seen: Some(last_seen.to_owned()),
            platform_name: Some("Mac".to_owned()),
            product_type_desc: Some("Workstation".to_owned()),
            extra: BTreeMap::new(),
        }
    }
}

/// How cursors of the host listing look. Specified as strings; numbers were reported once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CursorStyle {
    /// A string that goes on behind the last host served.
    #[default]
    Opaque,
    /// A JSON number, the position in the present order: a host removed before it shifts the rest.
    Numeric,
}

/// How `next` of the host listing looks on the last page; not known of the real service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LastPage {
    /// No such key.
    #[default]
    Absent,
    /// `""`.
    Empty,
}

/// The name of the cursor in assessment listings: `after` is recorded, `next` is in some specs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ZtaCursorName {
    /// As recorded.
    #[default]
    After,
    /// As in the specs of 2025.
    Next,
}

/// How assessments of unknown ids are answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnknownIds {
    /// 200 without them, since 2024.
    #[default]
    Missing,
    /// 404, with the known ones' records in the same body, before that.
    NotFound,
}

/// The unit of `X-Ratelimit-Retryafter`: the spec says milliseconds, every client reads seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryAfterUnit {
    /// Seconds since the epoch.
    #[default]
    Seconds,
    /// Milliseconds since the epoch.
    Milliseconds,
    /// The header is missing, as seen on some 429s.
    Missing,
}

/// How the whole side behaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How long a token works; by default the 30 minutes that are announced.
    pub token_lifetime_s: u64,
    /// `expires_in` of a token; shorten only the other to have one die before its time.
    pub announced_lifetime_s: u64,
    /// How long a cursor works.
    pub cursor_lifetime_s: u64,
    /// Cursors of the host listing.
    pub host_cursor: CursorStyle,
    /// The end of the host listing.
    pub last_page: LastPage,
    /// Cursors of the assessment listing.
    pub zta_cursor: ZtaCursorName,
    /// Assessments of unknown ids.
    pub unknown_ids: UnknownIds,
    /// The most records of a page, however many are asked for: a server may always return fewer.
    pub longest_page: Option<usize>,
    /// The budget of each customer.
    pub requests_per_minute: u32,
    /// The budget of the token endpoint.
    pub tokens_per_minute: u32,
    /// The budget of requests without a valid token.
    pub strangers_per_minute: u32,
    /// The wait announced with a 429.
    pub retry_after: RetryAfterUnit,
    /// Whether string comparisons in FQL ignore case; not known of the real service.
    pub fql_ignores_case: bool,
    /// In place of the right region's address in the `Location` of a 308 for a token.
    pub redirect_location: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            token_lifetime_s: 1799,
            announced_lifetime_s: 1799,
            cursor_lifetime_s: 120,
            host_cursor: CursorStyle::default(),
            last_page: LastPage::default(),
            zta_cursor: ZtaCursorName::default(),
            unknown_ids: UnknownIds::default(),
            longest_page: None,
            requests_per_minute: 6000,
            tokens_per_minute: 300,
            strangers_per_minute: 15,
            retry_after: RetryAfterUnit::default(),
            fql_ignores_case: false,
            redirect_location: None,
        }
    }
}
