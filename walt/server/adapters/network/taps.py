"""Taps of virtual machines, and the bridges of their networks, through iproute2.

What is ours is told by its alias (`ip link show`), so that interfaces of others
are never touched, whatever their names are.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock
from zope.interface import implementer

from walt.common.errors import CommandFailed, Conflict, Invalid
from walt.common.traffic_shaping import Limits, disciplines
from walt.server.adapters.network.links import BRIDGE, run_batch, show_links
from walt.server.domain.network.firewall import is_interface_name
from walt.server.domain.network.interfaces import ITaps
from walt.server.runtime.coroutines import shielded
from walt.server.runtime.process import ProcessRunner

TAP_ALIAS = "WalT tap"
NETWORK_ALIAS = "WalT network"


@implementer(ITaps)
class Taps:
    """Create, shape and delete taps, one action at a time.

    What was begun is done to its end, whoever gives up: half a network would have no
    alias, and belong to nobody.
    """

    def __init__(self, runner: ProcessRunner) -> None:
        self._runner = runner
        self._lock = DeferredLock()

    async def create_tap(self, name: str, network: str) -> None:
        """Create a tap on a network; see ITaps."""
        for interface in (name, network):
            if not is_interface_name(interface):
                raise Invalid(f"{interface!r} is not a valid name for a network interface")
        await shielded(Deferred.fromCoroutine(self._create(name, network)))

    async def _create(self, name: str, network: str) -> None:
        async with self._lock:
            links = await show_links(self._runner)
            batch = [] if network == BRIDGE else self._bridge(network, links.get(network))
            if name not in links:
                batch.append(f"tuntap add dev {name} mode tap")
                batch.append(f'link set dev {name} alias "{TAP_ALIAS}"')
            batch.append(f"link set dev {name} master {network}")
            batch.append(f"link set dev {name} up")
            await run_batch(self._runner, batch)

    @staticmethod
    def _bridge(network: str, link: dict[str, Any] | None) -> list[str]:
        if link is None:
            # The server has no part in this network: no address, IPv6 included.
            return [
                f"link add name {network} type bridge",
                f'link set dev {network} alias "{NETWORK_ALIAS}" addrgenmode none up',
            ]
        if link.get("ifalias") != NETWORK_ALIAS:
            raise Conflict(
                f"the server has an interface named {network}, which is not a network of virtual"
                " nodes; choose another name in the setting `networks`"
            )
        return []

    async def shape(self, name: str, limits: Limits) -> bool:
        """Install netem and tbf on a tap; see ITaps."""
        async with self._lock:
            try:
                for words in disciplines(limits):
                    await self._runner.run(["tc", "qdisc", "add", "dev", name, *words])
            except CommandFailed:
                # Kernels may lack either of them.
                await self._runner.run(["tc", "qdisc", "del", "dev", name, "root"], check=False)
                return False
            return True

    async def delete_taps(self, names: Collection[str]) -> None:
        """Delete taps; see ITaps."""
        await shielded(Deferred.fromCoroutine(self._delete_taps(names)))

    async def _delete_taps(self, names: Collection[str]) -> None:
        async with self._lock:
            links = await show_links(self._runner)
            await self._delete(links, {name for name in names if name in links})

    async def delete_left_overs(self) -> None:
        """Delete every tap and secondary network of ours: what a killed server left."""
        async with self._lock:
            links = await show_links(self._runner)
            await self._delete(
                links, {name for name, link in links.items() if link.get("ifalias") == TAP_ALIAS}
            )

    async def _delete(self, links: dict[str, dict[str, Any]], taps: set[str]) -> None:
        in_use = {link.get("master") for name, link in links.items() if name not in taps}
        empty = sorted(
            name for name, link in links.items()
            if link.get("ifalias") == NETWORK_ALIAS and name not in in_use
        )
        await run_batch(
            self._runner, [f"link delete dev {name}" for name in (*sorted(taps), *empty)]
        )
