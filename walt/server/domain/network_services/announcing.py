"""How the server is found by its switch: values for lldpd and snmpd (spec server §1.2).

lldpd tells the neighbours of the server who it is, and hears who they are; snmpd shows that,
and little else, to walt-net.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import NamedTuple

# What snmpd shows: who it is, its interfaces (IF-MIB), its neighbours (LLDP-MIB). Nothing of
# processes, connections and disks, which nodes need not know.
VIEW = ("1.3.6.1.2.1.1", "1.3.6.1.2.1.2", "1.3.6.1.2.1.31.1.1", "1.0.8802.1.1.2")


class SnmpdConfig(NamedTuple):
    """Where snmpd answers, to whom, and the socket for AgentX (RFC 2741) of lldpd."""

    server: IPv4Address
    subnet: IPv4Network
    community: str
    agentx: Path
    port: int = 161


class LldpdConfig(NamedTuple):
    """The interface whose neighbours are told of the server, and its address."""

    server: IPv4Address
    interface: str
    agentx: Path


def render_snmpd(config: SnmpdConfig) -> str:
    """Return snmpd.conf(5): one community, which reads the view from walt-net."""
    return "".join(f"{line}\n" for line in (
        f"agentaddress udp:{config.server}:{config.port}",
        *(f"view walt included .{oid}" for oid in VIEW),
        f"rocommunity {config.community} {config.subnet} -V walt",
        "master agentx",
        f"agentXSocket unix:{config.agentx}",
        "agentXPerms 0600 0700",
    ))
