"""The host keys of ssh servers, asked by ssh-keyscan (spec node-protocols §9.2)."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import DeferredLock
from zope.interface import implementer

from walt.common.errors import Unavailable
from walt.server.domain.vpn.interfaces import IHostKeys
from walt.server.runtime.process import ProcessRunner

KEPT = 5.0  # seconds
PATIENCE = 5  # seconds for an ssh server to answer


@implementer(IHostKeys)
class ScannedHostKeys:
    """Asks once for all who ask within `KEPT` seconds, be it in vain; `now` counts seconds."""

    def __init__(self, runner: ProcessRunner, now: Callable[[], float]) -> None:
        self._runner, self._now = runner, now
        self._lock = DeferredLock()
        self._known: tuple[tuple[str, int], float, str] | None = None

    async def of(self, host: str, port: int) -> str:
        """Return the lines for a file of known hosts. Raises Unavailable."""
        async with self._lock:
            if self._known is not None:
                asked, since, lines = self._known
                if asked == (host, port) and self._now() - since < KEPT:
                    return _found(host, port, lines)
            done = await self._runner.run(
                ["ssh-keyscan", "-H", "-T", str(PATIENCE), "-p", str(port), "--", host],
                timeout=6.0 * PATIENCE, network="host", check=False,
            )
            lines = done.stdout.decode(errors="replace")
            self._known = ((host, port), self._now(), lines)
            return _found(host, port, lines)


def _found(host: str, port: int, lines: str) -> str:
    if not lines.strip():
        raise Unavailable(f"the ssh entry point {host} (port {port}) does not answer")
    return lines
