//! The simulators as a program, for the demo and end-to-end tests.

use std::error::Error;
use std::io::Write as _;

use posture_simulators::Simulators;
use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{SignalKind, signal};

const USAGE: &str = "usage: posture-simulators [--falcon-port P] [--tailscale-port P] [--control-port P] \
    [--regions us-1,us-2] [--until-stdin-closes]";

fn main() -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Runtime::new()?;
    let outcome = runtime.block_on(run());
    // a thread that cannot be interrupted reads stdin; dropping the runtime would wait for it
    runtime.shutdown_background();
    outcome
}

async fn run() -> Result<(), Box<dyn Error>> {
    let mut builder = Simulators::builder().control_port(0);
    let mut until_stdin_closes = false;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || {
            arguments
                .next()
                .ok_or_else(|| format!("{argument} takes a value; {USAGE}"))
        };
        builder = match argument.as_str() {
            "--falcon-port" => builder.falcon_port(value()?.parse()?),
            "--tailscale-port" => builder.tailscale_port(value()?.parse()?),
            "--control-port" => builder.control_port(value()?.parse()?),
            "--regions" => builder.regions(value()?.split(',')),
            "--until-stdin-closes" => {
                until_stdin_closes = true;
                builder
            }
            _ => return Err(format!("unknown argument {argument}; {USAGE}").into()),
        };
    }

    // signals first: a process that reads the line may send a signal at once
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let simulators = builder.start().await?;
    let mut out = std::io::stdout();
    writeln!(out, "{}", serde_json::to_string(&simulators.urls())?)?;
    out.flush()?;

    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = stdin_closed(), if until_stdin_closes => {}
    }
    drop(simulators);
    Ok(())
}

async fn stdin_closed() {
    let mut stdin = tokio::io::stdin();
    let mut ignored = [0; 256];
    while stdin.read(&mut ignored).await.is_ok_and(|count| count > 0) {}
}
