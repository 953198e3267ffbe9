"""Whom work on nodes would disturb, before it is done (`walt … --plan`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

from twisted.internet.interfaces import IReactorTime

from walt.common.names import PLATFORM_USER, image_fullname, is_image_name
from walt.server.domain.devices.model import Device
from walt.server.domain.devices.registry import DeviceRegistry, by_name
from walt.server.domain.devices.sets import parse_devices
from walt.server.domain.nodes.reservations import Reservations
from walt.server.domain.nodes.status import BootStatus


class OpenSession(NamedTuple):
    """Somebody who works on a node now: `kind` in a few words, `since` in epoch seconds."""

    user: str
    kind: str
    since: float


class OpenSessions:
    """Who works on which device now, as far as it goes through this server."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._open: dict[str, list[OpenSession]] = {}  # by MAC

    def opened(self, mac: str, user: str, kind: str) -> Callable[[], None]:
        """Note a session; return what is to be called at its end."""
        session = OpenSession(user, kind, self._clock.seconds())
        self._open.setdefault(mac, []).append(session)
        return partial(self._closed, mac, session)

    def _closed(self, mac: str, session: OpenSession) -> None:
        left = [other for other in self._open[mac] if other is not session]
        if left:
            self._open[mac] = left
        else:
            del self._open[mac]

    def of(self, mac: str) -> list[OpenSession]:
        """Return the sessions on a device, oldest first."""
        return list(self._open.get(mac, ()))


class Plans:
    """Tells about nodes that somebody is about to reboot, change or remove."""

    def __init__(
        self, registry: DeviceRegistry, status: BootStatus, reservations: Reservations,
        sessions: OpenSessions,
    ) -> None:
        self._registry = registry
        self._status = status
        self._reservations = reservations
        self._sessions = sessions

    def concerned(
        self, devices: str | None, image: str | None, user: str, *, default_images: bool
    ) -> list[Device]:
        """Return the devices of a set, if there is one, and nodes that boot what is to change.

        That is an image of the user, or, with `default_images`, any default one. Raises
        NotFound, Invalid (the set).
        """
        found = [] if devices is None else parse_devices(self._registry, devices, user)
        fullname = None
        if image is not None and is_image_name(image):
            fullname = image_fullname(user, image)
        known = {device.mac for device in found}
        return found + [
            node for node in self._registry.nodes()
            if node.image is not None and node.mac not in known and (
                node.image == fullname
                or (default_images and node.image.startswith(f"{PLATFORM_USER}/"))
            )
        ]

    def rows(self, devices: Iterable[Device], user: str) -> Iterator[dict[str, Any]]:
        """Yield one row for each device (`walt.rpc.rows.PLANS`), by name.

        Somebody is disturbed where another user owns the device, a script has reserved it, or
        a session is open on it.
        """
        for device in by_name(devices):
            yield self._row(device, user)

    def _row(self, device: Device, user: str) -> dict[str, Any]:
        reservation = self._reservations.get(device.mac)
        sessions = self._sessions.of(device.mac)
        owner = None if device.owner is None or device.is_free else device.owner
        return {
            "name": device.name, "owner": owner,
            "booted": device.is_node and self._status.is_booted(device.mac),
            "sessions": [session._asdict() for session in sessions],
            "reserved_by": None if reservation is None else reservation.user,
            "reserved_until": None if reservation is None else reservation.until,
            "disturbed": (
                owner not in (None, user) or reservation is not None or bool(sessions)
            ),
        }
