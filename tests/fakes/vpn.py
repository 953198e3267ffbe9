"""Fakes of the interfaces of the VPN domain."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping, Sequence
from typing import BinaryIO

from twisted.internet.defer import Deferred
from zope.interface import implementer

from walt.common.errors import Invalid, NotFound, Unavailable
from walt.server.domain.network.firewall import is_interface_name
from walt.server.domain.vpn.interfaces import (
    IAddressesOfNames,
    IBootSignatures,
    IEntryPointNames,
    IHostKeys,
    INeighbours,
    IVpnAuthority,
    IVpnKeys,
    IVpnTaps,
)
from walt.server.domain.vpn.model import Neighbour, VpnKey


@implementer(IVpnKeys)
class FakeVpnKeys:
    """Keeps them in a dict; `devices` are the MACs that are recorded, None: all are."""

    def __init__(self, devices: Collection[str] | None = None) -> None:
        self.keys: dict[str, VpnKey] = {}
        self.joined: dict[str, str] = {}
        self.devices = devices
        self.errors: list[Exception] = []

    async def load(self) -> list[VpnKey]:
        """Return every key."""
        return [self.keys[mac] for mac in sorted(self.keys)]

    async def enrol(self, mac: str, key: VpnKey) -> None:
        """Add a key."""
        if self.devices is not None and mac not in self.devices:
            raise NotFound("no such device")
        self.keys[key.vpn_mac] = key
        self.joined[mac] = key.vpn_mac

    async def replace_certificate(self, vpn_mac: str, certificate: str) -> None:
        """Keep another certificate."""
        self.keys[vpn_mac] = self.keys[vpn_mac]._replace(certificate=certificate)

    async def revoke(self, cert_id: str) -> None:
        """Mark keys."""
        if self.errors:
            raise self.errors.pop(0)
        for key in [one for one in self.keys.values() if one.cert_id == cert_id]:
            self.keys[key.vpn_mac] = key._replace(revoked=True)


@implementer(IVpnAuthority)
class FakeAuthority:
    """Signs by putting words together; `gate` holds the next signature back."""

    def __init__(self) -> None:
        self.refused: set[str] = set()
        self.gate: Deferred[None] | None = None

    async def prepare(self) -> str:
        """Return a public key."""
        return "ecdsa-sha2-nistp521 AAAA walt-vpn-ca"

    async def sign(self, public_key: str, cert_id: str) -> str:
        """Return a certificate."""
        if len(public_key.split()) < 2:
            raise Invalid("no key")
        gate, self.gate = self.gate, None
        if gate is not None:
            await gate
        return f"{public_key.split()[0]}-cert-v01@openssh.com {cert_id} {public_key.split()[1]}"

    async def refuse(self, cert_ids: Collection[str]) -> None:
        """Remember who is refused."""
        self.refused = set(cert_ids)


@implementer(INeighbours)
class FakeNeighbours:
    """Knows the MACs of some addresses; `interfaces` lead to some MACs, a cable to the others."""

    def __init__(self, macs: Mapping[str, str]) -> None:
        self.macs = dict(macs)
        self.interfaces: dict[str, str] = {}

    async def find(self, ip: str) -> Neighbour | None:
        """Return a neighbour."""
        mac = self.macs.get(ip)
        return None if mac is None else Neighbour(mac, self.interfaces.get(mac, "cable"))


@implementer(IHostKeys)
class FakeHostKeys:
    """Every server but those in `silent` has a key."""

    def __init__(self) -> None:
        self.silent: set[str] = set()

    async def of(self, host: str, port: int) -> str:
        """Return a line."""
        if host in self.silent:
            raise Unavailable(f"{host} does not answer")
        return f"|1|hashed|{host}:{port} ssh-ed25519 AAAA\n"


@implementer(IBootSignatures)
class FakeSignatures:
    """Signs with nothing but the digest."""

    async def public_key(self) -> str:
        """Return a key."""
        return "-----BEGIN PUBLIC KEY-----\n"

    async def sign(self, stream: BinaryIO) -> str:
        """Return a signature."""
        return f"{hashlib.sha256(stream.read()).hexdigest()}\nts: 1\nrsa2048: 00\n"


@implementer(IVpnTaps)
class FakeVpnTaps:
    """Opens nothing but descriptors; `gate` holds the next one back, `error` is raised."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.gate: Deferred[None] | None = None
        self.error: Exception | None = None

    async def open(self, name: str) -> int:
        """Return a descriptor of /dev/null."""
        if not is_interface_name(name):
            raise Invalid(f"{name!r} is no name")
        gate, self.gate = self.gate, None
        if gate is not None:
            await gate
        if self.error is not None:
            raise self.error
        self.names.append(name)
        return os.open("/dev/null", os.O_RDWR)


@implementer(IEntryPointNames)
class FakeEntryPoints:
    """Names in a dict."""

    def __init__(self) -> None:
        self.names: dict[str, tuple[str, ...]] = {}

    async def load(self) -> dict[str, tuple[str, ...]]:
        """Return the addresses by name."""
        return dict(self.names)

    async def remember(self, name: str, addresses: Sequence[str]) -> None:
        """Keep a name."""
        self.names[name] = tuple(addresses)


@implementer(IAddressesOfNames)
class FakeNames:
    """A name server with these names."""

    def __init__(self) -> None:
        self.names: dict[str, tuple[str, ...]] = {}

    async def of(self, name: str) -> tuple[str, ...]:
        """Return the addresses of a name."""
        return self.names.get(name, ())
