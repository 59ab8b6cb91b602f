//! Valid settings, and the messages about invalid ones.

use serde_json::json;

use super::*;

fn corp() -> Value {
    json!({
        "id": "corp", "provider": "falcon", "cloudId": "us-2",
        "falconSecret": "falcon-posture-sync/corp/falcon",
        "tailscaleSecret": "falcon-posture-sync/corp/tailscale"
    })
}

/// Decodes the settings of `corp` with one field set to a value.
fn with(field: &str, value: Value) -> Result<Settings, String> {
    let mut settings = corp();
    settings[field] = value;
    Settings::parse(settings, "integration").map_err(|e| e.to_string())
}

fn refused(field: &str, value: Value, expect: &str) {
    let error = with(field, value).expect_err(field);
    assert!(error.contains(expect), "{error}");
    assert!(error.starts_with("integration"), "{error}");
}

#[test]
fn what_is_left_out_has_a_default() {
    let settings = Settings::parse(corp(), "integration").unwrap();
    assert_eq!(settings.attribute_key.as_str(), "custom:ztaScore");
    assert_eq!(settings.tailnet.as_str(), "-");
    assert!(settings.enabled);
    assert_eq!(settings.on_missing, OnMissing::Delete);
    assert_eq!(
        settings.max_removals,
        MaxRemovals {
            percent: 10,
            at_least: 2
        }
    );
}

#[test]
fn settings_survive_their_own_json() {
    let settings = with("maxHostAgeDays", json!(30)).unwrap();
    let again = serde_json::to_value(&settings).unwrap();
    assert_eq!(Settings::parse(again, "integration").unwrap(), settings);
}

#[test]
fn each_bad_value_is_refused_by_the_name_of_its_field() {
    refused("id", json!("Corp!"), "integration.id: must be 1 to 64");
    refused("id", json!(7), "integration.id");
    refused(
        "provider",
        json!("intune"),
        "unknown variant `intune`, expected `falcon`",
    );
    refused(
        "attributeKey",
        json!("ztaScore"),
        "integration.attributeKey",
    );
    refused(
        "attributeKey",
        json!("custom:zta-score"),
        "integration.attributeKey",
    );
    refused(
        "attributeKey",
        json!(format!("custom:{}", "x".repeat(122))),
        "128 characters",
    );
    refused("attributeKey", json!("node:os"), "\"custom:\" and a name");
    refused(
        "maxHostAgeDays",
        json!(-1),
        "must be an integer from 1 to 3650, not -1",
    );
    refused(
        "maxHostAgeDays",
        json!("30"),
        "must be an integer from 1 to 3650",
    );
    refused(
        "maxRemovals",
        json!({"percent": -5}),
        "integration.maxRemovals.percent: must be an integer from 0 to 100, not -5",
    );
    refused(
        "maxRemovals",
        json!({"percent": 20.5}),
        "integer from 0 to 100",
    );
    refused(
        "maxRemovals",
        json!({"atMost": 5}),
        "unknown field `atMost`",
    );
    refused("colour", json!("red"), "unknown field `colour`");
    refused("tailnet", json!("a/b"), "integration.tailnet");
    refused(
        "falconSecret",
        json!("arn:aws:secretsmanager:x"),
        "not an ARN",
    );
}

#[test]
fn a_secret_in_the_place_of_its_name_is_refused_and_not_repeated() {
    for secret in [
        "tskey-client-abc/def",
        "aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bD1fG3hJ5kM7n",
        "a b/c",
    ] {
        let error = with("falconSecret", json!(secret)).unwrap_err();
        assert!(
            error.starts_with("integration.falconSecret: must be the name"),
            "{error}"
        );
        assert!(!error.contains(secret), "{error}");
    }
}

#[test]
fn a_missing_field_is_named() {
    let mut settings = corp();
    settings.as_object_mut().unwrap().remove("falconSecret");
    let error = Settings::parse(settings, "integration").unwrap_err();
    assert_eq!(
        error.to_string(),
        "integration: missing field `falconSecret`"
    );
}

#[test]
fn planned_settings_are_refused_by_name_and_accepted_as_null() {
    for field in ["osScoreKey", "sensorScoreKey", "tailscaleIdentity"] {
        refused(field, json!(24), "not implemented yet");
        assert!(with(field, Value::Null).is_ok());
    }
}

