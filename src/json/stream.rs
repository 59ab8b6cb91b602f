//! A list's records, one by one, out of a body that comes in pieces.
//!
//! A list without pages, such as the device listing, may have tens of megabytes, of which hardly anything is kept. So the
//! body never exists whole: each record is decoded as soon as all of it is there, out of the piece that it came in.
//!
//! Where a record ends, its decoder says; where one begins, the brackets around it. Nothing rests on these: what is around
//! the records is decoded as well, with a number in the place of each of them, and is no JSON if anything was cut wrongly.

use std::io::Write;
use std::mem;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{JsonError, Malformed, Prefix, leading, parse};

/// A record is no longer: what a single device says must not keep the others from being read, as far as memory goes.
const RECORD_CAP: usize = 32 << 20;
/// What is around the records is no longer; around 150,000 of them are 3 MB.
const FRAME_CAP: usize = 4 << 20;
/// How deep in the body a record begins: `{"list":[record, …]}`.
const DEPTH: usize = 2;

/// A list in an object: what is around its records.
pub(crate) trait ListEnvelope: DeserializeOwned {
    /// A thing in the list.
    type Record: DeserializeOwned;

    /// The list's name, for errors.
    const LIST: &str;
    /// How many records there may be.
    const RECORDS: usize;

    /// The places of the records.
    fn list(self) -> Vec<RecordIndex>;
}

/// The place of a record.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct RecordIndex {
    record: usize,
}

/// A body, as far as it is here.
pub(crate) struct ListDecoder<F: ListEnvelope> {
    frame: Vec<u8>,
    records: Vec<Option<Result<F::Record, JsonError>>>,
    /// The beginning of a record whose end is not here.
    begun: Vec<u8>,
    /// How long it must be to be tried again.
    again: usize,
    scan: Scan,
}

impl<F: ListEnvelope> ListDecoder<F> {
    pub(crate) fn new() -> Self {
        Self {
            frame: Vec::new(),
            records: Vec::new(),
            begun: Vec::new(),
            again: 0,
            scan: Scan::default(),
        }
    }

    /// Takes in what comes next.
    pub(crate) fn take(&mut self, mut piece: &[u8]) -> Result<(), JsonError> {
        while !self.begun.is_empty() {
            // A record is tried again when there is twice as much of it, so that a long one is not read over and over.
            let had = self.begun.len();
            let (more, rest) = piece.split_at(piece.len().min(self.again - had));
            self.begun.extend_from_slice(more);
            if self.begun.len() < self.again {
                return Ok(());
            }
            let begun = mem::take(&mut self.begun);
            match self.take_record(&begun)? {
                Some(end) if end >= had => piece = &piece[end - had..],
                Some(end) => self.take_all(&begun[end..had])?,
                None => {
                    self.keep(begun)?;
                    piece = rest;
                }
            }
        }
        self.take_all(piece)
    }

    /// Takes in a text that does not begin within a record.
    fn take_all(&mut self, mut rest: &[u8]) -> Result<(), JsonError> {
        loop {
            let begin = self.scan.begin(rest);
            let (frame, record) = rest.split_at(begin.unwrap_or(rest.len()));
            grow(&mut self.frame, frame, FRAME_CAP)?;
            if begin.is_none() {
                return Ok(());
            }
            match self.take_record(record)? {
                Some(end) => rest = &record[end..],
                None => return self.keep(record.to_vec()),
            }
        }
    }

    /// Keeps the beginning of a record until there is more of it.
    fn keep(&mut self, begun: Vec<u8>) -> Result<(), JsonError> {
        if begun.len() > RECORD_CAP {
            return Err(JsonError::TooLarge(RECORD_CAP));
        }
        self.again = (begun.len() * 2).min(RECORD_CAP + 1);
        self.begun = begun;
        Ok(())
    }

    /// Takes the record that a text begins with. Where it ends, if that is in the text.
    fn take_record(&mut self, text: &[u8]) -> Result<Option<usize>, JsonError> {
        let n = self.records.len();
        if n == F::RECORDS {
            return Err(JsonError::TooMany(n));
        }
        let within = |error: JsonError| error.within(F::LIST, n);
        Ok(match leading(text).map_err(within)? {
            Prefix::Prefetch => None,
            Prefix::Here(end, record) => {
                // What is JSON and no record may be in another list, so it is no error yet.
                self.records.push(Some(record));
                // Nothing fails to be written to a vector.
                let _ = write!(self.frame, r#"{{"record":{n}}}"#);
                Some(end)
            }
        })
    }

    /// The records of the list, now that all is here.
    pub(crate) fn finish(mut self) -> Result<Vec<F::Record>, JsonError> {
        let begun = mem::take(&mut self.begun);
        if !begun.is_empty()
            && let Some(end) = self.take_record(&begun)?
        {
            self.take_all(&begun[end..])?;
        }
        // Of a record that did not end, there is none in the frame, which does not end either.
        let frame: F = parse(&self.frame)?;
        let mut records = self.records;
        let record = |(n, RecordIndex { record }): (usize, RecordIndex)| {
            let record = records.get_mut(record).and_then(Option::take);
            record
                .unwrap_or_else(|| Err(Malformed::default().into()))
                .map_err(|error| error.within(F::LIST, n))
        };
        frame.list().into_iter().enumerate().map(record).collect()
    }
}

fn grow(text: &mut Vec<u8>, more: &[u8], cap: usize) -> Result<(), JsonError> {
    if more.len() > cap.saturating_sub(text.len()) {
        return Err(JsonError::TooLarge(cap));
    }
    text.extend_from_slice(more);
    Ok(())
}

/// Finds the first brackets of records in what is around them.
#[derive(Debug, Default)]
struct Scan {
    depth: usize,
    text: Text,
}

/// Whether what comes next is within a string.
#[derive(Clone, Copy, Debug, Default)]
enum Text {
    #[default]
    Outside,
    Inside,
    /// After a backslash.
    Escaped,
}

impl Scan {
    /// Where the next record begins; the scan goes on behind that record, or behind the text.
    fn begin(&mut self, text: &[u8]) -> Option<usize> {
        text.iter().position(|byte| self.is_begin(*byte))
    }

