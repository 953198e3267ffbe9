"""Modules that are read while the start of the server waits for other processes, and after it.

Reading the server's own code takes longer than all else of its start. The first floor is read
before anything is started; the rest meanwhile, some modules in each turn of the reactor: from
leaf to top, so that none takes long. What nobody asks for in the first moments is read last,
when the server is ready.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib import import_module

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool

from walt.common.errors import Unavailable
from walt.server.runtime.reactors import IReactor
from walt.server.runtime.slicing import worked_off

# What the store of images needs: it is asked first.
IMAGES = (
    "walt.server.adapters.podman.outside",
    "walt.server.domain.images.model",
    "walt.server.adapters.podman.containers",
    "walt.server.adapters.podman.builder",
    "walt.server.domain.images.operations",
    "walt.server.assembly.images",
)
UPPER = (
    "walt.server.adapters.dhcpd.daemon",
    "walt.server.adapters.nfs.kernel",
    "walt.server.adapters.vpn.sshd",
    "twisted.names.dns",
    "walt.server.adapters.named.daemon",
    "jeepney",
    "walt.server.adapters.nfs.ganesha",
    "walt.server.adapters.lldp.lldpd",
    "walt.server.adapters.tftpd.tree",
    "walt.server.adapters.nbfs.exporter",
    "walt.server.adapters.tftpd.daemon",
    "walt.server.assembly.daemons",
    "walt.server.domain.switches.lldp",
    "walt.server.domain.switches.survey",
    "walt.server.domain.switches.topology",
    "walt.server.domain.switches.exploration",
    "walt.server.assembly.switches",
    "walt.server.adapters.qemu.hypervisor",
    "walt.server.domain.network_services.provisioning",
    "walt.server.domain.nodes.actions",
    "walt.server.domain.nodes.configuration",
    "walt.server.adapters.ssh.sessions",
    "walt.server.domain.nodes.views",
    "walt.server.assembly.nodes",
    "walt.server.domain.vpn.enrolment",
    "walt.server.assembly.vpn",
    "twisted.protocols.amp",
    "walt.server.api.access",
    "walt.server.api.devices",
    "importlib.metadata",
    "walt.server.wire.old_nodes",
    "walt.server.assembly.access",
    "walt.server.assembly.api",
    "walt.server.assembly.core",
    "twisted.spread.pb",
    "hyperlink",
    "twisted.web.iweb",
    "twisted.web._template_util",
    "twisted.web.server",
    "walt.server.http.api",
    "prometheus_client",
    "walt.server.assembly.web",
    "walt.server.streams.base",
    "walt.server.assembly.ui",
    "walt.server.streams.image_archives",
    "walt.server.wire.first_byte",
    "walt.server.assembly.listeners",
    "walt.server.assembly.upper",
)
# Pages of `walt help` on the web; sockets of browsers.
REST = (
    "mdurl",
    "markdown_it",
    "walt.server.http.markdown",
    "h11",
    "walt.server.http.websocket",
    "walt.server.http.tab",
)


class Reading:
    """Reads modules, in slices of turns; `images` fires when those of images are there."""

    def __init__(self, reactor: IReactor) -> None:
        self._reactor = reactor
        self.images: Deferred[None] = Deferred()

    async def floors(self) -> None:
        """Read what the upper floors are made of. Raises Unavailable when something is missing."""
        await deferLater(self._reactor, 0)  # what else begins now has a turn of its own
        await read(self._reactor, IMAGES)
        self.images.callback(None)
        await read(self._reactor, UPPER)

    async def rest(self) -> None:
        """Read what is used later, if ever, so that its first use is no long turn.

        That is done by a thread, as nobody waits for it: libraries of others are not divided as
        it suits turns.
        """
        pool = self._reactor.getThreadPool()
        for name in REST:
            await deferToThreadPool(self._reactor, pool, _import, name)


async def read(clock: IReactorTime, names: Iterable[str]) -> None:
    """Import modules, in turns of the reactor; see `Reading`."""
    await worked_off(clock, _imported(names), 1)


def _imported(names: Iterable[str]) -> Iterator[None]:
    for name in names:
        _import(name)
        yield


def _import(name: str) -> None:
    try:
        import_module(name)
    except ImportError as error:
        raise Unavailable(
            f"{name} of this server cannot be read: {error}; install the server again"
        ) from error
