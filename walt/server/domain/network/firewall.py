"""Forwarding rules of the platform, as a comparable value and as nftables text.

Rules of spec node-protocols §1.6, in one table `walt` (design D14): by default
nothing leaves walt-net; devices whose `netsetup` is NAT may, masqueraded.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Network
from typing import NamedTuple

TABLE = "walt"
# in.tftpd starts a process for each request, which lives until the client has the file or is
# silent for some seconds. A board that boots asks for tens of files.
TFTP_RATE = "{ ip saddr limit rate over 20/second burst 200 packets }"
_INTERFACE = re.compile(r"[A-Za-z0-9_.@:-]{1,15}")


class Redirection(NamedTuple):
    """What boards of the VPN find at the server, as long as they are in walt-net.

    Web requests to `entry_points` outside (addresses) are answered at the server's own port
    `http`; `boards`, which are enrolled, reach at `ssh` what they expect at port 22 of the server.
    """

    server: str
    entry_points: tuple[str, ...]
    http: int
    boards: tuple[str, ...]
    ssh: int


class FirewallConfig(NamedTuple):
    """What the firewall enforces.

    `nat` holds the addresses allowed to leave `subnet`, sorted; `guarded` the
    interface below the bridge whose 802.1Q frames are dropped (dhcpd reads raw
    packets and would see tagged ones), None when there is no such interface;
    `networks` the secondary networks of virtual nodes, sorted: frames inside one
    of them pass (they come here where the kernel filters bridged frames).
    """

    subnet: IPv4Network
    nat: tuple[str, ...] = ()
    guarded: str | None = None
    bridge: str = "walt-net"
    networks: tuple[str, ...] = ()
    redirection: Redirection | None = None


def is_interface_name(text: str) -> bool:
    """Tell whether `text` may name a network interface (15 bytes at most)."""
    return (
        _INTERFACE.fullmatch(text) is not None and not text.startswith("-")
        and text not in (".", "..")
    )


def removal() -> str:
    """Return the transaction that undoes every rule; it never fails.

    Declaring a table that may exist before deleting it makes the deletion
    succeed in both cases.
    """
    return (
        f"table ip {TABLE}\ndelete table ip {TABLE}\n"
        f"table bridge {TABLE}\ndelete table bridge {TABLE}\n"
    )


def _redirecting(config: FirewallConfig) -> str:
    """Return the chain for boards of the VPN, nothing without any."""
    wanted = config.redirection
    if wanted is None or not (wanted.entry_points or wanted.boards):
        return ""
    rules = []
    if wanted.entry_points:
        rules.append(
            f"ip daddr != {config.subnet} ip daddr {{ {', '.join(wanted.entry_points)} }}"
            f" tcp dport 80 dnat to {wanted.server}:{wanted.http}"
        )
    if wanted.boards and wanted.ssh != 22:
        rules.append(
            f"ip saddr {{ {', '.join(wanted.boards)} }} ip daddr {wanted.server}"
            f" tcp dport 22 redirect to :{wanted.ssh}"
        )
    lines = "".join(
        f'\t\tiifname "{config.bridge}" ip saddr {config.subnet} {rule}\n' for rule in rules
    )
    return f"""\
	chain prerouting {{
		type nat hook prerouting priority dstnat; policy accept;
{lines}	}}
"""


def render(config: FirewallConfig) -> str:
    """Return one `nft -f` transaction that replaces all our rules at once."""
    elements = f"\n\t\telements = {{ {', '.join(config.nat)} }}" if config.nat else ""
    subnet = str(config.subnet)
    inside = "".join(
        f'\t\tiifname "{name}" oifname "{name}" accept\n'
        for name in (config.bridge, *config.networks)
    )
    text = f"""{removal()}
table ip {TABLE} {{
	set nat-devices {{
		type ipv4_addr{elements}
	}}
	set tftp-readers {{
		type ipv4_addr; size 65535; flags dynamic,timeout; timeout 1m;
	}}
	chain input {{
		type filter hook input priority filter; policy accept;
		iifname "{config.bridge}" udp dport 69 update @tftp-readers {TFTP_RATE} drop
	}}
	chain outgoing {{
		ip saddr @nat-devices accept
		drop
	}}
	chain forward {{
		type filter hook forward priority filter; policy accept;
{inside}		ip saddr {subnet} ip daddr != {subnet} goto outgoing
		ip daddr {subnet} ct state related,established accept
	}}
	chain postrouting {{
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr {subnet} ip daddr != {subnet} fib daddr type != local masquerade
	}}
{_redirecting(config)}}}
"""
    if config.guarded is not None:
        text += f"""
table bridge {TABLE} {{
	chain prerouting {{
		type filter hook prerouting priority filter; policy accept;
		iifname "{config.guarded}" ether type 8021q drop
	}}
}}
"""
    return text
