//! Entries, their size, and the judgement of writes.

use super::*;
use crate::domain::inventory::attribute::HeldAttribute;

/// A first score for the nth device.
pub(crate) fn change(n: usize, name: &str) -> Change {
    Change {
        node_id: NodeId(format!("n{n:016}").into()),
        name: name.into(),
        hostname: name.into(),
        old: None,
        expired: None,
        new: Some(DesiredAttribute {
            key: "custom:ztaScore".to_owned().try_into().unwrap(),
            score: Score::new(70).unwrap(),
            aid: Aid::from("4a027b0c95404062be4148c989dcf4c1"),
            serial: "C02D91CNPV4M".into(),
            falcon_hostname: None,
            expiry: None,
        }),
        reason: String::new(),
        is_approved: false,
        is_immediate: false,
        is_ephemeral: false,
    }
}

fn entry(changes: &[Change]) -> JournalEntry {
    JournalEntry::new("run", changes, Timestamp::UNIX_EPOCH)
}

#[test]
fn entries_fit_into_an_item_whatever_the_names() {
    for (name, at_least) in [
        ("laptop.tail1234.ts.net", 1_500),
        ("\u{1F980}".repeat(300).as_str(), 200),
    ] {
        let changes: Vec<Change> = (0..5_000).map(|n| change(n, name)).collect();
        for entries in [1, 4] {
            let batches: Vec<&[Change]> =
                batches(&changes, 2_000 / entries, MAX_JOURNAL_BYTES / entries).collect();
            assert_eq!(batches.concat(), changes);
            for batch in &batches {
                let entry = entry(batch);
                assert!(entry.stored_bytes() <= MAX_JOURNAL_BYTES / entries);
                // JSON has quotes, commas and escapes, which DynamoDB does not count.
                let json = serde_json::to_vec(&entry).unwrap().len();
                assert!(json <= entry.stored_bytes() + 12 * batch.len());
                assert!(batch.len() <= 2_000 / entries);
            }
            assert!(
                batches[0].len() >= at_least / entries,
                "{}",
                batches[0].len()
            );
        }
    }
    assert_eq!(batches(&[], 10, MAX_JOURNAL_BYTES).count(), 0);
}

#[test]
fn an_entry_is_settled_when_no_request_can_take_effect() {
    let entry = entry(&[]);
    let after = |minutes| entry.sent_at + SignedDuration::from_mins(minutes);
    assert!(!entry.is_settled(after(0)));
    assert!(!entry.is_settled(after(10)));
    assert!(entry.is_settled(after(11)));
    assert!(LIFETIME > SEND_TIME);
}

#[test]
fn a_device_tells_what_became_of_a_write() {
    use WriteOutcome::{Made, NotMade, Unknown};
    let key = "custom:ztaScore";
    let set = change(1, "a");
    let record = NodeRecord {
        key: key.to_owned().try_into().unwrap(),
        score: Score::new(20).unwrap(),
        aid: Aid::from("a"),
        serial: "S1".into(),
        name: "a".into(),
        written_at: None,
        expiry: None,
        run_id: "before".into(),
        is_ephemeral: false,
        absence: None,
    };
    let changed = Change {
        old: Some(record.clone()),
        ..set.clone()
    };
    let removed = Change {
        new: None,
        ..changed.clone()
    };
    let moved = Change {
        old: Some(NodeRecord {
            key: "custom:old".to_owned().try_into().unwrap(),
            ..record
        }),
        ..set.clone()
    };
    let (none, old): (&[_], &[_]) = (&[], &[("custom:old", 20)]);
    for (change, attributes, expected) in [
        (&set, none, NotMade),
        (&set, &[(key, 70)], Made),
        (&set, &[(key, 71)], Unknown),
        (&changed, &[(key, 20)], NotMade),
        (&changed, &[(key, 70)], Made),
        (&changed, none, Unknown),
        (&removed, &[(key, 20)], NotMade),
        (&removed, none, Made),
        (&removed, &[(key, 71)], Unknown),
        (&moved, old, NotMade),
        (&moved, &[(key, 70)], Made),
        (&moved, none, Unknown),
    ] {
        let held = held(attributes, None);
        assert_eq!(
            write_outcome(change, Some(&held), Timestamp::UNIX_EPOCH),
            expected,
            "{change} {held:?}"
        );
    }
    let gone = write_outcome(&set, None, Timestamp::UNIX_EPOCH);
    assert_eq!(gone, Unknown, "the device is gone");
}

