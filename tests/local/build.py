"""Builds the function and the simulators for this machine, and shows the progress: `make local-build`.

Uses only Python's standard library, so that it can run while the tools are installed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

# Uses the profile and the features of the tests, so that each dependency is compiled once. There are no examples, but
# `--examples` makes cargo enable the features that only dev-dependencies ask for.
COMMAND = ["cargo", "build", "--locked", "--workspace", "--examples"]
COMMAND += ["--bin", "falcon-posture-sync", "--bin", "posture-simulators"]

# The directory of the binaries.
BINARIES = REPOSITORY / os.environ.get("CARGO_TARGET_DIR", "target") / "debug"

# cargo's progress, which it redraws for each crate: `Building [==>  ] 57/240: tokio, syn`.
PROGRESS = re.compile(r"\] (\d+)/(\d+)(?:: (.*))?")


class ProgressBar:
    """Progress of the build: one line that is redrawn on a terminal, or a line per quarter elsewhere."""

    def __init__(self) -> None:
        """Start with nothing shown."""
        self.terminal = sys.stdout.isatty()
        self.quarters = 0

    def show(self, done: int, total: int, current: str) -> None:
        """Show the number of compiled crates, and the crates that are being compiled."""
        quarters = 4 * done // total
        if self.terminal:
            filled = 24 * done // total
            line = f"   building [{'#' * filled}{'.' * (24 - filled)}] {done} of {total} {current}"
            print(f"\r{line[: os.get_terminal_size().columns - 1]}\033[K", end="", flush=True)
        elif quarters > self.quarters:
            print(f"   building: {done} of {total}", flush=True)
        self.quarters = quarters

    def finish(self, line: str) -> None:
        """Replace the progress with this line."""
        print(f"\r{line}\033[K" if self.terminal else line, flush=True)


def main() -> int:
    """Build, and return cargo's exit status."""
    settings = {"CARGO_TERM_PROGRESS_WHEN": "always", "CARGO_TERM_PROGRESS_WIDTH": "200", "CARGO_TERM_COLOR": "never"}
    environment = os.environ | settings
    bar, messages, started = ProgressBar(), [], time.monotonic()
    with subprocess.Popen(COMMAND, cwd=REPOSITORY, env=environment, stderr=subprocess.PIPE, text=True) as cargo:
        for line in cargo.stderr or ():  # a carriage return also ends a line
            if progress := PROGRESS.search(line):
                done, total, current = progress.groups()
                bar.show(int(done), int(total), (current or "").strip())
            elif line.strip():
                messages.append(line)
    if cargo.returncode:
        bar.finish("   building: failed")
        sys.stderr.writelines(messages)
    else:
        bar.finish(f"   built the function and the simulators in {time.monotonic() - started:.0f} s")
    return cargo.returncode


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
