//! A list's records, one by one, out of a body that comes in pieces.
//!
//! A list without pages, such as the device listing, may have tens of megabytes, of which hardly anything is kept. It is
//! cut at its records, and each of them is decoded as soon as it is there: so the body never exists whole, and decoding
//! works on slices, which takes a fraction of the time that decoding from a reader takes.
//!
//! To find the cuts, nothing but strings and brackets is looked at, and nothing rests on it: each record is decoded as
//! JSON, and so is the frame around them, in which a number takes the place of each record. Had a cut been wrong, one of
//! the two would be no JSON.

use std::io::Write;

use memchr::memchr2;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::{Malformed, Undecodable, parse};

/// A record is no longer: what a single device says must not keep the others from being read, as far as memory goes.
const RECORD_CAP: usize = 32 << 20;
/// What is around the records is no longer; around 150,000 of them are 3 MB.
const FRAME_CAP: usize = 4 << 20;
/// How deep in the body a record begins: `{"list":[record, …]}`.
const DEPTH: usize = 2;

/// A list in an object: what is around its records.
pub(crate) trait Frame: DeserializeOwned {
    /// A thing in the list.
    type Record: DeserializeOwned;

    /// The list's name, for errors.
    const LIST: &str;
    /// How many records there may be.
    const RECORDS: usize;

    /// The places of the records.
    fn list(self) -> Vec<Nth>;
}

/// The place of a record.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Nth {
    record: usize,
}

/// A body, as far as it is here.
pub(super) struct Partial<F: Frame> {
    frame: Vec<u8>,
    records: Vec<Option<Result<F::Record, Undecodable>>>,
    /// The beginning of a record whose end is not here.
    begun: Vec<u8>,
    scan: Scan,
}

impl<F: Frame> Partial<F> {
    pub(super) fn new() -> Self {
        Self {
            frame: Vec::new(),
            records: Vec::new(),
            begun: Vec::new(),
            scan: Scan::default(),
        }
    }

    /// Takes in what comes next.
    pub(super) fn take(&mut self, piece: &[u8]) -> Result<(), Undecodable> {
        let (mut taken, mut at) = (0, 0);
        while let Some(cut) = self.scan.next(piece, &mut at) {
            match cut {
                Cut::Begin => {
                    // The bracket is the record's.
                    grow(&mut self.frame, &piece[taken..at - 1], FRAME_CAP)?;
                    taken = at - 1;
                }
                Cut::End => {
                    self.end_record(&piece[taken..at])?;
                    taken = at;
                }
            }
        }
        if self.scan.is_in_record() {
            grow(&mut self.begun, &piece[taken..], RECORD_CAP)
        } else {
            grow(&mut self.frame, &piece[taken..], FRAME_CAP)
        }
    }

    fn end_record(&mut self, end: &[u8]) -> Result<(), Undecodable> {
        let n = self.records.len();
        if n == F::RECORDS {
            return Err(Undecodable::TooMany(n));
        }
        let record = if self.begun.is_empty() {
            one(end)
        } else {
            grow(&mut self.begun, end, RECORD_CAP)?;
            let record = one(&self.begun);
            self.begun.clear();
            record
        };
        let record = record.map_err(|error| error.within(F::LIST, n))?;
        self.records.push(Some(record));
        // Nothing fails to be written to a vector.
        let _ = write!(self.frame, r#"{{"record":{n}}}"#);
        Ok(())
    }

    /// The records of the list, now that all is here.
    pub(super) fn finish(mut self) -> Result<Vec<F::Record>, Undecodable> {
        // A record that did not end makes a frame that does not.
        self.frame.append(&mut self.begun);
        let frame: F = parse(&self.frame)?;
        let mut records = self.records;
        let record = |(n, Nth { record }): (usize, Nth)| {
            let record = records.get_mut(record).and_then(Option::take);
            record
                .unwrap_or_else(|| Err(Malformed::default().into()))
                .map_err(|error| error.within(F::LIST, n))
        };
        frame.list().into_iter().enumerate().map(record).collect()
    }
}

/// A record. What is JSON and no record may be in another list, so it is no error yet.
fn one<R: DeserializeOwned>(text: &[u8]) -> Result<Result<R, Undecodable>, Undecodable> {
    match parse(text) {
        Err(error) if serde_json::from_slice::<IgnoredAny>(text).is_err() => Err(error),
        record => Ok(record),
    }
}

fn grow(text: &mut Vec<u8>, more: &[u8], cap: usize) -> Result<(), Undecodable> {
    if more.len() > cap.saturating_sub(text.len()) {
        return Err(Undecodable::TooLarge(cap));
    }
    text.extend_from_slice(more);
    Ok(())
}

/// Where records begin and end.
#[derive(Debug, Default)]
struct Scan {
    depth: usize,
    text: Text,
}

/// Whether what comes next is within a string.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Text {
    #[default]
    Outside,
    Inside,
    /// After a backslash.
    Escaped,
}

