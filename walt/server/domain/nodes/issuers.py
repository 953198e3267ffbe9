"""Issuers of log lines: sets of names in, names out (spec user-surface §1.9)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from walt.common.errors import Invalid
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.devices.sets import parse_devices, restricted
from walt.server.domain.logs.model import LogQuery, parse_query

ALLOWED = "server,all-nodes"


class LogIssuers:
    """Translates between the names that people use and the MACs that logs keep.

    `former` are the names of forgotten devices whose lines were kept: a new device of such a
    name and the former ones are one issuer for people.
    """

    def __init__(self, registry: DeviceRegistry, former: Collection[str]) -> None:
        self._registry = registry
        self._former = former

    def query(self, value: Any, user: str) -> LogQuery:
        """Check a client's query object; its `issuers` is a set of nodes and the server.

        Raises Invalid or NotFound.
        """
        if not isinstance(value, Mapping):
            raise Invalid("a log query must be an object")
        names = value.get("issuers")
        if names is None:
            return parse_query(value, None)
        if not isinstance(names, str):
            raise Invalid("issuers must be a set of devices, as a text")
        items = names.split(",")
        gone = {name for name in items if name in self._former and not self._sends_lines(name)}
        present = [name for name in items if name not in gone]
        devices = parse_devices(self._registry, ",".join(present), user) if present else []
        restricted(devices, ALLOWED, self._registry, user)
        known = {device.name for device in devices}.intersection(self._former)
        return parse_query(value, frozenset(gone | known | {device.mac for device in devices}))

    def _sends_lines(self, name: str) -> bool:
        device = self._registry.by_name(name)
        return device is not None and (device.is_node or device.type == "server")

    def names(self, query: LogQuery) -> list[str]:
        """Return the sorted names of the issuers of a query."""
        return sorted({self.name(issuer) for issuer in query.issuers or ()})

    def name(self, mac: str) -> str:
        """Return the present name of an issuer, its last one or its MAC if it is gone."""
        device = self._registry.get(mac)
        return device.name if device is not None else mac
