"""What is built for a local AWS: quickly, and once."""

from __future__ import annotations

import json
import subprocess

import build
from local_aws import REPOSITORY


def libraries(command: list[str]) -> dict[str, set[str]]:
    """Return the files that a cargo command compiles the dependencies to, by package and its features."""
    command = [*command, "--message-format", "json", "--quiet"]
    told = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    messages = [json.loads(line) for line in told.splitlines()]
    files: dict[str, set[str]] = {}
    for message in messages:
        if message["reason"] == "compiler-artifact" and message["package_id"].startswith("registry"):
            files.setdefault(message["package_id"], set()).update(message["filenames"])
    return files


def test_the_demo_compiles_no_dependency_but_as_the_tests_do() -> None:
    demo = libraries(build.COMMAND)
    tests = libraries(["cargo", "test", "--locked", "--workspace", "--no-run"])
    assert len(demo) > 100
    assert {package: files - tests[package] for package, files in demo.items() if files - tests[package]} == {}
