//! Parses the events about a new version of a secret.
//!
//! Secrets Manager's own event needs no trail. Events through `CloudTrail` have two forms, for a call and for a rotation.
//! Each form names the secret in another field, by name or by ARN.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::settings::SecretName;

const SOURCE: &str = "aws.secretsmanager";
const DETAIL_TYPES: [&str; 3] = [
    "Secret Label Updated",
    "AWS API Call via CloudTrail",
    "AWS Service Event via CloudTrail",
];

/// The fields that may name the secret.
const SECRET_POINTERS: [&str; 6] = [
    "/detail/name",
    "/detail/requestParameters/secretId",
    "/detail/responseElements/arn",
    // The spelling of some calls before February 2024.
    "/detail/responseElements/aRN",
    "/detail/additionalEventData/SecretId",
    "/resources/0",
];

/// Length of the random suffix of a secret's ARN: a hyphen and six characters.
const ARN_SUFFIX_LEN: usize = 7;

/// Returns the names by which an event may identify its secret, or `None` if the event is not about a secret.
pub(super) fn secret_names(kind: &str, event: &Value) -> Option<BTreeSet<SecretName>> {
    if !DETAIL_TYPES.contains(&kind) || event["source"] != SOURCE {
        return None;
    }
    let texts = SECRET_POINTERS
        .iter()
        .filter_map(|place| event.pointer(place)?.as_str());
    Some(texts.flat_map(names_in).collect())
}

/// Returns the names that a text may stand for. An ARN ends in the name and a random suffix. Secrets Manager also accepts an
/// ARN without the suffix, so both readings count. A wrong reading costs one sync that changes nothing.
fn names_in(text: &str) -> Vec<SecretName> {
    let name = match text.split_once(":secret:") {
        Some((arn, name)) if arn.starts_with("arn:") => name,
        _ => return SecretName::try_from(text.to_owned()).into_iter().collect(),
    };
    let without_suffix = name
        .len()
        .checked_sub(ARN_SUFFIX_LEN)
        .and_then(|end| name.split_at_checked(end))
        .filter(|(_, suffix)| suffix.starts_with('-'))
        .map(|(name, _)| name);
    let names = [Some(name), without_suffix].into_iter().flatten();
    names
        .filter_map(|name| SecretName::try_from(name.to_owned()).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn meant(kind: &str, event: Value) -> Vec<String> {
        let mut event = event;
        event["source"] = json!(SOURCE);
        secret_names(kind, &event)
            .unwrap()
            .into_iter()
            .map(|name| name.to_string())
            .collect()
    }

    #[test]
    fn each_form_of_the_event_names_the_secret() {
        let arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:corp/falcon-a1b2c3";
        let both = ["corp/falcon", "corp/falcon-a1b2c3"];
        let native = json!({"resources": [arn], "detail": {"name": "corp/falcon", "labelUpdated": "AWSCURRENT"}});
        assert_eq!(meant("Secret Label Updated", native), both);
        for (secret, expect) in [(arn, &both[..]), ("corp/falcon", &both[..1])] {
            let call = json!({"detail": {"requestParameters": {"secretId": secret}}});
            assert_eq!(meant("AWS API Call via CloudTrail", call), expect);
        }
        let rotated = json!({"detail": {"additionalEventData": {"SecretId": arn}}});
        assert_eq!(meant("AWS Service Event via CloudTrail", rotated), both);
    }

    #[test]
    fn texts_that_are_no_secret_mean_none() {
        for text in [
            "",
            "arn:aws:secretsmanager:x",
            "a b",
            "arn:aws:s3:::secret:",
            "✂✂✂✂✂✂",
        ] {
            let event = json!({"detail": {"name": text}});
            assert!(meant("Secret Label Updated", event).is_empty(), "{text}");
        }
        assert_eq!(
            secret_names("Object Created", &json!({"source": SOURCE})),
            None
        );
        assert_eq!(
            secret_names("Secret Label Updated", &json!({"source": "me"})),
            None
        );
    }
}
