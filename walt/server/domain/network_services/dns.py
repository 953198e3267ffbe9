"""The configuration of named: a comparable value and its texts (spec server §1.2)."""

from __future__ import annotations

import re
from bisect import insort
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import NamedTuple

from walt.common.names import is_device_name
from walt.server.domain.devices.derived import Change, Followed, Ordered
from walt.server.domain.devices.model import Device
from walt.server.domain.network.addresses import address_number, parse_address

FALLBACK_FORWARDER = "8.8.8.8"
FORWARD_ZONE = "walt"
FORWARD_ZONE_FILE = "walt.forward.zone"
# The loopback zones that RFC 1912 §4.1 asks of every server. Debian 12's bind9 has a
# file that declares them, Debian 13's has not: they are ours on both.
LOOPBACK_ZONES = {
    "localhost": "@ IN A 127.0.0.1\n@ IN AAAA ::1\n",
    "127.in-addr.arpa": "1.0.0 IN PTR localhost.\n",
}
TTL = 604800
_SERIAL = re.compile(r"^.*; serial$\n?", re.MULTILINE)
_WRITTEN_SERIAL = re.compile(r"^\s*(\d+) ; serial$", re.MULTILINE)
_MAX_SERIAL = 2**32


@dataclass(frozen=True)
class NamesOf:
    """Name and address of the devices of one /24 network, `prefix` (three numbers), by address.

    `forward` and `reverse` are their lines in zone files.
    """

    prefix: str
    names: tuple[tuple[str, str], ...]
    forward: str = field(init=False, compare=False, repr=False)
    reverse: str = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "forward", "".join([f"{name} IN A {ip}\n" for name, ip in self.names])
        )
        object.__setattr__(self, "reverse", "".join([
            f"{ip.rpartition('.')[2]} IN PTR {name}.walt.\n" for name, ip in self.names
        ]))


class DnsConfig(NamedTuple):
    """All that named has to know.

    `networks` hold the devices of walt-net, by address; the server is not among them. Those in
    which nothing changed are the same objects as before.
    """

    server: IPv4Address
    networks: tuple[NamesOf, ...] = ()
    forwarders: tuple[str, ...] = (FALLBACK_FORWARDER,)


def forwarders(
    resolv_conf: str, server: IPv4Address, *, upstream: str = "", isolated: bool = False,
) -> tuple[str, ...]:
    """Return the upstream servers told by the text of /etc/resolv.conf.

    These are its IPv4 servers but loopback ones and our own named, or else those of
    `upstream`, the file of a local resolver that tells whom it asks; or else the local
    resolver itself, unless we are `isolated` from it; or else 8.8.8.8.
    """
    found = _name_servers(resolv_conf)
    outside = _outside(found, server) or _outside(_name_servers(upstream), server)
    if not outside and not isolated:
        outside = [address for address in found if address.is_loopback]
    return tuple(str(address) for address in outside) or (FALLBACK_FORWARDER,)


def _outside(servers: Sequence[IPv4Address], server: IPv4Address) -> list[IPv4Address]:
    return [address for address in servers if not address.is_loopback and address != server]


def _name_servers(resolv_conf: str) -> list[IPv4Address]:
    """Return the IPv4 servers in a text like /etc/resolv.conf (resolv.conf(5)), each once."""
    found: list[IPv4Address] = []
    for line in resolv_conf.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            address = parse_address(words[1])
            if address is not None and address not in found:
                found.append(address)
    return found


_Record = tuple[int, tuple[str, str]]  # address as a number, name and address


def _record(device: Device) -> _Record | None:
    """Return the address, as a number, and the record of a device, wherever it is."""
    number = address_number(device.ip) if device.ip is not None else None
    if device.type == "server" or device.ip is None or number is None:
        return None
    # `server` and `walt-server` are taken: a second record would break the zone.
    if not is_device_name(device.name) or device.name.lower() in ("server", "walt-server"):
        return None
    return number, (device.name, device.ip)


class DnsNames:
    """The configuration of named, changed by the devices that changed."""

    def __init__(
        self, server: IPv4Address, subnet: IPv4Network,
        upstream: tuple[str, ...] = (FALLBACK_FORWARDER,),
    ) -> None:
        self._server, self._upstream = server, upstream
        self._first, self._last = int(subnet.network_address), int(subnet.broadcast_address)
        # By the number of their network.
        self._records: dict[int, Ordered[_Record, tuple[str, str]]] = {}
        self._networks: dict[int, NamesOf] = {}
        self._stale: set[int] = set()

    def change(self, changes: Collection[Change]) -> None:
        """Take what changed."""
        for change in changes:
            found = _record(change.old) if change.old is not None else None
            if found is not None:
                self._records.get(self._touched(found), Ordered()).drop(found)
        for change in changes:
            found = _record(change.new) if change.new is not None else None
            if found is not None and self._first <= found[0] <= self._last:
                self._records.setdefault(self._touched(found), Ordered()).add(found, found[1])

    def _touched(self, record: _Record) -> int:
        network = record[0] >> 8
        self._stale.add(network)
        return network

    def config(self) -> DnsConfig:
        """Return what `dns_config` returns."""
        for network in self._stale:
            names = tuple(self._records.get(network, ()))
            if names:
                self._networks[network] = NamesOf(_prefix(names[0][1]), names)
            else:
                self._records.pop(network, None)
                self._networks.pop(network, None)
        self._stale.clear()
        networks = tuple(self._networks[network] for network in sorted(self._networks))
        return DnsConfig(self._server, networks, self._upstream)


