"""The switches of the Makefile: what says no means no, wherever it is said, and what is neither is refused by name."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from local_aws import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

YES, NO = ["1", "true", "yes"], ["0", "false", "no", ""]
NEITHER = ["maybe", "TRUE", "01", "1 0", "0 0", "%", "$(YES)"]

# In the place of the AWS CLI and of cargo-lambda: writes down how it was called.
RECORDER = """#!/bin/sh
[ "$1 $2" = "lambda --version" ] || [ "$1" = "--version" ] || printf '%s\\n' "$(basename "$0") $*" >> "$CALLS"
case "$*" in
  *get-function-configuration*) echo JSON ;;
  *describe-stacks*) printf '%s\\t%s\\n' IntegrationsTableName integrations NodesTableName nodes AuditTableName audit ;;
  *invoke*) echo '{"removed": true, "outcome": "synced"}' ;;
esac
"""


class Make:
    """Runs targets as a person would who has the AWS CLI and cargo-lambda of their own."""

    def __init__(self, directory: Path) -> None:
        """Put the recorders where a shell finds them first."""
        self.calls = directory / "calls"
        self.target = directory / "target"
        (self.target / "lambda").mkdir(parents=True)
        programs = directory / "bin"
        programs.mkdir()
        for name in ("aws", "cargo", "cargo-lambda", "zig"):
            (programs / name).write_text(RECORDER)
            (programs / name).chmod(0o755)
        self.environment = os.environ | {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "CALLS": str(self.calls),
            "CARGO_TARGET_DIR": str(self.target),
        }

    def run(self, target: str, *arguments: str, **environment: str) -> tuple[list[str], str]:
        """Return the calls that a target made, and its complaint if it failed."""
        self.calls.unlink(missing_ok=True)
        done = subprocess.run(
            ["make", target, *arguments],
            cwd=REPOSITORY,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        calls = self.calls.read_text().splitlines() if self.calls.exists() else []
        assert bool(done.returncode) == ("***" in done.stderr), done.stderr
        return calls, done.stderr if done.returncode else ""

    def switched(self, target: str, switch: str, value: str, *others: str) -> list[tuple[list[str], str]]:
        """Set a switch on the command line, then in the environment."""
        return [
            self.run(target, f"{switch}={value}", *others),
            self.run(target, *others, **{switch: value}),
        ]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Return a Makefile whose tools only write down their calls."""
    return Make(tmp_path)


def payload(calls: list[str]) -> dict[str, object]:
    """Return what the function would have been sent."""
    (call,) = [call for call in calls if "invoke" in call]
    sent: dict[str, object] = json.loads(call.split("--data-ascii ", 1)[1])
    return sent


# Target, switch, the other arguments, the payload's field, and its value where the switch is on and off.
PAYLOADS = [
    ("sync", "FORCE", ["INTEGRATION=corp"], "force", True, None),
    ("sync", "DRY_RUN", ["INTEGRATION=corp"], "dryRun", True, None),
    ("sync", "ALLOW_MASS_REMOVAL", ["INTEGRATION=corp"], "allowMassRemoval", True, None),
    ("preview", "POLICY", ["INTEGRATION=corp", "MIN_SCORE=70"], "policy", True, None),
    ("remove", "KEEP_ATTRIBUTES", ["INTEGRATION=corp", "ACTOR=amelie"], "attributes", "keep", "delete"),
]


@pytest.mark.parametrize("case", PAYLOADS, ids=lambda case: case[1])
def test_a_switch_of_a_command(make: Make, case: tuple[str, str, list[str], str, object, object]) -> None:
    target, switch, others, field, on, off = case
    for values, expected in ((YES, on), (NO, off)):
        for value in values:
            for calls, complaint in make.switched(target, switch, value, *others):
                assert (payload(calls).get(field), complaint) == (expected, "")
    for value in NEITHER:
        for calls, complaint in make.switched(target, switch, value, *others):
            assert not [call for call in calls if "invoke" in call]
            assert f"{switch}: must be 1, true or yes, or 0, false, no or nothing" in complaint


