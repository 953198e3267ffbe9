"""Names and types of devices that announce themselves (spec server §3.2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from walt.common.names import clean_host_name, is_device_name, is_model
from walt.server.domain.devices.model import SWITCH_PREFIXES, DeviceType

_CLASS_PREFIX = "walt.node."
SERVER_NAME = "walt-server"
# Words that mean something else where a device is named: sets of devices (`sets.KEYWORDS`).
RESERVED_NAMES = frozenset({
    "server", "my-nodes", "free-nodes", "all-nodes", "all-switches", "explorable-switches",
    "all-devices",
})
# Names of /etc/hosts of every node: no device is reached by them.
LOCAL_NAMES = frozenset({
    "localhost", "ip6-localhost", "ip6-loopback", "ip6-allnodes", "ip6-allrouters",
})


class Guess(NamedTuple):
    """The type of a device, and its model when the type implies one."""

    type: DeviceType
    model: str | None = None


def guess_type(vci: str, uci: str, mac: str) -> Guess:
    """Tell what a DHCP client is, from its user class, else vendor class, else MAC."""
    for text in (uci, *_user_classes(uci), vci):
        if text.startswith(_CLASS_PREFIX):
            model = text[len(_CLASS_PREFIX):]
            if is_model(model):
                return Guess("node", model)
    if mac.startswith(SWITCH_PREFIXES):
        return Guess("switch", "netgear")
    return Guess("unknown")


def _user_classes(text: str) -> list[str]:
    """Return user classes that are written as RFC 3004 §4 says: each after its length.

    iPXE and most firmware send one, without its length; systems do as the RFC says.
    """
    found = []
    while text:
        length = ord(text[0])
        if not 0 < length < len(text):
            return []
        found.append(text[1:1 + length])
        text = text[1 + length:]
    return found


def generated_name(kind: str, mac: str, taken: Callable[[str], bool]) -> str:
    """Return `<type>-<last 3 MAC bytes>`, with -2, -3… until it is free."""
    base = f"{kind}-{mac[-8:].replace(':', '')}"
    name, number = base, 1
    while taken(name):
        number += 1
        name = f"{base}-{number}"
    return name


def clear_name(name: str, kind: str, mac: str, taken: Callable[[str], bool]) -> str:
    """Return the name of a device whose type has become known: one that says `unknown` changes."""
    return generated_name(kind, mac, taken) if "unknown" in name else name


def choose_name(
    announced: str | None, kind: str, mac: str, taken: Callable[[str], bool]
) -> str:
    """Return the name of a new device: the announced one if valid and free, else generated."""
    proposed = clean_host_name(announced) if announced else ""
    if is_device_name(proposed) and not taken(proposed):
        return proposed
    return generated_name(kind, mac, taken)
