//! The postures of the tailnet's policy file, and where it uses them.

use std::collections::BTreeMap;

use reqwest::Method;
use reqwest::header::ACCEPT;
use serde::Deserialize;

use crate::json::lenient::{BoundedList, LenientObject, ListOrOther, LooseValue};
use crate::tailscale::{Tailscale, operation};
use crate::text::sanitize;
use crate::upstream::error::UpstreamError;
use crate::upstream::operation::Operation;

const POLICY: Operation = operation("the look-up of the policy file", "policy_file:read");

/// How much of a name or a condition is kept.
const TEXT_CHARS: usize = 200;
/// So many conditions of a posture are looked at, and so many rules and postures.
const CONDITIONS: usize = 100;
const RULES: usize = 10_000;

/// What concerns postures in a policy file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The conditions of each posture, by its name.
    pub postures: BTreeMap<String, Vec<String>>,
    /// Where each is used, in words.
    pub used_in: BTreeMap<String, Vec<String>>,
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

/// A list of texts; what else stands there is passed over.
#[derive(Default)]
struct StringList(Vec<String>);

impl<'de> Deserialize<'de> for StringList {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let first = match ListOrOther::<LooseValue, CONDITIONS>::deserialize(deserializer)? {
            ListOrOther::Many { first, .. } => first,
            ListOrOther::Null | ListOrOther::LooseValue | ListOrOther::One(_) => Vec::new(),
        };
        let texts = first.into_iter().filter_map(LooseValue::text);
        Ok(Self(
            texts.map(|text| sanitize(&text, TEXT_CHARS)).collect(),
        ))
    }
}

#[derive(Default, Deserialize)]
struct Rules(Option<BoundedList<LenientObject<Rule>, RULES>>);

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Rule {
    src_posture: StringList,
}

impl Tailscale {
    /// The postures of the policy file.
    ///
    /// # Errors
    /// [`UpstreamError::MissingScope`] without `policy_file:read`; or as for any call.
    pub async fn policy(&self) -> Result<Policy, UpstreamError> {
        let session = &self.session;
        let url = session.url(["tailnet", session.tailnet.as_str(), "acl"]);
        // By default it is answered with comments and trailing commas.
        let request = || {
            let request = session.http.request(Method::GET, url.clone());
            request.header(ACCEPT, "application/json")
        };
        let reply = session.call(POLICY, request, |_| false).await?;
        let wire: Wire = POLICY.decode(&reply.body)?;
        Ok(wire.into())
    }
}

impl From<Wire> for Policy {
    fn from(wire: Wire) -> Self {
        let mut used_in: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for posture in wire.default_src_posture.0 {
            used_in
                .entry(posture)
                .or_default()
                .push("defaultSrcPosture".to_owned());
        }
        for (kind, Rules(rules)) in [
            ("grants", wire.grants),
            ("acls", wire.acls),
            ("ssh", wire.ssh),
        ] {
            let rules = rules.map_or_else(Vec::new, |BoundedList(rules)| rules);
            for (position, LenientObject(rule)) in rules.into_iter().enumerate() {
                for posture in rule.unwrap_or_default().src_posture.0 {
                    used_in
                        .entry(posture)
                        .or_default()
                        .push(format!("{kind}[{position}]"));
                }
            }
        }
        let postures = wire.postures.into_iter().take(RULES);
        Self {
            postures: postures
                .map(|(name, StringList(conditions))| (sanitize(&name, TEXT_CHARS), conditions))
                .collect(),
            used_in,
        }
    }
}
