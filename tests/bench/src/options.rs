//! Command line options.

use std::path::PathBuf;
use std::time::Duration;

use crate::Trouble;
use crate::cases::{CASES, Case, QUICK};

pub(crate) use crate::stage::Pace;

/// Name of the cold starts in `--only`.
const START: &str = "start";

const USAGE: &str = "usage: posture-bench [--only CASE[,CASE]] [--quick] [--strict] [--latency-ms N] \
    [--aws-latency-ms N] [--function PATH]; the cases are 100, 1k, 2k, 10k, 100k, few and start";

/// Cases to measure, and the way to measure them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Options {
    only: Vec<String>,
    quick: bool,
    /// True if a bound that does not hold fails the bench.
    pub(crate) strict: bool,
    /// Response times of the servers.
    pub(crate) pace: Pace,
    /// Replaces the binary that cargo built.
    pub(crate) function: Option<PathBuf>,
}

impl Default for Pace {
    /// Recorded Falcon responses take about a second from far away and a tenth of a second from nearby. AWS responses
    /// in the same region take milliseconds.
    fn default() -> Self {
        Self {
            apis: Duration::from_millis(100),
            aws: Duration::from_millis(10),
        }
    }
}

impl Pace {
    /// Responses without a delay.
    pub(crate) const NONE: Self = Self {
        apis: Duration::ZERO,
        aws: Duration::ZERO,
    };
}

impl Options {
    /// Parses the arguments.
    pub(crate) fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, Trouble> {
        let mut options = Self {
            only: Vec::new(),
            quick: false,
            strict: false,
            pace: Pace::default(),
            function: None,
        };
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            let mut value = || {
                arguments
                    .next()
                    .ok_or_else(|| format!("{argument} takes a value; {USAGE}"))
            };
            match argument.as_str() {
                "--only" => options.only = value()?.split(',').map(str::to_owned).collect(),
                "--quick" => options.quick = true,
                "--strict" => options.strict = true,
                "--latency-ms" => options.pace.apis = Duration::from_millis(value()?.parse()?),
                "--aws-latency-ms" => options.pace.aws = Duration::from_millis(value()?.parse()?),
                "--function" => options.function = Some(value()?.into()),
                _ => return Err(format!("unknown argument {argument}; {USAGE}").into()),
            }
        }
        let known = |name: &String| name == START || CASES.iter().any(|case| case.name == name);
        if let Some(name) = options.only.iter().find(|name| !known(name)) {
            return Err(format!("there is no case {name}; {USAGE}").into());
        }
        Ok(options)
    }

    /// Returns whether the bench measures as for the documented results: all cases, at the default pace, of the binary
    /// that cargo built.
    pub(crate) fn is_complete(&self) -> bool {
        let usual_setup = self.pace == Pace::default() && self.function.is_none();
        usual_setup && self.only.is_empty() && !self.quick
    }

    /// Returns whether to measure the cold starts.
    pub(crate) fn starts(&self) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == START)
    }

    /// Returns the cases to measure.
    pub(crate) fn cases(&self) -> impl Iterator<Item = Case> {
        let most = if self.quick { QUICK } else { CASES.len() };
        let wanted =
            |case: &Case| self.only.is_empty() || self.only.iter().any(|name| name == case.name);
        CASES.into_iter().take(most).filter(wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options, String> {
        Options::parse(arguments.iter().map(|argument| (*argument).to_owned()))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn cases_are_chosen() {
        let names = |arguments: &[&str]| -> Vec<&str> {
            let options = parse(arguments).unwrap();
            options.cases().map(|case| case.name).collect()
        };
        assert_eq!(names(&["--quick"]), ["100", "1k"]);
        assert_eq!(names(&["--only", "few,100"]), ["100", "few"]);
        assert_eq!(names(&[]).len(), CASES.len());
    }

    #[test]
    fn only_a_complete_bench_is_documented() {
        for arguments in [&["--strict"][..], &[]] {
            assert!(parse(arguments).unwrap().is_complete(), "{arguments:?}");
        }
        for arguments in [
            &["--quick"][..],
            &["--only", "10k"],
            &["--latency-ms", "5"],
            &["--aws-latency-ms", "5"],
            &["--function", "other"],
        ] {
            assert!(!parse(arguments).unwrap().is_complete(), "{arguments:?}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (arguments, problem) in [
            (&["--only", "7k"][..], "there is no case 7k"),
            (&["--only"], "--only takes a value"),
            (&["--fast"], "unknown argument --fast"),
            (&["--latency-ms", "soon"], "invalid digit"),
        ] {
            let error = parse(arguments).unwrap_err();
            assert!(error.contains(problem), "{error}");
        }
    }
}
