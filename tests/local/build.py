"""Builds what runs on this machine, the function and the simulators, and says how far it is: `make local-build`.

Needs nothing but Python, so that it can run while the tools are installed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

# In the profile and with the features of the tests, so that each dependency is compiled once for all of them. Without
# `--examples`, of which there are none, cargo would leave out the features that only the tests' dependencies ask for.
COMMAND = ["cargo", "build", "--locked", "--workspace", "--examples"]
COMMAND += ["--bin", "falcon-posture-sync", "--bin", "posture-simulators"]

# Where cargo leaves them.
BINARIES = REPOSITORY / os.environ.get("CARGO_TARGET_DIR", "target") / "debug"

# cargo's own progress, which it draws again for each crate: `Building [==>  ] 57/240: tokio, syn`.
PROGRESS = re.compile(r"\] (\d+)/(\d+)(?:: (.*))?")


class Bar:
    """How far the build is: one line that is drawn again on a terminal, a line each quarter elsewhere."""

    def __init__(self) -> None:
        """Begin with nothing shown."""
        self.terminal = sys.stdout.isatty()
        self.quarters = 0

    def show(self, done: int, of: int, now: str) -> None:
        """Show that so many crates of all are compiled, and which are being compiled now."""
        quarters = 4 * done // of
        if self.terminal:
            filled = 24 * done // of
            line = f"   building [{'#' * filled}{'.' * (24 - filled)}] {done} of {of} {now}"
            print(f"\r{line[: os.get_terminal_size().columns - 1]}\033[K", end="", flush=True)
        elif quarters > self.quarters:
            print(f"   building: {done} of {of}", flush=True)
        self.quarters = quarters

    def end(self, line: str) -> None:
        """Put this line in its place."""
        print(f"\r{line}\033[K" if self.terminal else line, flush=True)


def main() -> int:
    """Build, and return cargo's exit status."""
    settings = {"CARGO_TERM_PROGRESS_WHEN": "always", "CARGO_TERM_PROGRESS_WIDTH": "200", "CARGO_TERM_COLOR": "never"}
    environment = os.environ | settings
    bar, told, started = Bar(), [], time.monotonic()
    with subprocess.Popen(COMMAND, cwd=REPOSITORY, env=environment, stderr=subprocess.PIPE, text=True) as cargo:
        for line in cargo.stderr or ():  # a carriage return ends a line, too
            if progress := PROGRESS.search(line):
                done, of, now = progress.groups()
                bar.show(int(done), int(of), (now or "").strip())
            elif line.strip():
                told.append(line)
    if cargo.returncode:
        bar.end("   building: failed")
        sys.stderr.writelines(told)
    else:
        bar.end(f"   built the function and the simulators in {time.monotonic() - started:.0f} s")
    return cargo.returncode


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
