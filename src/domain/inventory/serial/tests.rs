//! Texts that real machines report, fillers and serials, and laws about both.

mod texts;

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::testing::hostile::{assert_fit, cases, text};
use texts::{FILLERS, SERIALS};

fn fillers() -> impl Iterator<Item = (&'static str, InvalidSerial)> {
    let lists = FILLERS.iter().flat_map(|(_, lists)| lists.iter());
    lists.flat_map(|(reason, texts)| texts.iter().map(|text| (*text, *reason)))
}

fn serials() -> impl Iterator<Item = &'static str> {
    SERIALS.iter().flat_map(|(_, texts)| texts.iter().copied())
}

fn identify(text: &str) -> Result<Serial, InvalidSerial> {
    Serial::identify(text, &IgnoredSerials::default())
}

fn ignoring(entries: &[&str]) -> IgnoredSerials {
    serde_json::from_value(serde_json::json!(entries)).unwrap()
}

#[test]
fn fillers_of_public_lists_identify_no_machine() {
    let wrong: Vec<_> = fillers()
        .map(|(text, reason)| (text, identify(text), Err(reason)))
        .filter(|(_, judged, expect)| judged != expect)
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(fillers().count() >= 60);
}

#[test]
fn serials_of_all_makers_identify_a_machine() {
    for text in serials() {
        assert_eq!(identify(text), Serial::parse(text), "{text:?}");
    }
    assert!(serials().count() >= 40);
}

#[test]
fn serials_are_trimmed_and_folded() {
    for (text, expect) in [
        (" c02d91cnpv4m\t", "C02D91CNPV4M"),
        ("To be\u{a0}Filled", "TO BE\u{a0}FILLED"),
        (
            "VMware-56 4d d1 1f 26 c9 31 7d-aa 2e 01 02 37 ac a0 16",
            "VMWARE-56 4D D1 1F 26 C9 31 7D-AA 2E 01 02 37 AC A0 16",
        ),
    ] {
        assert_eq!(Serial::parse(text).unwrap().as_str(), expect);
    }
}

#[test]
fn hostile_texts_are_refused() {
    let long = ["ŉA".repeat(43), "AB".repeat(5_000_000)];
    let odd = ["A\u{0}B", "A\u{202e}B", "A\u{200b}B", "A\u{e0041}B"];
    for text in odd.into_iter().chain(long.iter().map(String::as_str)) {
        assert_eq!(Serial::parse(text), Err(InvalidSerial::Malformed));
    }
    assert_eq!(Serial::parse(" \t "), Err(InvalidSerial::Empty));
}

#[test]
fn reasons_read_after_is() {
    let ignored = ignoring(&["Loaner*"]);
    let reason = Serial::identify("loaner 7", &ignored).unwrap_err();
    assert_eq!(format!("it is {reason}"), "it is in ignoredSerials");
}

#[test]
fn the_users_list_goes_before_the_form() {
    let ignored = ignoring(&[
        "5CG-0000",
        "vmware-42*",
        "!VMware-42 1a",
        "!System Serial#",
        "!sn 12345",
    ]);
    for (text, expect) in [
        ("5cg0000", Err(InvalidSerial::Ignored)),
        ("5CG00001", Ok(())),
        ("VMware-42 1b 7c", Err(InvalidSerial::Ignored)),
        ("VMware-42", Err(InvalidSerial::Ignored)),
        ("VMware-42 1A", Ok(())),
        ("VMware-43", Ok(())),
        ("system serial", Ok(())),
        ("SN12345", Ok(())),
        ("SN123456", Err(InvalidSerial::Sequence)),
        (" ", Err(InvalidSerial::Empty)),
    ] {
        let judged = Serial::identify(text, &ignored).map(|_| ());
        assert_eq!(judged, expect, "{text:?}");
    }
}

/// Writes a text in other dress: in any case, with spaces and punctuation between its characters and around them.
fn dressed(text: &'static str) -> impl Strategy<Value = String> {
    let chars: Vec<_> = text.chars().collect();
    let dress = prop::collection::vec((any::<bool>(), "[ ._#/()-]{0,1}"), chars.len());
    (dress, "[ .]{0,2}", "[ .]{0,2}").prop_map(move |(dress, before, after)| {
        let mut text = before;
        for (c, (is_upper, separator)) in chars.iter().zip(dress) {
            if is_upper {
                text.extend(c.to_uppercase());
            } else {
                text.extend(c.to_lowercase());
            }
            text += &separator;
        }
        text + &after
    })
}

