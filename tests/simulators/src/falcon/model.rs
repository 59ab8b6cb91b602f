//! Inputs of a test: accounts, hosts, and the behaviours of the service that are known to vary.

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
    /// The name in tests and in the control interface.
    pub name: String,
    /// Client id: 32 hex digits.
    pub client_id: String,
    /// Client secret: 40 characters.
    pub client_secret: String,
    /// The customer id, 32 lower-case hex digits, as in the records of its hosts.
    pub cid: String,
    /// Flight Control: the child that a token request must name as `member_cid`. Several accounts
    /// may share a client and differ in this.
    #[serde(default)]
    pub member_cid: Option<String>,
    /// The cloud of the account. Other clouds answer with 308.
    #[serde(default = "us_1")]
    pub region: String,
    /// Scopes: `hosts:read`, `zta:read`.
    #[serde(default = "all_scopes")]
    pub scopes: BTreeSet<String>,
    /// `false`: the caller's address is outside the customer's allow-list.
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
    /// Returns an account in `us-1` with both scopes, and credentials derived from its name.
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

    /// Moves the account to another cloud.
    #[must_use]
    pub fn region(mut self, region: &str) -> Self {
        region.clone_into(&mut self.region);
        self
    }

    /// Replaces the scopes.
    #[must_use]
    pub fn scopes<'a>(mut self, scopes: impl IntoIterator<Item = &'a str>) -> Self {
        self.scopes = scopes.into_iter().map(str::to_owned).collect();
        self
    }
}

/// FNV-1a, 128 bits: gives ids of a realistic form that are the same in every run.
fn fingerprint(text: &str) -> u128 {
    text.bytes()
        .fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash, byte| {
            (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
        })
}

/// The varying fields of a host record. The rest of a record is derived from these, and `extra`
/// overrides or adds any field with any JSON value.
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
    /// Time in RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<String>,
    /// Time in RFC 3339 of the sensor's installation; a record has one of 2023 where this is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_seen: Option<String>,
    /// `normal`, `contained`, `containment_pending` or `lift_containment_pending`; `normal` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// `Windows`, `Mac` or `Linux`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform_name: Option<String>,
    /// `Workstation` or `Server`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product_type_desc: Option<String>,
    /// Additional or overridden fields of the record.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

impl Host {
    /// Returns a Mac workstation that was last seen at `last_seen`.
    pub fn new(device_id: &str, serial_number: &str, hostname: &str, last_seen: &str) -> Self {
        Self {
            device_id: device_id.to_owned(),
            serial_number: Some(serial_number.to_owned()),
            hostname: Some(hostname.to_owned()),
            last_seen: Some(last_seen.to_owned()),
            first_seen: None,
            status: None,
            platform_name: Some("Mac".to_owned()),
            product_type_desc: Some("Workstation".to_owned()),
            extra: BTreeMap::new(),
        }
    }
}

/// Form of the host listing's cursors. The specification says strings; numbers were reported once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CursorStyle {
    /// A string that continues after the last host served.
    #[default]
    Opaque,
    /// A JSON number, the position in the present order: removing an earlier host shifts the rest.
    Numeric,
}

/// Form of `next` on the last page of the host listing; the real service's form is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LastPage {
    /// The key is missing.
    #[default]
    Absent,
    /// An empty string.
    Empty,
}

/// Name of the cursor in assessment listings: `after` is recorded, `next` is in some
/// specifications.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ZtaCursorName {
    /// `after`, as recorded.
    #[default]
    After,
    /// `next`, as in the specifications of 2025.
    Next,
}

/// Response to assessments of unknown ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnknownIds {
    /// 200 without the unknown ids, since 2024.
    #[default]
    Missing,
    /// 404 with the known ids' records in the same body, before 2024.
    NotFound,
}

/// Unit of `X-Ratelimit-Retryafter`: the specification says milliseconds, every client reads
/// seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryAfterUnit {
    /// Seconds since the epoch.
    #[default]
    Seconds,
    /// Milliseconds since the epoch.
    Milliseconds,
    /// No header, as seen on some 429s.
    Missing,
}

/// Behaviour of the whole side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Lifetime of a token; the default is the announced 30 minutes.
    pub token_lifetime_s: u64,
    /// `expires_in` of a token. Shorten only `token_lifetime_s` to end a token before its announced
    /// time.
    pub announced_lifetime_s: u64,
    /// Lifetime of a cursor.
    pub cursor_lifetime_s: u64,
    /// Form of the host listing's cursors.
    pub host_cursor: CursorStyle,
    /// End of the host listing.
    pub last_page: LastPage,
    /// Name of the assessment listing's cursor.
    pub zta_cursor: ZtaCursorName,
    /// Response to assessments of unknown ids.
    pub unknown_ids: UnknownIds,
    /// Maximum records of a page, whatever the limit in the request: a server may return fewer.
    pub longest_page: Option<usize>,
    /// Maximum bytes of a host filter.
    pub longest_filter: Option<usize>,
    /// Status of the response to a longer filter.
    pub long_filter_status: u16,
    /// Request budget of each customer.
    pub requests_per_minute: u32,
    /// Request budget of the token endpoint.
    pub tokens_per_minute: u32,
    /// Request budget of callers without a valid token.
    pub strangers_per_minute: u32,
    /// Unit of the wait announced with a 429.
    pub retry_after: RetryAfterUnit,
    /// True if string comparisons in FQL ignore case; the real service's rule is not known.
    pub fql_ignores_case: bool,
    /// Replaces the right region's address in the `Location` of a 308 for a token.
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
            longest_filter: None,
            long_filter_status: 414,
            requests_per_minute: 6000,
            tokens_per_minute: 300,
            strangers_per_minute: 15,
            retry_after: RetryAfterUnit::default(),
            fql_ignores_case: false,
            redirect_location: None,
        }
    }
}
