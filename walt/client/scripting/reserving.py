"""Nodes that a script takes for a while."""

from __future__ import annotations

import threading
import time
import uuid

from walt.client.errors import Failure, Refused
from walt.client.exceptions import TimeoutException
from walt.client.scripting.link import LINK
from walt.client.scripting.nodes import NodeSet, find, set_text

EVERY = 20.0  # seconds between two words to the server, which waits 60 s for one
ASK_AGAIN = 2.0  # seconds, for nodes that cannot be had yet


class Reservation:
    """Nodes that are reserved until `release`, the end of a `with` block, or a moment (`until`).

    A thread tells the server that this program lives; without it the nodes are free after a
    minute. `until` is in epoch seconds of this machine; `every` has the seconds between two words.
    """

    def __init__(
        self, model: str, count: int, nodes: object, seconds: float, wait: float, *,
        every: float = EVERY,
    ) -> None:
        self._every = every
        self._holder = uuid.uuid4().hex
        names = self._take(model, count, set_text(nodes), seconds, wait)
        self.nodes = NodeSet(find(",".join(names)))
        self.until = time.time() + seconds
        self.lost = ""  # why the nodes are not reserved any more, for somebody else has them
        self._over = threading.Event()
        threading.Thread(target=self._keep, name="walt-reservation", daemon=True).start()

    def _take(
        self, model: str, count: int, nodes: str, seconds: float, wait: float
    ) -> list[str]:
        limit = time.monotonic() + wait
        while True:
            try:
                names: list[str] = LINK.json(
                    "cs.nodes.reserve", "names", [str], nodes=nodes, model=model, count=count,
                    seconds=seconds, holder=self._holder,
                )
                return names
            except Refused as refused:
                if refused.code != "CONFLICT" or wait <= 0:
                    raise
                if time.monotonic() >= limit:
                    raise TimeoutException(str(refused)) from None
                time.sleep(min(ASK_AGAIN, max(0.0, limit - time.monotonic())))

    def _keep(self) -> None:
        while not self._over.wait(self._every) and time.time() < self.until:
            self.ask()
        if not self._over.is_set():
            self.lost = "their time is over"

    def ask(self) -> None:
        """Tell the server that this program lives; `lost` is as the server knows it then."""
        try:
            LINK.call("cs.nodes.keep_reserved", holder=self._holder)
        except Refused as refused:
            if refused.code == "NOT_FOUND":
                self._take_again()
        except (Failure, OSError):
            pass  # it is told again when the server is there again

    def _take_again(self) -> None:
        """The server was started anew meanwhile: it knows nothing of this reservation."""
        names, seconds = self.nodes.keys(), self.until - time.time()
        if seconds <= 0:
            self.lost = "their time is over"
            return
        try:
            self._take("*", len(names), ",".join(names), seconds, 0)
        except Refused as refused:
            self.lost = str(refused)
        except (Failure, OSError):
            return  # it is tried again when the server is there again
        else:
            self.lost = ""

    def release(self) -> None:
        """Let others have the nodes"""
        if not self._over.is_set():
            self._over.set()
            LINK.call("cs.nodes.free_reserved", holder=self._holder)

    def __enter__(self) -> NodeSet:
        return self.nodes

    def __exit__(self, *exc: object) -> None:
        try:
            self.release()
        except (Failure, OSError):
            pass  # a server that cannot be reached frees them by itself

    def __repr__(self) -> str:
        return f"<Reservation of {', '.join(self.nodes.keys())}>"