def test_a_preview_needs_a_line_or_the_policy(make: Make) -> None:
    for calls, complaint in make.switched("preview", "POLICY", "0", "INTEGRATION=corp"):
        assert not calls
        assert "MIN_SCORE or POLICY is required, for example MIN_SCORE=70" in complaint


def test_data_is_deleted_only_by_a_yes_and_the_name_of_the_stack(make: Make) -> None:
    tables = {f"aws dynamodb delete-table --table-name {name}" for name in ("integrations", "nodes", "audit")}
    for value in NO:
        for calls, complaint in make.switched("destroy", "DELETE_DATA", value, "CONFIRM=mine", "STACK=mine"):
            assert calls
            assert not [call for call in calls if "dynamodb" in call or "mine-state" in call]
            assert complaint == ""
    for value in YES:
        for calls, complaint in make.switched("destroy", "DELETE_DATA", value, "CONFIRM=mine", "STACK=mine"):
            assert tables <= set(calls)
            assert complaint == ""
        for confirm in ("", "yes", "mine-state", "mine yours", "mine mine", "min%", "%"):
            for calls, complaint in make.switched("destroy", "DELETE_DATA", value, f"CONFIRM={confirm}", "STACK=mine"):
                assert not calls, "nothing at all is taken down"
                assert "CONFIRM: must be mine" in complaint
    for value in NEITHER:
        for calls, complaint in make.switched("destroy", "DELETE_DATA", value, "CONFIRM=mine", "STACK=mine"):
            assert not calls
            assert "DELETE_DATA: must be" in complaint


def test_a_switch_of_a_deployment(make: Make) -> None:
    environment = make.target / "lambda/falcon-posture-sync.env"
    for values, expected in ((YES, "true"), (NO, "false")):
        for value in values:
            for calls, complaint in make.switched("deploy", "DELETION_PROTECTION", value, f"CONSOLE_BUTTONS={value}"):
                assert complaint == ""
                assert [call for call in calls if f" DeletionProtection={expected}" in call]
                assert f'CONSOLE_BUTTONS="{expected}"' in environment.read_text()
    for switch in ("DELETION_PROTECTION", "CONSOLE_BUTTONS"):
        for value in NEITHER:
            for calls, complaint in make.switched("deploy", switch, value):
                assert not calls, "nothing is built or deployed"
                assert f"{switch}: must be" in complaint


def test_the_function_is_built_as_for_aws_by_a_yes(make: Make) -> None:
    local = ["AWS_ENDPOINT_URL=http://127.0.0.1:1", f"VENV={make.target.parent}"]
    binary = make.target / "debug/falcon-posture-sync"
    binary.parent.mkdir()
    binary.write_text("built as for the tests")
    deployed = make.target / "lambda/falcon-posture-sync/bootstrap"
    for values, release in ((YES, True), (NO, False)):
        for value in values:
            for calls, complaint in make.switched("build", "AS_DEPLOYED", value, *local):
                assert complaint == ""
                assert [("--release" in call) for call in calls if " build " in call] == [release]
            assert deployed.exists() is not release
            deployed.unlink(missing_ok=True)
    for value in NEITHER:
        for calls, complaint in make.switched("build", "AS_DEPLOYED", value):
            assert not calls
            assert "AS_DEPLOYED: must be" in complaint


def test_the_demo_is_kept_by_a_yes(make: Make) -> None:
    for values, kept in ((YES, True), (NO, False)):
        for value in values:
            shown = subprocess.run(
                ["make", "-n", "demo", f"KEEP={value}"],
                cwd=REPOSITORY,
                env=make.environment,
                capture_output=True,
                text=True,
                check=True,
            )
            assert ("--keep" in shown.stdout) == kept
    assert "KEEP: must be" in make.run("demo", "KEEP=maybe")[1]
