"""Issuers of log lines: sets of names in, names out (spec user-surface §1.9)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from walt.common.errors import Invalid
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.devices.sets import parse_devices, restricted
from walt.server.domain.logs.model import LogQuery, parse_query

ALLOWED = "server,all-nodes"


class LogIssuers:
    """Translates between the names that people use and the MACs that logs keep."""

    def __init__(self, registry: DeviceRegistry) -> None:
        self._registry = registry

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
        devices = parse_devices(self._registry, names, user)
        restricted(devices, ALLOWED, self._registry, user)
        return parse_query(value, frozenset(device.mac for device in devices))

    def name(self, mac: str) -> str:
        """Return the present name of an issuer, its MAC if it is gone."""
        device = self._registry.get(mac)
        return device.name if device is not None else mac
