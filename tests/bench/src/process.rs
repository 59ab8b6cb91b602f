//! CPU time and memory of the function's process.

use std::path::Path;
use std::time::Duration;

use aws_simulators::lambda::{self, Answer, NoAnswer};
use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;
use serde_json::Value;

use crate::{Trouble, count};

/// Less time than Lambda gives, and more than any sync takes.
pub(crate) const TIME: Duration = Duration::from_mins(14);

/// A process of the function, and its meters.
#[derive(Debug)]
pub(crate) struct Process {
    lambda: lambda::Process,
    cpu: ClockId,
}

impl Process {
    /// Starts a binary with these variables and Lambda's own.
    pub(crate) async fn start(
        binary: &Path,
        memory_mb: u32,
        variables: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Result<Self, Trouble> {
        let lambda = lambda::Process::start(binary, memory_mb, variables).await?;
        let cpu = clock_getcpuclockid(Pid::from_raw(i32::try_from(lambda.id())?))?;
        Ok(Self { lambda, cpu })
    }

    /// Waits until the function asks for work. Returns the time from exec to that.
    pub(crate) async fn ready(&self) -> Result<Duration, Trouble> {
        let ready = self.lambda.ready().await;
        ready.map_err(|error| self.trouble(&error))
    }

    /// Hands an invocation out, without waiting for its answer.
    pub(crate) fn hand_out(&self, id: &str, payload: &Value) {
        drop(self.lambda.hand_out(id, payload, TIME));
    }

    /// Invokes the function.
    pub(crate) async fn invoke(&self, id: &str, payload: &Value) -> Result<Answer, Trouble> {
        let answer = self.lambda.invoke(id, payload, TIME).await;
        answer.map_err(|error| self.trouble(&error))
    }

    fn trouble(&self, error: &NoAnswer) -> Trouble {
        format!("{error}\n{}", self.lambda.output()).into()
    }

    /// The CPU time of all its threads since it was started.
    pub(crate) fn cpu(&self) -> Result<Duration, Trouble> {
        Ok(Duration::from(self.cpu.now()?))
    }

    /// Peak of the resident memory since the start, or the last [`Self::reset_peak`], in KiB.
    pub(crate) fn peak_kib(&self) -> Result<u64, Trouble> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.lambda.id()))?;
        let peak = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .and_then(|rest| rest.split_whitespace().next())
            .ok_or("no VmHWM")?;
        Ok(peak.parse()?)
    }

    /// Sets the peak to the memory that is resident now.
    pub(crate) fn reset_peak(&self) -> Result<(), Trouble> {
        let clear_refs = format!("/proc/{}/clear_refs", self.lambda.id());
        Ok(std::fs::write(clear_refs, "5")?)
    }

    /// Lines and bytes that it has logged so far.
    pub(crate) fn logged(&self) -> (u64, u64) {
        let output = self.lambda.output();
        (count(output.lines().count()), count(output.len()))
    }

    /// Kills it.
    pub(crate) fn end(self) {
        self.lambda.end();
    }
}
