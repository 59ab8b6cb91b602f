//! Decodes the elements of a list while the body arrives in chunks.
//!
//! A list without pages, such as the device listing, can have tens of megabytes, of which a run keeps little. So the body
//! never exists as a whole: each element is decoded as soon as all of it has arrived.
//!
//! A bracket scanner finds where an element starts; serde tells where it ends. The envelope, which is the rest of the body,
//! is decoded too, with `{"record":n}` in place of element n. So a wrong cut gives invalid JSON, not wrong data.
//!
//! For example, the body `{"list":[{"a":1},{"b":2}],"n":7}` in two chunks:
//!
//! ```text
//! call                            envelope so far                            elements        incomplete
//! feed({"list":[{"a":1},{"b")     {"list":[{"record":0},                     {"a":1}         {"b"
//! feed(:2}],"n":7})               {"list":[{"record":0},{"record":1}],"n":7} {"a":1} {"b":2}
//! finish()                        decodes: the list is record 0, record 1    {"a":1} {"b":2}
//! ```

use std::io::Write;
use std::mem;

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Deserializer;

use super::{JsonError, parse};

/// Maximum bytes of an element. A single device must not make the others unreadable, as far as memory allows.
const MAX_ELEMENT_BYTES: usize = 32 << 20;
/// Maximum bytes of the envelope; that of 150,000 elements has 3 MB.
const MAX_ENVELOPE_BYTES: usize = 4 << 20;
/// Brackets around an element: `{"list":[element, …]}`.
const ELEMENT_DEPTH: usize = 2;

/// An object with a list in it, decoded with placeholders for the elements of the list.
pub(crate) trait ListEnvelope: DeserializeOwned {
    /// An element of the list.
    type Item: DeserializeOwned;

    /// The list's name, for errors.
    const LIST_NAME: &str;
    const MAX_ITEMS: usize;

    /// Returns the placeholders in the list.
    fn list(self) -> Vec<RecordIndex>;
}

/// The placeholder of an element: `{"record":n}`.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct RecordIndex {
    record: usize,
}

/// The state of a body that has arrived in part.
pub(crate) struct ListDecoder<E: ListEnvelope> {
    envelope: Vec<u8>,
    /// Decoded elements. Valid JSON that is not an `Item` may be outside of the list, so it is not an error yet.
    elements: Vec<Option<Result<E::Item, JsonError>>>,
    /// The first bytes of an element that has not ended yet.
    incomplete: Vec<u8>,
    /// The length of `incomplete` at which decoding is tried again.
    retry_at_len: usize,
    scanner: Scanner,
}

impl<E: ListEnvelope> ListDecoder<E> {
    pub(crate) fn new() -> Self {
        Self {
            envelope: Vec::new(),
            elements: Vec::new(),
            incomplete: Vec::new(),
            retry_at_len: 0,
            scanner: Scanner::default(),
        }
    }

    /// Decodes the next chunk of the body. Fails if the body is not JSON, or a part of it is too large.
    pub(crate) fn feed(&mut self, chunk: &[u8]) -> Result<(), JsonError> {
        let is_in_element = !self.incomplete.is_empty();
        self.incomplete.extend_from_slice(chunk);
        if self.incomplete.len() < self.retry_at_len {
            return Ok(());
        }
        let text = mem::take(&mut self.incomplete);
        self.decode(&text, is_in_element)
    }

    /// Decodes a text up to its last incomplete element. The text starts with an element or outside of one.
    fn decode(&mut self, mut text: &[u8], mut is_element: bool) -> Result<(), JsonError> {
        self.retry_at_len = 0;
        loop {
            if !is_element {
                let start = self.scanner.find_element(text);
                let (envelope, element) = text.split_at(start.unwrap_or(text.len()));
                if envelope.len() > MAX_ENVELOPE_BYTES.saturating_sub(self.envelope.len()) {
                    return Err(JsonError::TooLarge(MAX_ENVELOPE_BYTES));
                }
                self.envelope.extend_from_slice(envelope);
                text = element;
            }
            if text.is_empty() {
                return Ok(());
            }
            let end = self.decode_element(text)?;
            if end.unwrap_or(text.len()) > MAX_ELEMENT_BYTES {
                return Err(JsonError::TooLarge(MAX_ELEMENT_BYTES));
            }
            let Some(end) = end else {
                // The element is tried again at twice its length, so that a long one is not decoded for each chunk.
                self.retry_at_len = (text.len() * 2).min(MAX_ELEMENT_BYTES + 1);
                self.incomplete = text.to_vec();
                return Ok(());
            };
            text = &text[end..];
            is_element = false;
        }
    }

