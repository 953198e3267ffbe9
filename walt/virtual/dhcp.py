"""The address of a node, by busybox' DHCP client on an interface with the node's MAC."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import AddressValueError, IPv4Address, IPv4Network, NetmaskValueError
from pathlib import Path

from walt.common.errors import Invalid, Unavailable, WaltError, in_words
from walt.common.names import clean_host_name, is_device_name
from walt.virtual import links
from walt.virtual.namespace import Namespace
from walt.virtual.processes import run
from walt.virtual.timing import uninterrupted

MAX_LEASE = 4096  # bytes
# busybox runs it with one variable for each value. NUL ends a value: none can hold it.
LEASE_SCRIPT = """#!/bin/sh
[ "$1" = bound ] || exit 0
printf '%s\\000' "$ip" "$subnet" "$router" "$hostname" "$siaddr" "$serverid" > "$WALT_LEASE"
"""


@dataclass(frozen=True)
class Lease:
    """What the server's DHCP gave; `router` and `hostname` may be empty."""

    ip: str
    netmask: str
    router: str
    hostname: str
    server: str

    @property
    def prefix(self) -> int:
        """The length of the network's prefix."""
        return IPv4Network(f"0.0.0.0/{self.netmask}").prefixlen


def parse_lease(data: bytes) -> Lease:
    """Return the lease that LEASE_SCRIPT wrote. Raises Invalid."""
    values = data[:MAX_LEASE].decode("ascii", "replace").split("\0")
    if len(values) != 7:
        raise Invalid("DHCP gave no complete lease")
    ip, netmask, router, hostname, next_server, server_id, _ = values
    if next_server in ("", "0.0.0.0"):  # noqa: S104 (no server is named)
        next_server = server_id
    name = clean_host_name(hostname)
    try:
        IPv4Network(f"0.0.0.0/{netmask}")
        return Lease(
            str(IPv4Address(ip)), str(IPv4Address(netmask)),
            str(IPv4Address(router.split()[0])) if router.strip() else "",
            name if is_device_name(name) else "", str(IPv4Address(next_server)),
        )
    except (AddressValueError, NetmaskValueError, ValueError):
        raise Invalid("DHCP gave a lease with a wrong address") from None


def cable_name(mac: str) -> str:
    """Return the name of the end of a node's cable on walt-net, told from its MAC."""
    return "wv" + sha256(mac.encode()).hexdigest()[:10]


@asynccontextmanager
async def leased(mac: str, model: str, directory: Path) -> AsyncIterator[tuple[Lease, Namespace]]:
    """Take the place of a node on walt-net for the time of a block.

    Gives the lease and the namespace that has its address, from which the server is
    spoken to: this machine itself needs no address on walt-net.
    Raises Unavailable when nobody answers, CommandFailed, Invalid.
    """
    outer = cable_name(mac)
    script, result = directory / "lease.sh", directory / "lease"
    script.write_text(LEASE_SCRIPT)
    script.chmod(0o700)
    namespace = Namespace()
    try:
        await links.add_cable(outer, mac, namespace)
        try:
            await run(namespace.command(
                "env", f"WALT_LEASE={result}", "busybox", "udhcpc", "-f", "-q", "-n", "-C",
                "-t", "4", "-T", "3", "-i", links.INNER, "-s", str(script),
                "-V", f"walt.node.{model}",
            ))
            lease = parse_lease(result.read_bytes())
        except (WaltError, FileNotFoundError) as error:
            raise Unavailable(f"no DHCP server answers on walt-net ({in_words(error)})") from None
        await run(namespace.command(
            "ip", "address", "add", f"{lease.ip}/{lease.prefix}", "dev", links.INNER
        ))
        yield lease, namespace
    finally:
        namespace.close()
        await uninterrupted(links.remove([outer]))
