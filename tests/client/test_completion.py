"""Completion, as bash and zsh do it on a pseudo-terminal, against a real session."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.client.platform import ROOT, Server, Walt, reactor, until
from tests.patience import patient
from walt.client.completion import helper, script, types
from walt.client.main import CATEGORIES, load

START = {
    "bash": (
        "bash --norc --noprofile -i",
        "bind 'set show-all-if-ambiguous on'; bind 'set enable-bracketed-paste off'; PS1='$ '; ",
    ),
    "zsh": ("zsh -f -i", "autoload -Uz compinit; compinit -u -D; PS1='$ '; unsetopt beep; "),
}


class TableTests(SynchronousTestCase):
    def test_every_argument_has_a_type(self) -> None:
        """Somebody decided what each argument may be; types of switches are known ones."""
        for category in CATEGORIES:
            for name, command in load(category).items():
                for arg in command.args:
                    self.assertIsInstance(types.of_argument(category, name, arg), str)
        self.assertEqual(types.of_value("SECONDS"), types.NOTHING)
        self.assertEqual(types.of_value("HISTORY_RANGE"), "HISTORY_RANGE")

    def test_quoting(self) -> None:
        """Texts with quotes stay texts."""
        self.assertEqual(script._array("a", ["it's", "$(x)"]), "a=('it'\\''s' '$(x)')")

    def test_single_candidates(self) -> None:
        """No space after `/`, `:` and `=`, also when paths of this machine come in."""
        self.assertEqual(helper._merged(["vm:a", "vm:b"], []), ["vm:a", "vm:b"])
        self.assertEqual(helper._merged(["vm:a", "vm:b"], ["vmlinuz"]), ["vm:", "vmlinuz"])
        self.assertEqual(helper._merged([], ["dir/"]), ["dir/a", "dir/b"])
        self.assertEqual(helper._merged(["xa", "xb"], []), ["xa", "xb"])


class Interactive(ProcessProtocol):
    """A shell on a terminal, where `walt` prints its words."""

    def __init__(self, server: Server, shell: str, home: Path) -> None:
        self.out = b""
        self.ended: Deferred[None] = Deferred()
        (home / f"walt.{shell}").write_text(script.dump(shell))
        argv, start = START[shell]
        self.start = (
            f"{start}cd {home}; . ./walt.{shell}; "
            "walt() { printf '<%s>' \"$@\"; echo; }; echo rea''dy\n"
        )
        self.transport: Any = reactor.spawnProcess(
            self, argv.split()[0], argv.split(), environment(server, home), usePTY=True
        )

    def outReceived(self, data: bytes) -> None:
        self.out += data

    def processEnded(self, reason: Any) -> None:
        self.ended.callback(None)

    async def shows(self, text: str) -> None:
        """Return when a text was shown, and forget it."""
        await until(lambda: text.encode() in self.out)
        self.out = self.out.rpartition(text.encode())[2]

    async def begin(self) -> None:
        """Return when the shell is ready."""
        self.transport.write(self.start.encode())
        await self.shows("ready")

    async def types(self, keys: str, text: str) -> None:
        """Type a line, and wait for what it shows or runs."""
        self.transport.write(keys.encode() + b"\n")
        await self.shows(text)

    async def end(self) -> None:
        """Leave."""
        self.transport.signalProcess("KILL")
        await self.ended


def environment(server: Server, home: Path) -> dict[str, str]:
    """Return the variables of a shell, which finds the helper in its path."""
    program = home / "bin" / "walt-autocomplete-helper"
    program.parent.mkdir(exist_ok=True)
    program.write_text(
        f'#!/bin/sh\nexec {sys.executable} -m walt.client.completion.helper "$@"\n'
    )
    program.chmod(0o755)
    return {
        "PATH": f"{program.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT),
        "HOME": str(home), "WALT_SERVER": f"unix:{server.directory}/rpc.sock",
        "WALT_USERNAME": "alice", "TERM": "xterm", "LC_ALL": "C.UTF-8", "COLUMNS": "100",
    }


class ShellTests(TestCase):
    timeout = patient(60)

    def setUp(self) -> None:
        """Files here are those of node-1, too."""
        self.server = Server(self)
        self.server.checkpoints.times.update({("alice", "begin"): 1.0, ("alice", "finish"): 2.0})
        self.home = Path(self.server.directory) / "h"
        (self.home / "inner").mkdir(parents=True)
        (self.home / "file-one").touch()
        (self.home / "odd").mkdir()
        (self.home / "odd" / "$(touch pwned)").touch()

    async def complete_lines(self, name: str) -> None:
        shell = Interactive(self.server, name, self.home)
        self.addCleanup(shell.end)
        await shell.begin()
        for keys, text in (
            ("walt no\tcre\tx", "<node><create><x>"),
            ("walt node shell bobs\tx", "<node><shell><bobs-node><x>"),
            ("walt node reboot bobs\t,node-1", "<bobs-node,node-1>"),
            ("walt node boot --help bobs\t im\tx", "<--help><bobs-node><img><x>"),
            ("walt log show --hist\tno\tx", "<--history><none><x>"),
            ("walt log show --history beg\t-1m x", "<begin:-1m><x>"),
            ("walt log show --history begin:fi\tx", "<begin:finish><x>"),
            ("walt log show --timeout 3 --history -\tx", "<--history><-x>"),
            ("walt log remove-checkpoint beg\tx", "<begin><x>"),
            ("walt node config node-1 netset\t1", "<netsetup=1>"),
            ("walt node config node-1 netsetup=1 cp\t4", "<netsetup=1><cpu.cores=4>"),
            (f"walt node cp node-1:{self.home}/in\tx", f"<node-1:{self.home}/inner/x>"),
            (f"walt node cp node-1:{self.home}/fi\tbo\tx", "/file-one><booted-image><x>"),
            (f"walt node cp node-1:{self.home}/odd/\tx", f"<node-1:{self.home}/odd/x>"),
            ("walt node cp fi\tbobs\tx", "<file-one><bobs-node:x>"),
            ("walt image cp im\tx", "<img:x>"),
            ("walt image clone w\tbo\tx", "<walt:bob/img><x>"),
            ("walt image publish --registry au\tx", "<auto><x>"),
            ("walt image build --from-dir in\tx", "<inner/x>"),
            ("walt log export fi\tx", "<file-one><x>"),
            ("walt help show log-his\tx", "<log-history><x>"),
            ("walt node run node-1 -- --he\tx", "<--><--hex>"),
            ("walt nowhere \tx", "<nowhere><x>"),
            ("walt node \t", "create  "), ("", "-- create a virtual node"),
            ("", "\n"), ("walt node show --a\tx", "<--all><x>"),
        ):
            await shell.types(keys, text)
        self.assertFalse((self.home / "pwned").exists())

    async def test_bash(self) -> None:
        """Words of every type, descriptions, hostile names of files."""
        await self.complete_lines("bash")

    async def test_zsh(self) -> None:
        """The same."""
        await self.complete_lines("zsh")


class DumpTests(TestCase):
    timeout = patient(30)

    async def test_scripts(self) -> None:
        """The scripts are printed without any server, and shells can read them."""
        for shell in START:
            walt = Walt(None, "advanced", f"dump-{shell}-autocomplete")
            self.assertEqual((await walt.ended, walt.err), (0, b""))
            self.assertEqual(walt.out.decode(), script.dump(shell))
            path = self.mktemp()
            Path(path).write_bytes(walt.out)
            read = await getProcessOutputAndValue(shell, ["-n", path], os.environ)
            self.assertEqual(read, (b"", b"", 0))


class HelperTests(TestCase):
    timeout = patient(30)

    def setUp(self) -> None:
        self.server = Server(self)
        self.home = Path(self.server.directory) / "h"
        self.home.mkdir()

    async def ask(self, *words: str, **variables: str) -> tuple[bytes, bytes, int]:
        found: tuple[bytes, bytes, int] = await getProcessOutputAndValue(
            sys.executable, ["-m", "walt.client.completion.helper", *words],
            {**environment(self.server, self.home), **variables},
        )
        return found

    async def test_words(self) -> None:
        """Candidates on one line; an unknown type has none."""
        self.assertEqual(
            await self.ask("NODE", "walt", "node", "shell", "node"), (b"node-1 node-2\n", b"", 0)
        )
        self.assertEqual(await self.ask("NO_TYPE", "walt", "x"), (b"\n", b"", 0))

    async def test_failures(self) -> None:
        """No output but a status; told with --debug."""
        nowhere = {"WALT_SERVER": "unix:/nowhere/rpc.sock"}
        self.assertEqual(await self.ask("NODE", "walt", "", **nowhere), (b"", b"", 1))
        out, err, status = await self.ask("--debug", "NODE", "walt", "", **nowhere)
        self.assertEqual((out, status), (b"", 1))
        self.assertIn(b"no WalT server answers", err)
        self.assertEqual(await self.ask("NODE"), (b"", b"", 2))

    def test_imports(self) -> None:
        """It starts fast: nothing heavy is imported."""
        code = "import sys, walt.client.completion.helper; print(*sys.modules)"
        done = subprocess.run(
            [sys.executable, "-S", "-c", code], capture_output=True, text=True, timeout=20,
            env={"PYTHONPATH": str(ROOT)},
        )
        wrong = {"twisted", "zope", "asyncio", "subprocess", "walt.client.main", "ssl"}
        self.assertEqual(wrong & set(done.stdout.split()), set())
