//! The used part of the Falcon Query Language: `field:op'value'`, lists, `+` (and), `,` (or),
//! parentheses. `+` binds tighter.

use std::collections::BTreeSet;

/// "up to 250 per call" in `CrowdStrike`'s own sample of a search by serials.
const MAX_LIST_VALUES: usize = 250;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fql {
    All(Vec<Fql>),
    Any(Vec<Fql>),
    Term(Term),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Term {
    pub(crate) field: String,
    pub(crate) op: Op,
    /// Has more than one value only with `Equal` and `Not`.
    pub(crate) values: BTreeSet<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Equal,
    Not,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Op {
    pub(crate) fn holds<T: PartialOrd + ?Sized>(self, left: &T, right: &T) -> bool {
        match self {
            Self::Equal => left == right,
            Self::Not => left != right,
            Self::Less => left < right,
            Self::LessOrEqual => left <= right,
            Self::Greater => left > right,
            Self::GreaterOrEqual => left >= right,
        }
    }
}

impl Fql {
    /// Parses a filter. The error names the place of the first mistake.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut parser = Parser { rest: text };
        let filter = parser.any()?;
        if parser.rest.is_empty() {
            Ok(filter)
        } else {
            Err(parser.unexpected())
        }
    }

    pub(crate) fn matches(&self, holds: &impl Fn(&Term) -> bool) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|part| part.matches(holds)),
            Self::Any(parts) => parts.iter().any(|part| part.matches(holds)),
            Self::Term(term) => holds(term),
        }
    }

    pub(crate) fn terms(&self) -> Vec<&Term> {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().flat_map(Self::terms).collect(),
            Self::Term(term) => vec![term],
        }
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn any(&mut self) -> Result<Fql, String> {
        let mut parts = vec![self.all()?];
        while self.eat(",") {
            parts.push(self.all()?);
        }
        Ok(single_or(parts, Fql::Any))
    }

    fn all(&mut self) -> Result<Fql, String> {
        let mut parts = vec![self.primary()?];
        while self.eat("+") {
            parts.push(self.primary()?);
        }
        Ok(single_or(parts, Fql::All))
    }

    fn primary(&mut self) -> Result<Fql, String> {
        if self.eat("(") {
            let inner = self.any()?;
            return if self.eat(")") {
                Ok(inner)
            } else {
                Err(self.unexpected())
            };
        }
        let field =
            self.word(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '.')?;
        if !self.eat(":") {
            return Err(self.unexpected());
        }
        // longer operators first
        let op = [
            ("!", Op::Not),
            (">=", Op::GreaterOrEqual),
            ("<=", Op::LessOrEqual),
            (">", Op::Greater),
            ("<", Op::Less),
        ]
        .into_iter()
        .find_map(|(sign, op)| self.eat(sign).then_some(op))
        .unwrap_or(Op::Equal);
        let values = if matches!(op, Op::Equal | Op::Not) && self.eat("[") {
            self.list()?
        } else {
            BTreeSet::from([self.scalar()?])
        };
        Ok(Fql::Term(Term { field, op, values }))
    }

    fn list(&mut self) -> Result<BTreeSet<String>, String> {
        let mut values = BTreeSet::from([self.scalar()?]);
        let mut count = 1;
        while self.eat(",") {
            values.insert(self.scalar()?);
            count += 1;
        }
        if !self.eat("]") {
            return Err(self.unexpected());
        }
        if count > MAX_LIST_VALUES {
            Err(format!("more than {MAX_LIST_VALUES} values in a list"))
        } else {
            Ok(values)
        }
    }

    fn scalar(&mut self) -> Result<String, String> {
        if !self.eat("'") {
            return self.word(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
        }
        let mut value = String::new();
        let mut characters = self.rest.char_indices();
        while let Some((at, character)) = characters.next() {
            match character {
                '\'' => {
                    self.rest = self.rest.get(at + 1..).unwrap_or_default();
                    return Ok(value);
                }
                '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
                plain => value.push(plain),
            }
        }
        Err("unterminated string".to_owned())
    }

    fn word(&mut self, allowed: impl Fn(char) -> bool) -> Result<String, String> {
        let end = self.rest.find(|c| !allowed(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        if word.is_empty() {
            return Err(self.unexpected());
        }
        self.rest = rest;
        Ok(word.to_owned())
    }

    fn eat(&mut self, sign: &str) -> bool {
        let rest = self.rest.strip_prefix(sign);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn unexpected(&self) -> String {
        match self.rest.chars().next() {
            Some(character) => format!("unexpected {character:?}"),
            None => "unexpected end".to_owned(),
        }
    }
}

fn single_or(mut parts: Vec<Fql>, join: impl Fn(Vec<Fql>) -> Fql) -> Fql {
    match (parts.len(), parts.pop()) {
        (1, Some(only)) => only,
        (_, last) => {
            parts.extend(last);
            join(parts)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(filter: &str, serial: &str) -> bool {
        let selects = |term: &Term| match term.op {
            Op::Equal => term.values.contains(serial),
            Op::Not => !term.values.contains(serial),
            op @ (Op::Less | Op::LessOrEqual | Op::Greater | Op::GreaterOrEqual) => term
                .values
                .iter()
                .all(|value| op.holds(serial, value.as_str())),
        };
        Fql::parse(filter).is_ok_and(|filter| filter.matches(&selects))
    }

    #[test]
    fn and_binds_tighter_than_or() {
        assert!(holds(
            "serial_number:'a',serial_number:'b'+serial_number:'c'",
            "a"
        ));
        assert!(!holds(
            "(serial_number:'a',serial_number:'b')+serial_number:'c'",
            "a"
        ));
        assert!(holds("serial_number:['a','it\\'s b']", "it's b"));
        assert!(holds("serial_number:!'a'+serial_number:>='b'", "c"));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for filter in [
            "",
            "serial_number",
            "serial_number:",
            "serial_number:'a",
            "serial_number:['a'",
            "a:'b'+",
            "a:'b' c:'d'",
            "A:'b'",
        ] {
            assert!(Fql::parse(filter).is_err(), "{filter}");
        }
        let many = |count: usize| format!("serial_number:[{}]", vec!["'x'"; count].join(","));
        assert!(Fql::parse(&many(250)).is_ok());
        assert!(Fql::parse(&many(251)).is_err());
    }
}
