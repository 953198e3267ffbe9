"""The configuration of dhcpd: a comparable value and its text (spec server §1.2).

Protocol facts: RFC 2131 and 2132 (DHCP and its options), RFC 3004 (user
class), RFC 4578 (option 93), PXE 2.1 §2.2 (option space PXE), iPXE's encapsulated
option 175, spec node-protocols §2.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Interface
from typing import Literal, NamedTuple

from walt.common.names import is_device_name, is_mac
from walt.server.domain.devices.derived import Change, Followed, Ordered
from walt.server.domain.devices.model import (
    NETSETUP_NAT,
    RASPBERRY_PI_PREFIXES,
    Device,
)
from walt.server.domain.network.addresses import AddressPlan, address_number

BIOS_LOADER = "pxe/walt-x86-undionly.kpxe"
UEFI_LOADER = "pxe/walt-x86-64-snponly.efi"
# UEFI machines of x86-64 say 7, as firmware does, or 9, as the registry has it (RFC 4578 §2.1).
UEFI_X86_64 = ("00:07", "00:09")
UEFI_X86_64_HTTP = "00:10"  # what boots by HTTP (RFC 5970 and the registry of RFC 4578)
IPXE_SCRIPT = "pxe/walt.ipxe"
HTTP_PORT = 80
LEASE_TIME = 6_000_000  # seconds
BIOS_PXE = "PXEClient:Arch:00000:UNDI:002001"
LEASE_MARK = "walt-lease"
# dhcpd cuts a logged line at 1,023 bytes; 255 bytes cost up to 765 characters.
LONGEST_FIELD = 255

HostType = Literal["switch", "node", "unknown"]
HOST_TYPES: tuple[HostType, ...] = ("switch", "node", "unknown")


@dataclass(frozen=True, slots=True)
class DhcpHost:
    """One host entry: `mac` always gets `ip` and the host name `name`.

    `text` is its line of dhcpd.conf.
    """

    label: str
    mac: str
    ip: str
    name: str
    type: HostType
    nat: bool = False
    text: str = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", (
            f"    host {self.label} {{ hardware ethernet {self.mac}; fixed-address {self.ip}; "
            f'option host-name "{self.name}"; }}\n'
        ))


class DhcpConfig(NamedTuple):
    """All that dhcpd has to know.

    `hosts` are in the order of the file within each group; `ranges` hold the
    addresses given to devices never seen before; `http_port` is that of the server's pages.
    """

    interface: IPv4Interface
    ranges: tuple[tuple[str, str], ...]
    hosts: tuple[DhcpHost, ...] = ()
    ping_check: bool = True
    http_port: int = HTTP_PORT


def _entries(device: Device) -> list[DhcpHost]:
    """Return the entries of a device, wherever its address is."""
    if device.type == "server" or not is_mac(device.mac) or not is_device_name(device.name):
        return []
    assert device.ip is not None
    nat, kind = device.netsetup == NETSETUP_NAT, device.type
    if device.vpn_mac is None or not is_mac(device.vpn_mac):
        return [DhcpHost(device.name, device.mac, device.ip, device.name, kind, nat)]
    # HTTP boot firmware refuses to work without a router, hence NAT for the real MAC.
    return [
        DhcpHost(f"{device.name}-vpnboot", device.mac, device.ip, device.name, kind, True),
        DhcpHost(f"{device.name}-vpn", device.vpn_mac, device.ip, device.name, kind, nat),
    ]


class DhcpHosts:
    """The configuration of dhcpd, changed by the devices that changed."""

    def __init__(
        self, interface: IPv4Interface, *, ping_check: bool = True, http_port: int = HTTP_PORT
    ) -> None:
        self._interface = interface
        self._ping_check = ping_check
        self._http_port = http_port
        empty = AddressPlan(interface, ())
        self._first, self._last = empty.first, empty.last
        self._hosts: Ordered[tuple[int, int, str], DhcpHost] = Ordered()
        self._numbers: Counter[int] = Counter()  # addresses of walt-net that are recorded
        self._ranges: tuple[tuple[str, str], ...] | None = None  # as long as these are the same
        self._labels: Counter[str] = Counter()
        self._doubled = 0  # labels that more than one entry has

    def change(self, changes: Collection[Change]) -> None:
        """Take what changed."""
        for change in changes:
            if change.old is not None:
                self._drop(change.old)
        for change in changes:
            if change.new is not None:
                self._add(change.new)

    def _number(self, device: Device) -> int | None:
        number = address_number(device.ip) if device.ip is not None else None
        return number if number is not None and self._first <= number <= self._last else None

    def _drop(self, device: Device) -> None:
        number = self._number(device)
        if number is None:
            return
        self._numbers[number] -= 1
        if not self._numbers[number]:
            del self._numbers[number]
            self._ranges = None
        for host in _entries(device):
            self._hosts.drop((HOST_TYPES.index(host.type), number, host.label))
            self._labels[host.label] -= 1
            if self._labels[host.label] == 1:
                self._doubled -= 1
            elif not self._labels[host.label]:
                del self._labels[host.label]

    def _add(self, device: Device) -> None:
        number = self._number(device)
        if number is None:
            return
        self._numbers[number] += 1
        if self._numbers[number] == 1:
            self._ranges = None
        for host in _entries(device):
            self._hosts.add((HOST_TYPES.index(host.type), number, host.label), host)
            self._labels[host.label] += 1
            if self._labels[host.label] == 2:
                self._doubled += 1

    def config(self) -> DhcpConfig:
        """Return what `dhcp_config` returns."""
        hosts = tuple(self._hosts) if not self._doubled else tuple(_told_apart(self._hosts))
        if self._ranges is None:
            self._ranges = AddressPlan(self._interface, self._numbers).free_ranges()
        return DhcpConfig(
            self._interface, self._ranges, hosts, self._ping_check, self._http_port
        )


def _told_apart(hosts: Iterable[DhcpHost]) -> Iterator[DhcpHost]:
    """Yield the entries with labels of their own.

    A device may be called like the VPN entry of another one.
    """
    labels = set()
    for host in hosts:
        if host.label in labels:
            host = replace(host, label=f"{host.label}-{host.mac.replace(':', '')}")
        labels.add(host.label)
        yield host


def dhcp_config(
    interface: IPv4Interface, devices: Iterable[Device], *, ping_check: bool = True,
    http_port: int = HTTP_PORT,
) -> DhcpConfig:
    """Return the configuration wanted for these devices.

    Host entries go to nodes, switches and unknown devices with an address in
    walt-net; every recorded address leaves the dynamic ranges. A device that
    could make the file invalid (bad MAC or name) gets no entry.
    """
    hosts = DhcpHosts(interface, ping_check=ping_check, http_port=http_port)
    hosts.change(Followed().look(devices))
    return hosts.config()


def only_calm_changes(old: DhcpConfig, new: DhcpConfig) -> bool:
    """Tell whether `new` only adds unknown devices and switches to `old`.

    Such devices keep the address of their lease anyway, so that dhcpd may be
    restarted when the network is quiet (design §8, dhcpd restarts).
    """
    if (old.interface, old.ping_check) != (new.interface, new.ping_check):
        return False
    # Most entries are the same objects.
    before = {*map(id, old.hosts)}
    added = [host for host in new.hosts if id(host) not in before]
    if len(new.hosts) - len(added) < len(old.hosts):
        former = {*old.hosts}
        added = [host for host in added if host not in former]
        if len(new.hosts) - len(added) < len(old.hosts):
            return False
    return all(host.type != "node" and not host.nat for host in added)


def _groups(config: DhcpConfig) -> str:
    text = []
    server = config.interface.ip
    entries = defaultdict[tuple[bool, HostType], list[str]](list)
    for host in config.hosts:
        entries[host.nat, host.type].append(host.text)
    for nat in (True, False):
        text.append("group {\n")
        if nat:
            text.append(f"  option routers {server};\n")
        for kind in HOST_TYPES:
            hosts = entries.get((nat, kind))
            if hosts:
                text.append(f'  group {{\n    option walt.dev-type "{kind}";\n')
                text.extend(hosts)
                text.append("  }\n")
        text.append("}\n")
    return "".join(text)


def _lease_log() -> str:
    # One line per field, each naming the lease, then a closing one: see LONGEST_FIELD.
    head = (
        f'"{LEASE_MARK} ", binary-to-ascii(16, 8, ":", substring(hardware, 1, 6)), " ", '
        'binary-to-ascii(10, 8, ".", leased-address), '
    )
    fields = (
        ("vci", "option vendor-class-identifier, "),
        ("uci", "option user-class, "),
        ("name", "option host-name, config-option host-name, "),
    )
    lines = [
        f'      log(info, concat({head}" {field} ", binary-to-ascii(16, 8, ":", '
        f'substring(pick-first-value({source}""), 0, {LONGEST_FIELD}))));\n'
        for field, source in fields
    ]
    kind = 'pick-first-value(config-option walt.dev-type, "unknown")'
    lines.append(f'      if known {{ log(info, concat({head}" end 1 ", {kind})); }}\n')
    lines.append(f'      else {{ log(info, concat({head}" end 0 unknown")); }}\n')
    return "".join(lines)


_RASPBERRY_PI = " or\n       ".join(
    f"substring(hardware, 1, 3) = {prefix}" for prefix in RASPBERRY_PI_PREFIXES
)


_UEFI = " or ".join(f"option client-architecture = {architecture}" for architecture in UEFI_X86_64)


def render(config: DhcpConfig) -> str:
    """Return the text of dhcpd.conf."""
    server, network = config.interface.ip, config.interface.network
    pages = f"{server}" if config.http_port == HTTP_PORT else f"{server}:{config.http_port}"
    ranges = "".join(f"  range {first} {last};\n" for first, last in config.ranges)
    return f"""\