#[test]
fn ignored_serials_are_stored_as_sent_but_for_repetitions() {
    let sent = json!([
        "Loaner-7",
        "VMware-42*",
        "!VMware-42 1a",
        "vmware 421*",
        "LOANER 7",
        "loaner7*"
    ]);
    let settings = with("ignoredSerials", sent).unwrap();
    let stored = settings.to_map();
    assert_eq!(
        stored["ignoredSerials"],
        json!([
            "Loaner-7",
            "VMware-42*",
            "!VMware-42 1a",
            "vmware 421*",
            "loaner7*"
        ])
    );
    let again = Settings::parse(Value::Object(stored), "integration").unwrap();
    assert_eq!(again, settings);
    let default = Settings::parse(corp(), "integration").unwrap();
    assert_eq!(default.to_map()["ignoredSerials"], json!([]));
}

#[test]
fn ignored_serials_decide_by_letters_and_digits() {
    let sent = json!([
        "loaner",
        "VMware-42 1*",
        "VMware-42*",
        "vmware421*",
        "Zed9*",
        "!VMware-42 1a"
    ]);
    let ignored = with("ignoredSerials", sent).unwrap().ignored_serials;
    let ignore = Some(SerialRule::Ignore);
    for (text, expect) in [
        ("LOANER", ignore),
        ("LOANER7", None),
        ("VMWARE42", ignore),
        ("VMWARE421A", Some(SerialRule::Accept)),
        ("VMWARE421B", ignore),
        ("VMWARE4", None),
        ("VMWARE43", None),
        ("ZED9", ignore),
        ("ZED90", ignore),
        ("ZED", None),
        ("", None),
    ] {
        assert_eq!(ignored.rule_for(text), expect, "{text}");
    }
}

#[test]
fn an_ignored_serial_that_cannot_be_is_refused_by_its_place() {
    let long = "x".repeat(129);
    for (entry, expect) in [
        (json!(""), "must be a text with a letter or digit"),
        (json!("!"), "must be a text with a letter or digit"),
        (json!("-- *"), "must be a text with a letter or digit"),
        (
            json!("a*b"),
            "must be a text with \"*\" at its end only; got \"a*b\"",
        ),
        (json!("abcd**"), "must be a text with \"*\" at its end only"),
        (
            json!("a-b-c*"),
            "must be a text with at least four letters or digits before \"*\"",
        ),
        (
            json!("!abcd*"),
            "must be a whole serial number after \"!\", without \"*\"",
        ),
        (
            json!("a\u{202e}b"),
            "must be a printable serial number of up to 128 bytes",
        ),
        (
            json!(long),
            "must be a printable serial number of up to 128 bytes",
        ),
        (json!(7), "invalid type: integer `7`, expected a string"),
    ] {
        let error = with("ignoredSerials", json!(["Loaner", entry])).unwrap_err();
        let start = format!("integration.ignoredSerials[1]: {expect}");
        assert!(error.starts_with(&start), "{error}");
    }
    let longest = "x".repeat(128);
    assert!(
        with(
            "ignoredSerials",
            json!([format!("!{longest}"), format!("{longest}*")])
        )
        .is_ok()
    );
    let entries: Vec<String> = (0..201).map(|n| format!("S{n}")).collect();
    assert!(with("ignoredSerials", json!(entries[..200])).is_ok());
    refused(
        "ignoredSerials",
        json!(entries),
        "integration.ignoredSerials: must be at most 200 texts; got 201",
    );
    refused(
        "ignoredSerials",
        json!("Loaner"),
        "integration.ignoredSerials",
    );
}

fn stored() -> Map<String, Value> {
    Settings::parse(corp(), "integration").unwrap().to_map()
}

fn changed(changes: &Value) -> Result<Settings, String> {
    let stored = stored();
    Settings::with_changes(&stored, changes.as_object().unwrap()).map_err(|error| error.to_string())
}

#[test]
fn a_change_is_merged_into_what_is_stored_and_checked_as_a_whole() {
    let settings = changed(&json!({"maxHostAgeDays": 14, "maxRemovals": {"percent": 50}})).unwrap();
    assert_eq!(settings.max_host_age_days, Some(14));
    assert_eq!(
        (
            settings.max_removals.percent,
            settings.max_removals.at_least
        ),
        (50, 2)
    );
    let stored = settings.to_map();
    let names = |changes: Value| {
        Settings::with_changes(&stored, changes.as_object().unwrap())
            .unwrap()
            .changed_fields(&stored)
    };
    assert_eq!(
        names(json!({"maxHostAgeDays": null, "enabled": false})),
        ["enabled", "maxHostAgeDays"]
    );
    assert!(names(json!({"maxHostAgeDays": 14, "id": "corp", "tailnet": null})).is_empty());
    assert_eq!(
        names(json!({"ignoredSerials": ["Loaner"]})),
        ["ignoredSerials"]
    );
    assert!(names(json!({"ignoredSerials": null})).is_empty());
}

