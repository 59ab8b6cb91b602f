//! Measures the cost of a sync at every size: `make bench`.
//!
//! The release binary runs as a process behind a minimal Lambda runtime API. Falcon and Tailscale are the simulators,
//! whose answers leave a set time after their requests; AWS is an embedded DynamoDB and two stand-ins. Each case
//! ([`cases`]) has its first sync in a fresh process, and then, in the same one, syncs with nothing changed and one
//! with one score in a hundred changed. What is measured is compared with the least that there could be ([`floor`]),
//! priced ([`price`]), and held against what it must show ([`mod@bounds`]).
//!
//! The machine's own speed is in the times: simulators and function share its cores, so a floor of many parallel
//! answers is harder to come near to on two cores than on eight. Counts, CPU time and memory do not depend on that.

mod aws;
mod bounds;
mod cases;
mod floor;
mod options;
mod price;
mod process;
mod report;
mod stage;
mod starts;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use flate2::Compression;
use flate2::write::DeflateEncoder;
use serde_json::Value;

use bounds::{Results, bounds};
use cases::{Case, Sync};
use options::Options;
use process::Process;
use report::Report;
use stage::{Measured, Stage};

/// An error that ends a bench early.
type Trouble = Box<dyn std::error::Error + Send + std::marker::Sync>;

/// Worlds whose first sync is measured.
const FIRST_SYNCS: usize = 3;

const FUNCTION: &str = "falcon-posture-sync";

/// Fixed start of `tests/bench/README.md`. The report of the latest complete bench follows it.
const README_HEAD: &str = include_str!("readme_head.md");

fn main() -> ExitCode {
    match bench() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // There is nowhere else to say it, should this fail.
            let _ = writeln!(std::io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

/// Returns true if all bounds hold, or if they are not required.
fn bench() -> Result<bool, Trouble> {
    let options = Options::parse(std::env::args().skip(1))?;
    let project = Project::find()?;
    let function = options
        .function
        .clone()
        .unwrap_or_else(|| project.target.join("release").join(FUNCTION));
    // More threads than cores: the embedded DynamoDB works on them without a pause.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(8)
        .enable_all()
        .build()?;
    let results = runtime.block_on(measure(&options, &function, project.memory_mb))?;
    let bounds = bounds(&results);
    let report = Report {
        results: &results,
        bounds: &bounds,
    }
    .to_string();
    std::io::stdout().write_all(report.as_bytes())?;
    if options.is_complete() {
        let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
        std::fs::write(readme, format!("{README_HEAD}\n{report}"))?;
    }
    std::fs::write(project.target.join("bench.md"), report)?;
    let failed = bounds.iter().any(|bound| bound.holds() == Some(false));
    Ok(!(failed && options.strict))
}

async fn measure(options: &Options, function: &Path, memory_mb: u32) -> Result<Results, Trouble> {
    let mut syncs = Vec::new();
    for case in options.cases() {
        progress(&format!("{case} ..."));
        let (stage, process, first) = measure_first(case, options, function, memory_mb).await?;
        for &sync in case.syncs() {
            let measured = match sync {
                Sync::First => first.clone(),
                _ => measure_sync(&stage, &process, sync).await?,
            };
            progress(&format!(
                "  {sync}: {} ms, beside which the embedded DynamoDB worked for {} ms",
                measured.wall.as_millis(),
                measured.aws.busy.as_millis()
            ));
            syncs.push((case, sync, measured));
        }
        process.end();
    }
    let starts = if options.starts() {
        progress("cold starts ...");
        let idle = std::env::current_exe()?.with_file_name("idle-lambda");
        let [smallest, ..] = cases::CASES;
        let stage = Stage::set(smallest, options::Pace::NONE, memory_mb, function).await?;
        Some(starts::measure(&stage, function, &idle).await?)
    } else {
        None
    };
    Ok(Results {
        syncs,
        starts,
        zip_bytes: zip_bytes(function)?,
        memory_mb,
        pace: options.pace,
    })
}

/// The first sync of three worlds, and of these the one with the least CPU time. The last world and its process stay for
/// the other syncs.
async fn measure_first(
    case: Case,
    options: &Options,
    function: &Path,
    memory_mb: u32,
) -> Result<(Stage, Process, Measured), Trouble> {
    let mut least: Option<Measured> = None;
    for _ in 1..FIRST_SYNCS {
        let stage = Stage::set(case, options.pace, memory_mb, function).await?;
        let process = stage.function(function, &BTreeMap::new()).await?;
        least = Some(stage.measure(&process, Sync::First).await?.or_less(least));
        process.end();
    }
    let stage = Stage::set(case, options.pace, memory_mb, function).await?;
    let process = stage.function(function, &BTreeMap::new()).await?;
    let first = stage.measure(&process, Sync::First).await?.or_less(least);
    Ok((stage, process, first))
}

/// A sync as often as it can be repeated, and of these the one with the least CPU time: whatever else the machine does
/// only adds to it.
async fn measure_sync(stage: &Stage, process: &Process, sync: Sync) -> Result<Measured, Trouble> {
    let mut least = stage.measure(process, sync).await?;
    for _ in 1..sync.times() {
        least = stage.measure(process, sync).await?.or_less(Some(least));
    }
    Ok(least)
}

/// Prints progress to stderr, apart from the report.
fn progress(line: &str) {
    // A bench that cannot say how far it is can still measure.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// The workspace, as cargo knows it.
struct Project {
    target: PathBuf,
    /// The function's memory, as Cargo.toml sets it.
    memory_mb: u32,
}

impl Project {
    fn find() -> Result<Self, Trouble> {
        let output = Command::new("cargo")
            .args([
                "metadata",
                "--format-version",
                "1",
                "--no-deps",
                "--manifest-path",
            ])
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
            .output()?;
        let metadata: Value = serde_json::from_slice(&output.stdout)?;
        let packages = metadata["packages"].as_array();
        let memory_mb = packages
            .into_iter()
            .flatten()
            .find(|package| package["name"] == FUNCTION)
            .and_then(|package| package["metadata"]["lambda"]["deploy"]["memory"].as_u64())
            .ok_or("Cargo.toml does not say how much memory the function has")?;
        let target = metadata["target_directory"]
            .as_str()
            .ok_or("cargo does not say where it builds")?;
        Ok(Self {
            target: target.into(),
            memory_mb: u32::try_from(memory_mb)?,
        })
    }
}

/// The size of a zip that holds the binary: deflated, with the headers of one entry named `bootstrap`.
fn zip_bytes(binary: &Path) -> Result<u64, Trouble> {
    const HEADERS: usize = 30 + 46 + 22 + 2 * "bootstrap".len();
    let mut deflated = DeflateEncoder::new(Vec::new(), Compression::default());
    deflated.write_all(&std::fs::read(binary)?)?;
    Ok(count(deflated.finish()?.len() + HEADERS))
}

/// A count, for arithmetic.
#[expect(
    clippy::cast_precision_loss,
    reason = "no count here comes near to 2^52"
)]
fn number(count: u64) -> f64 {
    count as f64
}

/// A length, for counting.
fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
