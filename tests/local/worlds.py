"""Integrations to test with: generated data on both sides, stored credentials, connected through `make`."""

from __future__ import annotations

import json
import threading
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from local_aws import FunctionError, Json, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from local_aws import LocalAws, Simulators

KEY = "custom:ztaScore"
SIDES = ("falcon", "tailscale")


def secret_name(integration: str, side: str) -> str:
    """Return the name of an integration's secret."""
    return f"falcon-posture-sync/{integration}/{side}"


def statuses(aws: LocalAws) -> dict[str, Json]:
    """Read the status of each integration that had a run."""
    return {name: item["status"] for name, item in aws.integrations().items() if "status" in item}


def wait_for_run(aws: LocalAws, name: str, before: dict[str, Json], *, seconds: float = 30) -> Json:
    """Wait until another run of an integration has come to its end, and return the status it left."""

    def left() -> Json:
        item = aws.integrations()[name]
        status = item.get("status", {})
        ended = status and "lease" not in item
        return status if ended and status["runId"] != before.get(name, {}).get("runId") else None

    return wait_until(f"a new run of {name}", left, seconds=seconds)


def load(aws: LocalAws, sims: Simulators, name: str, cloud: str, spec: Json) -> dict[str, Json]:
    """Make a Falcon account and a tailnet, store their credentials, and return them by side."""
    credentials = sims.load(name, spec, region=cloud)
    for side, credential in credentials.items():
        aws.put_secret(secret_name(name, side), credential)
    return credentials


def unload(aws: LocalAws, sims: Simulators, name: str) -> None:
    """Remove an integration, if it is still there, and both its sides."""

    def removed() -> bool:
        with suppress(FunctionError):
            aws.invoke({"command": "remove", "integration": name, "attributes": "keep"})
        return name not in aws.integrations()

    wait_until(f"the end of {name}", removed)
    sims.ask("DELETE", f"/falcon/accounts/{name}")
    sims.ask("DELETE", f"/tailscale/tailnets/{name}")


@dataclass
class World:
    """An integration, with what a test wants to know of it."""

    aws: LocalAws
    sims: Simulators
    name: str
    credentials: dict[str, Json]

    def make(self, target: str, **variables: object) -> Json:
        """Run a target of the Makefile for this integration and return the answer."""
        return json.loads(self.aws.make(target, INTEGRATION=self.name, **variables))

    def item(self) -> Json:
        """Read the integration's item."""
        return self.aws.integrations()[self.name]

    def nodes(self) -> dict[str, Json]:
        """Read its node records, by node id."""
        return self.aws.nodes(self.name)

    def audit(self) -> list[Json]:
        """Read its audit records, oldest first."""
        return self.aws.audit(self.name)

    def attributes(self, key: str = KEY) -> dict[str, int]:
        """Return the attribute of each device that has it, by node id."""
        return self.sims.attributes(self.name, key)

    def target(self) -> tuple[str, Json]:
        """Return the node record of a device whose Falcon host is no other device's."""
        records = self.nodes()
        uses = Counter(record["aid"] for record in records.values())
        return next((node, record) for node, record in records.items() if uses[record["aid"]] == 1)

    def another_score(self) -> tuple[str, int]:
        """Let Falcon come to another score, and return the device that should get it, and the score."""
        node, record = self.target()
        score = (record["score"] + 1) % 101
        self.sims.set_score(self.name, record["aid"], score)
        return node, score

    def new_version(self, side: str, **changes: str) -> str:
        """Store another version of a credential, with these fields changed, and return its id."""
        return self.aws.put_secret(secret_name(self.name, side), self.credentials[side] | changes)

    def wait_for_outcome(self, *outcomes: str) -> Json:
        """Wait until the latest run came to one of these, and return the item it left."""

        def left() -> Json:
            item = self.item()
            return item if "lease" not in item and item.get("status", {}).get("outcome") in outcomes else None

        return wait_until(f"{self.name}: {' or '.join(outcomes)}", left)

    @contextmanager
    def long_run(self) -> Iterator[str]:
        """Have a sync under way that takes some seconds, and yield its run id. At the end it is over."""
        self.sims.slow_down(700)
        run = threading.Thread(target=self.aws.invoke, args=({"command": "sync", "integration": self.name},))
        run.start()
        try:
            lease = wait_until("the run's lease", lambda: self.item().get("lease"), every=0.05)
            yield lease["owner"]
        finally:
            self.sims.slow_down(0)
            run.join()


@contextmanager
def connected(aws: LocalAws, sims: Simulators, name: str, **spec: object) -> Iterator[World]:
    """Connect an account to a tailnet and wait for the first sync, which nobody asks for. At the end it is removed."""
    world = World(aws, sims, name, load(aws, sims, name, "us-1", {"seed": 21, "hosts": 24, "devices": 12} | spec))
    try:
        world.make("connect", CLOUD="us-1", ACTOR="admin@example.com")
        world.wait_for_outcome("synced")
        yield world
    finally:
        unload(aws, sims, name)
