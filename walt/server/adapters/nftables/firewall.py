"""The packet filter through `nft`, one transaction per change (design D14)."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.defer import DeferredLock
from twisted.logger import Logger
from zope.interface import implementer

from walt.common.errors import in_words
from walt.server.domain.network.firewall import FirewallConfig, removal, render
from walt.server.domain.network.interfaces import IFirewall
from walt.server.runtime.process import ProcessRunner

_log = Logger()

# /proc/sys/net shows the namespace of the process that opens it.
IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")


@implementer(IFirewall)
class NftFirewall:
    """Our table, replaced as a whole; other tables of the machine are never touched.

    `ip_forward` is the file that switches routing on.
    """

    def __init__(self, runner: ProcessRunner, ip_forward: Path = IP_FORWARD) -> None:
        self._runner = runner
        self._ip_forward = ip_forward
        self._lock = DeferredLock()
        self._config: FirewallConfig | None = None

    async def apply(self, config: FirewallConfig) -> None:
        """Enforce `config`. Raises CommandFailed or Unavailable; the former rules then stay."""
        await self._lock.acquire()
        try:
            if config == self._config:
                return
            await self._nft(render(config))
            self._config = config
            if config.nat:
                self._enable_forwarding()
        finally:
            self._lock.release()

    async def remove(self) -> None:
        """Undo every rule of ours."""
        await self._lock.acquire()
        try:
            self._config = None
            await self._nft(removal())
        finally:
            self._lock.release()

    async def _nft(self, text: str) -> None:
        await self._runner.run(["nft", "-f", "-"], stdin=text.encode(), timeout=30.0)

    def _enable_forwarding(self) -> None:
        try:
            if self._ip_forward.read_text().strip() != "1":
                self._ip_forward.write_text("1\n")
        except OSError as error:
            _log.error(
                "NAT devices cannot reach the outside: enabling IP forwarding failed ({error})",
                error=in_words(error),
            )
