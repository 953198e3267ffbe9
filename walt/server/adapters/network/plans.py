"""What a network of server.conf is made of, and what is remembered of it on the disk.

A network that left server.conf, or has other parts there, was made by a server that knew the
former ones: they are read again from where it left them.
"""

from __future__ import annotations

import json
import re
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any, Literal, NamedTuple

from walt.common.errors import Invalid
from walt.common.files import write_atomic
from walt.server.domain.network.firewall import is_interface_name

BRIDGE = "walt-net"
_NETWORK = re.compile(r"[a-zA-Z][a-zA-Z0-9-]{0,31}")


class LinkPlan(NamedTuple):
    """One network of server.conf; `ip` is its address, `dhcp`, or None (left alone)."""

    name: str
    raw_device: str | None = None
    vlan: int | None = None
    ip: IPv4Interface | Literal["dhcp"] | None = None

    def check(self) -> None:
        """Raise Invalid, with what to correct in server.conf, when it cannot be set up."""
        where = f"network.{self.name}"
        if _NETWORK.fullmatch(self.name) is None:
            raise Invalid(f"{where}: use letters, digits and '-' in names of networks")
        if self.raw_device is None and self.vlan is not None:
            raise Invalid(f"{where}: 'vlan' needs a 'raw-device'; add one or remove 'vlan'")
        if self.raw_device is not None and not is_interface_name(self.raw_device):
            raise Invalid(f"{where}.raw-device: {self.raw_device!r} is not a valid interface name")
        if self.vlan is not None and not 1 <= self.vlan <= 4094:
            raise Invalid(f"{where}.vlan: {self.vlan} is not between 1 and 4094")
        if not is_interface_name(self.base):
            raise Invalid(f"{where}: the interface name {self.base} is longer than 15 bytes")

    @property
    def base(self) -> str:
        """The interface that carries the network: raw device, VLAN on it, or dummy."""
        if self.raw_device is None:
            return f"{self.name}-dummy"
        return self.raw_device if self.vlan is None else f"{self.raw_device}.{self.vlan}"


def _file(state: Path, name: str) -> Path:
    return state / f".{name}.plan"


def remember(state: Path, plan: LinkPlan) -> None:
    """Write down what a network is made of, in the directory of the server's state."""
    write_atomic(_file(state, plan.name), json.dumps({
        "raw-device": plan.raw_device, "vlan": plan.vlan,
        "ip": None if plan.ip is None else str(plan.ip),
    }) + "\n")


def remembered(state: Path, name: str) -> LinkPlan | None:
    """Return what a network was made of, None when that is not known."""
    try:
        found: Any = json.loads(_file(state, name).read_text())
        ip = found["ip"]
        plan = LinkPlan(
            name, found["raw-device"], found["vlan"],
            ip if ip in (None, "dhcp") else IPv4Interface(ip),
        )
        plan.check()
    except (OSError, ValueError, TypeError, KeyError, Invalid):
        return None
    return plan


def forget(state: Path, name: str) -> None:
    """Forget a network that is gone."""
    _file(state, name).unlink(missing_ok=True)


def known(state: Path) -> list[str]:
    """Return the names of the networks that were made, and not unmade, by any server."""
    names = {
        path.stem[1:] for pattern in (".*.plan", ".*.state") for path in state.glob(pattern)
    }
    return sorted(name for name in names if _NETWORK.fullmatch(name))