fn any_filler() -> impl Strategy<Value = (&'static str, InvalidSerial)> {
    select(fillers().collect::<Vec<_>>())
}

/// Generates serials by the rules of their makers.
fn serial_of_a_maker() -> impl Strategy<Value = String> {
    prop_oneof![
        // HP: site, year and week, sequence in base 36 or 10.
        "(5CG|5CD|CND|8CG|MXL|CZC|4CE|2UA|JPA)[0-9]([0-4][0-9]|5[0-2])[0-9B-DF-HJ-NP-TV-Z]{4}",
        // Dell: seven of base 36, without vowels.
        "[1-9B-DF-HJ-NP-TV-Z][0-9B-DF-HJ-NP-TV-Z]{5}[1-4]",
        // Lenovo: plant and sequence.
        "(PF|PC|MP|MJ|R9|LR|PW|YX|S1|L3)[0-9A-HJ-NP-TV-Z]{6}",
        // Apple: 12 until 2021, then 10 to 12 at random.
        "(C02|C17|FVF|FVH|C1M|DY3)[0-9C-HJ-NP-TV-Z]{5}[0-9A-Z]{4}",
        "[C-HJ-NP-TV-Z0-9]{10,12}",
        // Microsoft Surface.
        "0[0-9]{11}",
        "VMware(-[0-9a-f]{2}( [0-9a-f]{2}){7}){2}",
        "Parallels-[0-9A-F]{2}( [0-9A-F]{2}){15}",
        "0000(-[0-9]{4}){5}-[0-9]{2}",
        "GoogleCloud-[0-9A-F]{32}",
        "[0-9a-f]{8}-[0-9a-f]{4}-[1-5][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
    ]
}

proptest! {
    #![proptest_config(cases(5_000))]

    /// A serial is short and visible, and parsing its normal form gives the same serial.
    #[test]
    fn the_normal_form_is_normal(text in prop_oneof![text(), "\\PC{2,140}"]) {
        match Serial::parse(&text) {
            Ok(serial) => {
                assert_fit(serial.as_str(), Serial::MAX_CHARS);
                prop_assert_eq!(Serial::parse(serial.as_str()), Ok(serial.clone()));
                prop_assert_eq!(Serial::parse(&text.to_uppercase()), Ok(serial));
            }
            Err(error) => {
                prop_assert!(matches!(error, InvalidSerial::Empty | InvalidSerial::Malformed));
            }
        }
    }

    #[test]
    fn the_judgement_is_of_the_normal_form(text in prop_oneof![text(), "\\PC{0,30}"]) {
        if let Ok(serial) = Serial::parse(&text) {
            let expect = serial.judge(&IgnoredSerials::default()).map(|()| serial.clone());
            prop_assert_eq!(identify(&text), expect.clone());
            prop_assert_eq!(identify(serial.as_str()), expect);
        }
    }

    #[test]
    fn dress_does_not_matter(
        (text, reason, dressed) in any_filler()
            .prop_flat_map(|(text, reason)| (Just(text), Just(reason), dressed(text))),
    ) {
        prop_assert_eq!(identify(&dressed), Err(reason), "{:?} for {:?}", dressed, text);
    }

    #[test]
    fn the_users_list_does_not_mind_dress(
        (text, entry, reported) in select(serials().collect::<Vec<_>>())
            .prop_flat_map(|text| (Just(text), dressed(text), dressed(text))),
    ) {
        let entry = entry.trim();
        let judged = Serial::identify(&reported, &ignoring(&[entry]));
        prop_assert_eq!(judged, Err(InvalidSerial::Ignored), "{}", text);
        let both = ignoring(&[entry, &format!("!{text}")]);
        prop_assert!(Serial::identify(&reported, &both).is_ok());
    }

    #[test]
    fn serials_of_makers_are_no_fillers(text in serial_of_a_maker()) {
        prop_assert!(identify(&text).is_ok(), "{}", text);
    }
}

#[test]
fn folding_any_letter_twice_changes_nothing() {
    for letter in '\u{0}'..=char::MAX {
        if let Ok(serial) = Serial::parse(&format!("{letter}S1")) {
            assert_eq!(Serial::parse(serial.as_str()), Ok(serial));
        }
    }
}
