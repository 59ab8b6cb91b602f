//! Tells fillers from serials by their form.
//!
//! Inventories kept lists of fillers for 15 years, and each list lacked some. Their forms are few, so the forms are judged:
//! digits that count, a character or two in turn, and texts that consist of certain words alone.
//!
//! A wrong judgement on either side is possible. A filler that passes lets one machine have the score of another, while a
//! serial that does not pass leaves its device without a score, is reported, and can be accepted in `ignoredSerials`. So
//! the forms are wide where a random serial of seven or more characters hardly ever has them.

use super::InvalidSerial;

/// The meaning of a word in a text that consists of such words, the weakest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Meaning {
    /// Nothing without another word.
    Part,
    /// The field's name.
    Field,
    /// There is no serial number.
    Nothing,
    /// A test.
    Test,
}

/// The words of fillers. "Base Board Serial Number" consists of four of them.
const WORDS: [(Meaning, &[&str]); 4] = [
    (
        Meaning::Part,
        &[
            "BASE",
            "BIOS",
            "BOARD",
            "BY",
            "CHASSIS",
            "COMPUTER",
            "DEVICE",
            "ENCLOSURE",
            "ENTER",
            "INJECT",
            "MACHINE",
            "MAINBOARD",
            "MB",
            "MORE",
            "MOTHERBOARD",
            "NA",
            "NB",
            "NO",
            "NOT",
            "NUM",
            "NUMBER",
            "ODM",
            "OEM",
            "PRODUCT",
            "SET",
            "STRING",
            "SYS",
            "SYSTEM",
            "TO",
            "TYPE",
        ],
    ),
    (
        Meaning::Field,
        &[
            "ASSETTAG",
            "MANUFACTURER",
            "NAME",
            "SERIAL",
            "SERNUM",
            "VERSION",
        ],
    ),
    (
        Meaning::Nothing,
        &[
            "APPLICABLE",
            "ASSIGNED",
            "AVAILABLE",
            "BLANK",
            "DEFAULT",
            "DEFINED",
            "EMPTY",
            "FILL",
            "FILLED",
            "INVALID",
            "NONE",
            "NULL",
            "PLACEHOLDER",
            "PRESENT",
            "PROGRAMMED",
            "PROVIDED",
            "SETTABLE",
            "SPECIFIED",
            "SUPPORTED",
            "TBD",
            "TOBE",
            "UNASSIGNED",
            "UNAVAILABLE",
            "UNDEFINED",
            "UNKNOWN",
            "UNPROGRAMMED",
            "UNSPECIFIED",
        ],
    ),
    (
        Meaning::Test,
        &["EVAL", "EVALUATION", "IATPASS", "TEST", "TESTING"],
    ),
];

/// Texts of which no longer text is made.
const WHOLE_TEXTS: [(InvalidSerial, &[&str]); 3] = [
    (
        InvalidSerial::Placeholder,
        &[
            "00020003000400050006000700080009",
            "0102030405060708090A0B0C0D0E0F10",
            "03000200040005000006000700080009",
            "0A",
            "12",
            "12345678123456781234567812345678",
            "123456781234567890ABCDDEEFAABBCC",
            "77837084326590858269328677",
            "91WTX00XPXX",
            "BADINDEX",
            "BANK01",
            "DELL",
            "GENERIC",
            "NA",
            "NIL",
            "NO",
            "NOT",
            "ODM",
            "OEM",
            "OUTOFSPEC",
            "PCIE2",
            "STANDARD",
            "TO",
            "TULIPCOMPUTERS",
            "TYPE1PRODUCTCONFIGID",
        ],
    ),
    (
        InvalidSerial::FieldName,
        &[
            "BASEBOARD",
            "CHASSIS",
            "FIELD",
            "MOTHERBOARD",
            "SN",
            "SYSTEM",
            "WINDOWSSN",
        ],
    ),
    (
        InvalidSerial::TestValue,
        &["123490EN400015", "SN123456FVGV3I0B8O5N6N7K", "X312345678"],
    ),
];

