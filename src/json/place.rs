//! Where in a JSON text a position is: `devices[3].name`.
//!
//! A decoder that keeps track of that would have to exist beside the one that does not, for each type there is, which is
//! a tenth of a megabyte of code. Here it is found out afterwards, once decoding has stopped.

/// Deeper than this, nobody reads a path.
const DEPTH: usize = 32;

/// An object or a list around the position.
enum Around {
    /// The key whose value comes next or is there, as it is written: `"a"`.
    LenientObject(Option<(usize, usize)>),
    /// The number of the element.
    List(usize),
}

/// The path to what stands before a line's column, both counted as `serde_json` counts them: from 1, in bytes. Empty where
/// that is the whole text.
pub(super) fn path(text: &[u8], line: usize, column: usize) -> String {
    let text = &text[..offset(text, line, column)];
    let mut around = Vec::new();
    let mut deeper = 0_usize;
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        let begin = at;
        at += 1;
        match byte {
            b'"' => {
                at = string_end(text, at);
                if let Some(Around::LenientObject(key @ None)) = around.last_mut() {
                    *key = Some((begin, at));
                }
            }
            // Of a bracket that should not be there, nothing was read.
            b'{' | b'[' if at == text.len() => {}
            b'{' | b'[' if around.len() == DEPTH => deeper += 1,
            b'{' => around.push(Around::LenientObject(None)),
            b'[' => around.push(Around::List(0)),
            b'}' | b']' if deeper > 0 => deeper -= 1,
            b'}' | b']' => drop(around.pop()),
            b',' if deeper == 0 => match around.last_mut() {
                Some(Around::LenientObject(key)) => *key = None,
                Some(Around::List(n)) => *n += 1,
                None => {}
            },
            _ => {}
        }
    }
    let mut path = String::new();
    for around in around {
        match around {
            Around::LenientObject(key) => {
                if !path.is_empty() {
                    path.push('.');
                }
                let key = key.map_or("?".into(), |(begin, end)| {
                    String::from_utf8_lossy(&text[begin..end])
                });
                path.push_str(key.trim_matches('"'));
            }
            Around::List(n) => path.extend(["[", &n.to_string(), "]"]),
        }
    }
    path
}

/// The offset of a line's column.
pub(super) fn offset(text: &[u8], line: usize, column: usize) -> usize {
    let mut lines = text.split_inclusive(|byte| *byte == b'\n');
    let before: usize = lines
        .by_ref()
        .take(line.saturating_sub(1))
        .map(<[u8]>::len)
        .sum();
    (before + column).min(text.len())
}

/// Behind the quote that ends a string.
fn string_end(text: &[u8], mut at: usize) -> usize {
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde::de::DeserializeOwned;

    use super::*;

    fn at<T: DeserializeOwned>(text: &str) -> String {
        let error = serde_json::from_str::<T>(text).err().unwrap();
        path(text.as_bytes(), error.line(), error.column())
    }

    #[derive(Deserialize)]
    struct Thing {
        #[serde(rename = "n")]
        _n: u8,
        #[serde(rename = "more", default)]
        _more: Vec<Thing>,
    }

    #[test]
    fn the_path_leads_to_what_was_not_expected() {
        for (text, expect) in [
            (r#"{"n":"s3cret"}"#, "n"),
            (r#"{"n":256}"#, "n"),
            (r#"{"x":{"y":[1,2]},"n":[]}"#, "n"),
            (r#"{"n":{"n":1}}"#, "n"),
            (
                "{\"n\":1,\n\"more\":[{\"n\":1},\n {\"n\": null}]}",
                "more[1].n",
            ),
            (r#"{"n":1,"more":[{"n":1},{}]}"#, "more[1]"),
            (r#"{"n":1,"more":[{"n":1},7]}"#, "more[1]"),
            (
                r#"{"a\"}]":[",{"],"n":1,"more":[{"n":1,nil}]}"#,
                "more[0].?",
            ),
            (r#"{"n":1,"more":{}}"#, "more"),
            ("[]", ""),
            ("{}", ""),
            (r#"{"n":1} x"#, ""),
            ("nil", ""),
        ] {
            assert_eq!(at::<Thing>(text), expect, "{text}");
        }
        assert_eq!(at::<BTreeMap<String, u8>>("{\"\u{e9}\":-1}"), "\u{e9}");
    }

    #[test]
    fn a_position_that_is_nowhere_is_the_end() {
        assert_eq!(path(br#"{"a":[1"#, 7, 9), "a[0]");
        assert_eq!(path(br#"{"a":"b\"#, 1, 99), "a");
        assert_eq!(path(b"]]}", 1, 3), "");
        assert_eq!(path(b"", 0, 0), "");
    }

    #[test]
    fn depth_is_bounded() {
        let deep = "[".repeat(1_000_000);
        assert_eq!(path(deep.as_bytes(), 1, 1_000_000), "[0]".repeat(DEPTH));
        let back = format!("{deep}{},0", "]".repeat(1_000_000 - 2));
        assert_eq!(path(back.as_bytes(), 1, back.len()), "[0][1]");
    }
}
