"""Integrations for tests: generated data on both sides, stored credentials, connected through `make`."""

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
    """Read the status of each integration that has had a run."""
    return {name: item["status"] for name, item in aws.integrations().items() if "status" in item}


def wait_for_run(aws: LocalAws, name: str, before: dict[str, Json], *, seconds: float = 30) -> Json:
    """Wait until a run that is not in `before` has ended, and return its status."""

    def new_status() -> Json:
        item = aws.integrations()[name]
        status = item.get("status", {})
        ended = status and "lease" not in item
        return status if ended and status["runId"] != before.get(name, {}).get("runId") else None

    return wait_until(f"a new run of {name}", new_status, seconds=seconds)


def create_accounts(aws: LocalAws, sims: Simulators, name: str, cloud: str, spec: Json) -> dict[str, Json]:
    """Create a Falcon account and a tailnet, store their credentials, and return the credentials by side."""
    credentials = sims.generate(name, spec, region=cloud)
    for side, credential in credentials.items():
        aws.put_secret(secret_name(name, side), credential)
    return credentials


def clean_up(aws: LocalAws, sims: Simulators, name: str) -> None:
    """Remove an integration if it still exists, then delete its Falcon account and its tailnet."""

    def removed() -> bool:
        with suppress(FunctionError):
            aws.invoke({"command": "remove", "integration": name, "attributes": "keep"})
        return name not in aws.integrations()

    wait_until(f"the removal of {name}", removed)
    sims.call("DELETE", f"/falcon/accounts/{name}")
    sims.call("DELETE", f"/tailscale/tailnets/{name}")


@dataclass
class Integration:
    """An integration, with access to its tables and to the simulated data."""

    aws: LocalAws
    sims: Simulators
    name: str
    credentials: dict[str, Json]

    def make(self, target: str, **variables: object) -> Json:
        """Run a make target for this integration and return its output as JSON."""
        return json.loads(self.aws.make(target, INTEGRATION=self.name, **variables))

    def item(self) -> Json:
        """Read the item of the integration."""
        return self.aws.integrations()[self.name]

    def nodes(self) -> dict[str, Json]:
        """Read the node records by node id."""
        return self.aws.nodes(self.name)

    def audit(self) -> list[Json]:
        """Read the audit records, oldest first."""
        return self.aws.audit(self.name)

    def attributes(self, key: str = KEY) -> dict[str, int]:
        """Return the values of an attribute in the tailnet by node id."""
        return self.sims.attributes(self.name, key)

    def device_with_own_host(self) -> tuple[str, Json]:
        """Return the node id and record of a device that shares its Falcon host with no other device."""
        records = self.nodes()
        devices = Counter(record["aid"] for record in records.values())
        return next((node, record) for node, record in records.items() if devices[record["aid"]] == 1)

    def change_score(self) -> tuple[str, int]:
        """Change a score in Falcon, and return the node id of the device that should get it, and the score."""
        node, record = self.device_with_own_host()
        score = (record["score"] + 1) % 101
        self.sims.set_score(self.name, record["aid"], score)
        return node, score

    def put_credential(self, side: str, **changes: str) -> str:
        """Store a new version of a credential with some fields changed, and return the version's id."""
        return self.aws.put_secret(secret_name(self.name, side), self.credentials[side] | changes)

    def wait_for_outcome(self, *outcomes: str) -> Json:
        """Wait until the latest run has ended with one of these outcomes, and return the item."""

        def ended() -> Json:
            item = self.item()
            return item if "lease" not in item and item.get("status", {}).get("outcome") in outcomes else None

        return wait_until(f"{self.name}: {' or '.join(outcomes)}", ended)

    @contextmanager
    def slow_sync(self) -> Iterator[str]:
        """Start a sync that lasts until the block ends, yield its run id, and wait for its end.

        Its requests take so long that it outlasts any command in the block, also on a busy machine.
        """
        self.sims.set_latency(4000)
        run = threading.Thread(target=self.aws.invoke, args=({"command": "sync", "integration": self.name},))
        run.start()
        try:
            lease = wait_until("the run's lease", lambda: self.item().get("lease"), every=0.05)
            yield lease["owner"]
        finally:
            self.sims.set_latency(0)
            run.join()


@contextmanager
def connected(aws: LocalAws, sims: Simulators, name: str, **spec: object) -> Iterator[Integration]:
    """Connect an account to a tailnet, wait for the first sync, and remove both at the end."""
    spec = {"seed": 21, "hosts": 24, "devices": 12} | spec
    integration = Integration(aws, sims, name, create_accounts(aws, sims, name, "us-1", spec))
    try:
        integration.make("connect", CLOUD="us-1", ACTOR="admin@example.com")
        integration.wait_for_outcome("synced")
        yield integration
    finally:
        clean_up(aws, sims, name)
