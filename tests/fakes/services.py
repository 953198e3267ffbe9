"""Fakes of the interfaces of the network and network services domains."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from walt.common.errors import Conflict, Invalid, NotFound
from walt.common.traffic_shaping import Limits
from walt.server.domain.network.addresses import parse_address
from walt.server.domain.network.firewall import FirewallConfig, is_interface_name
from walt.server.domain.network.interfaces import IFirewall, IForwarder, ITaps
from walt.server.domain.network_services.interfaces import (
    BootFile,
    IBootFiles,
    IConfigurable,
    IPersistence,
)


@implementer(IConfigurable)
class FakeConfigurable:
    """Remembers every configuration it was given; `result` is what apply returns next."""

    def __init__(self) -> None:
        self.configs: list[Any] = []
        self.result: Deferred[None] | None = None

    def apply(self, config: Any) -> Deferred[None]:
        """Take a configuration."""
        self.configs.append(config)
        result, self.result = self.result, None
        return result if result is not None else succeed(None)


@implementer(IPersistence)
class FakePersistence:
    """Remembers what is mounted; `failing` tells why a directory cannot be, `busy` is kept."""

    def __init__(self) -> None:
        self.mounted: set[Path] = set()
        self.present: set[Path] = set()
        self.failing: dict[Path, str] = {}
        self.busy: set[Path] = set()
        self.gate: Deferred[None] | None = None
        self.given_up = False

    async def made(self) -> Collection[Path]:
        """Return those that were mounted once."""
        return set(self.present)

    async def ensure(self, points: Collection[Path]) -> Mapping[Path, str]:
        """Mount, once `gate` is open."""
        if self.gate is not None:
            await self.gate
        if self.given_up:
            return dict.fromkeys(set(points) - self.mounted, "the server stops")
        for point in set(points) - self.failing.keys():
            point.mkdir(parents=True, exist_ok=True)
            self.mounted.add(point)
            self.present.add(point)
        return {one: self.failing[one] for one in points if one in self.failing}

    def give_up(self) -> None:
        """Mount nothing more."""
        self.given_up = True

    async def keep_only(self, points: Collection[Path]) -> None:
        """Unmount."""
        self.mounted &= {*points, *self.busy}


@implementer(IFirewall)
class FakeFirewall:
    """Remembers the configuration in force."""

    def __init__(self) -> None:
        self.config: FirewallConfig | None = None
        self.applied = 0

    async def apply(self, config: FirewallConfig) -> None:
        """Enforce a configuration."""
        if config != self.config:
            self.config = config
            self.applied += 1

    async def remove(self) -> None:
        """Undo everything."""
        self.config = None


@implementer(ITaps)
class FakeTaps:
    """The network of each tap that exists; `can_shape` is what the kernel can."""

    def __init__(self, can_shape: bool = False) -> None:
        self.taps: dict[str, str] = {}
        self.can_shape = can_shape
        self.shaped: dict[str, Limits] = {}

    async def create_tap(self, name: str, network: str) -> None:
        """Create a tap."""
        if not (is_interface_name(name) and is_interface_name(network)):
            raise Invalid("cannot name an interface")
        if network == "lo":
            raise Conflict("this is something else")
        self.taps[name] = network

    async def shape(self, name: str, limits: Limits) -> bool:
        """Note the limits."""
        if self.can_shape:
            self.shaped[name] = limits
        return self.can_shape

    async def delete_taps(self, names: Collection[str]) -> None:
        """Delete taps."""
        for name in names:
            self.taps.pop(name, None)


@implementer(IBootFiles)
class FakeBootFiles:
    """Files by (address of the node, path)."""

    def __init__(self, files: dict[tuple[str, str], bytes] | None = None) -> None:
        self.files = files or {}

    def open(self, node: str, path: str) -> BootFile:
        """Open one of the files."""
        address = parse_address(node)
        parts = [part for part in path.split("/") if part not in ("", ".")]
        raw = self.files.get((str(address or node.lower()), "/".join(parts)))
        if raw is None:
            raise NotFound("no such file")
        stream = tempfile.TemporaryFile()  # noqa: SIM115  # who asks closes it
        stream.write(raw)
        stream.seek(0)
        return BootFile(stream, len(raw))


@implementer(IForwarder)
class FakeForwarder:
    """The forwards by server port; ports in `taken` belong to somebody else."""

    def __init__(self, taken: set[int] | None = None) -> None:
        self.forwards: dict[int, tuple[str, int]] = {}
        self.taken = taken or set()
        self.gate: Deferred[None] | None = None  # what who opens or closes one waits for

    async def _wait(self) -> None:
        gate, self.gate = self.gate, None
        if gate is not None:
            await gate

    def is_free(self, server_port: int) -> bool:
        """Tell whether a port can be opened."""
        return server_port not in self.forwards and server_port not in self.taken

    async def open(self, server_port: int, address: str, device_port: int) -> None:
        """Open a forward."""
        if not self.is_free(server_port):
            raise Conflict(f"port {server_port} is in use")
        await self._wait()
        self.forwards[server_port] = (address, device_port)

    async def close(self, server_port: int) -> None:
        """Close a forward."""
        await self._wait()
        self.forwards.pop(server_port, None)