    /// Decodes the element that a text starts with. Returns its end, or `None` if it is incomplete.
    fn decode_element(&mut self, text: &[u8]) -> Result<Option<usize>, JsonError> {
        let n = self.elements.len();
        if n == E::MAX_ITEMS {
            return Err(JsonError::TooMany(n));
        }
        let prefix = decode_prefix(text).map_err(|error| error.in_list(E::LIST_NAME, n))?;
        Ok(prefix.map(|(element, end)| {
            self.elements.push(Some(element));
            // Writing to a vector cannot fail.
            let _ = write!(self.envelope, r#"{{"record":{n}}}"#);
            end
        }))
    }

    /// Returns the elements of the list, once the whole body was fed. Fails if the envelope or an element does not decode.
    pub(crate) fn finish(mut self) -> Result<Vec<E::Item>, JsonError> {
        let text = mem::take(&mut self.incomplete);
        self.decode(&text, !text.is_empty())?;
        // An unterminated element leaves the envelope unterminated, so parsing it fails.
        let envelope: E = parse(&self.envelope)?;
        let mut items = Vec::new();
        for (n, RecordIndex { record }) in envelope.list().into_iter().enumerate() {
            let element = self.elements.get_mut(record).and_then(Option::take);
            let item = element.unwrap_or_else(|| {
                Err(JsonError::Malformed {
                    path: String::new(),
                    line: 0,
                    column: 0,
                })
            });
            items.push(item.map_err(|error| error.in_list(E::LIST_NAME, n))?);
        }
        Ok(items)
    }
}

/// The object or list that a text starts with, and its end in the text.
type Prefix<T> = (Result<T, JsonError>, usize);

/// Decodes the object or list that a text starts with. Returns `None` if it is incomplete. Valid JSON that is not a `T` has
/// an end as well. Fails if the text is not JSON.
fn decode_prefix<T: DeserializeOwned>(text: &[u8]) -> Result<Option<Prefix<T>>, JsonError> {
    let mut values = Deserializer::from_slice(text).into_iter::<T>();
    let error = match values.next() {
        Some(Ok(value)) => return Ok(Some((Ok(value), values.byte_offset()))),
        Some(Err(error)) if !error.is_eof() => error,
        Some(Err(_)) | None => return Ok(None),
    };
    let mut skipped = Deserializer::from_slice(text).into_iter::<IgnoredAny>();
    match skipped.next() {
        Some(Ok(IgnoredAny)) => {
            let error = JsonError::locate::<T>(text, &error);
            Ok(Some((Err(error), skipped.byte_offset())))
        }
        Some(Err(error)) if !error.is_eof() && !is_at_end(text, &error) => {
            Err(JsonError::locate::<T>(text, &error))
        }
        Some(Err(_)) | None => Ok(None),
    }
}

/// Returns whether an error is at the end of the text. `serde_json` calls a number that is cut there, such as `1.` or `1e-`,
/// an invalid number instead of an early end.
fn is_at_end(text: &[u8], error: &serde_json::Error) -> bool {
    let lines = || text.split(|byte| *byte == b'\n');
    let column = lines().next_back().map_or(0, <[u8]>::len);
    (error.line(), error.column()) == (lines().count(), column)
}

/// Finds the first bracket of each element in the envelope.
#[derive(Debug, Default)]
struct Scanner {
    depth: usize,
    state: StringState,
}

/// The position of the next byte relative to strings.
#[derive(Clone, Copy, Debug, Default)]
enum StringState {
    #[default]
    Outside,
    Inside,
    /// After a backslash.
    Escaped,
}

impl Scanner {
    /// Returns the start of the next element. Scanning continues after that element, or after the text.
    fn find_element(&mut self, text: &[u8]) -> Option<usize> {
        text.iter().position(|byte| self.is_start(*byte))
    }

