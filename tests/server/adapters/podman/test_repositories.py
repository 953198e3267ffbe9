"""Repositories: addresses that lead back to the server or to nodes are not read."""

from __future__ import annotations

import itertools
import os
import socket
from functools import partial
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.patience import patient
from walt.common.errors import CommandFailed, Invalid
from walt.server.adapters.podman.repositories import Repositories
from walt.server.adapters.ssh.options import git_command
from walt.server.domain.images.repositories import (
    NOT_FETCHED,
    may_be_read,
    parse_addresses,
    parse_repository,
)
from walt.server.runtime.child import ChildService, ChildSpec
from walt.server.runtime.process import Launcher, ProcessResult, ProcessRunner
from walt.server.streams.image_build import FetchOutput

SSH = partial(git_command, None)
WALT_NET = ip_network("192.168.181.0/24")
OWN = [ip_address("198.51.100.4"), ip_address("2001:db8::4")]


class Resolver(ProcessRunner):
    """Answers for getent, differently each time, and for ip."""

    def __init__(self, *answers: str) -> None:
        super().__init__(None)
        self.answers = list(answers)

    async def run(self, argv: Any, **options: Any) -> ProcessResult:  # type: ignore[override]
        assert options["network"] == "host"
        if argv[0] == "ip":
            own = b'[{"addr_info": [{"local": "198.51.100.4"}]}]'
            return ProcessResult(tuple(argv), 0, own, b"")
        text = self.answers.pop(0)
        return ProcessResult(tuple(argv), 0 if text else 2, text.encode(), b"")


class RuleTests(SynchronousTestCase):
    def test_addresses(self) -> None:
        """This machine, in all ways to write it, links and nodes; others may be read."""
        def readable(text: str, *allowed: str) -> bool:
            return may_be_read(
                ip_address(text), [WALT_NET], OWN, [ip_network(one) for one in allowed]
            )

        for text in (
            "127.0.0.1", "127.8.8.8", "0.0.0.0", "169.254.169.254", "224.0.0.1", "192.168.181.1",
            "192.168.181.77", "198.51.100.4", "::1", "::", "fe80::1", "ff02::1", "2001:db8::4",
            "::ffff:127.0.0.1", "::ffff:192.168.181.1", "2002:7f00:1::", "64:ff9b::7f00:1",
        ):
            self.assertFalse(readable(text), text)
        for text in ("192.0.2.1", "10.0.0.1", "192.168.182.1", "2001:db8::5", "64:ff9b::c000:201"):
            self.assertTrue(readable(text), text)
        self.assertTrue(readable("127.0.0.1", "127.0.0.0/8"))
        self.assertFalse(readable("127.0.0.1", "10.0.0.0/8"))

    @given(st.text())
    def test_any_text(self, text: str) -> None:
        """Any text is a repository or Invalid."""
        for url in (text, f"https://{text}", f"git://{text}/x", f"u@{text}"):
            try:
                self.assertTrue(parse_repository(url).host)
            except Invalid:
                pass
        parse_addresses(text)

    def test_output_of_git(self) -> None:
        """Progress of what is read passes, whatever its pieces; reasons of failures do not."""
        text = (
            b"Cloning into '/x'...\nremote: Counting objects: 1\rremote: done.\n"
            b"fatal: unable to connect: Connection refused\nssh: connect to host x: timed out\n"
            b"Receiving objects:  50% (1/2)\rReceiving objects: 100% (2/2), done.\nerror: x"
        )
        for size in (1, 7, len(text)):
            shown: list[bytes] = []
            output = FetchOutput(shown.append)
            for start in range(0, len(text), size):
                output.received(text[start:start + size])
            self.assertEqual(b"".join(shown), b"".join((
                b"Cloning into '/x'...\nremote: Counting objects: 1\rremote: done.\n",
                b"Receiving objects:  50% (1/2)\rReceiving objects: 100% (2/2), done.\n",
            )))


