"""Which tunnels are open, and who ends them."""

from __future__ import annotations

from collections.abc import Callable

from walt.common.errors import Denied, LimitExceeded
from walt.server.domain.vpn.enrolment import VpnNodes
from walt.server.domain.vpn.model import TUNNEL

MOST = 512  # tunnels together; each has two processes and a network device
MOST_HELLOS = 32  # that are being opened
NAMES = 1_000_000  # of network devices, which have 15 characters at most


class Tunnels:
    """One tunnel for each board: a new one ends the one before, which may be half dead.

    `tell` logs one sentence.
    """

    def __init__(self, vpn: VpnNodes, tell: Callable[[str], object]) -> None:
        self._vpn, self._tell = vpn, tell
        self._open: dict[str, tuple[str, Callable[[], object]]] = {}
        self._hellos = 0
        self._count = 0
        self._revoked: set[str] = set()  # in this run: a question may have been under way
        vpn.revoked.observe(self._on_revoked)

    def __len__(self) -> int:
        return len(self._open)

    async def admit(self, identity: str) -> None:
        """Raise Denied or LimitExceeded for a certificate that opens no tunnel now."""
        if self._hellos >= MOST_HELLOS:
            raise LimitExceeded("too many tunnels are being opened: try again")
        self._hellos += 1
        try:
            reason = await self._vpn.refusal(identity)
        finally:
            self._hellos -= 1
        if reason is None and identity in self._revoked:
            reason = f"the key {identity} is revoked"
        if reason is not None:
            self._tell(f"no tunnel: {reason}")
            raise Denied(reason)
        if len(self._open) >= MOST and identity not in self._open:
            raise LimitExceeded(f"{MOST} tunnels are open, which is the limit")

    def device_name(self) -> str:
        """Return a name for a network device that no tunnel has, nor had a moment ago.

        The device of a tunnel that ended is there until its process is gone.
        """
        taken = {name for name, _ in self._open.values()}
        while True:
            name = f"{TUNNEL}{self._count}"
            self._count = (self._count + 1) % NAMES
            if name not in taken:
                return name

    def owner(self, device: str) -> str | None:
        """Return the identity of the tunnel with a network device, None if there is none."""
        return next((
            identity for identity, (name, _) in self._open.items() if name == device
        ), None)

    def opened(self, identity: str, device: str, end: Callable[[], object]) -> None:
        """Note a tunnel, which `end` closes; the one that the same board had before ends."""
        self.end(identity)
        self._open[identity] = (device, end)
        self._tell(f"the tunnel of {identity} is open ({device})")

    def closed(self, identity: str, device: str) -> None:
        """Note that a tunnel has ended; another one of the same board goes on."""
        if self._open.get(identity, ("", None))[0] == device:
            del self._open[identity]
            self._tell(f"the tunnel of {identity} has ended")

    def _on_revoked(self, identity: str) -> None:
        self._revoked.add(identity)
        self.end(identity)

    def end(self, identity: str) -> None:
        """End the tunnel of an identity, if there is one."""
        _, end = self._open.pop(identity, ("", None))
        if end is not None:
            end()
            self._tell(f"the tunnel of {identity} was ended")
