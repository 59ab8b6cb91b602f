//! The price of a month in US dollars: the published prices of us-east-1, without any free tier.
//!
//! Every run counts as a cold start, since Lambda promises to keep nothing for 15 minutes. The price omits costs that
//! do not depend on the code: the fixed price of a secret, the storage of tables and logs, alarms, the dashboard.

use std::fmt;
use std::time::Duration;

use crate::number;

/// Price of a GB-second of Lambda on arm64. <https://aws.amazon.com/lambda/pricing/>, as published in 2026.
const LAMBDA_GB_SECOND: f64 = 0.000_013_333_4;
/// Price of a million Lambda requests. Same source.
const LAMBDA_MILLION_REQUESTS: f64 = 0.20;
/// Price of a million read request units of DynamoDB on demand. <https://aws.amazon.com/dynamodb/pricing/on-demand/>,
/// as published in 2026 (halved in November 2024).
const DYNAMODB_MILLION_READS: f64 = 0.125;
/// Price of a million write request units of DynamoDB on demand. Same source.
const DYNAMODB_MILLION_WRITES: f64 = 0.625;
/// Price of ten thousand calls to Secrets Manager. <https://aws.amazon.com/secrets-manager/pricing/>, as published in
/// 2026.
const SECRETS_TEN_THOUSAND_CALLS: f64 = 0.05;
/// Price of a million custom events of EventBridge. <https://aws.amazon.com/eventbridge/pricing/>, as published in
/// 2026.
const EVENTS_MILLION: f64 = 1.00;
/// Price of a million invocations by EventBridge Scheduler. Same source.
const SCHEDULER_MILLION: f64 = 1.00;
/// Price of a GB of ingested `CloudWatch` Logs. <https://aws.amazon.com/cloudwatch/pricing/>, as published in 2026.
const LOGS_GB: f64 = 0.50;

/// Runs a month: every 15 minutes in 730 hours, AWS's length of a month.
pub(crate) const RUNS_A_MONTH: f64 = 4.0 * 730.0;

/// The memory that comes with a whole vCPU. Less memory comes with a proportional part of a vCPU.
/// <https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html>
const MB_OF_A_CPU: f64 = 1_769.0;
/// Bytes that `CloudWatch` adds to the text of each log event.
/// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/API_PutLogEvents.html>
const LOG_EVENT: u64 = 26;
/// Bytes of Lambda's own three JSON lines about an invocation (start, end, report), measured by their documented
/// form.
const PLATFORM_LINES: u64 = 900;

/// Resources that one run uses.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Time from exec to the first request for work.
    pub(crate) start: Duration,
    /// Time from the invocation to its response, on this machine.
    pub(crate) wall: Duration,
    /// CPU time, including the start.
    pub(crate) cpu: Duration,
    /// Configured memory in MB.
    pub(crate) memory_mb: u32,
    /// DynamoDB's read request units.
    pub(crate) reads: f64,
    /// DynamoDB's write request units.
    pub(crate) writes: f64,
    /// Calls to Secrets Manager.
    pub(crate) secret_calls: u64,
    /// Events put on the bus.
    pub(crate) events: u64,
    /// Lines logged.
    pub(crate) log_lines: u64,
    /// Bytes logged.
    pub(crate) log_bytes: u64,
}

impl Usage {
    /// Returns the time that Lambda would bill: waiting time, plus CPU time divided by the memory's share of a vCPU.
    /// A run can work while it waits for a response. The sum counts both, so it is an upper estimate. It takes a core
    /// of this machine for one of Lambda's.
    pub(crate) fn billed(&self) -> Duration {
        let waited = (self.start + self.wall).saturating_sub(self.cpu);
        let share = (f64::from(self.memory_mb) / MB_OF_A_CPU).min(1.0);
        waited + self.cpu.div_f64(share)
    }

