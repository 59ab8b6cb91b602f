//! Serial numbers, and the texts that firmware shows in their place.

use posture_simulators::PLACEHOLDER_SERIALS;

use super::Settings;

/// Words for nothing, for a test, and for the field itself, as letters and digits.
const WORDS: [&str; 31] = [
    "none",
    "null",
    "nullstring",
    "nil",
    "notset",
    "notspecified",
    "notapplicable",
    "notavailable",
    "notpresent",
    "unspecified",
    "undefined",
    "unknown",
    "unavailable",
    "empty",
    "blank",
    "invalid",
    "default",
    "defaultstring",
    "oemdefaultstring",
    "oemdefaultstringinject",
    "tobefilledbyoem",
    "oem",
    "oemserial",
    "eval",
    "test",
    "sample",
    "iatpass",
    "serial",
    "serialno",
    "sernum",
    "assettag",
];

/// Names of the fields of SMBIOS, as letters and digits. Firmware cuts them short.
const FIELDS: [&str; 9] = [
    "systemserialnumber",
    "serialnumber",
    "productserialnumber",
    "chassisserialnumber",
    "enclosureserialnumber",
    "baseboardserialnumber",
    "boardserialnumber",
    "biosserialnumber",
    "type2boardserialnumber",
];

/// Words for a serial, with which the letters before a counting pattern end.
const PREFIX_ENDS: [&str; 6] = ["sn", "sys", "mb", "nb", "oem", "serial"];

/// Longest text before a counting pattern: `oemserial`.
const MAX_PREFIX_CHARS: usize = 9;
/// Fewest letters of a word that is cut short: `unknow`.
const MIN_CUT_CHARS: usize = 6;
/// Fewest digits of a counting pattern.
const MIN_RUN: usize = 5;

/// Returns a reported text as it is compared, unless it is no serial.
pub(super) fn serial(settings: &Settings, text: &str) -> Option<String> {
    let text = text.trim().to_lowercase();
    let listed = |is_wanted: fn(&str) -> Option<&str>| {
        let entries = settings.ignored_serials.iter();
        let mut patterns = entries.filter_map(|entry| is_wanted(entry));
        patterns.any(|pattern| matches(pattern, &text))
    };
    // The user's own word comes first, and of two the one that takes a serial back: it is the more exact.
    if listed(|entry| entry.trim().strip_prefix('!')) {
        return Some(text);
    }
    let is_ignored = listed(|entry| (!entry.trim().starts_with('!')).then_some(entry));
    let is_filler = PLACEHOLDER_SERIALS.contains(&text.as_str()) || is_filler(&text);
    (!is_ignored && !is_filler).then_some(text)
}

fn matches(pattern: &str, text: &str) -> bool {
    let pattern = pattern.trim().to_lowercase();
    match pattern.strip_suffix('*') {
        Some(beginning) => text.starts_with(beginning),
        None => text == pattern,
    }
}

/// Judges a folded text by its form alone.
fn is_filler(text: &str) -> bool {
    let plain: Vec<char> = text.chars().filter(|c| c.is_alphanumeric()).collect();
    let word: String = plain.iter().collect();
    takes_turns(&plain) || is_word(&word) || counts(&plain)
}

/// One character, or two in turn: `0000-0000`, `xxxxxx`, `a5a5a5`.
fn takes_turns(plain: &[char]) -> bool {
    plain.iter().zip(plain.iter().skip(2)).all(|(a, b)| a == b)
}

fn is_word(word: &str) -> bool {
    // `Serial Number xxxxxx`: what the word stands for is crossed out.
    let word = word.trim_end_matches('x');
    let may_be_cut = word.len() >= MIN_CUT_CHARS;
    let mut known = WORDS.iter().chain(&FIELDS);
    known.any(|whole| *whole == word || may_be_cut && whole.starts_with(word))
}

/// A run of five or more digits up or down, alone or after a short word for a serial, or one digit repeated after such a word.
fn counts(plain: &[char]) -> bool {
    let letters = plain.iter().take_while(|c| !c.is_ascii_digit()).count();
    let prefix: String = plain[..letters].iter().collect();
    let is_serial_word =
        letters <= MAX_PREFIX_CHARS && PREFIX_ENDS.iter().any(|end| prefix.ends_with(end));
    if !(prefix.is_empty() || is_serial_word) {
        return false;
    }
    let digits: Option<Vec<u32>> = plain[letters..].iter().map(|c| c.to_digit(10)).collect();
    let Some(digits) = digits else {
        return false;
    };
    if is_serial_word && digits.len() >= MIN_RUN && digits.iter().all(|digit| *digit == digits[0]) {
        return true;
    }
    // 0 follows 9 on the way up, and 9 follows 0 on the way down.
    [1, 9].into_iter().any(|step| {
        let is_next = |pair: &&[u32]| (pair[0] + step) % 10 == pair[1];
        let run = 1 + digits.windows(2).take_while(is_next).count();
        let zeros = digits.iter().skip(run).all(|digit| *digit == 0);
        digits.len() >= MIN_RUN && run >= MIN_RUN && zeros
    })
}

#[test]
fn fillers_are_told_by_their_form() {
    let settings = Settings::default();
    let fillers = "SYS-1234567890|SystemSerialNumb|(null string)|0000-0000-0000|SYS-9876543210|SN-12345|SN-1234567890|MB-1234567890|\
                   OEM_Serial|SN-00000000|Unknow|empty|12345|12345678|123456789000|12345678901234567|EVAL|IATPASS|Serial Number xxxxxx|\
                   oem default string inject xxxxxxxxxx|System Serial#|Type2 - Board Serial Number|SSN12345678901234567|\
                   NB-1234567890|NotApplicable|null|invalid|xxx|A|ab|--";
    for text in fillers.split('|') {
        assert_eq!(serial(&settings, text), None, "{text}");
    }
    let serials = "5CG1234ABC|VM5vodACsc+k|C02D91CNPV4M|4CE0123456|PF012345|VMware-56 4d d1 1f 26 c9 31 7d|\
                   0000-0012-3456-7890-1234-5678-90|7b0a1e2f-9c4d-4f0d-8f2a-6f1b7a9c3d5e|M3MRCG005810LMB|ZV4HQ7K2LM|1234";
    for text in serials.split('|') {
        assert!(serial(&settings, text).is_some(), "{text}");
    }
    let own = ["KIOSK*", "!SN-12345", " Stock 1 "].map(str::to_owned);
    let settings = Settings {
        ignored_serials: own.into(),
        ..settings
    };
    assert_eq!(serial(&settings, "kiosk-7"), None);
    assert_eq!(serial(&settings, "STOCK 1"), None);
    assert_eq!(serial(&settings, "sn-12345 ").as_deref(), Some("sn-12345"));
    assert_eq!(serial(&settings, "SN-123456"), None);
}
