"""The requests of the stream port, by number and by name (spec server §7.6)."""

from __future__ import annotations

from collections.abc import Mapping

from walt.server.streams.base import RequestClass

NUMBERS = {
    "REQ_NEW_INCOMING_LOGS": 0,
    "REQ_DUMP_LOGS": 1,
    "REQ_DOCKER_PROMPT": 3,
    "REQ_NODE_CMD": 4,
    "REQ_DEVICE_PING": 5,
    "REQ_TAR_FROM_IMAGE": 6,
    "REQ_TAR_TO_IMAGE": 7,
    "REQ_TAR_FROM_NODE": 8,
    "REQ_TAR_TO_NODE": 9,
    "REQ_TCP_TO_NODE": 11,
    "REQ_FAKE_TFTP_GET": 12,
    "REQ_VPN_NODE_IMAGE": 13,
    "REQ_NOTIFY_BOOTUP_STATUS": 14,
    "REQ_DEVICE_SHELL": 15,
    "REQ_TAR_FOR_IMAGE_BUILD": 16,
    "REQ_WEB": 17,
    "REQ_NODE_CONSOLE": 18,
    "REQ_SAVE_IMAGES": 19,
    "REQ_LOAD_IMAGES": 20,
}


def requests(by_name: Mapping[str, RequestClass]) -> dict[str, RequestClass]:
    """Return the table of requests: peers send either the number or the name."""
    return {**by_name, **{str(NUMBERS[name]): request for name, request in by_name.items()}}