    /// Returns the price of a month of such runs.
    pub(crate) fn month(&self) -> Month {
        let gb = f64::from(self.memory_mb) / 1024.0;
        let log_bytes = self.log_bytes + self.log_lines * LOG_EVENT + PLATFORM_LINES;
        let each = |price: f64| price * RUNS_A_MONTH;
        Month {
            lambda_time: each(self.billed().as_secs_f64() * gb * LAMBDA_GB_SECOND),
            lambda_requests: each(LAMBDA_MILLION_REQUESTS / 1e6),
            dynamodb: each(
                (self.reads * DYNAMODB_MILLION_READS + self.writes * DYNAMODB_MILLION_WRITES) / 1e6,
            ),
            secrets: each(number(self.secret_calls) * SECRETS_TEN_THOUSAND_CALLS / 1e4),
            events: each((number(self.events) * EVENTS_MILLION + SCHEDULER_MILLION) / 1e6),
            logs: each(number(log_bytes) * LOGS_GB / 1e9),
        }
    }
}

/// A month's bill.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Month {
    /// Lambda's GB-seconds.
    pub(crate) lambda_time: f64,
    /// Lambda's requests.
    pub(crate) lambda_requests: f64,
    /// DynamoDB's request units.
    pub(crate) dynamodb: f64,
    /// Secrets Manager's calls.
    pub(crate) secrets: f64,
    /// EventBridge: the schedule and the published events.
    pub(crate) events: f64,
    /// `CloudWatch` Logs.
    pub(crate) logs: f64,
}

impl Month {
    /// Returns the sum.
    pub(crate) fn total(&self) -> f64 {
        self.lambda_time
            + self.lambda_requests
            + self.dynamodb
            + self.secrets
            + self.events
            + self.logs
    }
}

impl fmt::Display for Month {
    /// Writes the cells of a table: Lambda's time, its requests, DynamoDB, Secrets Manager, EventBridge, logs, and
    /// the sum.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cells = [
            self.lambda_time,
            self.lambda_requests,
            self.dynamodb,
            self.secrets,
            self.events,
            self.logs,
        ];
        for cell in cells {
            write!(f, "{cell:.4} | ")?;
        }
        write!(f, "{:.4}", self.total())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(left: f64, right: f64) {
        assert!((left - right).abs() < 1e-9, "{left} is not {right}");
    }

    #[test]
    fn a_share_of_a_cpu_stretches_work_and_not_waiting() {
        let usage = Usage {
            start: Duration::from_millis(10),
            wall: Duration::from_millis(990),
            cpu: Duration::from_millis(100),
            memory_mb: 256,
            ..Usage::default()
        };
        // 900 ms of waiting, and 100 ms of work at 256/1769 of a CPU.
        near(usage.billed().as_secs_f64(), 0.9 + 0.1 * 1769.0 / 256.0);
        let whole = Usage {
            memory_mb: 1769,
            ..usage
        };
        near(whole.billed().as_secs_f64(), 1.0);
        let more = Usage {
            memory_mb: 3538,
            ..usage
        };
        near(more.billed().as_secs_f64(), 1.0);
    }

    #[test]
    fn a_bill_by_hand() {
        let month = Usage {
            wall: Duration::from_secs(1),
            memory_mb: 1769,
            reads: 100.0,
            writes: 50.0,
            secret_calls: 2,
            events: 1,
            log_lines: 2,
            log_bytes: 1_048,
            ..Usage::default()
        }
        .month();
        near(
            month.lambda_time,
            2_920.0 * 1_769.0 / 1_024.0 * 0.000_013_333_4,
        );
        near(month.lambda_requests, 0.000_584);
        near(month.dynamodb, 2_920.0 * (12.5 + 31.25) / 1e6);
        near(month.secrets, 0.0292);
        near(month.events, 0.005_84);
        near(month.logs, 0.002_92);
        let items = month.lambda_time
            + month.lambda_requests
            + month.dynamodb
            + month.secrets
            + month.events
            + month.logs;
        near(month.total(), items);
    }
}
