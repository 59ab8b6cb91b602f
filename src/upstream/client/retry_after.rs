//! The wait that a response asks for.

use jiff::fmt::rfc2822;
use jiff::{SignedDuration, Timestamp};
use reqwest::header::{DATE, RETRY_AFTER};

use super::Response;

impl Response {
    /// Returns the end of the wait that the response asks for, on our clock. Falcon sends `X-Ratelimit-Retryafter`, an
    /// epoch time; the standard is `Retry-After`, in seconds or as a date.
    pub(crate) fn retry_after(&self) -> Option<Timestamp> {
        if let Some(until) = self.header("x-ratelimit-retryafter").and_then(parse_epoch) {
            return Some(self.on_our_clock(until));
        }
        let value = self.header(RETRY_AFTER.as_str())?.trim();
        match value.parse::<u32>() {
            Ok(seconds) => self
                .received
                .checked_add(SignedDuration::from_secs(seconds.into()))
                .ok(),
            Err(_) => parse_date(value).map(|until| self.on_our_clock(until)),
        }
    }

    /// Converts a time of the sender's clock. The response's `Date` header tells the difference from our clock.
    fn on_our_clock(&self, theirs: Timestamp) -> Timestamp {
        self.header(DATE.as_str())
            .and_then(parse_date)
            .and_then(|date| self.received.checked_add(theirs.duration_since(date)).ok())
            .unwrap_or(theirs)
    }
}

/// Reads an epoch time. Falcon's specification says milliseconds; all recorded traffic had seconds.
fn parse_epoch(text: &str) -> Option<Timestamp> {
    const MAX_SECONDS: i64 = 100_000_000_000;
    let time: i64 = text.trim().parse().ok()?;
    if time > MAX_SECONDS {
        Timestamp::from_millisecond(time).ok()
    } else {
        Timestamp::from_second(time).ok()
    }
}

fn parse_date(text: &str) -> Option<Timestamp> {
    Some(rfc2822::parse(text.trim()).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use reqwest::StatusCode;
    use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

    use super::*;

    /// Returns the wait in seconds, for a response that arrives at 1000 on our clock.
    fn wait(headers: &[(&'static str, &'static str)]) -> Option<i64> {
        let header = |(name, value): &(&'static str, &'static str)| {
            let value = HeaderValue::from_static(value);
            (HeaderName::from_static(name), value)
        };
        let response = Response {
            status: StatusCode::TOO_MANY_REQUESTS,
            headers: headers.iter().map(header).collect::<HeaderMap>(),
            received: Timestamp::from_second(1000).unwrap(),
            body: Vec::new(),
        };
        let until = response.retry_after()?;
        Some(until.as_second() - 1000)
    }

    #[test]
    fn falcon_tells_an_epoch_time_in_seconds_or_milliseconds() {
        assert_eq!(wait(&[("x-ratelimit-retryafter", "1030")]), Some(30));
        let now = [("x-ratelimit-retryafter", "1768478430000")];
        assert_eq!(wait(&now), Some(1_768_478_430 - 1000));
        for odd in ["soon", "", "99999999999999999999", "-99999999999999"] {
            assert_eq!(wait(&[("x-ratelimit-retryafter", odd)]), None, "{odd}");
        }
    }

    #[test]
    fn the_standards_header_tells_seconds_or_a_date() {
        assert_eq!(wait(&[("retry-after", "30")]), Some(30));
        let date = [("retry-after", "Thu, 01 Jan 1970 00:17:10 GMT")];
        assert_eq!(wait(&date), Some(30));
        for odd in ["soon", "-1", "30.5"] {
            assert_eq!(wait(&[("retry-after", odd)]), None, "{odd}");
        }
        let both = [("retry-after", "5"), ("x-ratelimit-retryafter", "1030")];
        assert_eq!(wait(&both), Some(30), "the side's own goes first");
    }

    #[test]
    fn a_clock_that_is_off_does_not_change_the_wait() {
        let late = [
            ("date", "Thu, 01 Jan 1970 01:00:00 GMT"),
            ("x-ratelimit-retryafter", "3620"),
        ];
        assert_eq!(wait(&late), Some(20));
        let date = [
            ("date", "Thu, 01 Jan 1970 01:00:00 GMT"),
            ("retry-after", "Thu, 01 Jan 1970 01:00:07 GMT"),
        ];
        assert_eq!(wait(&date), Some(7));
    }
}
