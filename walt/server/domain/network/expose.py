"""Permanent forwards of server ports to device ports (spec server §3.11)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from twisted.internet.defer import DeferredLock

from walt.common.errors import Conflict, Invalid, WaltError
from walt.server.domain.network.interfaces import IForwarder

_PAIR = re.compile(r"([0-9]{1,5}):([0-9]{1,5})")


class Forward(NamedTuple):
    """Connections to `server_port` of the server go on to `device_port` of a device."""

    device_port: int
    server_port: int

    def __str__(self) -> str:
        return f"{self.device_port}:{self.server_port}"


def parse_expose(text: str) -> tuple[Forward, ...]:
    """Return the forwards that a value of the setting `expose` asks for.

    `none`, or pairs `<device port>:<server port>` with commas between them.
    Raises Invalid with the reason.
    """
    if text == "none":
        return ()
    found = []
    for pair in text.split(","):
        match = _PAIR.fullmatch(pair)
        if match is None:
            raise Invalid(
                f"expose: {pair!r} is not <device-port>:<server-port>; "
                "examples: 'none', '80:8080', '80:8080,22:2222'"
            )
        forward = Forward(int(match[1]), int(match[2]))
        for port in (forward.device_port, forward.server_port):
            if not 1 <= port <= 65535:
                raise Invalid(f"expose: port {port} is not between 1 and 65535")
        found.append(forward)
    for which, ports in (
        ("device", [forward.device_port for forward in found]),
        ("server", [forward.server_port for forward in found]),
    ):
        repeated = {port for port in ports if ports.count(port) > 1}
        if repeated:
            raise Invalid(f"expose: {which} port {min(repeated)} is given twice")
    return tuple(found)


class ExposedPorts:
    """Which device has which forwards; `forwarder` provides IForwarder.

    `on_error` gets a line for the stream `platform.expose` when a forward
    could not be restored.
    """

    def __init__(self, forwarder: IForwarder, on_error: Callable[[str], None]) -> None:
        self._forwarder = forwarder
        self._on_error = on_error
        self._open: dict[str, dict[Forward, str]] = {}
        self._lock = DeferredLock()

    def check(self, mac: str, wanted: Iterable[Forward]) -> None:
        """Raise Conflict when a server port is not free for the device `mac`."""
        mine = {forward.server_port for forward in self._open.get(mac, ())}
        for forward in wanted:
            if forward.server_port in mine:
                continue
            if not self._forwarder.is_free(forward.server_port):
                raise Conflict(
                    f"expose: port {forward.server_port} of the server is in use; choose another"
                )

    async def apply(self, mac: str, address: str, wanted: Iterable[Forward]) -> None:
        """Give the device `mac`, reached at `address`, these forwards and no others.

        Unchanged ones are not interrupted. Raises Conflict for a port that
        cannot be opened; the others are then in place.
        """
        await self._lock.acquire()
        try:
            await self._apply(mac, address, tuple(wanted))
        finally:
            self._lock.release()

    async def _apply(self, mac: str, address: str, wanted: tuple[Forward, ...]) -> None:
        present = self._open.setdefault(mac, {})
        for forward, where in list(present.items()):
            if forward not in wanted or where != address:
                del present[forward]
                await self._forwarder.close(forward.server_port)
        failed: Conflict | None = None
        for forward in wanted:
            if forward not in present:
                try:
                    await self._forwarder.open(
                        forward.server_port, address, forward.device_port
                    )
                    present[forward] = address
                except Conflict as error:
                    failed = failed or error
        if not present:
            del self._open[mac]
        if failed is not None:
            raise failed

    async def restore(self, mac: str, name: str, address: str, text: str) -> None:
        """Open the forwards of a stored setting; a failure only gives an error line."""
        try:
            await self.apply(mac, address, parse_expose(text))
        except WaltError as error:
            self._on_error(f"could not restore the forwards of {name} ({text}): {error}")

    async def forget(self, mac: str) -> None:
        """Close the forwards of a device with the connections through them."""
        await self.apply(mac, "", ())

    async def stop(self) -> None:
        """Close every forward."""
        for mac in list(self._open):
            await self.forget(mac)
