"""Bytes from one child process to another."""

from __future__ import annotations

import os

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from walt.server.runtime.pipes import Broken, poured


class PouredTests(SynchronousTestCase):
    def test_what_is_written_is_read(self) -> None:
        """The sink reads to the end what the source wrote, and its result is returned."""

        async def source(output: int) -> None:
            os.write(output, b"words")

        async def sink(input_fd: int) -> int:
            return os.dup(input_fd)

        kept = self.successResultOf(Deferred.fromCoroutine(poured(source, sink)))
        with os.fdopen(kept, "rb") as stream:
            self.assertEqual(stream.read(), b"words")

    def test_failures_of_both(self) -> None:
        """The failures of both are told, that of the source first."""

        async def source(output: int) -> None:
            raise ValueError("source")

        async def sink(input_fd: int) -> None:
            raise OSError("sink")

        running = Deferred.fromCoroutine(poured(source, sink))
        broken = self.failureResultOf(running, Broken).value
        self.assertEqual([str(one) for one in broken.errors], ["source", "sink"])
        self.assertEqual(str(broken), "source, sink")
