"""The build for the local AWS compiles each dependency once."""

from __future__ import annotations

import json
import subprocess

import build
from local_aws import REPOSITORY


def libraries(command: list[str]) -> dict[str, set[str]]:
    """Return the files that a cargo command compiles the dependencies to, by package id."""
    command = [*command, "--message-format", "json", "--quiet"]
    output = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    messages = [json.loads(line) for line in output.splitlines()]
    files: dict[str, set[str]] = {}
    for message in messages:
        if message["reason"] == "compiler-artifact" and message["package_id"].startswith("registry"):
            files.setdefault(message["package_id"], set()).update(message["filenames"])
    return files


def test_demo_and_tests_share_all_compiled_dependencies() -> None:
    demo = libraries(build.COMMAND)
    tests = libraries(["cargo", "test", "--locked", "--workspace", "--no-run"])
    assert len(demo) > 100
    assert {package: files - tests[package] for package, files in demo.items() if files - tests[package]} == {}
