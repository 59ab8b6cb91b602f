"""One local AWS for all tests, with the policies of the deployed roles in force, and simulators beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from local_aws import LocalAws, Simulators, interruptible, local_aws, simulators

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def sims() -> Iterator[Simulators]:
    """Yield Falcon in two clouds, and Tailscale."""
    with interruptible(), simulators(["us-1", "us-2"]) as sims:
        yield sims


@pytest.fixture(scope="session")
def settings(sims: Simulators) -> dict[str, Any]:
    """Return what `make deploy` is told."""
    return {"SCHEDULE_MINUTES": 1, **sims.settings}


@pytest.fixture(scope="session")
def aws(settings: dict[str, Any]) -> Iterator[LocalAws]:
    """Yield an AWS to which the function is deployed; its schedule is off until a test switches it on."""
    with interruptible(), local_aws(auth=True) as aws:
        aws.make("deploy", **settings)
        aws.switch_schedule("DISABLED")
        yield aws