class CommandTests(TestCase):
    timeout = patient(60)

    async def command(self, url: str, *answers: str) -> list[str]:
        made = Repositories(Resolver(*answers), SSH, [WALT_NET])
        self.home = Path(self.mktemp())
        self.home.mkdir()
        return await made.command(url, Path("/content"), self.home, progress=False)

    async def test_refused(self) -> None:
        """One forbidden address among others is enough, and all reasons have one text."""
        for url, answer in itertools.product(
            ("http://name:81/x", "git://name/x", "ssh://name/x", "git@name:x"),
            ("127.0.0.1 STREAM\n", "192.0.2.1 STREAM\n::1 STREAM\n", "192.168.181.9 STREAM\n",
             "198.51.100.4 STREAM\n", ""),
        ):
            with self.assertRaises(CommandFailed) as raised:
                await self.command(url, answer)
            self.assertEqual(str(raised.exception), NOT_FETCHED)

    async def test_resolved_once(self) -> None:
        """Git connects to the address that was checked, not to a later answer."""
        first, second = "192.0.2.1 STREAM x\n192.0.2.1 DGRAM\n2001:db8::1 STREAM\n", "127.0.0.1\n"
        argv = await self.command("https://u@name:8443/x", first, second)
        self.assertIn("http.curloptResolve=name:8443:192.0.2.1,[2001:db8::1]", argv)
        self.assertIn("http.followRedirects=false", argv)
        argv = await self.command("git://name:99/x", first, second)
        self.assertIn("git://192.0.2.1:99/x", argv)
        for url, alias in (("ssh://u@name:2222/x", "[name]:2222"), ("u@name:x", "name")):
            [ssh] = [
                one for one in await self.command(url, first, second)
                if one.startswith("GIT_SSH_COMMAND=")
            ]
            self.assertIn("-o HostName=192.0.2.1 ", ssh)
            self.assertIn(f"HostKeyAlias={alias}", ssh.replace("'", ""))
            self.assertIn("IdentityFile=none", ssh)
        self.assertTrue(any(one.startswith("HOME=") for one in argv))

    async def test_passwords(self) -> None:
        """They are in a file of the build, for the one host, and on no command line."""
        there = "192.0.2.1 STREAM\n"
        argv = await self.command("https://joe:s%23cret@name:8443/x", there)
        self.assertNotIn("cret", " ".join(argv))
        self.assertEqual(argv[-2], "https://name:8443/x")
        file = self.home / ".netrc"
        self.assertEqual(file.read_text(), "machine name login joe password s#cret\n")
        self.assertEqual(file.stat().st_mode & 0o777, 0o600)
        for url in (
            "https://joe:a%20b@name/x", "https://joe:a%0ab@name/x", "https://joe:a%22@name/x",
            "ssh://joe:secret@name/x", "git://joe:secret@name/x",
        ):
            with self.assertRaises(Invalid):
                await self.command(url, there)

    async def test_real_git(self) -> None:
        """A scan of this machine: ports that answer and others look the same; nothing connects.

        The same with a name that git would find elsewhere: it goes where it was told.
        """
        from twisted.internet import reactor

        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)
        listening.settimeout(0)
        port = listening.getsockname()[1]
        runner = ProcessRunner(reactor)
        for host in ("127.0.0.1", "localhost", "127.1", "2130706433", "[::1]", os.uname().nodename):
            for url in (f"http://{host}:{port}/x", f"git://{host}:{port}/x", f"http://{host}:1/x"):
                with self.assertRaises(CommandFailed) as raised:
                    await Repositories(runner, SSH).command(
                        url, Path("/content"), Path("/empty"), progress=False
                    )
                self.assertEqual(str(raised.exception), NOT_FETCHED)
        self.assertRaises(BlockingIOError, listening.accept)
        told = Repositories(
            Resolver("127.0.0.1 STREAM\n"), SSH, [], [ip_network("127.0.0.0/8")]
        )
        base = Path(self.mktemp())
        argv = await told.command(
            f"http://name.invalid:{port}/x", base / "content", base, progress=False
        )
        listening.settimeout(10)
        ended = Deferred.fromCoroutine(runner.run(argv, check=False, timeout=10))
        connection, _ = await deferToThread(listening.accept)
        connection.close()
        self.assertNotEqual((await ended).status, 0)

    async def test_real_repository(self) -> None:
        """A repository of this machine is read where the settings allow it."""
        from twisted.internet import reactor

        runner, base = ProcessRunner(reactor), Path(self.mktemp()).absolute()
        top, content = base / "project", base / "content"
        git = ["git", "-C", str(top), "-c", "user.name=t", "-c", "user.email=t@t"]
        await runner.run(["git", "init", "--quiet", str(top)])
        await runner.run([*git, "commit", "--quiet", "--allow-empty", "-m", "first"])
        with socket.create_server(("127.0.0.1", 0)) as found:
            port = found.getsockname()[1]
        daemon = ChildService(reactor, Launcher(), ChildSpec("git", (
            "/usr/lib/git-core/git-daemon", "--reuseaddr", "--export-all", "--listen=127.0.0.1",
            f"--port={port}", f"--base-path={base}", str(base),
        )))
        daemon.startService()
        self.addCleanup(daemon.stopService)
        allowed = Repositories(runner, SSH, [], [ip_network("127.0.0.0/8")])
        while not (content / ".git").is_dir():  # until the daemon serves
            argv = await allowed.command(
                f"git://127.0.0.1:{port}/project", content, base, progress=True
            )
            await runner.run(argv, check=False)
            await deferLater(reactor, 0.1)
