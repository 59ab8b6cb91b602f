//! What Secrets Manager says of a changed secret.
//!
//! Its own event needs no trail; those through `CloudTrail` come in two forms, of a call and of a rotation. Each names the
//! secret somewhere else, by name or by ARN.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::settings::SecretName;

const SOURCE: &str = "aws.secretsmanager";

const KINDS: [&str; 3] = [
    "Secret Label Updated",
    "AWS API Call via CloudTrail",
    "AWS Service Event via CloudTrail",
];

/// Where an event may name its secret.
const PLACES: [&str; 6] = [
    "/detail/name",
    "/detail/requestParameters/secretId",
    "/detail/responseElements/arn",
    // Before February 2024 some calls were reported so.
    "/detail/responseElements/aRN",
    "/detail/additionalEventData/SecretId",
    "/resources/0",
];

/// The random end of a secret's ARN: a hyphen and six characters.
const SUFFIX: usize = 7;

/// The names by which such an event may mean a secret; none if it is another event.
pub(super) fn names(kind: &str, event: &Value) -> Option<BTreeSet<SecretName>> {
    if !KINDS.contains(&kind) || event["source"] != SOURCE {
        return None;
    }
    let texts = PLACES
        .iter()
        .filter_map(|place| event.pointer(place)?.as_str());
    Some(texts.flat_map(names_of).collect())
}

/// A name means itself. An ARN ends in the name and a random suffix; one without the suffix is accepted by Secrets
/// Manager, too, so both readings count. A secret that is meant by mistake costs one sync that finds nothing to do.
fn names_of(text: &str) -> Vec<SecretName> {
    let name = match text.split_once(":secret:") {
        Some((arn, name)) if arn.starts_with("arn:") => name,
        _ => return SecretName::try_from(text.to_owned()).into_iter().collect(),
    };
    let without_suffix = name
        .len()
        .checked_sub(SUFFIX)
        .and_then(|end| name.split_at_checked(end))
        .filter(|(_, suffix)| suffix.starts_with('-'))
        .map(|(name, _)| name);
    [Some(name), without_suffix]
        .into_iter()
        .flatten()
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
        names(kind, &event)
            .unwrap()
            .into_iter()
            .map(String::from)
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
        assert_eq!(names("Object Created", &json!({"source": SOURCE})), None);
        assert_eq!(
            names("Secret Label Updated", &json!({"source": "me"})),
            None
        );
    }
}
