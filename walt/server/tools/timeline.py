"""When each stage of a node's last boot was reached, told by its log streams."""

from __future__ import annotations

import ast
from collections.abc import Iterable

from walt.client.log_lines import received

# What the console of a virtual node shows, in order.
CONSOLE_MARKS = (
    (b"SeaBIOS", "power-on"),
    (b"iPXE initialising", "iPXE starts"),
    (b"/boot/start.ipxe", "DHCP done, boot script fetched"),
    (b"/boot/initrd", "fetching the initrd"),
    (b"/boot/kernel", "fetching the kernel"),
)
Event = tuple[float, str]


def _records(issuers: str) -> list[tuple[float, str, str, str]]:
    return [
        record for records in received({"history": True, "issuers": issuers})
        for record in records
    ]


def events_of(node: str, records: Iterable[tuple[float, str, str, str]]) -> list[Event]:
    """Return the stages of the last boot in log records, with epoch times."""
    events: list[Event] = []
    seen: set[str] = set()
    for moment, issuer, stream, line in records:
        found = None
        if issuer == node and stream == "virtualconsole":
            chunk = ast.literal_eval(line)
            for mark, name in CONSOLE_MARKS:
                if mark in chunk and (name not in seen or name == "power-on"):
                    found = name
                    if name == "power-on":
                        events, seen = [], set()
                    events.append((moment, name))
                    seen.add(name)
            continue
        if issuer == node and stream == "walt-init":
            found = {
                "Starting up.": "root mounted, walt-init starts",
            }.get(line, "handed over to the init of the image" if "Handing" in line else None)
        elif stream == "platform.nodes" and line == f"node {node} is booted":
            found = "booted (notified)"
        if found is not None and found not in seen:
            events.append((moment, found))
            seen.add(found)
    return events


def boot_timeline(node: str) -> list[Event]:
    """Return (seconds since power-on, stage) of the last boot of a node."""
    events = events_of(node, sorted(_records(f"{node},server")))
    return [(moment - events[0][0], name) for moment, name in events]
