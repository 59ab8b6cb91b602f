//! The postures of the tailnet's policy file, and the rules that use them.

use std::collections::BTreeMap;

use reqwest::Method;
use reqwest::header::ACCEPT;
use serde::Deserialize;

use crate::json::lenient::{BoundedList, LenientObject, LenientText, ListOrOther};
use crate::tailscale::{Tailscale, operation};
use crate::text::sanitize;
use crate::upstream::error::{Operation, UpstreamError};

const POLICY: Operation = operation("policy file lookup", "policy_file:read");

/// Maximum characters of a name or a condition.
const MAX_TEXT_CHARS: usize = 200;
/// Maximum conditions of a posture.
const MAX_CONDITIONS: usize = 100;
/// Maximum rules of a kind, and maximum postures.
const MAX_RULES: usize = 10_000;

/// The part of a policy file that is about postures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The conditions of each posture, by its name.
    pub(crate) postures: BTreeMap<String, Vec<String>>,
    /// The rules that use each posture, such as `grants[2]`.
    pub(crate) used_in: BTreeMap<String, Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Wire {
    postures: BTreeMap<String, StringList>,
    default_src_posture: StringList,
    grants: Rules,
    acls: Rules,
    ssh: Rules,
}

/// A list of strings; other values are skipped.
#[derive(Default)]
struct StringList(Vec<String>);

impl<'de> Deserialize<'de> for StringList {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = ListOrOther::<LenientText<String>, MAX_CONDITIONS>::deserialize(deserializer)?;
        let strings = texts.into_list().into_iter().filter_map(|text| text.0);
        let sanitized = strings.map(|text| sanitize(&text, MAX_TEXT_CHARS));
        Ok(Self(sanitized.collect()))
    }
}

type Rules = Option<BoundedList<LenientObject<Rule>, MAX_RULES>>;

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Rule {
    src_posture: StringList,
}

impl Tailscale {
    /// Reads the postures of the policy file.
    ///
    /// # Errors
    /// A missing scope without `policy_file:read`; or as for any call.
    pub(crate) async fn policy(&self) -> Result<Policy, UpstreamError> {
        let url = self.tailnet_url(["acl"]);
        // Without the header, the response has comments and trailing commas.
        let request = || {
            let request = self.client.request(Method::GET, url.clone());
            request.header(ACCEPT, "application/json")
        };
        let response = self.call(&self.client, POLICY, request, |_| false);
        let response = response.await?;
        let wire: Wire = POLICY.decode(&response.body)?;
        Ok(wire.into())
    }
}

impl From<Wire> for Policy {
    fn from(wire: Wire) -> Self {
        let mut used_in: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut add_use = |posture, rule| used_in.entry(posture).or_default().push(rule);
        for posture in wire.default_src_posture.0 {
            add_use(posture, "defaultSrcPosture".to_owned());
        }
        for (kind, rules) in [
            ("grants", wire.grants),
            ("acls", wire.acls),
            ("ssh", wire.ssh),
        ] {
            let BoundedList(rules) = rules.unwrap_or_default();
            for (position, LenientObject(rule)) in rules.into_iter().enumerate() {
                for posture in rule.unwrap_or_default().src_posture.0 {
                    add_use(posture, format!("{kind}[{position}]"));
                }
            }
        }
        let postures = wire.postures.into_iter().take(MAX_RULES);
        Self {
            postures: postures
                .map(|(name, StringList(conditions))| (sanitize(&name, MAX_TEXT_CHARS), conditions))
                .collect(),
            used_in,
        }
    }
}
