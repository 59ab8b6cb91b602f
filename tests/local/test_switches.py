"""The switches of the Makefile, on the command line and in the environment. An invalid value is an error."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from local_aws import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

ON, OFF = ["1", "true", "yes"], ["0", "false", "no", ""]
INVALID = ["maybe", "TRUE", "01", "1 0", "0 0", "%", "$(YES)"]

# Replaces the AWS CLI and cargo-lambda, and records its arguments. The function's response is $RESPONSE.
RECORDER = """#!/bin/sh
[ "$1 $2" = "lambda --version" ] || [ "$1" = "--version" ] || printf '%s\\n' "$(basename "$0") $*" >> "$CALLS"
case "$*" in
  *get-function-configuration*) echo JSON ;;
  *describe-stacks*) printf '%s\\t%s\\n' IntegrationsTableName integrations NodesTableName nodes AuditTableName audit ;;
  *invoke*) printf '%s\\n' "$RESPONSE" ;;
esac
"""


class Make:
    """Runs make targets with recorders in place of the AWS CLI and cargo-lambda."""

    def __init__(self, directory: Path) -> None:
        """Put the recorders first on the PATH."""
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
            "RESPONSE": '{"removed": true, "outcome": "synced"}',
        }

    def run(self, target: str, *arguments: str, **environment: str) -> tuple[list[str], str]:
        """Return the calls that a target made, and its error output if it failed."""
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

    def run_with_switch(self, target: str, switch: str, value: str, *others: str) -> list[tuple[list[str], str]]:
        """Run a target with a switch on the command line, then with the switch in the environment."""
        return [
            self.run(target, f"{switch}={value}", *others),
            self.run(target, *others, **{switch: value}),
        ]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Return a runner of make targets whose tools only record their calls."""
    return Make(tmp_path)


def payload(calls: list[str]) -> dict[str, object]:
    """Return the payload of the only invocation of the function."""
    (call,) = [call for call in calls if "invoke" in call]
    sent: dict[str, object] = json.loads(call.split("--data-ascii ", 1)[1])
    return sent


# Target, switch, other arguments, field of the payload, value if the switch is on, value if it is off.
PAYLOADS = [
    ("sync", "FORCE", ["INTEGRATION=corp"], "force", True, None),
    ("sync", "DRY_RUN", ["INTEGRATION=corp"], "dryRun", True, None),
    ("preview", "POLICY", ["INTEGRATION=corp", "MIN_SCORE=70"], "policy", True, None),
    ("remove", "KEEP_ATTRIBUTES", ["INTEGRATION=corp", "ACTOR=amelie"], "attributes", "keep", "delete"),
]


@pytest.mark.parametrize("case", PAYLOADS, ids=lambda case: case[1])
def test_switches_of_commands(make: Make, case: tuple[str, str, list[str], str, object, object]) -> None:
    target, switch, others, field, on, off = case
    for values, expected in ((ON, on), (OFF, off)):
        for value in values:
            for calls, error in make.run_with_switch(target, switch, value, *others):
                assert (payload(calls).get(field), error) == (expected, "")
    for value in INVALID:
        for calls, error in make.run_with_switch(target, switch, value, *others):
            assert not [call for call in calls if "invoke" in call]
            assert f"{switch}: must be 1, true or yes, or 0, false, no or nothing" in error


def test_held_removals_pass_by_their_number(make: Make) -> None:
    for value, expected in (("12", 12), ("0", 0), ("", None)):
        for calls, error in make.run_with_switch("sync", "ALLOW_MASS_REMOVAL", value, "INTEGRATION=corp"):
            assert (payload(calls).get("allowMassRemoval"), error) == (expected, "")


def test_a_preview_needs_a_score_or_the_policy(make: Make) -> None:
    for calls, error in make.run_with_switch("preview", "POLICY", "0", "INTEGRATION=corp"):
        assert not calls
        assert "MIN_SCORE or POLICY is required, for example MIN_SCORE=70" in error


# As src/sync/snapshot.rs words them.
NO_DATA = [
    'No data: corp is paused until 2026-01-15T13:02:00Z (since …). … Run a sync with "force" to retry now.\n',
    "No data: corp is being removed.\n",
    "No data: the snapshot failed. Falcon: host listing failed (HTTP 503). Wait for the next run.\n",
]
PREVIEWS = [
    "custom:ztaScore >= 70\n      14 pass\n       1 would lose access\n    No data: x (dave, linux): its score is 12\n",
    "No posture of the policy file mentions custom:ztaScore. To try a threshold: MIN_SCORE=70.\n",
]


