"""The guard of the test suite notices what it must, and nothing else."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from typing import Any

from twisted.trial.unittest import TestCase

from tests import guard


def as_server(code: str, **names: Any) -> None:
    """Run code as if it were in a module of the server."""
    exec(compile(code, "/walt/server/fake.py", "exec"), {
        "__name__": "walt.server.domain.fake", **names,
    })


class GuardTests(TestCase):
    skip = "the guard is switched off" if os.environ.get("WALT_TEST_GUARD") == "0" else None

    async def _turn(self) -> None:
        from twisted.internet import reactor
        from twisted.internet.task import deferLater

        await deferLater(reactor, 0.01, lambda: None)  # type: ignore[arg-type]

    async def test_sleep(self) -> None:
        """A sleep of the server is an error, one of a test is not."""
        await self._turn()
        time.sleep(0.001)
        self.assertEqual(self.flushLoggedErrors(guard.BlockingCall), [])
        as_server("time.sleep(0.001)", time=time)
        self.assertEqual(len(self.flushLoggedErrors(guard.BlockingCall)), 1)

    async def test_process(self) -> None:
        """So is waiting for a process."""
        await self._turn()
        subprocess.run(["true"], check=True)
        self.assertEqual(self.flushLoggedErrors(guard.BlockingCall), [])
        as_server("subprocess.run(['true'])", subprocess=subprocess)
        self.assertTrue(self.flushLoggedErrors(guard.BlockingCall))

    async def test_connection(self) -> None:
        """So is a blocking connection; one that does not block is fine."""
        await self._turn()
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            names = {"socket": socket, "address": listening.getsockname()}
            as_server("one = socket.socket(); one.connect(address); one.close()", **names)
            self.assertEqual(len(self.flushLoggedErrors(guard.BlockingCall)), 1)
            as_server(
                "one = socket.socket(); one.setblocking(False)\n"
                "try: one.connect(address)\nexcept BlockingIOError: pass\none.close()", **names
            )
            self.assertEqual(self.flushLoggedErrors(guard.BlockingCall), [])

    async def test_long_turn(self) -> None:
        """Code of the server that burns 150 ms in a turn is an error, a test may."""
        burn = "end = time.thread_time() + 0.15\nwhile time.thread_time() < end: sum(range(500))"
        await self._turn()
        as_server(burn, time=time)
        await self._turn()
        self.assertEqual(len(self.flushLoggedErrors(guard.LongTurn)), 1)
        exec(burn, {"time": time})
        await self._turn()
        self.assertEqual(self.flushLoggedErrors(guard.LongTurn), [])
