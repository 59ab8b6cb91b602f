//! What a month costs, in US dollars: the published prices of us-east-1, without any free tier.
//!
//! Every run is taken for a cold start, since Lambda promises to keep nothing for 15 minutes. What does not depend on
//! how the function works is left out: the fixed price of a secret, the storage of tables and logs, alarms, the
//! dashboard.

use std::fmt;
use std::time::Duration;

use crate::number;

/// Lambda on arm64, a GB-second. <https://aws.amazon.com/lambda/pricing/>, as published in 2026.
const LAMBDA_GB_SECOND: f64 = 0.000_013_333_4;
/// Lambda, a million requests. Ibid.
const LAMBDA_MILLION_REQUESTS: f64 = 0.20;
/// DynamoDB on demand, a million read request units.
/// <https://aws.amazon.com/dynamodb/pricing/on-demand/>, as published in 2026 (halved in November 2024).
const DYNAMODB_MILLION_READS: f64 = 0.125;
/// DynamoDB on demand, a million write request units. Ibid.
const DYNAMODB_MILLION_WRITES: f64 = 0.625;
/// Secrets Manager, ten thousand calls. <https://aws.amazon.com/secrets-manager/pricing/>, as published in 2026.
const SECRETS_TEN_THOUSAND_CALLS: f64 = 0.05;
/// EventBridge, a million custom events. <https://aws.amazon.com/eventbridge/pricing/>, as published in 2026.
const EVENTS_MILLION: f64 = 1.00;
/// EventBridge Scheduler, a million invocations. Ibid.
const SCHEDULER_MILLION: f64 = 1.00;
/// `CloudWatch` Logs, a GB taken in. <https://aws.amazon.com/cloudwatch/pricing/>, as published in 2026.
const LOGS_GB: f64 = 0.50;

/// Every 15 minutes in the 730 hours that AWS takes for a month.
pub(crate) const RUNS_A_MONTH: f64 = 4.0 * 730.0;

/// The memory that comes with a whole vCPU; less comes with a part of one, in proportion.
/// <https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html>
const MB_OF_A_CPU: f64 = 1_769.0;
/// What `CloudWatch` counts for each log event beside its text.
/// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/API_PutLogEvents.html>
const LOG_EVENT: u64 = 26;
/// Lambda's own three lines about an invocation (start, end, report) as JSON; measured by their documented form.
const PLATFORM_LINES: u64 = 900;

/// What one run uses.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// From exec to the first ask for work.
    pub(crate) start: Duration,
    /// From the invocation to its answer, on this machine.
    pub(crate) wall: Duration,
    /// CPU time, the start's included.
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
    /// Their bytes.
    pub(crate) log_bytes: u64,
}

impl Usage {
    /// What Lambda would bill: the time that was spent waiting, and the CPU time stretched by the share of a vCPU that
    /// comes with the memory. Work that was done while an answer was on its way is taken to have been done after it,
    /// so this is rather too much than too little. A core of this machine is taken for one of Lambda's.
    pub(crate) fn billed(&self) -> Duration {
        let waited = (self.start + self.wall).saturating_sub(self.cpu);
        let share = (f64::from(self.memory_mb) / MB_OF_A_CPU).min(1.0);
        waited + self.cpu.div_f64(share)
    }

    /// A month of such runs.
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
    /// EventBridge: the schedule, and the events put.
    pub(crate) events: f64,
    /// `CloudWatch` Logs.
    pub(crate) logs: f64,
}

impl Month {
    /// The sum.
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
    /// The cells of a table: Lambda's time, its requests, DynamoDB, Secrets Manager, EventBridge, logs, and the sum.
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
