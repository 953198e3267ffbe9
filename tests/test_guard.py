"""The guard of the test suite notices what it must, and nothing else."""

from __future__ import annotations

import builtins
import fcntl
import io
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg2
from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests import guard
from tests.system import cluster
from tests.system.records import faults
from walt.common.files import write_durable

ROOT = Path(__file__).resolve().parents[1]
BURN = "end = time.thread_time() + 0.5\nwhile time.thread_time() < end: sum(range(500))"

INDENTED = BURN.replace("\n", "\n    ")


def as_module(module: str, code: str, **names: Any) -> dict[str, Any]:
    """Run code as if it were in a module; return its names."""
    space = {"__name__": module, **names}
    exec(compile(code, f"/{module.replace('.', '/')}.py", "exec"), space)
    return space


def as_server(code: str, **names: Any) -> dict[str, Any]:
    """Run code as if it were in a module of the server."""
    return as_module("walt.server.domain.fake", code, **names)


class GuardTests(TestCase):
    skip = "the guard is switched off" if os.environ.get("WALT_TEST_GUARD") == "0" else None

    async def _turn(self) -> None:
        from twisted.internet import reactor
        from twisted.internet.task import deferLater

        await deferLater(reactor, 0.01, lambda: None)  # type: ignore[arg-type]

    def seen(self, what: str = "") -> list[str]:
        """Return the breaches since the last time, each of which must be about `what`."""
        told = [str(one.value) for one in self.flushLoggedErrors(guard.BlockingCall)]
        for one in told:
            self.assertIn(what, one)
        return told

    async def both(self, code: str, what: str, **names: Any) -> None:
        """Check that code is a breach when the server runs it in a turn, not when a test does."""
        await self._turn()
        as_module("tests.fake", code, **names)
        self.assertEqual(self.seen(), [])
        as_server(code, **names)
        (told, *_) = self.seen(what) or [""]
        self.assertIn("walt.server.domain.fake line 1", told)

    async def test_sleep(self) -> None:
        """A sleep."""
        await self.both("time.sleep(0.001)", "time.sleep", time=time)

    async def test_process(self) -> None:
        """Waiting for a process."""
        await self.both("subprocess.run(['true'])", "a process", subprocess=subprocess)

    async def test_connection(self) -> None:
        """A blocking connection; one that does not block is fine."""
        await self._turn()
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            names = {"socket": socket, "address": listening.getsockname()}
            await self.both(
                "one = socket.socket(); one.connect(address); one.close()", "connection", **names
            )
            as_server(
                "one = socket.socket(); one.setblocking(False)\n"
                "try: one.connect(address)\nexcept BlockingIOError: pass\none.close()", **names
            )
            self.assertEqual(self.seen(), [])

    async def test_names(self) -> None:
        """Asking the resolver; an address is no question."""
        for code in ("getaddrinfo('localhost', 1)", "gethostbyname('localhost')",
                     "gethostbyname_ex('localhost')"):
            await self.both(f"socket.{code}", "socket.get", socket=socket)
        as_server("socket.getaddrinfo('127.0.0.1', 1); socket.getaddrinfo('::1', 1)"
                  "; socket.getaddrinfo(None, 1); socket.getnameinfo(('::1', 1), 3)", socket=socket)
        self.assertEqual(self.seen(), [])

    async def test_disk(self) -> None:
        """Waiting for a disk."""
        with open(self.mktemp(), "wb") as file:
            await self.both("os.fsync(fd)", "os.fsync", os=os, fd=file.fileno())
            await self.both("os.fdatasync(fd)", "os.fdatasync", os=os, fd=file.fileno())

    async def test_lock(self) -> None:
        """Waiting for a lock; asking whether it is free is fine, and so is giving it back."""
        with open(self.mktemp(), "wb") as file:
            names = {"fcntl": fcntl, "fd": file.fileno()}
            for name in ("flock", "lockf"):
                await self.both(f"fcntl.{name}(fd, fcntl.LOCK_EX)", f"fcntl.{name}", **names)
                as_server(f"fcntl.{name}(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
                          f"fcntl.{name}(fd, fcntl.LOCK_UN)", **names)
                self.assertEqual(self.seen(), [])

    async def test_database(self) -> None:
        """A synchronous connection, and each statement on it."""
        shared = cluster.SharedCluster()
        self.addCleanup(shared.end)
        names = {"psycopg2": psycopg2, "dsn": shared.fresh()}
        await self.both("psycopg2.connect(dsn).close()", "the database", **names)
        made = psycopg2.connect(shared.fresh())
        self.addCleanup(made.close)
        await self.both("made.cursor().execute('SELECT 1')", "the database", made=made)
        as_server("psycopg2.connect(dsn, async_=1).close()", **names)
        self.assertEqual(self.seen(), [])

    async def test_open(self) -> None:
        """Opening a regular file, there or not, by any of the ways."""
        path = Path(self.mktemp())
        path.write_text("x")
        names = {"builtins": builtins, "io": io, "os": os, "path": path, "name": str(path)}
        for code in ("path.read_text()", "builtins.open(name).close()", "io.open(path).close()",
                     "os.close(os.open(name, os.O_RDONLY))", "path.write_bytes(b'x')"):
            await self.both(code, f"opening {path}", **names)
        await self.both(
            "try: open(name + '.absent')\nexcept FileNotFoundError: pass", "opening", **names
        )

    async def test_open_of_what_is_no_file(self) -> None:
        """The kernel's files, devices, directories and bare names are no files of a disk."""
        await self._turn()
        as_server("open('/proc/self/stat').close(); open('/dev/null').close()")
        as_server("os.close(os.open('/tmp', os.O_RDONLY))\n"
                  "os.close(os.open(name, os.O_PATH)); os.fdopen(os.open('/dev/null', 0)).close()",
                  os=os, name=__file__)
        self.assertEqual(self.seen(), [])

    async def test_open_by_those_who_may(self) -> None:
        """A module of the list opens files, others do not."""
        await self._turn()
        as_module(next(iter(guard.FILES)), "open(name).close()", name=__file__)
        self.assertEqual(self.seen(), [])

    async def test_list_is_true(self) -> None:
        """Each module that may open files is there, and opens some."""
        for name in guard.FILES:
            text = (ROOT / f"{name.replace('.', '/')}.py").read_text()
            self.assertRegex(
                text, r"open\(|(read|write)_(text|bytes)\(|write_(atomic|durable|if_changed)\("
                r"|\.touch\(|secondary_mac\(", name,
            )

    async def test_common(self) -> None:
        """walt.common answers to the server that called it, or by itself; never for a test."""
        await self._turn()
        path = Path(self.mktemp())
        write_durable(path, "of the test")
        self.assertEqual(self.seen(), [])
        as_server("write(path, 'of the server')", write=write_durable, path=path)
        told = self.seen()
        self.assertEqual(len([one for one in told if "os.fsync" in one]), 2)  # file, directory
        self.assertTrue(all("from walt.common.files line" in one for one in told), told)
        self.assertTrue(all("(walt.server.domain.fake)" in one for one in told), told)
        from twisted.internet import reactor

        done: Deferred[None] = Deferred()
        write = as_module(
            "walt.common.fake", "def write():\n    sync(1)\n    done.callback(None)",
            sync=lambda number: None, done=done,
        )
        write["write"].__globals__["sync"] = guard.guarded(lambda number: None, "os.fsync")
        reactor.callLater(0, write["write"])  # type: ignore[attr-defined]
        await done
        self.assertEqual(len(self.seen("walt.common.fake")), 1)

    async def test_through_libraries(self) -> None:
        """However many frames of libraries and wrappers lie between."""
        await self._turn()
        code = (
            "def call(function, deep):\n"
            "    return call(function, deep - 1) if deep else function()"
        )
        library = as_module("some.library", code)["call"]
        as_server("call(lambda: time.sleep(0), 30)", call=library, time=time)
        self.assertEqual(len(self.seen("walt.server.domain.fake")), 1)

        async def wrapped() -> None:
            await succeed(None)
            as_server("call(lambda: time.sleep(0), 30)", call=library, time=time)

        await wrapped()
        self.assertEqual(len(self.seen("walt.server.domain.fake")), 1)

    async def test_fakes_answer_for_themselves(self) -> None:
        """What a fake of the tests does is not the server's."""
        await self._turn()
        fake = as_module("tests.fakes.fake", "def call(): time.sleep(0)", time=time)["call"]
        as_server("call()", call=fake)
        as_module("walt.server.workers.fake", "time.sleep(0)", time=time)
        self.assertEqual(self.seen(), [])

    async def test_threads_may_wait(self) -> None:
        """A thread is where one waits."""
        space = as_server("def work(): time.sleep(0); os.sync()", time=time, os=os)
        self.patch(os, "sync", guard.guarded(lambda: None, "os.sync"))
        await self._turn()
        await deferToThread(space["work"])
        self.assertEqual(self.seen(), [])
        space["work"]()
        self.assertEqual(len(self.seen()), 2)

    async def long(self, burn: Callable[[], object]) -> list[str]:
        """Return the long turns that are told of a turn, however slow the processor is."""
        self.patch(guard, "_slowness", lambda: 1.0)
        await self._turn()
        burn()
        await self._turn()
        return [str(one.value) for one in self.flushLoggedErrors(guard.LongTurn)]

    async def test_long_turn(self) -> None:
        """Code of the server that burns half a second in a turn is an error, a test may."""
        self.assertEqual(len(await self.long(lambda: as_server(BURN, time=time))), 1)
        self.assertEqual(await self.long(lambda: exec(BURN, {"time": time})), [])

    def test_busy_processor(self) -> None:
        """A turn that is long because the processor is slow at the moment is none."""
        self.patch(guard, "_slowness", lambda: 2.0)
        monitor = guard.Attribution(None)
        monitor._looks = [None] * 11
        monitor._tell(0.19, "stack")
        self.assertEqual(self.flushLoggedErrors(guard.LongTurn), [])
        monitor._tell(0.21, "stack")
        self.assertEqual(len(self.flushLoggedErrors(guard.LongTurn)), 1)

    async def test_crowded_turn(self) -> None:
        """One turn of many short events is told apart from a long one."""
        from twisted.internet import reactor

        await self._turn()
        for _ in range(10):
            reactor.callLater(  # type: ignore[attr-defined]
                0, as_server, BURN.replace("0.5", "0.05"), time=time
            )
        await self._turn()
        await self._turn()
        self.assertEqual(len(self.flushLoggedErrors(guard.CrowdedTurn)), 1)
        self.assertEqual(self.flushLoggedErrors(guard.LongTurn), [])

    async def test_long_turn_of_a_test(self) -> None:
        """What a test burns in a turn in which the server works too is not the server's."""

        def burn() -> None:
            as_module("tests.fake", BURN, time=time)
            as_server(BURN.replace("0.5", "0.03"), time=time)

        self.assertEqual(await self.long(burn), [])
        fake = as_module("tests.fakes.fake", f"def call():\n    {INDENTED}", time=time)["call"]
        self.assertEqual(await self.long(lambda: as_server("call()", call=fake)), [])

    async def test_long_turn_of_common(self) -> None:
        """So is code of walt.common, and a library that the server called, however deep."""
        found = await self.long(lambda: as_module("walt.common.fake", BURN, time=time))
        self.assertEqual(len(found), 1)
        code = f"def call(deep):\n    if deep: return call(deep - 1)\n    {INDENTED}"
        library = as_module("some.library", code, time=time)["call"]
        found = await self.long(lambda: as_server("call(30)", call=library))
        self.assertEqual(len(found), 1)


