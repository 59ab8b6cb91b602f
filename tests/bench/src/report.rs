//! The results as Markdown.

use std::fmt::{self, Display, Formatter, Write as _};

use crate::bounds::{Bound, Results};
use crate::cases::{Case, Sync};
use crate::number;
use crate::price::Usage;
use crate::stage::Measured;

/// The whole report.
pub(crate) struct Report<'a> {
    /// The measurements.
    pub(crate) results: &'a Results,
    /// The bounds on them.
    pub(crate) bounds: &'a [Bound],
}

impl Display for Report<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Results {
            starts,
            zip_bytes,
            memory_mb,
            pace,
            ..
        } = self.results;
        writeln!(
            f,
            "## Requests, time and memory\n\n\
             Measured on {} cores ({}). Falcon and Tailscale answer after {} ms, AWS after {} ms. Requests and kB received \
             are those of Falcon / Tailscale / DynamoDB / Secrets Manager. The floor is the longest chain of calls that \
             cannot overlap: calls to the two APIs, plus calls to AWS.\n",
            std::thread::available_parallelism().map_or(1, usize::from),
            std::env::consts::ARCH,
            pace.apis.as_millis(),
            pace.aws.as_millis()
        )?;
        self.syncs(f)?;
        self.partitions(f)?;
        self.months(f)?;
        self.memories(f)?;
        if let Some(starts) = starts {
            let ms = |time: std::time::Duration| time.as_secs_f64() * 1e3;
            writeln!(
                f,
                "## Start\n\n| Start | ms | ms of CPU |\n| --- | ---: | ---: |\n\
                 | exec to the first ask for work | {:.1} | {:.1} |\n\
                 | the same of a function that does nothing | {:.1} | {:.1} |\n\
                 | exec to the end of the first TLS handshake | | {:.1} |\n",
                ms(starts.function),
                ms(starts.function_cpu),
                ms(starts.idle),
                ms(starts.idle_cpu),
                ms(starts.to_handshake_cpu),
            )?;
        }
        writeln!(
            f,
            "The zip has {:.2} MB; the function is given {memory_mb} MB of memory.\n",
            number(*zip_bytes) / 1e6
        )?;
        writeln!(
            f,
            "## Bounds\n\n| Bound | at most | measured | holds |\n| --- | ---: | ---: | --- |"
        )?;
        for bound in self.bounds {
            writeln!(f, "{bound}")?;
        }
        self.routes(f)
    }
}