/// The endings of words before a sequence, such as those of `SYS-1234567890`, `BSN12345678901234567` and `Serial Number 12345`.
const SERIAL_ENDINGS: [&[u8]; 7] = [b"SN", b"SYS", b"MB", b"NB", b"OEM", b"SERIAL", b"NUMBER"];

/// Five digits in sequence are the shortest filler on public lists. A real serial of five digits is not known.
const MIN_SEQUENCE: usize = 5;

/// After a word that is none of a serial, as in `EeePC-1234567890` and `BSS-0123456789`. Serials such as PF012345 are real, but
/// one in 10 million of those with eight digits has them in sequence.
const MIN_SEQUENCE_AFTER_ANY_WORD: usize = 8;

/// Two characters in turn are a form from here on.
const MIN_ALTERNATING: usize = 4;

/// Returns the reason why a text is a filler, given its letters and digits in upper case.
pub(super) fn reason(text: &str) -> Option<InvalidSerial> {
    let Some(first) = text.chars().next() else {
        return Some(InvalidSerial::Punctuation);
    };
    if text.chars().all(|c| c == first) {
        return Some(InvalidSerial::Repeated);
    }
    let repeats_second = text.chars().zip(text.chars().skip(2));
    if text.len() >= MIN_ALTERNATING && repeats_second.into_iter().all(|(a, b)| a == b) {
        return Some(InvalidSerial::Alternating);
    }
    if !text.is_ascii() {
        return None;
    }
    counting(text)
        .or_else(|| whole_text(text))
        .or_else(|| words(text))
        .or_else(|| masked(text))
}

/// Judges a sequence of digits, or a repeated digit, alone or after a word.
fn counting(text: &str) -> Option<InvalidSerial> {
    // Insyde's texts begin with the number of the structure, as in "Type1 - 123456789".
    let numbered = ["TYPE1", "TYPE2", "TYPE3"];
    let text = numbered
        .iter()
        .find_map(|structure| text.strip_prefix(structure))
        .unwrap_or(text);
    let (word, digits) = text
        .as_bytes()
        .split_at(text.bytes().position(|byte| byte.is_ascii_digit())?);
    let is_of_serial = SERIAL_ENDINGS.iter().any(|ending| word.ends_with(ending));
    let min = if word.is_empty() || is_of_serial {
        MIN_SEQUENCE
    } else {
        MIN_SEQUENCE_AFTER_ANY_WORD
    };
    if digits.len() < min {
        return None;
    }
    if is_sequence(digits, min) {
        return Some(InvalidSerial::Sequence);
    }
    let is_repeated = is_of_serial && digits.iter().all(|digit| *digit == digits[0]);
    is_repeated.then_some(InvalidSerial::Repeated)
}

/// Returns whether a text begins with at least `min` digits that count up or down, and has only zeros after them. It cannot
/// begin with several zeros: the serials of Azure's machines do, and some of these go on with a sequence.
fn is_sequence(digits: &[u8], min: usize) -> bool {
    let counts = |follows: fn(u8, u8) -> bool| {
        let steps = digits
            .windows(2)
            .take_while(|pair| follows(pair[0], pair[1]));
        let length = 1 + steps.count();
        length >= min && digits[length..].iter().all(|digit| *digit == b'0')
    };
    counts(follows_up) || counts(follows_down)
}

/// Returns whether a digit is the next one. 0 follows 9, and so does the hexadecimal A.
fn follows_up(digit: u8, next: u8) -> bool {
    match digit {
        b'9' => matches!(next, b'0' | b'A'),
        b'0'..=b'8' | b'A'..=b'E' => next == digit + 1,
        _ => false,
    }
}

/// Returns whether a digit is the previous one. 9 is before 0.
fn follows_down(digit: u8, next: u8) -> bool {
    match digit {
        b'0' => next == b'9',
        b'1'..=b'9' => next == digit - 1,
        _ => false,
    }
}

fn whole_text(text: &str) -> Option<InvalidSerial> {
    let mut lists = WHOLE_TEXTS.iter();
    lists.find_map(|(reason, texts)| texts.contains(&text).then_some(*reason))
}

