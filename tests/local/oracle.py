"""Which score each device should have, worked out the slow and obvious way, by rules written down here once more."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

PLACEHOLDERS = {
    "0123456789",
    "123456789",
    "1234567890",
    "base board serial number",
    "chassis serial number",
    "default string",
    "defaultstring",
    "invalid",
    "n/a",
    "na",
    "none",
    "not applicable",
    "not available",
    "not present",
    "not specified",
    "null",
    "o.e.m.",
    "serial number",
    "serialnumber",
    "system serial number",
    "to be filled by o.e.m.",
    "unknown",
}


def serial(text: str) -> str | None:
    """Return a serial number in a form that compares, or none if it identifies no machine."""
    text = text.strip().lower()
    one_character = len(set(text)) <= 1
    return None if one_character or text in PLACEHOLDERS else text


def lowest_score(wanted: str, hosts: list[Any], scores: dict[str, int]) -> int | None:
    """Return the lowest score of the hosts with this serial that were seen within a day of the newest of them."""
    claimants = [
        (datetime.fromisoformat(host["last_seen"].replace("Z", "+00:00")), scores.get(host["device_id"]))
        for host in hosts
        if serial(host.get("serial_number", "")) == wanted
    ]
    newest = max((seen for seen, _ in claimants), default=None)
    alive = [
        score for seen, score in claimants if newest and newest - seen <= timedelta(hours=24) and score is not None
    ]
    return min(alive, default=None)


def expected(hosts: list[Any], scores: dict[str, int], devices: dict[str, Any]) -> dict[str, int]:
    """Return the score of each device that should have one, by node id."""
    found = {}
    for node, device in devices.items():
        if device["isExternal"]:
            continue
        texts = (device.get("postureIdentity") or {}).get("serialNumbers", [])
        claims = [lowest_score(wanted, hosts, scores) for wanted in map(serial, texts) if wanted]
        lowest = min((score for score in claims if score is not None), default=None)
        if lowest is not None:
            found[node] = lowest
    return found