impl Report<'_> {
    fn syncs(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| Hosts, devices | sync | hosts read | requests | kB received | ms | floor | ms / floor | CPU ms | MiB | \
             RRU | WRU | events | log kB | USD a month |\n\
             | --- | --- | --- | --- | --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
        )?;
        for (case, sync, measured) in &self.results.syncs {
            writeln!(f, "{}", self.sync(*case, *sync, measured)?)?;
        }
        writeln!(f)
    }

    fn sync(&self, case: Case, sync: Sync, measured: &Measured) -> Result<String, fmt::Error> {
        let kb = |bytes: u64| bytes.div_ceil(1000);
        let aws = &measured.aws;
        let mut row = format!(
            "| {}, {} | {sync} | {} | ",
            case.hosts, case.devices, measured.way
        );
        write!(
            row,
            "{} / {} / {} / {} | ",
            measured.requests("falcon "),
            measured.requests("tailscale "),
            aws.calls_of("dynamodb "),
            aws.calls_of("secrets "),
        )?;
        write!(
            row,
            "{} / {} / {} / {} | ",
            kb(measured.bytes("falcon ")),
            kb(measured.bytes("tailscale ")),
            kb(aws.bytes_of("dynamodb ")),
            kb(aws.bytes_of("secrets ")),
        )?;
        let pace = self.results.pace;
        write!(
            row,
            "{} | {} + {} = {} ms | {:.2} | {:.1} | {:.1} | ",
            measured.wall.as_millis(),
            measured.chain.apis,
            measured.chain.aws,
            measured.chain.time(pace.apis, pace.aws).as_millis(),
            self.results.of_floor(measured),
            measured.cpu.as_secs_f64() * 1e3,
            number(measured.peak_kib) / 1024.0,
        )?;
        write!(
            row,
            "{} | {} | {} | {:.1} | {:.3} |",
            aws.reads,
            aws.writes,
            aws.events,
            number(measured.log_bytes) / 1e3,
            self.results.usage(measured, sync).month().total(),
        )?;
        Ok(row)
    }

    /// Writes the minimum time of the first syncs under AWS's limit of a partition. The embedded DynamoDB does not
    /// throttle.
    fn partitions(&self, f: &mut Formatter<'_>) -> fmt::Result {
        /// DynamoDB's limit for one partition, on demand or provisioned.
        const MAX_WRITES_PER_SECOND: f64 = 1000.0;
        writeln!(
            f,
            "## First syncs and DynamoDB's limit of a partition\n\n\
             The DynamoDB of the bench does not throttle. AWS's takes {MAX_WRITES_PER_SECOND} write units a second in one \
             partition. All node records of an integration are in one partition, and all its audit records in another. A \
             throttled transaction is retried for some seconds. A first sync of many thousand devices may still end as \
             `storage`; the next run records what was written and continues. Later syncs write what has changed, which is \
             far below the limit.\n\n\
             | Hosts, devices | sync | ms here | WRU of the fullest partition | seconds on AWS, at least |\n\
             | --- | --- | ---: | ---: | ---: |"
        )?;
        let firsts = self
            .results
            .syncs
            .iter()
            .filter(|(_, sync, _)| *sync == Sync::First);
        for (case, sync, measured) in firsts {
            let fullest = measured.aws.fullest_partition();
            writeln!(
                f,
                "| {}, {} | {sync} | {} | {fullest} | {:.1} |",
                case.hosts,
                case.devices,
                measured.wall.as_millis(),
                fullest / MAX_WRITES_PER_SECOND
            )?;
        }
        writeln!(f)
    }

    fn months(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "## Price\n\n\
             USD a month, every 15 minutes on arm64 in us-east-1, if every run were like the one named. The fixed price of \
             secrets, storage and alarms is left out. Every run counts as a cold start.\n\n\
             | Hosts, devices | sync | Lambda billed ms | Lambda time | Lambda requests | DynamoDB | Secrets Manager | \
             EventBridge | logs | sum |\n\
             | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
        )?;
        for (case, sync, measured) in &self.results.syncs {
            let usage = self.results.usage(measured, *sync);
            writeln!(
                f,
                "| {}, {} | {sync} | {} | {} |",
                case.hosts,
                case.devices,
                usage.billed().as_millis(),
                usage.month()
            )?;
        }
        writeln!(f)
    }

    /// Writes the effect of the function's memory and its share of a CPU.
    fn memories(&self, f: &mut Formatter<'_>) -> fmt::Result {
        const SIZES_MB: [u32; 5] = [128, 256, 512, 1_024, 1_769];
        writeln!(
            f,
            "## The function's memory\n\n\
             Unchanged syncs by the function's memory, and the share of a CPU that comes with it: billed ms, and USD a month \
             for Lambda's time.\n\n\
             | Hosts, devices | MiB used | {} |\n| --- | ---: | {} |",
            SIZES_MB.map(|size| format!("{size} MB")).join(" | "),
            SIZES_MB.map(|_| "---:").join(" | ")
        )?;
        let syncs = self.results.syncs.iter();
        for (case, sync, measured) in syncs.filter(|(_, sync, _)| *sync == Sync::Unchanged) {
            let with = |memory_mb| {
                let usage = Usage {
                    memory_mb,
                    ..self.results.usage(measured, *sync)
                };
                let (billed, month) = (usage.billed(), usage.month());
                format!("{}, {:.3}", billed.as_millis(), month.lambda_time)
            };
            writeln!(
                f,
                "| {}, {} | {:.0} | {} |",
                case.hosts,
                case.devices,
                number(measured.peak_kib) / 1024.0,
                SIZES_MB.map(with).join(" | ")
            )?;
        }
        writeln!(f)
    }

    fn routes(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n<details><summary>Requests by route</summary>\n\n| Hosts, devices | sync | route | requests | kB received |\n\
             | --- | --- | --- | ---: | ---: |"
        )?;
        for (case, sync, measured) in &self.results.syncs {
            for (route, traffic) in measured.apis.iter().chain(&measured.aws.calls) {
                writeln!(
                    f,
                    "| {}, {} | {sync} | `{route}` | {} | {:.1} |",
                    case.hosts,
                    case.devices,
                    traffic.requests,
                    number(traffic.bytes_out) / 1e3
                )?;
            }
        }
        writeln!(f, "\n</details>")
    }
}
