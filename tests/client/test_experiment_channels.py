"""Shells kept on nodes, which are shells of this machine."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from walt.client.errors import Failure
from walt.client.exceptions import TimeoutException
from walt.client.experiment import channels
from walt.client.experiment.channels import NO_FILE, NOTHING, Channels, NotBegun
from walt.client.scripting.running import TooMuch
from walt.common import frames


class LocalStream:
    """What a stream to a shell of a node does."""

    opened: ClassVar[list[LocalStream]] = []
    refused = False

    def __init__(self, request: str, parameters: dict[str, str]) -> None:
        if self.refused:
            raise Failure("no server")
        self.process = subprocess.Popen(
            ["sh", "-c", parameters["command"]], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, start_new_session=True,
        )
        self.opened.append(self)

    def send(self, kind: bytes, payload: bytes = b"") -> None:
        """Give it to the shell."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(payload)
            self.process.stdin.flush()
        except BrokenPipeError:
            pass

    def received(self, until: float) -> list[tuple[bytes, bytes]] | None:
        """Return what it printed next."""
        out, err = self.process.stdout, self.process.stderr
        assert out is not None
        assert err is not None
        ready, _, _ = select.select([out, err], [], [], max(0.0, until - time.monotonic()))
        if not ready:
            raise TimeoutError
        kinds = {out: frames.DATA, err: frames.MESSAGE}
        found = [(kinds[pipe], os.read(pipe.fileno(), 1 << 16)) for pipe in ready]
        return None if any(not data for _, data in found) else found

    def close(self) -> None:
        """End it."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            try:
                pipe.close()
            except BrokenPipeError:
                pass


class ChannelTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.opened: list[LocalStream] = []
        self.patch(LocalStream, "opened", self.opened)
        self.patch(channels, "Stream", LocalStream)
        self.begin()

    def begin(self, **limits: Any) -> None:
        """Begin with no shell."""
        self.channels = Channels(**limits)
        self.addCleanup(self.channels.close)

    def run_one(self, command: str, limit: float = 60.0) -> Any:
        """Run a command on the node n1."""
        return tuple(self.channels.run("n1", command, limit))

    def test_one_connection(self) -> None:
        """Many commands, one shell; nothing of them stays, and their outputs are whole."""
        self.assertEqual(self.run_one("A=1; cd /; echo out; echo err >&2; exit 7"),
                         (7, "out\n", "err\n"))
        self.assertEqual(self.run_one('printf %s "$A"; printf x >&2; cat'), (0, "", "x"))
        status, output, _ = self.run_one("head -c 20000000 /dev/zero | tr '\\0' 'x'")
        self.assertEqual((status, len(output)), (0, 20_000_000))
        self.assertEqual(self.run_one("if")[0] != 0, True)  # nonsense harms itself alone
        self.assertEqual(self.run_one("printf '\\n%s 0\\n' x"), (0, "\nx 0\n", ""))
        self.channels.run("n2", "true", 60.0)
        self.assertEqual(len(self.opened), 2)

    def test_limits(self) -> None:
        """What takes too long or prints too much is left, and the next command works."""
        self.begin(most=1000)
        self.assertRaises(TimeoutException, self.run_one, "sleep 60", 0.3)
        self.assertEqual(self.run_one("echo 1"), (0, "1\n", ""))
        self.assertRaises(TooMuch, self.run_one, "head -c 5000 /dev/zero")
        self.assertEqual(self.run_one("echo 1"), (0, "1\n", ""))
        self.assertEqual(len(self.opened), 3)

    def test_errors_of_a_file(self) -> None:
        """What is printed beside a file has the limit, too."""
        place = Path(self.mktemp()).absolute()
        place.mkdir()
        (place / "cat").write_text("#!/bin/sh\nhead -c 100000 /dev/zero >&2\n")
        (place / "cat").chmod(0o755)
        self.begin(most=1000)
        with patch.dict(os.environ, PATH=f"{place}:{os.environ['PATH']}"):
            self.assertRaises(
                TooMuch, self.channels.fetch, "n1", str(place / "cat"), lambda data: None, 60.0
            )

    def test_lost(self) -> None:
        """A shell that is gone is opened again; what was under way may have run."""
        self.begin(idle=0.0)
        self.run_one("true")
        os.killpg(self.opened[0].process.pid, signal.SIGKILL)
        self.assertEqual(self.run_one("echo 1"), (0, "1\n", ""))
        failure = self.assertRaises(Failure, self.run_one, "kill -KILL -$$")
        self.assertNotIsInstance(failure, NotBegun)
        self.patch(LocalStream, "refused", True)
        self.assertRaises(NotBegun, self.run_one, "echo 1")

    def test_files(self) -> None:
        """They come as they are; what is none is told apart."""
        place = Path(self.mktemp()).absolute()
        place.mkdir()
        file = place / "it's"
        for content in (b"", b"x", os.urandom(3_000_000), b"\n\nx 0\n" * 1000):
            file.write_bytes(content)
            got = bytearray()
            self.assertEqual(self.channels.fetch("n1", str(file), got.extend, 60.0), 0)
            self.assertEqual(bytes(got), content)
        for path, status in ((place, NO_FILE), (place / "none", NOTHING)):
            self.assertEqual(self.channels.fetch("n1", str(path), got.extend, 60.0), status)
        os.mkfifo(place / "pipe")
        self.assertEqual(self.channels.fetch("n1", str(place / "pipe"), got.extend, 9.0), NO_FILE)