# Generated by the WalT server, which replaces it at each change of a device.
authoritative;
# A machine is its MAC: firmware, iPXE and systems call themselves differently.
ignore-client-uids true;
ddns-update-style none;
ping-check {"true" if config.ping_check else "false"};
default-lease-time {LEASE_TIME};
min-lease-time {LEASE_TIME};
max-lease-time {LEASE_TIME};

option client-architecture code 93 = unsigned integer 16;
option space PXE;
option PXE.discovery-control code 6 = unsigned integer 8;
option PXE.boot-server code 8 = {{ unsigned integer 16, unsigned integer 8, ip-address }};
option PXE.boot-menu code 9 = {{ unsigned integer 16, unsigned integer 8, text }};
option PXE.menu-prompt code 10 = {{ unsigned integer 8, text }};
option space ipxe;
option ipxe-encapsulated code 175 = encapsulate ipxe;
option ipxe.no-pxedhcp code 176 = unsigned integer 8;
option space walt;
option walt.dev-type code 1 = text;

next-server {server};
option tftp-server-name "{server}";
option ntp-servers {server};
option broadcast-address {network.broadcast_address};
option domain-name "walt";
option domain-search "walt";
option domain-name-servers {server};
option ipxe.no-pxedhcp 1;

if substring(option user-class, 0, 9) = "walt.node" {{
  # iPXE with a script of ours: the script knows what to load.
}} elsif option user-class = "iPXE" {{
  filename "{IPXE_SCRIPT}";
}} elsif option vendor-class-identifier = "{BIOS_PXE}" {{
  if ({_RASPBERRY_PI}) {{
    option vendor-class-identifier "PXEClient";
    vendor-option-space PXE;
    option PXE.boot-menu 0 17 "Raspberry Pi Boot";
  }} elsif option client-architecture = 00:00 {{
    filename "{BIOS_LOADER}";
  }}
}} elsif substring(option vendor-class-identifier, 0, 9) = "PXEClient" and
       ({_UEFI}) {{
  # Without a class: an answer of class PXEClient has firmware ask at port 4011 first.
  filename "{UEFI_LOADER}";
}} elsif substring(option vendor-class-identifier, 0, 10) = "HTTPClient" and
       option client-architecture = {UEFI_X86_64_HTTP} {{
  # With its class: firmware takes no other offer for one of HTTP (UEFI 2.10, 24.7.2).
  option vendor-class-identifier "HTTPClient";
  filename "http://{pages}/{UEFI_LOADER}";
}}

subnet {network.network_address} netmask {network.netmask} {{
{ranges}  on commit {{
    if not known or pick-first-value(config-option walt.dev-type, "unknown") = "unknown" {{
      set vci = pick-first-value(option vendor-class-identifier, "");
      set uci = pick-first-value(option user-class, "");
{_lease_log()}    }}
  }}
}}

{_groups(config)}"""
