"""Names of hosts, asked by getent(1) in the network of the machine."""

from __future__ import annotations

from twisted.logger import Logger
from zope.interface import implementer

from walt.common.errors import Unavailable
from walt.server.domain.network.addresses import parse_address
from walt.server.domain.vpn.interfaces import IAddressesOfNames
from walt.server.runtime.process import ProcessRunner

_log = Logger()

LIMIT = 20.0  # seconds
MOST = 16  # addresses of one name


@implementer(IAddressesOfNames)
class HostNames:
    """Asks as every other program of the machine does."""

    def __init__(self, runner: ProcessRunner) -> None:
        self._runner = runner

    async def of(self, name: str) -> tuple[str, ...]:
        """Return the IPv4 addresses of a host."""
        if parse_address(name) is not None:
            return (name,)
        try:
            told = await self._runner.run(
                ["getent", "ahostsv4", "--", name], timeout=LIMIT, check=False, network="host"
            )
        except Unavailable as error:
            _log.warn("asking for the address of {name}: {error}", name=name, error=str(error))
            return ()
        found = {line.split()[0] for line in told.stdout.decode().splitlines() if line.strip()}
        return tuple(sorted(
            address for address in found if parse_address(address) is not None
        )[:MOST])
