"""A device of the platform, as a frozen value (spec server §2.2, §3.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from socket import AF_INET, inet_pton
from types import MappingProxyType
from typing import Any, Literal

from walt.common.names import PLATFORM_USER, default_image, image_user

DeviceType = Literal["server", "node", "switch", "unknown"]

NETSETUP_LAN = 0
NETSETUP_NAT = 1

# Raspberry Pi vendor prefixes (spec server §1.2).
RASPBERRY_PI_PREFIXES = (
    "28:cd:c1", "b8:27:eb", "d8:3a:dd", "dc:a6:32", "e4:5f:01", "2c:cf:67", "88:a2:9e",
)
# Switch vendor prefixes; their model is recorded as "netgear" (spec server §3.1).
SWITCH_PREFIXES = ("6c:b0:ce", "28:c6:8e", "44:94:fc")

_NO_SETTINGS: Mapping[str, Any] = MappingProxyType({})


def _is_inside(ip: str, subnet: IPv4Network) -> bool:
    try:
        number = int.from_bytes(inet_pton(AF_INET, ip), "big")
    except OSError:
        raise ValueError(f"not an IPv4 address: {ip!r}") from None
    mask = int(subnet.netmask)
    return number & mask == int(subnet.network_address)


@dataclass(frozen=True, slots=True)
class Device:
    """One row of `devices`, with what `nodes`, `switches` and `vpnnodes` add.

    `mac` is lower case, colon separated; `conf` holds explicit settings only;
    `image` is the full name of the image a node boots.
    """

    mac: str
    name: str
    type: DeviceType
    ip: str | None = None
    virtual: bool = False
    conf: Mapping[str, Any] = field(default_factory=lambda: _NO_SETTINGS)
    model: str | None = None
    image: str | None = None
    vpn_mac: str | None = None

    @property
    def is_node(self) -> bool:
        """Whether it boots images."""
        return self.type == "node"

    @property
    def netsetup(self) -> int:
        """NETSETUP_LAN or NETSETUP_NAT."""
        return int(self.conf.get("netsetup", NETSETUP_LAN))

    @property
    def is_raspberry_pi(self) -> bool:
        """Whether its MAC has a Raspberry Pi vendor prefix."""
        return self.mac.startswith(RASPBERRY_PI_PREFIXES)

    @property
    def owner(self) -> str | None:
        """The user part of a node's image; `waltplatform` means free."""
        return image_user(self.image) if self.image else None

    @property
    def is_free(self) -> bool:
        """Whether nobody owns the node."""
        return self.owner == PLATFORM_USER

    @property
    def boots_default(self) -> bool:
        """Whether the node boots exactly the default image of its model."""
        return self.model is not None and self.image == default_image(self.model)

    def in_network(self, subnet: IPv4Network) -> bool:
        """Tell whether it has an address inside `subnet`."""
        return self.ip is not None and _is_inside(self.ip, subnet)
