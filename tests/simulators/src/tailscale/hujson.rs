//! JSON with comments and trailing commas, made plain.

/// Takes comments and trailing commas out; the rest stays as it is.
pub(crate) fn to_json(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    // a comma is held back until it is known whether anything but a bracket follows
    let mut comma = false;
    while let Some(character) = rest.chars().next() {
        let length = match (character, rest) {
            ('"', _) => string_length(rest),
            ('/', _) if rest.starts_with("//") => {
                rest = rest
                    .find('\n')
                    .and_then(|end| rest.get(end..))
                    .unwrap_or_default();
                continue;
            }
            ('/', _) if rest.starts_with("/*") => {
                rest = rest
                    .find("*/")
                    .and_then(|end| rest.get(end + 2..))
                    .unwrap_or_default();
                continue;
            }
            _ => character.len_utf8(),
        };
        let (piece, tail) = rest.split_at(length.min(rest.len()));
        rest = tail;
        if character == ',' {
            comma = true;
            continue;
        }
        if comma && !character.is_whitespace() {
            if !matches!(character, ']' | '}') {
                plain.push(',');
            }
            comma = false;
        }
        plain.push_str(piece);
    }
    plain
}

/// The length of the string literal that a text starts with.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    let end = text.char_indices().skip(1).find(|(_, character)| {
        let ends = *character == '"' && !escaped;
        escaped = *character == '\\' && !escaped;
        ends
    });
    end.map_or(text.len(), |(at, _)| at + 1)
}

#[cfg(test)]
mod tests {
    use super::to_json;

    #[test]
    fn comments_and_trailing_commas_go_and_strings_stay() {
        let text = "{ // note\n \"a\": [1, 2, /* last */ ],\n \"b\": \"x, // \\\" ]\",\n}";
        let value = serde_json::from_str(&to_json(text)).ok();
        assert_eq!(
            value,
            Some(serde_json::json!({"a": [1, 2], "b": "x, // \" ]"}))
        );
    }
}