class LiveTests(SynchronousTestCase):
    """The same in a server that a system test starts."""

    def told(self, code: str, **environment: str) -> list[str]:
        """Run twistd as live platforms do, with code in a turn; return the faults of its log."""
        directory = Path(self.mktemp())
        directory.mkdir()
        (directory / "app.py").write_text(
            "from twisted.application.service import Application\n"
            "from twisted.internet import reactor\nimport time\n"
            f"code = compile({code!r}, '/x/walt/server/fake.py', 'exec')\n"
            "space = {'__name__': 'walt.server.domain.fake', 'time': time}\n"
            "reactor.callLater(0.1, exec, code, space)\n"
            "reactor.callLater(0.6, reactor.stop)\n"
            "application = Application('fake')\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", "from tests.guard import run; run()", "--nodaemon",
             "--pidfile=", "--logger", "walt.server.assembly.logging.observer", "-y", "app.py"],
            cwd=directory, env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            capture_output=True, text=True, check=False, timeout=60,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        return faults(done.stdout, [])

    def test_blocking(self) -> None:
        """A call that waits is in the log as an error."""
        (told,) = self.told("time.sleep(0.01)")
        self.assertRegex(told, "BlockingCall: time.sleep .* from walt.server.domain.fake line 1")

    def test_long(self) -> None:
        """A long turn is, too: so long that a busy machine looks at it in time."""
        (told,) = self.told(BURN.replace("0.5", "3"))
        self.assertTrue(re.search(r"LongTurn: a turn of \d+ ms", told), told)

    def test_good(self) -> None:
        """Otherwise nothing is."""
        self.assertEqual(self.told("time.time()"), [])
