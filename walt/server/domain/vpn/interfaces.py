"""What the VPN domain needs from the outside. All methods are coroutines."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import BinaryIO

from zope.interface import Interface

from walt.server.domain.vpn.model import Neighbour, VpnKey


class IVpnKeys(Interface):
    """Where the keys of VPN nodes are kept: rows are never deleted."""

    async def load() -> list[VpnKey]:
        """Return every key, by the MAC of the VPN."""

    async def enrol(mac: str, key: VpnKey) -> None:
        """Add a key and join it to the device of this MAC. Raises NotFound without such a one."""

    async def replace_certificate(vpn_mac: str, certificate: str) -> None:
        """Keep another certificate of the same key pair's board."""

    async def revoke(cert_id: str) -> None:
        """Mark every key of this identity as revoked."""


class IVpnAuthority(Interface):
    """Signs the keys of boards, and says which ones the tunnel refuses."""

    async def prepare() -> str:
        """Make the authority's key once; return its public half in one line.

        Raises CommandFailed, Unavailable.
        """

    async def sign(public_key: str, cert_id: str) -> str:
        """Return the certificate of a key, without an end, for the account of the tunnel.

        Raises Invalid for a key that cannot be signed, Unavailable.
        """

    async def refuse(cert_ids: Collection[str]) -> None:
        """Have certificates of exactly these identities refused. Raises CommandFailed."""


class INeighbours(Interface):
    """Who is at the other end of the cable."""

    async def find(ip: str) -> Neighbour | None:
        """Return who answers for an address of walt-net, None if nobody does."""


class IHostKeys(Interface):
    """What ssh servers show of themselves."""

    async def of(host: str, port: int) -> str:
        """Return the lines for a file of known hosts, names hashed. Raises Unavailable."""


class IBootSignatures(Interface):
    """Signs what boards boot over a network that others write to."""

    async def public_key() -> str:
        """Return the key that checks signatures, in PEM. Raises CommandFailed, Unavailable."""

    async def sign(stream: BinaryIO) -> str:
        """Return the text of boot.sig for an open boot image (spec node-protocols §9.2).

        Raises Unavailable for a file that changes meanwhile, CommandFailed.
        """


class IVpnTaps(Interface):
    """Network devices whose other end is somewhere else."""

    async def open(name: str) -> int:
        """Return a descriptor of a new TAP device on walt-net, up; it goes with its last one.

        Raises CommandFailed, Unavailable.
        """


class IEntryPointNames(Interface):
    """Every HTTP entry point that was ever configured: boards may have it in their EEPROM."""

    async def load() -> dict[str, tuple[str, ...]]:
        """Return the addresses that each name had last."""

    async def remember(name: str, addresses: Sequence[str]) -> None:
        """Keep a name, and its present addresses."""


class IAddressesOfNames(Interface):
    """The names of the machine's own network."""

    async def of(name: str) -> tuple[str, ...]:
        """Return the IPv4 addresses of a host, none if it has none at present."""