    fn is_begin(&mut self, byte: u8) -> bool {
        match (self.text, byte) {
            (Text::Outside, b'{' | b'[') if self.depth == DEPTH => return true,
            (Text::Outside, b'{' | b'[') => self.depth += 1,
            (Text::Outside, b'}' | b']') => self.depth = self.depth.saturating_sub(1),
            (Text::Outside, b'"') | (Text::Escaped, _) => self.text = Text::Inside,
            (Text::Inside, b'"') => self.text = Text::Outside,
            (Text::Inside, b'\\') => self.text = Text::Escaped,
            (Text::Outside | Text::Inside, _) => {}
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
        type Record = Value;

        const LIST: &str = "list";
        const RECORDS: usize = 1_000;

        fn list(self) -> Vec<RecordIndex> {
            self.list
        }
    }

    fn in_pieces(body: &[u8], size: usize) -> Result<Vec<Value>, JsonError> {
        let mut partial = ListDecoder::<TestList>::new();
        for piece in body.chunks(size) {
            partial.take(piece)?;
        }
        partial.finish()
    }

    /// What the body says to a decoder that has all of it. A list's things are objects or lists: what else is in it is
    /// refused in the frame.
    fn whole(body: &[u8]) -> Option<Vec<Value>> {
        #[derive(Deserialize)]
        struct Whole {
            list: Vec<Value>,
        }
        let Whole { list } = serde_json::from_slice(body).ok()?;
        let records = list
            .iter()
            .all(|thing| thing.is_object() || thing.is_array());
        records.then_some(list)
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

        /// However it is cut by the network, a body says what it says as a whole, or is refused.
        #[test]
        fn pieces_say_what_the_whole_says(body in bytes(documents()), size in 1..40_usize) {
            let (pieces, whole) = (in_pieces(&body, size).ok(), whole(&body));
            // A decoder goes 128 levels deep, and for a record begins to count there.
            let may_be_too_deep = body.iter().filter(|byte| b"[{".contains(byte)).count() > 120;
            prop_assert!(pieces == whole || (may_be_too_deep && whole.is_none()), "{pieces:?} {whole:?}");
        }
    }

    #[test]
    fn an_error_names_the_thing_in_the_list() {
        let error = in_pieces(br#"{"list":[{"a":1},{"a":nil}]}"#, 5).unwrap_err();
        assert_eq!(
            error.to_string(),
            "not what is expected at list[1].a (line 1, column 7)"
        );
        let error = in_pieces(br#"{"list":[{"a":1},nil]}"#, 5).unwrap_err();
        assert!(error.to_string().contains("at list[1] "), "{error}");
    }

    #[test]
    fn what_ends_early_is_told_from_what_is_wrong() {
        let body =
            "{\"list\":[{\"a\":\"\u{e9}\\ud83d\\ude00\\n\"},{\"c\":[-1.5e-300,2.5,true,{}]}]}"
                .as_bytes();
        for end in 0..body.len() {
            let cut = in_pieces(&body[..end], 4);
            assert!(matches!(cut, Err(JsonError::Early)), "{end}: {cut:?}");
            let mut halves = ListDecoder::<TestList>::new();
            halves.take(&body[..end]).unwrap();
            halves.take(&body[end..]).unwrap();
            assert_eq!(halves.finish().unwrap().len(), 2, "{end}");
        }
    }

    #[test]
    fn no_part_of_a_body_grows_without_a_bound() {
        let repeated = |part: &str, times: usize| {
            let mut partial = ListDecoder::<TestList>::new();
            partial.take(br#"{"list":["#)?;
            for _ in 0..times {
                partial.take(part.as_bytes())?;
            }
            partial.take(b"{}]}")?;
            partial.finish()
        };
        assert_eq!(repeated("{},", 999).unwrap().len(), 1_000);
        let error = repeated("{},", 1_000).unwrap_err();
        assert!(matches!(error, JsonError::TooMany(1_000)), "{error:?}");
        let long = " ".repeat(100_000);
        for (part, cap) in [
            (long.clone(), FRAME_CAP),
            (format!(r#"["{long}","#), RECORD_CAP),
            (format!("[{long}"), RECORD_CAP),
        ] {
            let error = repeated(&part, 400).unwrap_err();
            assert!(
                matches!(error, JsonError::TooLarge(most) if most == cap),
                "{error:?}"
            );
        }
    }
}
