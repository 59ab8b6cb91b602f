"""Runs everything on this machine and shows it on one screen: `make demo`.

The output comes from the simulated tailnet, from DynamoDB and from the responses of the function. The demo checks each
step. The exit status is 0 only if all checks pass.
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

# Some of each edge case in corp: devices without identity, unknown to Falcon, not assessed, shared in.
EDGE_CASES = {"overlap": 0.9, "placeholder_serial": 0.1, "multi_serial": 0.1, "unassessed": 0.1, "no_identity": 0.08}
INTEGRATIONS: dict[str, tuple[str, Json]] = {
    "corp": ("us-2", {"seed": 7, "hosts": 60, "devices": 40, **EDGE_CASES}),
    "labs": ("us-1", {"seed": 2, "hosts": 25, "devices": 12}),
}
LOW_SCORE, HIGH_SCORE = 12, 88

# Reasons for a device without a score, by the kind of the finding.
REASONS = {
    "noIdentity": "it reports no posture identity",
    "unmatched": "no Falcon host has its serial numbers",
    "unassessed": "its Falcon host has no assessment yet",
}


class DemoError(Exception):
    """A check of the demo failed."""


def expect(condition: object, message: str) -> None:
    """Fail the demo unless the condition is true."""
    if not condition:
        raise DemoError(message)


@contextmanager
def progress(activity: str) -> Iterator[None]:
    """Print an activity, and then its duration."""
    print(f"   {activity} ... ", end="", flush=True)
    started = time.monotonic()
    yield
    print(f"{time.monotonic() - started:.0f} s")


def print_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows in columns, with numbers aligned to the right."""
    texts = [[("-" if cell is None else str(cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *texts, strict=True)]
    numeric = [all(cell is None or isinstance(cell, int) for cell in column) for column in zip(*rows, strict=True)]
    for row in [list(head), *texts]:
        cells = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ]
        print(f"   {'  '.join(cells)}".rstrip())


def time_of_day(timestamp: str) -> str:
    """Return the time of day of an RFC 3339 timestamp."""
    return timestamp[11:19]


def short_name(name: str) -> str:
    """Return a device's name without its domain."""
    return name.partition(".")[0]


class Demo:
    """The steps of the demo."""

    def __init__(self, aws: LocalAws, sims: Simulators) -> None:
        """Use the running local AWS and simulators."""
        self.aws = aws
        self.sims = sims
        # The node id of the device whose score changes.
        self.node = ""

    def run(self) -> None:
        """Run all steps."""
        self.connect()
        self.show_devices()
        self.wait_for_schedule()
        self.sync_by_hand()
        self.show_status()
        self.show_records()

    def connect(self) -> None:
        """Connect the accounts to the tailnets. An event of the function starts the first sync of each."""
        print("\n1. Connect two Falcon accounts to two tailnets. An event of the function starts the first sync.")
        rows = [self.connect_one(name, cloud, spec) for name, (cloud, spec) in INTEGRATIONS.items()]
        print_table(["INTEGRATION", "CLOUD", "HOSTS", "DEVICES WITH SERIAL", "MATCHED", "SCORES", "FIRST SCORE"], rows)

    def connect_one(self, name: str, cloud: str, spec: Json) -> list[object]:
        """Connect an account to its tailnet, wait for the scores, and return a row of the table."""
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
        """Show some devices of corp: three with a score, and one without for each reason."""
        print("\n2. The scores of some devices of corp in the tailnet, and the reasons")
        attributes, devices = self.sims.attributes("corp"), self.sims.devices("corp")
        records = self.aws.nodes("corp")
        audit = {record["targetId"]: record for record in self.aws.audit("corp") if record["target"]["type"] == "Node"}
        aids = [record["aid"] for record in records.values()]
        unshared = [
            node
            for node, record in records.items()
            if aids.count(record["aid"]) == 1 and not record["serial"].startswith("VMWARE")  # too long for a table
        ]
        by_score = sorted(unshared, key=lambda node: records[node]["score"])
        rows = []
        for node in (by_score[-1], by_score[len(by_score) // 2], by_score[0]):
            details = audit[node]["details"]
            reason = f"Falcon host {details['falconHostname']} has its serial {records[node]['serial']}"
            rows.append([short_name(devices[node]["name"]), attributes[node], reason])
        self.node = by_score[-1]
        without = self.without_score(devices)
        for name, reason in without.items():
            scored = any(short_name(devices[node]["name"]) == name for node in attributes)
            expect(not scored, f"{name} has a score, expected none: {reason}")
            rows.append([name, None, reason])
        expect(len(set(without.values())) > len(REASONS), f"only these reasons were found: {without}")
        print_table(["DEVICE", KEY, "REASON"], rows)

    def without_score(self, devices: dict[str, Json]) -> dict[str, str]:
        """Return a device for each reason to have no score, from the findings of the latest run."""
        findings = {finding["kind"]: finding["examples"] for finding in self.status("corp")["findings"]}
        scored = {devices[node]["name"] for node in self.sims.attributes("corp")}
        found = {short_name(findings[kind][0]): reason for kind, reason in REASONS.items() if kind in findings}
        for example in findings.get("placeholderSerials", []):
            name = example.partition(": ")[0]
            if name not in scored and short_name(name) not in found:
                found[short_name(name)] = f"its only serial number is {example.rpartition(' is ')[2]}"
                break
        shared = [device["name"] for device in devices.values() if device["isExternal"]]
        return found | {short_name(name): "it is shared in from another tailnet" for name in shared[:1]}

    def wait_for_schedule(self) -> None:
        """Lower a score in Falcon, and wait until the schedule writes it."""
        record = self.aws.nodes("corp")[self.node]
        name, before = short_name(record["name"]), self.sims.attributes("corp")[self.node]
        print(
            f"\n3. Lower the score of {name} in Falcon from {before} to {LOW_SCORE}. The next scheduled run writes it."
        )
        runs, changes = self.scheduled_runs(), len(self.sims.changes("corp"))
        self.sims.set_score("corp", record["aid"], LOW_SCORE)
        with progress("waiting for the schedule (every minute)"):
            wait_until(
                f"the score of {name}",
                lambda: self.sims.attributes("corp")[self.node] != before,
                seconds=180,
                every=0.5,
            )
        after = self.sims.attributes("corp")[self.node]
        expect(after == LOW_SCORE, f"the score of {name} is {after}")
        wait_until("the end of the run", lambda: "lease" not in self.aws.integrations()["corp"])
        wait_until("the scheduled run in the function's log", lambda: self.scheduled_runs() > runs)
        expect(len(self.sims.changes("corp")) == changes + 1, "other devices changed as well")
        self.expect_agreement("corp")
        run, status = self.aws.nodes("corp")[self.node]["runId"], self.status("corp")
        expect(run == status["runId"], "the record names another run than the scheduled one")
        print(f"   {KEY}: {before} -> {after}, by the scheduled run {run[:8]}")

    def sync_by_hand(self) -> None:
        """Raise the score in Falcon, and sync it at once."""
        record = self.aws.nodes("corp")[self.node]
        print(f"\n4. Raise the score to {HIGH_SCORE}, and sync at once: make sync INTEGRATION=corp FORCE=1")
        self.sims.set_score("corp", record["aid"], HIGH_SCORE)
        response = json.loads(self.aws.make("sync", INTEGRATION="corp", FORCE=1))
        after = self.sims.attributes("corp")[self.node]
        expect(after == HIGH_SCORE, f"{response}, but the score is {after}")
        expect(response["outcome"] == "synced" and response["written"] == 1, f"the forced sync is {response}")
        counts = ", ".join(f"{response[count]} {count}" for count in ("written", "removed", "unchanged"))
        print(f"   {response['outcome']} in {response['durationMs']} ms: {counts}; {KEY} is {after}")
        device = short_name(record["name"])
        (newest,) = json.loads(self.aws.make("audit", INTEGRATION="corp", DEVICE=device, LIMIT=1))["records"]
        expect(newest["runId"] == response["runId"], f"the newest audit record of {device} is {newest}")
        old, new = newest["old"][KEY], newest["new"][KEY]
        print(f"   make audit INTEGRATION=corp DEVICE={device}: {old} -> {new}, {newest['details']['reason']}")
        self.expect_agreement("corp")

    def show_status(self) -> None:
        """Show the status of the integrations."""
        print("\n5. The status of the integrations: make status")
        rows = []
        for view in self.aws.invoke({"command": "status"})["integrations"]:
            status = view["status"]
            expect(status["outcome"] in {"synced", "unchanged"}, f"{view['id']} is {status}")
            expect(not view["overdue"], f"{view['id']} is overdue")
            times = [
                time_of_day(timestamp) for timestamp in (status["lastSync"], status["lastSuccess"], view["nextSync"])
            ]
            counts = [sum(finding["count"] for finding in status["findings"]), status["consecutiveFailures"]]
            rows.append([view["id"], status["outcome"], *times, *counts])
        expect([row[0] for row in rows] == list(INTEGRATIONS), f"the integrations are {rows}")
        print_table(["INTEGRATION", "OUTCOME", "LAST SYNC", "LAST SUCCESS", "NEXT", "FINDINGS", "FAILURES"], rows)
        findings = [f"{finding['count']} {finding['kind']}" for finding in self.status("corp")["findings"]]
        print(f"   corp's findings: {', '.join(findings)}")

    def show_records(self) -> None:
        """Show items of the three tables."""
        print("\n6. The records in DynamoDB")
        item, record = self.aws.integrations()["corp"], self.aws.nodes("corp")[self.node]
        for title, values, fields in (
            ("integrations", item, ("id", "cloudId", "tailnet", "attributeKey", "configVersion")),
            ("nodes", record, ("nodeId", "score", "serial", "hostname")),
        ):
            print(f"   {title:<12}  {', '.join(f'{field} {values[field]}' for field in fields)}")
        audit = self.aws.audit("corp")
        rows = []
        for entry in [*audit[:-4:-1], audit[0]]:
            scores = [
                "settings" if entry[side] and KEY not in entry[side] else (entry[side] or {}).get(KEY)
                for side in ("old", "new")
            ]
            target = short_name(entry["target"]["name"])
            rows.append([time_of_day(entry["eventTime"]), target, entry["action"], *scores, entry["actor"]])
        newest = [row[4] for row in rows[:2]]
        expect(newest == [HIGH_SCORE, LOW_SCORE], f"the audit table ends with {rows}")
        print_table(["AUDIT", "TARGET", "ACTION", "OLD", "NEW", "ACTOR"], rows)

    def status(self, integration: str) -> Json:
        """Read an integration's status from the table."""
        return self.aws.integrations()[integration].get("status")

    def scheduled_runs(self) -> int:
        """Count the runs of the schedule. Each requests one run per integration."""
        return sum(f"requested a sync of each of {len(INTEGRATIONS)}" in line for line in self.aws.function_log())

    def expect_agreement(self, name: str) -> None:
        """Check that the tailnet, the node records and the audit records agree."""
        attributes, changes = self.sims.attributes(name), self.sims.changes(name)
        scores = {node: record["score"] for node, record in self.aws.nodes(name).items()}
        expect(attributes == scores, f"{name}: the tailnet has {attributes}, the node records have {scores}")
        audited = [record for record in self.aws.audit(name) if record["action"] == "Update node attribute"]
        expect(len(audited) == len(changes), f"{name}: {len(changes)} changes, {len(audited)} audit records")


def print_commands(aws: LocalAws, sims: Simulators, demo: Demo) -> None:
    """Print commands to explore the running demo."""
    record = aws.nodes("corp")[demo.node]
    print(f"""
Everything is still running. In another terminal, in this directory:

   export AWS_ENDPOINT_URL={aws.url} AWS_DEFAULT_REGION={REGION}
   export AWS_ACCESS_KEY_ID={ROOT_KEY} AWS_SECRET_ACCESS_KEY={ROOT_KEY} PATH="$PWD/.tools/venv/bin:$PATH"

   make status                           shows the latest runs
   make sync INTEGRATION=corp DRY_RUN=1  prints the plan of a run; without DRY_RUN=1 it writes
   make logs                             prints the function's log
   aws dynamodb scan --table-name {aws.function}-nodes    or -integrations, -audit
   aws lambda invoke --function-name {aws.function} \\
     --payload file://events/status.json /dev/stdout

   falcon={sims.control}/falcon/accounts/corp
   tailnet={sims.control}/tailscale/tailnets/corp
   curl $tailnet/attributes              prints the attributes of the devices by node id
   curl -X PUT -d 30 $falcon/scores/{record["aid"]}
                                         changes the score of {short_name(record["name"])}

Ctrl-C stops it.""")


def run(log: IO[bytes], *, keep: bool) -> None:
    """Start everything, run the demo, and stop everything."""
    with local_aws(auth=True) as aws, simulators([cloud for cloud, _ in INTEGRATIONS.values()]) as sims:
        with progress("`make deploy` to a local AWS, with a schedule of one minute"):
            aws.make("deploy", log=log, SCHEDULE_MINUTES=1, **sims.settings)
        demo = Demo(aws, sims)
        try:
            demo.run()
            if keep:
                print_commands(aws, sims, demo)
                with suppress(KeyboardInterrupt):
                    threading.Event().wait()
        finally:
            with suppress(Exception):  # must not hide the error that ended the demo
                log.write("\n".join(["", "The function's log:", *aws.function_log(), ""]).encode())


def main() -> int:
    """Run the demo and return its exit status."""
    keep = "--keep" in sys.argv[1:]
    LOG.parent.mkdir(exist_ok=True)
    print(f"falcon-posture-sync on this machine; details in {LOG.relative_to(REPOSITORY)}\n")
    try:
        with interruptible(), LOG.open("wb") as log:
            run(log, keep=keep)
    except KeyboardInterrupt:
        print("\nStopped. Nothing is still running.")
        return 130
    except (DemoError, TimeoutError, CommandFailedError, FunctionError, subprocess.CalledProcessError) as error:
        print(f"\n\nFAILED: {error}\nSee {LOG.relative_to(REPOSITORY)}", file=sys.stderr)
        return 1
    print("""
All checks passed. Nothing is still running. Next:
   make demo KEEP=1   leaves everything running and prints commands to explore it
   README.md          explains how to deploy to AWS
   src/README.md      explains how it works
   make test          runs all tests""")
    return 0


if __name__ == "__main__":
    sys.exit(main())