#[test]
fn a_limit_has_a_default_and_null_lifts_it() {
    let defaults = with("onMissing", json!("delete")).unwrap();
    assert_eq!(
        (defaults.max_host_age_days, defaults.max_silence_hours),
        (Some(30), Some(168))
    );
    let lifted = changed(&json!({"maxHostAgeDays": null, "maxSilenceHours": null})).unwrap();
    assert_eq!(
        (lifted.max_host_age_days, lifted.max_silence_hours),
        (None, None)
    );
    // The stored settings keep the lifted limits.
    let again = Settings::with_changes(&lifted.to_map(), &Map::new()).unwrap();
    assert_eq!(again, lifted);
    for (field, invalid, accepted) in [
        ("maxHostAgeDays", 0, "1 to 3650"),
        ("maxHostAgeDays", 3_651, "1 to 3650"),
        ("maxSilenceHours", 24, "25 to 8760"),
        ("maxSilenceHours", 8_761, "25 to 8760"),
    ] {
        refused(field, json!(invalid), accepted);
    }
    refused("onSharedSerial", json!("highest"), "lowest");
    refused("onContained", json!(true), "onContained");
}

#[test]
fn a_change_that_cannot_be_is_refused_by_name() {
    for (changes, expect) in [
        (
            json!({"colour": "red"}),
            "changes.colour: unknown setting: must be one of id, provider",
        ),
        (json!({"colour": null}), "changes.colour: unknown setting"),
        (
            json!({"id": "labs"}),
            "changes.id: the name of an integration cannot change",
        ),
        (
            json!({"maxRemovals": {"percent": 101}}),
            "changes.maxRemovals.percent: must be an integer from 0 to 100, not 101",
        ),
        (json!({"cloudId": null}), "changes: missing field `cloudId`"),
        (
            json!({"osScoreKey": "custom:os"}),
            "changes.osScoreKey: not implemented yet",
        ),
    ] {
        let error = changed(&changes).unwrap_err();
        assert!(error.starts_with(expect), "{error}");
    }
}

#[test]
fn what_somebody_added_by_hand_can_be_taken_away() {
    let mut stored = stored();
    stored.insert("colour".to_owned(), json!("red"));
    let changes = json!({"colour": null});
    let settings = Settings::with_changes(&stored, changes.as_object().unwrap()).unwrap();
    assert_eq!(settings.changed_fields(&stored), ["colour"]);
}

#[test]
fn the_fields_are_those_that_the_decoder_knows() {
    let mut settings = corp();
    settings["colour"] = json!("red");
    let error = Settings::parse(settings, "integration").unwrap_err();
    let known: Vec<&str> = error.message.split('`').skip(1).step_by(2).collect();
    assert_eq!(known[1..], [&FIELDS[..], &NOT_IMPLEMENTED[..]].concat());
}

#[test]
fn integrations_collide_where_they_write_one_key_in_one_tailnet() {
    let settings = |changes: Value| {
        let mut settings = corp();
        merge(&mut settings, &changes);
        Settings::parse(settings, "integration").unwrap()
    };
    let corp = settings(json!({}));
    let own = json!({"id": "labs", "tailscaleSecret": "labs/tailscale"});
    for (other, collides) in [
        (json!({"id": "labs"}), true),
        (json!({"id": "labs", "tailnet": "example.com"}), true),
        (
            json!({"id": "labs", "attributeKey": "custom:ZTASCORE"}),
            true,
        ),
        (json!({"id": "labs", "attributeKey": "custom:other"}), false),
        (json!({}), false),
        (own, false),
    ] {
        assert_eq!(
            corp.conflicts_with(&settings(other.clone())),
            collides,
            "{other}"
        );
    }
    let named = |id: &str, tailnet: &str| settings(json!({"id": id, "tailnet": tailnet}));
    assert!(named("corp", "example.com").conflicts_with(&named("labs", "example.com")));
    assert!(!named("corp", "example.com").conflicts_with(&named("labs", "example.org")));
}
