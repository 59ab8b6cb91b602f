"""The whole thing on this machine, told in one screen: `make demo`.

What it prints is read back from the simulated tailnet, from DynamoDB and from the function's answers. Each step is
checked, and the exit status is 0 only if all of it held.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING

from local_aws import (
    REGION,
    REPOSITORY,
    ROOT_KEY,
    CommandFailedError,
    FunctionError,
    Json,
    LocalAws,
    Simulators,
    interruptible,
    local_aws,
    simulators,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LOG = REPOSITORY / "target" / "demo.log"
KEY = "custom:ztaScore"

# A little of every trap in corp: devices without identity, unknown to Falcon, not assessed, shared in.
TRAPS = {"overlap": 0.9, "placeholder_serial": 0.1, "multi_serial": 0.1, "unassessed": 0.1, "no_identity": 0.08}
INTEGRATIONS: dict[str, tuple[str, Json]] = {
    "corp": ("us-2", {"seed": 7, "hosts": 60, "devices": 40, **TRAPS}),
    "labs": ("us-1", {"seed": 2, "hosts": 25, "devices": 12}),
}
FALLEN, RISEN = 12, 88

# What the function's findings say of a device without a score, in the words of a table.
REASONS = {
    "noIdentity": "it reports no posture identity",
    "unmatched": "Falcon knows none of its serial numbers",
    "unassessed": "its Falcon host has no assessment yet",
}


class NotAsToldError(Exception):
    """Something did not happen as the demo tells it."""


def expect(held: object, what: str) -> None:
    """End the demo unless this held."""
    if not held:
        raise NotAsToldError(what)


@contextmanager
def progress(what: str) -> Iterator[None]:
    """Print what is under way, and how long it took."""
    print(f"   {what} ... ", end="", flush=True)
    started = time.monotonic()
    yield
    print(f"{time.monotonic() - started:.0f} s")


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows in columns; numbers stand to the right."""
    texts = [[("-" if cell is None else str(cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *texts, strict=True)]
    numeric = [all(cell is None or isinstance(cell, int) for cell in column) for column in zip(*rows, strict=True)]
    for row in [list(head), *texts]:
        cells = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ]
        print(f"   {'  '.join(cells)}".rstrip())


def clock(instant: str) -> str:
    """Return the time of day of an RFC 3339 instant."""
    return instant[11:19]


def short(name: str) -> str:
    """Return a device's name without its domain."""
    return name.partition(".")[0]


class Demo:
    """The story, step by step."""

    def __init__(self, aws: LocalAws, sims: Simulators) -> None:
        """Take what runs already."""
        self.aws = aws
        self.sims = sims
        # The device whose score falls and rises.
        self.node = ""

    def tell(self) -> None:
        """Tell all of it."""
        self.connect()
        self.show_devices()
        self.wait_for_schedule()
        self.sync_by_hand()
        self.show_status()
        self.show_records()

    def connect(self) -> None:
        """Connect the accounts to the tailnets; the function's own event starts the first sync of each."""
        print("\n1. Two Falcon accounts are connected to two tailnets. Nobody calls a sync: the event does.")
        rows = [self.connect_one(name, cloud, spec) for name, (cloud, spec) in INTEGRATIONS.items()]
        table(["INTEGRATION", "CLOUD", "HOSTS", "DEVICES WITH SERIAL", "MATCHED", "SCORES", "FIRST SCORE"], rows)

    def connect_one(self, name: str, cloud: str, spec: Json) -> list[object]:
        """Connect one account to its tailnet, wait for the scores, and return what to print of it."""
        for side, secret in self.sims.generate(name, spec, region=cloud).items():
            self.aws.put_secret(f"falcon-posture-sync/{name}/{side}", secret)
        settings = {
            "id": name,
            "provider": "falcon",
            "cloudId": cloud,
            "falconSecret": f"falcon-posture-sync/{name}/falcon",
            "tailscaleSecret": f"falcon-posture-sync/{name}/tailscale",
        }
        started = time.monotonic()
        self.aws.invoke({"command": "connect", "integration": settings, "actor": "demo@example.com"})
        wait_until(f"the first score of {name}", lambda: self.sims.attributes(name), seconds=60, every=0.05)
        first = time.monotonic() - started
        status = wait_until(f"the first status of {name}", lambda: self.status(name), seconds=60)
        expect(status["outcome"] == "synced", f"the first sync of {name} is {status}")
        self.expect_agreement(name)
        counts = [status[count] for count in ("providerHostCount", "possibleMatchedCount", "matchedCount", "written")]
        return [name, cloud, *counts, f"{first:.1f} s after `connect`"]

    def show_devices(self) -> None:
        """Show some devices of corp: with a score, and without one for each of the reasons."""
        print("\n2. Some devices of corp, as the tailnet has them now, and why")
        attributes, devices = self.sims.attributes("corp"), self.sims.devices("corp")
        records = self.aws.nodes("corp")
        audit = {record["targetId"]: record for record in self.aws.audit("corp") if record["target"]["type"] == "Node"}
        sensors = [record["aid"] for record in records.values()]
        alone = [
            node
            for node, record in records.items()
            if sensors.count(record["aid"]) == 1 and not record["serial"].startswith("VMWARE")  # a line long
        ]
        ranked = sorted(alone, key=lambda node: records[node]["score"])
        rows = []
        for node in (ranked[-1], ranked[len(ranked) // 2], ranked[0]):
            details = audit[node]["details"]
            why = f"Falcon host {details['falconHostname']} has its serial {records[node]['serial']}"
            rows.append([short(devices[node]["name"]), attributes[node], why])
        self.node = ranked[-1]
        without = self.without_score(devices)
        for name, why in without.items():
            expect(not any(short(devices[node]["name"]) == name for node in attributes), f"{name} has a score: {why}")
            rows.append([name, None, why])
        expect(len(set(without.values())) > len(REASONS), f"only these reasons were found: {without}")
        table(["DEVICE", KEY, "WHY"], rows)

    def without_score(self, devices: dict[str, Json]) -> dict[str, str]:
        """Return one device for each reason to have no score, from the findings of the latest run."""
        findings = {finding["kind"]: finding["examples"] for finding in self.status("corp")["findings"]}
        scored = {devices[node]["name"] for node in self.sims.attributes("corp")}
        found = {short(findings[kind][0]): why for kind, why in REASONS.items() if kind in findings}
        for example in findings.get("placeholderSerials", []):
            name = example.partition(": ")[0]
            if name not in scored and short(name) not in found:
                found[short(name)] = f"its only serial number is {example.rpartition(' is ')[2]}"
                break
        shared = [device["name"] for device in devices.values() if device["isExternal"]]
        return found | {short(name): "it is shared in from another tailnet: not ours" for name in shared[:1]}

    def wait_for_schedule(self) -> None:
        """Let a score fall; the schedule carries it."""
        record = self.aws.nodes("corp")[self.node]
        name, before = short(record["name"]), self.sims.attributes("corp")[self.node]
        print(
            f"\n3. In Falcon the score of {name} falls from {before} to {FALLEN}. The schedule's next run carries it."
        )
        ticks, changes = self.ticks(), len(self.sims.changes("corp"))
        self.sims.set_score("corp", record["aid"], FALLEN)
        with progress("waiting for the schedule (every minute)"):
            wait_until(
                f"the score of {name}",
                lambda: self.sims.attributes("corp")[self.node] != before,
                seconds=180,
                every=0.5,
            )
        after = self.sims.attributes("corp")[self.node]
        expect(after == FALLEN, f"the score of {name} is {after}")
        wait_until("the end of the run", lambda: "lease" not in self.aws.integrations()["corp"])
        wait_until("the schedule in the function's log", lambda: self.ticks() > ticks)
        expect(len(self.sims.changes("corp")) == changes + 1, "other devices changed, too")
        self.expect_agreement("corp")
        run, status = self.aws.nodes("corp")[self.node]["runId"], self.status("corp")
        expect(run == status["runId"], "the change is recorded by another run than the schedule's")
        print(f"   {KEY}: {before} -> {after}, by the run {run[:8]} that the schedule asked for")

    def sync_by_hand(self) -> None:
        """Let the score rise, and carry it at once."""
        record = self.aws.nodes("corp")[self.node]
        print(f"\n4. The score rises to {RISEN}, and nobody wants to wait: make sync INTEGRATION=corp FORCE=1")
        self.sims.set_score("corp", record["aid"], RISEN)
        answer = json.loads(self.aws.make("sync", INTEGRATION="corp", FORCE=1))
        after = self.sims.attributes("corp")[self.node]
        expect(after == RISEN, f"{answer}, but the score is {after}")
        expect(answer["outcome"] == "synced" and answer["written"] == 1, f"the forced sync is {answer}")
        told = ", ".join(f"{answer[count]} {count}" for count in ("written", "removed", "unchanged"))
        print(f"   {answer['outcome']} in {answer['durationMs']} ms: {told}; {KEY} is {after}")
        device = short(record["name"])
        (newest,) = json.loads(self.aws.make("audit", INTEGRATION="corp", DEVICE=device, LIMIT=1))["records"]
        expect(newest["runId"] == answer["runId"], f"the newest audit record of {device} is {newest}")
        old, new = newest["old"][KEY], newest["new"][KEY]
        print(f"   make audit INTEGRATION=corp DEVICE={device}: {old} -> {new}, {newest['details']['reason']}")
        self.expect_agreement("corp")

    def show_status(self) -> None:
        """Show what `make status` says, without the settings."""
        print("\n5. The status: make status")
        rows = []
        for shown in self.aws.invoke({"command": "status"})["integrations"]:
            status = shown["status"]
            expect(status["outcome"] in {"synced", "unchanged"}, f"{shown['id']} is {status}")
            expect(not shown["overdue"], f"{shown['id']} is overdue")
            times = [clock(instant) for instant in (status["lastSync"], status["lastSuccess"], shown["nextSync"])]
            counts = [sum(finding["count"] for finding in status["findings"]), status["consecutiveFailures"]]
            rows.append([shown["id"], status["outcome"], *times, *counts])
        expect([row[0] for row in rows] == list(INTEGRATIONS), f"the integrations are {rows}")
        table(["INTEGRATION", "OUTCOME", "LAST SYNC", "LAST SUCCESS", "NEXT", "FINDINGS", "FAILURES"], rows)
        findings = [f"{finding['count']} {finding['kind']}" for finding in self.status("corp")["findings"]]
        print(f"   corp's findings: {', '.join(findings)}")

    def show_records(self) -> None:
        """Show items of the three tables."""
        print("\n6. The records in DynamoDB")
        item, record = self.aws.integrations()["corp"], self.aws.nodes("corp")[self.node]
        for title, shown, fields in (
            ("integrations", item, ("id", "cloudId", "tailnet", "attributeKey", "configVersion")),
            ("nodes", record, ("nodeId", "score", "serial", "hostname")),
        ):
            print(f"   {title:<12}  {', '.join(f'{field} {shown[field]}' for field in fields)}")
        audit = self.aws.audit("corp")
        rows = []
        for entry in [*audit[:-4:-1], audit[0]]:
            scores = [
                "settings" if entry[side] and KEY not in entry[side] else (entry[side] or {}).get(KEY)
                for side in ("old", "new")
            ]
            target = short(entry["target"]["name"])
            rows.append([clock(entry["eventTime"]), target, entry["action"], *scores, entry["actor"]])
        newest = [row[4] for row in rows[:2]]
        expect(newest == [RISEN, FALLEN], f"the audit table ends with {rows}")
        table(["AUDIT", "TARGET", "ACTION", "OLD", "NEW", "ACTOR"], rows)

    def status(self, integration: str) -> Json:
        """Read an integration's status from the table."""
        return self.aws.integrations()[integration].get("status")

    def ticks(self) -> int:
        """Count the runs of the schedule, which ask for one run per integration."""
        return sum(f"requested a sync of each of {len(INTEGRATIONS)}" in line for line in self.aws.function_log())

    def expect_agreement(self, name: str) -> None:
        """Check that tailnet, node records and audit records say the same."""
        attributes, changes = self.sims.attributes(name), self.sims.changes(name)
        scores = {node: record["score"] for node, record in self.aws.nodes(name).items()}
        expect(attributes == scores, f"{name}: the tailnet has {attributes}, the node records have {scores}")
        audited = [record for record in self.aws.audit(name) if record["action"] == "Update node attribute"]
        expect(len(audited) == len(changes), f"{name}: {len(changes)} changes, {len(audited)} audit records")


def poke(aws: LocalAws, sims: Simulators, demo: Demo) -> None:
    """Say how to look into what runs."""
    record = aws.nodes("corp")[demo.node]
    print(f"""
It all runs on. In another terminal, in this directory:

   export AWS_ENDPOINT_URL={aws.url} AWS_DEFAULT_REGION={REGION}
   export AWS_ACCESS_KEY_ID={ROOT_KEY} AWS_SECRET_ACCESS_KEY={ROOT_KEY} PATH="$PWD/.tools/venv/bin:$PATH"

   make status                           what the last runs did
   make sync INTEGRATION=corp DRY_RUN=1  what a run would do now; without DRY_RUN=1 it does it
   make logs                             the function's log
   aws dynamodb scan --table-name {aws.function}-nodes    or -integrations, -audit
   aws lambda invoke --function-name {aws.function} \\
     --payload file://events/status.json /dev/stdout

   falcon={sims.control}/falcon/accounts/corp
   tailnet={sims.control}/tailscale/tailnets/corp
   curl $tailnet/attributes              the attributes of the devices, by node id
   curl -X PUT -d 30 $falcon/scores/{record["aid"]}
                                         another score for {short(record["name"])}

Ctrl-C stops it.""")


def run(log: IO[bytes], *, keep: bool) -> None:
    """Start everything, tell the story, stop everything."""
    with local_aws(auth=True) as aws, simulators([cloud for cloud, _ in INTEGRATIONS.values()]) as sims:
        with progress("`make deploy`: the real templates to a local AWS, a schedule of one minute"):
            aws.make("deploy", log=log, SCHEDULE_MINUTES=1, **sims.settings)
        demo = Demo(aws, sims)
        try:
            demo.tell()
            if keep:
                poke(aws, sims, demo)
                with suppress(KeyboardInterrupt):
                    threading.Event().wait()
        finally:
            with suppress(Exception):  # whatever ended the demo is what matters
                log.write("\n".join(["", "The function's log:", *aws.function_log(), ""]).encode())


def main() -> int:
    """Run the demo and return its exit status."""
    keep = "--keep" in sys.argv[1:]
    LOG.parent.mkdir(exist_ok=True)
    print(f"falcon-posture-sync, all of it on this machine; details in {LOG.relative_to(REPOSITORY)}\n")
    try:
        with interruptible(), LOG.open("wb") as log:
            run(log, keep=keep)
    except KeyboardInterrupt:
        print("\nStopped; nothing is left running.")
        return 130
    except (NotAsToldError, TimeoutError, CommandFailedError, FunctionError, subprocess.CalledProcessError) as error:
        print(f"\n\nFAILED: {error}\nSee {LOG.relative_to(REPOSITORY)}", file=sys.stderr)
        return 1
    print("""
All of it held, and nothing is left running. Next:
   make demo KEEP=1   leaves it running and says how to look into it
   README.md          deploying it to AWS;  src/lib.rs  how it works;  make test  all tests""")
    return 0


if __name__ == "__main__":
    sys.exit(main())
