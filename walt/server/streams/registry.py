"""The requests of the stream port, by number and by name (spec server §7.6)."""

from __future__ import annotations

from walt.server.streams.base import RequestClass

NUMBERS = {
    "REQ_NEW_INCOMING_LOGS": 0,
    "REQ_DUMP_LOGS": 1,
    "REQ_NODE_CMD": 4,
    "REQ_DEVICE_PING": 5,
    "REQ_NOTIFY_BOOTUP_STATUS": 14,
}


def requests(
    *, ingest: RequestClass, dump: RequestClass, node_command: RequestClass,
    ping: RequestClass, notify: RequestClass,
) -> dict[str, RequestClass]:
    """Return the table of requests: peers send either the number or the name."""
    by_name = {
        "REQ_NEW_INCOMING_LOGS": ingest, "REQ_DUMP_LOGS": dump, "REQ_NODE_CMD": node_command,
        "REQ_DEVICE_PING": ping,
        "REQ_NOTIFY_BOOTUP_STATUS": notify,
    }
    return by_name | {str(NUMBERS[name]): factory for name, factory in by_name.items()}
