"""A place outside the server: a network namespace with a cable into the bridge walt-net."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from walt.common.errors import CommandFailed
from walt.server.adapters.network.namespace import RUN_NETNS, inside
from walt.server.adapters.volumes.loop import run
from walt.server.runtime.child import process_start

T = TypeVar("T")
BRIDGE = "walt-net"
PREFIX = "walt-doctor-"


class Site:
    """The networks of the server and of a visitor.

    `namespace` is where the platform lives (None: the machine's own network).
    """

    def __init__(self, namespace: str | None) -> None:
        self._namespace = namespace
        self._visitor = f"{PREFIX}{os.getpid()}"
        self.interface = f"wd{os.getpid()}"
        self.address: str | None = None
        self.plugged = False

    @contextlib.contextmanager
    def server(self) -> Iterator[None]:
        """Be where the server is."""
        if self._namespace is None:
            yield
        else:
            with inside(RUN_NETNS / self._namespace):
                yield

    def from_server(self, probe: Callable[[], T]) -> T:
        """Call a probe where the server is."""
        with self.server():
            return probe()

    def from_outside(self, probe: Callable[[], T]) -> T:
        """Call a probe where the visitor is."""
        with inside(RUN_NETNS / self._visitor):
            return probe()

    def plug(self) -> None:
        """Make the cable. Raises CommandFailed, Unavailable."""
        self._remove_left_over()
        run(["ip", "netns", "add", self._visitor])
        with self.server():
            far = f"wv{os.getpid()}"
            run(["ip", "link", "add", far, "type", "veth", "peer", "name", self.interface,
                 "netns", self._visitor])
            run(["ip", "link", "set", far, "master", BRIDGE, "up"])
        run(["ip", "-n", self._visitor, "link", "set", "lo", "up"])
        run(["ip", "-n", self._visitor, "link", "set", self.interface, "up"])
        self.plugged = True

    def take(self, address: str, prefix: int) -> None:
        """Have an address that was offered, for as long as this takes."""
        run(["ip", "-n", self._visitor, "address", "add", f"{address}/{prefix}", "dev",
             self.interface])
        self.address = address

    def unplug(self) -> None:
        """Remove everything of the visitor."""
        if (RUN_NETNS / self._visitor).exists():
            with contextlib.suppress(CommandFailed):
                run(["ip", "netns", "delete", self._visitor])

    @staticmethod
    def _remove_left_over() -> None:
        """Remove what visitors left who were killed."""
        for place in Path(RUN_NETNS).glob(f"{PREFIX}*"):
            number = place.name.removeprefix(PREFIX)
            if not number.isdigit() or process_start(int(number)) == 0:
                with contextlib.suppress(CommandFailed):
                    run(["ip", "netns", "delete", place.name])