fn held(attributes: &[(&str, u8)], expiry: Option<Timestamp>) -> HeldAttributes {
    let attributes = attributes.iter().map(|(key, value)| {
        let value = (*value).into();
        ((*key).to_owned(), HeldAttribute { value, expiry })
    });
    HeldAttributes(attributes.collect())
}

#[test]
fn the_end_tells_whether_a_renewal_was_made() {
    use WriteOutcome::{Made, NotMade};
    let key = "custom:ztaScore";
    let [first, second] = [100, 200].map(|s| Timestamp::from_second(s).unwrap());
    let set = change(1, "a");
    let new = set.new.clone().unwrap();
    let record = NodeRecord {
        key: new.key.clone(),
        score: new.score,
        aid: new.aid.clone(),
        serial: new.serial.clone(),
        name: "a".into(),
        written_at: None,
        expiry: Some(first),
        run_id: "before".into(),
        is_ephemeral: false,
        absence: None,
    };
    let renewal = Change {
        old: Some(record.clone()),
        new: Some(DesiredAttribute {
            expiry: Some(second),
            ..new
        }),
        ..set.clone()
    };
    assert!(renewal.is_renewal());
    let now = Timestamp::UNIX_EPOCH;
    for (attributes, expiry, expected) in [
        (&[(key, 70)][..], Some(second), Made),
        (&[(key, 70)], Some(first), NotMade),
        (&[(key, 70)], None, NotMade),
        (&[(key, 71)], Some(second), NotMade),
        (&[], None, NotMade),
    ] {
        let held = held(attributes, expiry);
        assert_eq!(write_outcome(&renewal, Some(&held), now), expected);
    }
    // The old score has ended meanwhile, and the device holds nothing.
    let rise = Change {
        old: Some(NodeRecord {
            score: Score::new(20).unwrap(),
            ..record
        }),
        ..set
    };
    let none = held(&[], None);
    assert_eq!(write_outcome(&rise, Some(&none), first), NotMade);
    assert_eq!(
        write_outcome(&rise, Some(&none), now),
        WriteOutcome::Unknown
    );
    // So may have the new one.
    let first_score = Change {
        old: None,
        ..renewal
    };
    assert_eq!(write_outcome(&first_score, Some(&none), first), NotMade);
    let outcome = write_outcome(&first_score, Some(&none), second);
    assert_eq!(outcome, WriteOutcome::Unknown);
    // A removal was made, or its score ended before.
    let removal = Change { new: None, ..rise };
    assert_eq!(
        write_outcome(&removal, Some(&none), now),
        WriteOutcome::Made
    );
    let outcome = write_outcome(&removal, Some(&none), first);
    assert_eq!(outcome, WriteOutcome::Unknown);
}

#[test]
fn an_entry_is_read_as_it_was_written() {
    let changes = [
        change(1, "a"),
        Change {
            new: None,
            ..change(2, "b")
        },
    ];
    assert_eq!(term_of(&journal_key("0a", 12)), "0a");
    let entry = entry(&changes);
    let text = serde_json::to_string(&entry).unwrap();
    assert!(text.contains(r#":"b\tb""#), "{text}");
    let read: JournalEntry = serde_json::from_str(&text).unwrap();
    assert_eq!(read, entry);
    for line in [
        "a",
        "a\tb\tc",
        "a\tb\tcustom:a\t101\tc\td",
        "a\tb\tc\t1\tc\td",
    ] {
        let line = serde_json::to_string(line).unwrap();
        assert!(
            serde_json::from_str::<PendingWrite>(&line).is_err(),
            "{line}"
        );
    }
}
