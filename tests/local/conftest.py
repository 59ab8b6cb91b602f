"""Fixtures: one local AWS for all tests, which enforces the policies of the deployed roles, and the simulators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from local_aws import LocalAws, Simulators, interruptible, local_aws, simulators

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def sims() -> Iterator[Simulators]:
    """Yield the simulators of Tailscale and of Falcon in two clouds."""
    with interruptible(), simulators(["us-1", "us-2"]) as sims:
        yield sims


@pytest.fixture(scope="session")
def settings(sims: Simulators) -> dict[str, Any]:
    """Return the variables of `make deploy`."""
    return {"SCHEDULE_MINUTES": 1, **sims.settings}


@pytest.fixture(scope="session")
def aws(settings: dict[str, Any]) -> Iterator[LocalAws]:
    """Yield an AWS with the function deployed. The schedule is disabled until a test enables it."""
    with interruptible(), local_aws(auth=True) as aws:
        aws.make("deploy", **settings)
        aws.set_schedule_state("DISABLED")
        yield aws