def _prefix(ip: str) -> str:
    return ip.rpartition(".")[0]


def dns_config(
    server: IPv4Address, subnet: IPv4Network, devices: Iterable[Device],
    upstream: tuple[str, ...] = (FALLBACK_FORWARDER,),
) -> DnsConfig:
    """Return the configuration wanted for these devices of walt-net."""
    names = DnsNames(server, subnet, upstream)
    names.change(Followed().look(devices))
    return names.config()


def reverse_zone(address: str) -> str:
    """Return the /24 reverse zone of an address, `c.b.a.in-addr.arpa` (RFC 1035 §3.5)."""
    a, b, c, _ = address.split(".")
    return f"{c}.{b}.{a}.in-addr.arpa"


def reverse_zone_file(zone: str) -> str:
    """Return the file name of a reverse zone."""
    return f"walt.{zone}.reverse.zone"


def loopback_zone_file(zone: str) -> str:
    """Return the file name of one of LOOPBACK_ZONES."""
    return f"walt.{zone}.zone"


def _zone_head(serial: int) -> str:
    return f"""\
$TTL {TTL}
@ IN SOA server.walt. root.server.walt. (
    {serial % _MAX_SERIAL} ; serial
    604800 ; refresh
    86400 ; retry
    2419200 ; expire
    604800 ) ; negative answers
@ IN NS server.walt.
"""


def zone_of_file(name: str) -> str:
    """Return the zone that a zone file of ours holds."""
    if name == FORWARD_ZONE_FILE:
        return FORWARD_ZONE
    return name.removeprefix("walt.").removesuffix(".zone").removesuffix(".reverse")


def zones(config: DnsConfig, serial: int) -> dict[str, str]:
    """Return the text of every zone file, by file name."""
    forward, head = [], _zone_head(serial)
    texts = {}
    for zone, records in LOOPBACK_ZONES.items():
        texts[loopback_zone_file(zone)] = head + records
    for network in _with_server(config):
        forward.append(network.forward)
        texts[reverse_zone_file(reverse_zone(f"{network.prefix}.0"))] = head + network.reverse
    forward.append("walt-server IN CNAME server\n")
    return {FORWARD_ZONE_FILE: head + "".join(forward), **texts}


def _with_server(config: DnsConfig) -> list[NamesOf]:
    """Return the networks of a configuration, that of the server with its own name."""
    own = ("server", str(config.server))
    found = {network.prefix: network for network in config.networks}
    names = [*found[_prefix(own[1])].names] if _prefix(own[1]) in found else []
    insort(names, own, key=_number)
    found[_prefix(own[1])] = NamesOf(_prefix(own[1]), tuple(names))
    return sorted(found.values(), key=lambda network: _number(network.names[0]))


def _number(name: tuple[str, str]) -> int:
    return address_number(name[1]) or 0


def same_beside_serial(old: str, new: str) -> bool:
    """Tell whether two zone texts say the same, whatever their serials."""
    # The serial is near the beginning: the records, megabytes of them, need no search.
    return _SERIAL.sub("", old, count=1) == _SERIAL.sub("", new, count=1)


def serial_of(text: str) -> int | None:
    """Return the serial in the text of a zone file."""
    found = _WRITTEN_SERIAL.search(text)
    return int(found[1]) if found else None


def older_serial(one: int, other: int) -> bool:
    """Tell whether serial `one` is older than `other`, in the arithmetic of RFC 1982."""
    return 0 < (other - one) % _MAX_SERIAL < _MAX_SERIAL // 2


def next_serial(now: float, old_text: str | None) -> int:
    """Return the serial of a rewritten zone: epoch seconds, above the old one.

    Two changes within one second need two serials.
    """
    old = serial_of(old_text or "")
    return max(int(now), old + 1 if old is not None else 0)


def render_named_conf(config: DnsConfig, directory: Path, runtime: Path) -> str:
    """Return the text of named.conf.

    `directory` holds the zone files, `runtime` is where named may write.
    """
    networks = {network.prefix for network in config.networks} | {_prefix(str(config.server))}
    reverse = sorted(reverse_zone(f"{network}.0") for network in networks)
    declared = [
        (FORWARD_ZONE, FORWARD_ZONE_FILE),
        *((zone, loopback_zone_file(zone)) for zone in LOOPBACK_ZONES),
        *((zone, reverse_zone_file(zone)) for zone in reverse),
    ]
    blocks = "".join(
        f'zone "{zone}" {{ type master; notify no; file "{directory}/{name}"; }};\n'
        for zone, name in declared
    )
    upstream = " ".join(f"{forwarder};" for forwarder in config.forwarders)
    return f"""\
// Generated by the WalT server, which replaces it when devices change.
options {{
    directory "{runtime}";
    pid-file "{runtime}/named.pid";
    session-keyfile "{runtime}/session.key";
    listen-on {{ {config.server}; }};
    listen-on-v6 {{ none; }};
    allow-transfer {{ none; }};
    forwarders {{ {upstream} }};
    // Nodes get what this machine itself gets: a site's own names cannot be proved.
    dnssec-validation no;
    notify no;
}};
controls {{ }};
// IPv6 servers cannot be reached through walt-net's server.
server ::/0 {{ bogus yes; }};
{blocks}"""
