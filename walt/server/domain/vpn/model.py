"""Keys of VPN nodes and where their tunnels enter, as frozen values (spec server §1.6, §2.2)."""

from __future__ import annotations

from typing import Literal, NamedTuple

from walt.common.qemu import is_tap_name

MODEL = "rpi-5-b"  # the boards whose firmware can boot over HTTP from anywhere
PRINCIPAL = "walt-vpn"  # the account in whose name certificates are made out
SSH_PORT = 22  # of an entry point that names none

TUNNEL = "walt-vpn"  # how the names of the network devices of tunnels begin

BootMode = Literal["permissive", "enforced"]


class VpnKey(NamedTuple):
    """One row of `vpnauth`: the certificate of a board, kept for good.

    `label` names the device when it was forgotten, None as long as there is one.
    """

    vpn_mac: str
    certificate: str
    cert_id: str
    label: str | None = None
    revoked: bool = False


class Neighbour(NamedTuple):
    """Who answers for an address: its MAC, and the interface of the bridge that leads to it."""

    mac: str
    interface: str

    @property
    def on_cable(self) -> bool:
        """Whether it is outside this machine, and comes by no tunnel."""
        return not (self.interface.startswith(TUNNEL) or is_tap_name(self.interface))


class EntryPoints(NamedTuple):
    """Where boards come in: `ssh` is a host, with `:port` if that is not 22, `http` a host.

    `boot_mode` is what boards write into their EEPROM: `permissive` ones boot from a card or by
    TFTP too, `enforced` ones do not.
    """

    ssh: str
    http: str
    boot_mode: BootMode

    @property
    def ssh_address(self) -> tuple[str, int]:
        """The host and the port of the ssh entry point."""
        host, _, port = self.ssh.partition(":")
        return host, int(port) if port else SSH_PORT


def cert_id_of(mac: str) -> str:
    """Return the identity of the certificates of a board (spec node-protocols §9.3)."""
    return "vpn_" + mac.replace(":", "")
