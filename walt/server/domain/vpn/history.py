"""Requests of boards in walt-net to HTTP entry points, which are answered here.

A board goes on booting from the entry point in its EEPROM when it is plugged into walt-net,
whatever was configured meanwhile (spec node-protocols §9.4).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from walt.server.domain.vpn.interfaces import IAddressesOfNames, IEntryPointNames

MOST = 64  # names; each is asked of the name servers now and then


class EntryPointHistory:
    """Follows the addresses of every entry point; `apply` gets all of them when they change."""

    def __init__(
        self, names: IEntryPointNames, addresses: IAddressesOfNames,
        apply: Callable[[Sequence[str]], object],
    ) -> None:
        self._names, self._addresses, self._apply = names, addresses, apply
        self._applied: tuple[str, ...] | None = None

    async def look(self, configured: str | None) -> None:
        """Add what is configured, and ask for the addresses of all names again.

        A name without an address at present keeps those that it had.
        """
        known = await self._names.load()
        if configured is not None and configured not in known:
            known[configured] = ()
        found: set[str] = set()
        for name in list(known)[-MOST:]:
            addresses = await self._addresses.of(name) or known[name]
            if addresses != known[name] or name == configured:
                await self._names.remember(name, addresses)
            found.update(addresses)
        wanted = tuple(sorted(found))
        if wanted != self._applied:
            self._applied = wanted
            self._apply(wanted)