def test_a_preview_without_data_is_an_error(make: Make) -> None:
    def preview(response: object, output: str) -> str:
        _, error = make.run(
            "preview", "INTEGRATION=corp", "MIN_SCORE=70", f"FORMAT={output}", RESPONSE=json.dumps(response)
        )
        return error

    for text in NO_DATA:
        assert "preview] Error 1" in preview(text, "text")
        assert "preview] Error 1" in preview({"integration": "corp", "error": text, "previews": []}, "json")
    for text in PREVIEWS:
        assert preview(text, "text") == ""
    assert preview({"integration": "corp", "previews": []}, "json") == ""


def test_data_is_deleted_only_with_the_switch_and_the_name_of_the_stack(make: Make) -> None:
    tables = {f"aws dynamodb delete-table --table-name {name}" for name in ("integrations", "nodes", "audit")}
    for value in OFF:
        for calls, error in make.run_with_switch("destroy", "DELETE_DATA", value, "CONFIRM=mine", "STACK=mine"):
            assert calls
            assert not [call for call in calls if "dynamodb" in call or "mine-state" in call]
            assert error == ""
    for value in ON:
        for calls, error in make.run_with_switch("destroy", "DELETE_DATA", value, "CONFIRM=mine", "STACK=mine"):
            assert tables <= set(calls)
            assert error == ""
        for confirm in ("", "yes", "mine-state", "mine yours", "mine mine", "min%", "%"):
            for calls, error in make.run_with_switch(
                "destroy", "DELETE_DATA", value, f"CONFIRM={confirm}", "STACK=mine"
            ):
                assert not calls, "nothing is deleted"
                assert "CONFIRM: must be mine" in error
    for value in INVALID:
        for calls, error in make.run_with_switch("destroy", "DELETE_DATA", value, "CONFIRM=mine", "STACK=mine"):
            assert not calls
            assert "DELETE_DATA: must be" in error


def test_switches_of_a_deployment(make: Make) -> None:
    environment = make.target / "lambda/falcon-posture-sync.env"
    for values, expected in ((ON, "true"), (OFF, "false")):
        for value in values:
            for calls, error in make.run_with_switch(
                "deploy", "DELETION_PROTECTION", value, f"CONSOLE_BUTTONS={value}"
            ):
                assert error == ""
                assert [call for call in calls if f" DeletionProtection={expected}" in call]
                assert f'CONSOLE_BUTTONS="{expected}"' in environment.read_text()
    for switch in ("DELETION_PROTECTION", "CONSOLE_BUTTONS"):
        for value in INVALID:
            for calls, error in make.run_with_switch("deploy", switch, value):
                assert not calls, "nothing is built or deployed"
                assert f"{switch}: must be" in error


def test_a_switch_builds_the_function_as_for_aws(make: Make) -> None:
    local = ["AWS_ENDPOINT_URL=http://127.0.0.1:1", f"VENV={make.target.parent}"]
    binary = make.target / "debug/falcon-posture-sync"
    binary.parent.mkdir()
    binary.write_text("profile of the tests")
    deployed = make.target / "lambda/falcon-posture-sync/bootstrap"
    for values, release in ((ON, True), (OFF, False)):
        for value in values:
            for calls, error in make.run_with_switch("build", "AS_DEPLOYED", value, *local):
                assert error == ""
                assert [("--release" in call) for call in calls if " build " in call] == [release]
            assert deployed.exists() is not release
            deployed.unlink(missing_ok=True)
    for value in INVALID:
        for calls, error in make.run_with_switch("build", "AS_DEPLOYED", value):
            assert not calls
            assert "AS_DEPLOYED: must be" in error


def test_a_switch_keeps_the_demo_running(make: Make) -> None:
    for values, kept in ((ON, True), (OFF, False)):
        for value in values:
            dry_run = subprocess.run(
                ["make", "-n", "demo", f"KEEP={value}"],
                cwd=REPOSITORY,
                env=make.environment,
                capture_output=True,
                text=True,
                check=True,
            )
            assert ("--keep" in dry_run.stdout) == kept
    assert "KEEP: must be" in make.run("demo", "KEEP=maybe")[1]