/// Minimum characters of a mask: a serial has fewer of one letter in a row.
const MIN_MASK_CHARS: usize = 6;

/// Judges a mask such as `Gxxxxxxxxxxxx`.
fn masked(text: &str) -> Option<InvalidSerial> {
    let mut runs = text.as_bytes().chunk_by(|one, other| one == other);
    let is_mask = |run: &[u8]| run.len() >= MIN_MASK_CHARS && run.starts_with(b"X");
    runs.any(is_mask).then_some(InvalidSerial::Placeholder)
}

/// Judges a text that consists of [`WORDS`] and padding alone. The last word may be cut short: firmware cuts texts to the
/// length of the field.
fn words(text: &str) -> Option<InvalidSerial> {
    let begins_with_word = text.bytes().take(3).all(|byte| byte.is_ascii_uppercase());
    if !begins_with_word {
        return None;
    }
    let mut meaning = Meaning::Part;
    let mut rest = text;
    while !rest.is_empty() {
        if let Some((of_word, word)) = longest_word(rest) {
            meaning = meaning.max(of_word);
            rest = &rest[word.len()..];
        } else if let Some(length) = padding(rest).filter(|_| rest.len() < text.len()) {
            rest = &rest[length..];
        } else {
            meaning = meaning_of_cut(meaning, text.len() - rest.len(), rest)?;
            break;
        }
    }
    match meaning {
        Meaning::Part => None,
        Meaning::Field => Some(InvalidSerial::FieldName),
        Meaning::Nothing => Some(InvalidSerial::Placeholder),
        Meaning::Test => Some(InvalidSerial::TestValue),
    }
}

fn all_words() -> impl Iterator<Item = (Meaning, &'static str)> {
    let lists = WORDS.iter();
    lists.flat_map(|(meaning, words)| words.iter().map(|word| (*meaning, *word)))
}

fn longest_word(text: &str) -> Option<(Meaning, &'static str)> {
    // Nearly all words differ in the first letter, and comparing it is much faster.
    let first = text.as_bytes().first()?;
    all_words()
        .filter(|(_, word)| word.as_bytes().first() == Some(first) && text.starts_with(word))
        .max_by_key(|(_, word)| word.len())
}

/// Returns the length of the padding at the beginning of a text: a number that makes no difference between machines, or
/// several X.
fn padding(text: &str) -> Option<usize> {
    let length_of =
        |is_part: fn(u8) -> bool| text.bytes().take_while(|byte| is_part(*byte)).count();
    let digits = length_of(|byte| byte.is_ascii_digit());
    let number = &text.as_bytes()[..digits];
    let is_number = match digits {
        0 => false,
        1 | 2 => true,
        _ => is_sequence(number, digits) || number.iter().all(|digit| *digit == number[0]),
    };
    if is_number {
        return Some(digits);
    }
    let mask = length_of(|byte| byte == b'X');
    (mask >= 2).then_some(mask)
}

/// Returns what a text says whose last word may be cut short. `before` is what the words before it say, and `length` is
/// their length. None if the rest is no beginning of a word, or too little to tell.
fn meaning_of_cut(before: Meaning, length: usize, rest: &str) -> Option<Meaning> {
    // Nearly all serials end here.
    if !rest.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return None;
    }
    let mut whole = all_words().filter(|(_, word)| word.starts_with(rest));
    let (mut cut, _) = whole.next()?;
    if before != Meaning::Part {
        // A single letter may number the machines of a test.
        return (before != Meaning::Test || rest.len() >= 2).then_some(before);
    }
    // The field's name is cut more often than what is in its place.
    for (meaning, _) in whole {
        if cut == Meaning::Part || (meaning != Meaning::Part && meaning < cut) {
            cut = meaning;
        }
    }
    let is_long = length >= 6
        || rest.len() >= 5
        || (length >= 2 && rest.len() >= 2 && length + rest.len() >= 6);
    is_long.then_some(cut)
}