/// The byte before it is a record's first or last bracket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    Begin,
    End,
}

impl Scan {
    fn is_in_record(&self) -> bool {
        self.depth > DEPTH
    }

    /// The next cut in a piece; the scan goes on from `at`, and ends behind the cut or at the piece's end.
    fn next(&mut self, piece: &[u8], at: &mut usize) -> Option<Cut> {
        while let Some(rest) = piece.get(*at..).filter(|rest| !rest.is_empty()) {
            match self.text {
                Text::Outside => {
                    let Some(n) = rest.iter().position(|byte| is_structural(*byte)) else {
                        *at = piece.len();
                        return None;
                    };
                    *at += n + 1;
                    let cut = self.pass(rest[n]);
                    if cut.is_some() {
                        return cut;
                    }
                }
                Text::Inside => {
                    let Some(n) = memchr2(b'"', b'\\', rest) else {
                        *at = piece.len();
                        return None;
                    };
                    *at += n + 1;
                    self.text = if rest[n] == b'"' {
                        Text::Outside
                    } else {
                        Text::Escaped
                    };
                }
                Text::Escaped => {
                    *at += 1;
                    self.text = Text::Inside;
                }
            }
        }
        None
    }

    /// Passes a structural byte.
    fn pass(&mut self, byte: u8) -> Option<Cut> {
        match byte {
            b'"' => {
                self.text = Text::Inside;
                None
            }
            b'{' | b'[' => {
                self.depth += 1;
                (self.depth == DEPTH + 1).then_some(Cut::Begin)
            }
            _ => {
                self.depth = self.depth.saturating_sub(1);
                (self.depth == DEPTH).then_some(Cut::End)
            }
        }
    }
}

fn is_structural(byte: u8) -> bool {
    matches!(byte, b'"' | b'{' | b'}' | b'[' | b']')
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::hostile::{bytes, cases};

    /// `{"list":[…]}`
    #[derive(Deserialize)]
    pub(in crate::http) struct Things {
        list: Vec<Nth>,
    }

    impl Frame for Things {
        type Record = Value;

        const LIST: &str = "list";
        const RECORDS: usize = 1_000;

        fn list(self) -> Vec<Nth> {
            self.list
        }
    }

    fn in_pieces(body: &[u8], size: usize) -> Result<Vec<Value>, Undecodable> {
        let mut partial = Partial::<Things>::new();
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
        let body = br#"{"list":[{"a":"b"},{"c":[{}]}]}"#;
        for end in 0..body.len() {
            let cut = in_pieces(&body[..end], 4);
            assert!(matches!(cut, Err(Undecodable::Early)), "{end}: {cut:?}");
        }
        assert_eq!(in_pieces(body, 4).unwrap().len(), 2);
    }

    #[test]
    fn no_part_of_a_body_grows_without_a_bound() {
        let repeated = |part: &str, times: usize| {
            let mut partial = Partial::<Things>::new();
            partial.take(br#"{"list":["#)?;
            for _ in 0..times {
                partial.take(part.as_bytes())?;
            }
            partial.take(b"{}]}")?;
            partial.finish()
        };
        assert_eq!(repeated("{},", 999).unwrap().len(), 1_000);
        let error = repeated("{},", 1_000).unwrap_err();
        assert!(matches!(error, Undecodable::TooMany(1_000)), "{error:?}");
        let long = " ".repeat(100_000);
        for (part, cap) in [
            (long.clone(), FRAME_CAP),
            (format!(r#"{{"a":"{long}"#), RECORD_CAP),
            (format!("[{long}"), RECORD_CAP),
        ] {
            let error = repeated(&part, 400).unwrap_err();
            assert!(
                matches!(error, Undecodable::TooLarge(most) if most == cap),
                "{error:?}"
            );
        }
    }
}