    fn is_start(&mut self, byte: u8) -> bool {
        match (self.state, byte) {
            (StringState::Outside, b'{' | b'[') if self.depth == ELEMENT_DEPTH => return true,
            (StringState::Outside, b'{' | b'[') => self.depth += 1,
            (StringState::Outside, b'}' | b']') => self.depth = self.depth.saturating_sub(1),
            (StringState::Outside, b'"') | (StringState::Escaped, _) => {
                self.state = StringState::Inside;
            }
            (StringState::Inside, b'"') => self.state = StringState::Outside,
            (StringState::Inside, b'\\') => self.state = StringState::Escaped,
            (StringState::Outside | StringState::Inside, _) => {}
        }
        false
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::hostile::{bytes, cases};

    /// `{"list":[…]}`
    #[derive(Deserialize)]
    pub(crate) struct TestList {
        list: Vec<RecordIndex>,
    }

    impl ListEnvelope for TestList {
        type Item = Value;

        const LIST_NAME: &str = "list";
        const MAX_ITEMS: usize = 1_000;

        fn list(self) -> Vec<RecordIndex> {
            self.list
        }
    }

    fn decode_chunks(body: &[u8], size: usize) -> Result<Vec<Value>, JsonError> {
        let mut decoder = ListDecoder::<TestList>::new();
        for chunk in body.chunks(size) {
            decoder.feed(chunk)?;
        }
        decoder.finish()
    }

    /// Decodes the body as a whole. Elements must be objects or lists: any other value is an error of the envelope.
    fn whole(body: &[u8]) -> Option<Vec<Value>> {
        #[derive(Deserialize)]
        struct Whole {
            list: Vec<Value>,
        }
        let Whole { list } = serde_json::from_slice(body).ok()?;
        let is_valid = list
            .iter()
            .all(|element| element.is_object() || element.is_array());
        is_valid.then_some(list)
    }

    fn documents() -> Vec<Value> {
        vec![
            json!({"list": [{"a": "\"]}\\", "b": [{"c": [1]}, {}]}, {}, [[]], [{}]], "more": [{"record": 0}], "n": 1}),
            json!({"a": [{"record": 1}], "b": {"list": [{}]}, "list": [{"record": 7}, {"list": [{}]}]}),
            json!({"list": [{"a": "\u{e9}\\\\\"", "b": null}, 7, null, "{", {"a": {}}]}),
            json!({"list": [{"a": [-1.5e-300, 2.5, true, "\u{1f600}"]}, {"a": {"b": -0.25}}], "n": -1.5e-300}),
            json!({"list": {"record": 0}}),
            json!([[{"a": 1}, {"record": 0}], {"list": [{}]}]),
        ]
    }

    proptest! {
        #![proptest_config(cases(5_000))]

        /// A body in chunks decodes to the same value as the whole body, or is an error.
        #[test]
        fn chunks_decode_to_the_same_value_as_the_whole(body in bytes(documents()), size in 1..40_usize) {
            let (chunks, whole) = (decode_chunks(&body, size).ok(), whole(&body));
            // A decoder allows 128 levels; for an element it counts from there.
            let may_be_too_deep = body.iter().filter(|byte| b"[{".contains(byte)).count() > 120;
            prop_assert!(chunks == whole || (may_be_too_deep && whole.is_none()), "{chunks:?} {whole:?}");
        }
    }

    #[test]
    fn an_error_names_the_element_of_the_list() {
        let error = decode_chunks(br#"{"list":[{"a":1},{"a":nil}]}"#, 5).unwrap_err();
        assert_eq!(
            error.to_string(),
            "unexpected value at list[1].a (line 1, column 7)"
        );
        let error = decode_chunks(br#"{"list":[{"a":1},nil]}"#, 5).unwrap_err();
        assert!(error.to_string().contains("at list[1] "), "{error}");
    }

    #[test]
    fn a_truncated_body_is_not_malformed() {
        let body =
            "{\"list\":[{\"a\":\"\u{e9}\\ud83d\\ude00\\n\"},{\"c\":[-1.5e-300,2.5,true,{}]}]}"
                .as_bytes();
        for end in 0..body.len() {
            let cut = decode_chunks(&body[..end], 4);
            assert!(matches!(cut, Err(JsonError::Truncated)), "{end}: {cut:?}");
            let mut halves = ListDecoder::<TestList>::new();
            halves.feed(&body[..end]).unwrap();
            halves.feed(&body[end..]).unwrap();
            assert_eq!(halves.finish().unwrap().len(), 2, "{end}");
        }
    }

    #[test]
    fn every_part_of_a_body_has_a_bound() {
        let repeated = |part: &str, times: usize| {
            let mut decoder = ListDecoder::<TestList>::new();
            decoder.feed(br#"{"list":["#)?;
            for _ in 0..times {
                decoder.feed(part.as_bytes())?;
            }
            decoder.feed(b"{}]}")?;
            decoder.finish()
        };
        assert_eq!(repeated("{},", 999).unwrap().len(), 1_000);
        let error = repeated("{},", 1_000).unwrap_err();
        assert!(matches!(error, JsonError::TooMany(1_000)), "{error:?}");
        let long = " ".repeat(100_000);
        for (part, cap) in [
            (long.clone(), MAX_ENVELOPE_BYTES),
            (format!(r#"["{long}","#), MAX_ELEMENT_BYTES),
            (format!("[{long}"), MAX_ELEMENT_BYTES),
        ] {
            let error = repeated(&part, 400).unwrap_err();
            assert!(
                matches!(error, JsonError::TooLarge(most) if most == cap),
                "{error:?}"
            );
        }
    }
}
