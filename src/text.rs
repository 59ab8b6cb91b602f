//! Cleans text from outside: makes it printable, and removes credentials from it.

use std::borrow::Cow;
use std::error::Error as StdError;

use smol_str::SmolStr;

/// Formats an error and its causes on one line, outermost first.
pub fn error_chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

/// Sanitizes a text from outside and replaces everything that may be a credential: a careless or hostile server can echo
/// what it was sent.
pub(crate) fn redact(text: &str, max: usize) -> String {
    let mut kept = String::new();
    for word in text.split_inclusive(|c: char| !is_credential_char(c)) {
        let (word, end) = match word.char_indices().next_back() {
            Some((at, last)) if !is_credential_char(last) => word.split_at(at),
            _ => (word, ""),
        };
        let is_withheld = may_be_credential(word);
        kept.push_str(if is_withheld { "[withheld]" } else { word });
        kept.push_str(end);
        // The rest would be truncated anyway: a character has at most four bytes.
        if kept.len() > 4 * max.saturating_add(1) {
            break;
        }
    }
    sanitize(&kept, max)
}

/// Returns whether tokens, keys and secrets, encoded or not, may hold this character.
fn is_credential_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_.~+/=%".contains(c)
}

/// Returns whether a word looks like a credential. Falcon's secrets have 40 characters and its tokens hundreds, both with
/// digits; Tailscale's begin with a fixed word. Node ids have 17 characters and are kept.
fn may_be_credential(word: &str) -> bool {
    let has = |kind: fn(&u8) -> bool| word.as_bytes().iter().any(kind);
    word.contains("tskey-")
        || word.len() >= 40
        || (word.len() >= 20 && has(u8::is_ascii_digit) && has(u8::is_ascii_alphabetic))
}

/// Makes untrusted text fit for a log line, a record or a response: unprintable characters become spaces, and a text of more
/// than `max` characters is truncated with an ellipsis.
pub fn sanitize(text: &str, max: usize) -> String {
    if is_plain(text, max) {
        return text.to_owned();
    }
    let mut chars = text
        .chars()
        .map(|c| if is_unprintable(c) { ' ' } else { c });
    let mut plain: String = chars.by_ref().take(max).collect();
    if chars.next().is_some() {
        plain.push('…');
    }
    plain
}

/// Sanitizes a text and truncates it to `max` bytes, for what is stored in an item.
pub(crate) fn truncate_bytes(text: &str, max: usize) -> String {
    const ELLIPSIS: &str = "…";
    let mut plain = sanitize(text, max);
    if plain.len() > max {
        plain.truncate(plain.floor_char_boundary(max.saturating_sub(ELLIPSIS.len())));
        plain.push_str(ELLIPSIS);
    }
    plain
}

/// Sanitizes a name. A run keeps up to some hundred thousand names.
pub(crate) fn sanitize_smol(text: &str, max: usize) -> SmolStr {
    if is_plain(text, max) {
        return text.into();
    }
    sanitize(text, max).into()
}

/// Returns whether [`sanitize`] would change nothing: the fast path, which nearly all texts take.
fn is_plain(text: &str, max: usize) -> bool {
    text.len() <= max && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

/// Returns the letters and digits of a text in upper case. Two serials that differ only in case, spaces and punctuation have
/// the same.
pub(crate) fn letters_and_digits(text: &str) -> Cow<'_, str> {
    let is_folded = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
    if text.bytes().all(is_folded) {
        return Cow::Borrowed(text);
    }
    let keeps = |c: &char| c.is_alphanumeric();
    Cow::Owned(if text.is_ascii() {
        let upper = text.chars().map(|c| c.to_ascii_uppercase());
        upper.filter(keeps).collect()
    } else {
        text.to_uppercase().chars().filter(keeps).collect()
    })
}

/// Returns whether a character is a control character, invisible, or only directs how text is displayed. With these, two
/// names that look the same could differ, or a name could change how the rest of its line reads.
pub(crate) fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{34f}'
                | '\u{61c}'
                | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{fe00}'..='\u{fe0f}'
                | '\u{feff}'
                | '\u{fff0}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn untrusted_text_is_cleaned_and_cut() {
        assert_eq!(sanitize("a\nb\u{1b}[31mc", 80), "a b [31mc");
        assert_eq!(
            sanitize("a\u{202e}fdp.exe\u{2066}\u{85}", 80),
            "a fdp.exe  "
        );
        assert_eq!(sanitize(&"x".repeat(10_000_000), 3), "xxx…");
    }

    #[test]
    fn letters_and_digits_do_not_depend_on_dress() {
        for (text, expect) in [
            ("", ""),
            ("--", ""),
            ("5CG1234ABC", "5CG1234ABC"),
            (" To be filled\tby O.E.M. ", "TOBEFILLEDBYOEM"),
            ("straße-7", "STRASSE7"),
        ] {
            assert_eq!(letters_and_digits(text), expect);
        }
    }

    #[test]
    fn what_may_be_a_credential_is_not_repeated() {
        for (text, expect) in [
            (
                "nobody nPM2KNuedB21DEVEL, custom:ztaScore",
                "nobody nPM2KNuedB21DEVEL, custom:ztaScore",
            ),
            ("Bearer eyJhbGciOiJSUzI1NiJ9.e30.c2ln", "Bearer [withheld]"),
            ("key \"tskey-api-k1\"?", "key \"[withheld]\"?"),
            (
                "client_secret=aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bD1fG3hJ5kM7n&x",
                "[withheld]&x",
            ),
            ("ünïcödé tskey-x\n", "ünïcödé [withheld] "),
        ] {
            assert_eq!(redact(text, 80), expect);
        }
        assert_eq!(
            redact("tskey-client-secret", 8),
            "[withhel…",
            "not even a part of it"
        );
        assert_eq!(redact(&"word ".repeat(10_000_000), 6), "word w…");
        assert_eq!(redact(&"x".repeat(10_000_000), 80), "[withheld]");
    }
}
