"""The `walt` command as a process, against real sessions and streams."""

from __future__ import annotations

import ast
import fcntl
import os
import shutil
import subprocess
import sys
import termios

from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase

from tests.client.platform import BOBS, ROOT, SECOND, Server, Walt, until
from tests.patience import patient
from tests.server.streams.platform import NODE
from tests.skips import without_python
from walt.client.commands.log import LARGE

# What must not be imported for a short command. (`re` is there: json needs it.)
FORBIDDEN = (
    "twisted", "zope", "typing", "argparse", "asyncio", "dataclasses", "inspect", "logging",
    "subprocess", "ssl", "datetime", "ast", "yaml", "ruamel", "importlib.metadata", "threading",
    "pathlib", "urllib", "tempfile", "pydoc", "walt.rpc", "walt.server", "walt.client.logo",
    "walt.client.stream", "walt.client.commands.log", "walt.client.commands.image",
    "walt.client.help", "curses",
)


class StatusTests(TestCase):
    timeout = patient(20)

    def setUp(self) -> None:
        self.server = Server(self)

    async def run_walt(self, *words: str, data: bytes | None = b"", **options) -> Walt:  # type: ignore[no-untyped-def]
        """Run to the end with this input, and keep the status as `status`."""
        walt = Walt(self.server, *words, **options)
        if data is not None:
            walt.write(data)
            walt.transport.closeStdin()
        walt.status = await walt.ended  # type: ignore[attr-defined]
        return walt

    async def check(self, status: int, out: bytes, err: bytes, *words: str) -> None:
        walt = await self.run_walt(*words)
        self.assertEqual(walt.status, status, (words, walt.out, walt.err))  # type: ignore[attr-defined]
        self.assertIn(out, walt.out)
        self.assertIn(err, walt.err)
        if not out:
            self.assertEqual(walt.out, b"")
        if not err:
            self.assertEqual(walt.err, b"")

    async def test_statuses(self) -> None:
        """0, 1 and 2, with the text on the right stream."""
        await self.check(0, b"node-1  virtual", b"", "node", "show", "--all")
        await self.check(0, b"Categories:", b"", "-h")
        await self.check(2, b"", b"Unknown category", "fly")
        await self.check(2, b"", b"unknown switch --fly", "node", "show", "--fly")
        await self.check(1, b"", b'no device named "ghost"', "node", "wait", "ghost")
        await self.check(1, b"", b"is not a node", "node", "wait", "switch-1")

    async def test_unreachable(self) -> None:
        """rc 1, on stderr."""
        walt = Walt(None, "node", "show")
        self.assertEqual(await walt.ended, 1)
        self.assertIn(b"network connection failure", walt.err)
        self.assertEqual(walt.out, b"")

    async def test_server_lost(self) -> None:
        """A server that goes away in the middle of a call: rc 1."""
        self.server.down()
        walt = Walt(self.server, "node", "wait", "node-1")
        await until(lambda: self.server.platform.status._waiters)
        for session in self.server.sessions:
            session.transport.abortConnection()  # type: ignore[union-attr]
        self.assertEqual(await walt.ended, 1)
        self.assertIn(b"communication issue", walt.err)

    async def test_interrupted(self) -> None:
        """Ctrl-C: Aborted on stderr, rc 130; the server stops waiting."""
        self.server.down()
        walt = Walt(self.server, "node", "wait", "node-1")
        await until(lambda: self.server.platform.status._waiters)
        walt.transport.signalProcess("INT")
        self.assertEqual(await walt.ended, 130)
        self.assertEqual((walt.out, walt.err), (b"", b"\nAborted.\n"))
        await until(lambda: not self.server.platform.status._waiters)

    async def test_wait(self) -> None:
        """Ends with the boot, or with the time given."""
        self.server.down()
        walt = Walt(self.server, "node", "wait", "node-1")
        await until(lambda: self.server.platform.status._waiters)
        self.server.platform.status.booted(NODE.mac)
        self.assertEqual(await walt.ended, 0)
        self.server.down()
        walt = await self.run_walt("node", "wait", "--timeout", "1", "node-1")
        self.assertEqual(walt.status, 1)  # type: ignore[attr-defined]
        self.assertEqual((walt.out, walt.err), (b"", b"Timeout: some nodes are not booted yet.\n"))

    async def test_blink(self) -> None:
        """Ctrl-C ends it: the LED is told, rc 130; so is a node that refuses; a bad duration."""
        walt = Walt(self.server, "node", "blink", "node-1")
        await walt.shows(b"blinks for 60 seconds")
        walt.transport.signalProcess("INT")
        self.assertEqual(await walt.ended, 130)
        self.assertEqual(
            self.server.link.requests, [(NODE.ip, "BLINK 1"), (NODE.ip, "BLINK 0")]
        )
        self.server.link.refusals[NODE.ip or ""] = "no LED"
        await self.check(1, b"", b"no LED", "node", "blink", "node-1", "5")
        await self.check(1, b"", b"not a number of seconds", "node", "blink", "node-1", "soon")

    async def test_closed_pipe(self) -> None:
        """A reader that had enough: no message (Q-06)."""
        for number in range(5_000):  # several times what a pipe holds
            self.server.platform.logs.write(NODE.mac, "exp", f"line {number} {'x' * 50}")
        walt = await self.run_walt(
            "log", "show", "--history", "full", shell='{ "$@"; echo "status $?" >&2; } | head -n 1',
        )
        self.assertEqual(walt.out.count(b"\n"), 1)
        self.assertEqual(walt.err, b"status 1\n")

    async def test_logs(self) -> None:
        """History then live lines, then ctrl-C: a newline, rc 1."""
        logs = self.server.platform.logs
        for number in range(LARGE + 1):  # no question without terminal
            logs.write(NODE.mac, "exp", f"line {number}")
        walt = Walt(self.server, "log", "show", "--history", "full", "--realtime")
        await walt.shows(b"line 1000\n")
        logs.write(NODE.mac, "exp", "live")
        await walt.shows(b"node-1.exp -> live\n")
        walt.transport.signalProcess("INT")
        self.assertEqual(await walt.ended, 130)
        self.assertTrue(walt.out.endswith(b"live\n\n"))
        self.assertEqual(walt.out.count(b"exp -> line"), LARGE + 1)

    async def test_console_without_terminal(self) -> None:
        """Input goes to the console, its output comes back, the end of input ends it."""
        walt = Walt(self.server, "node", "console", "node-1")
        walt.write(b"root\n")
        await until(lambda: self.server.virtual.typed)
        self.server.platform.logs.write(
            NODE.mac, "virtualconsole", repr(b"\x1bclogin: \xff\x1b[2J"), mode="chunk"
        )
        await walt.shows(b"login: \xff")
        walt.transport.closeStdin()
        self.assertEqual(await walt.ended, 0)
        self.assertEqual(walt.out, b"login: \xff")
        self.assertEqual(self.server.virtual.typed, [("node-1", b"root\n")])


class RunTests(TestCase):
    timeout = patient(20)

    def setUp(self) -> None:
        self.server = Server(self)

    async def test_one_node(self) -> None:
        """Input with its end, output and errors apart, exit status."""
        walt = Walt(self.server, "node", "run", "node-1", "--", "grep", "-c", "x")
        program = await self.server.program()
        self.assertEqual((program.ip, program.command), (NODE.ip, "grep -c x"))
        self.assertIsNone(program.options["terminal"])
        data = bytes(range(256)) * 8000
        walt.write(data)
        walt.transport.closeStdin()
        await until(lambda: "end" in program.events)
        self.assertEqual(b"".join(program.events[:-1]), data)
        program.options["output"](b"\0out\xff")
        program.options["errors"](b"err")
        program.options["ended"](42)
        self.assertEqual(await walt.ended, 42)
        self.assertEqual((walt.out, walt.err), (b"\0out\xff", b"err"))

    async def test_output_while_the_server_is_late(self) -> None:
        """A server that reads nothing for a while does not keep output from being shown."""
        walt = Walt(self.server, "node", "run", "node-1", "cat")
        program = await self.server.program()
        request = self.server.platform.sessions.made[0]
        sender = request.options["output"].__self__.connection.transport
        sender.stopReading()
        walt.write(bytes(4 << 20))
        for number in range(20):
            program.options["output"](b"%d\n" % number)
        await walt.shows(b"19\n")
        sender.startReading()
        walt.transport.closeStdin()
        await until(lambda: "end" in program.events)
        self.assertEqual(sum(len(one) for one in program.events[:-1]), 4 << 20)
        program.options["ended"](0)
        self.assertEqual(await walt.ended, 0)

    async def test_several_nodes(self) -> None:
        """At once; outputs whole, in the order of names; no input; 1 if one failed."""
        for statuses, expected in (((0, 0), 0), ((0, 3), 1)):
            self.server.platform.sessions.made.clear()
            walt = Walt(self.server, "node", "run", "my-nodes", "hostname")
            await self.server.program(1)
            by_ip = {one.ip: one for one in self.server.platform.sessions.made}
            for ip, text, status in (
                (SECOND.ip, b"two\n", statuses[1]), (NODE.ip, b"one\n", statuses[0]),
            ):
                await until(lambda one=by_ip[ip]: one.events == ["end"])
                by_ip[ip].options["output"](text)
                by_ip[ip].options["ended"](status)
            self.assertEqual(await walt.ended, expected)
            failed = b"node-2: exit status 3\n" if expected else b""
            self.assertEqual((walt.out, walt.err), (b"one\ntwo\n", failed))

    async def test_lines_begin_with_the_name_of_their_node(self) -> None:
        """With --prefix, as they come, whole; on one node too, with its input."""
        walt = Walt(self.server, "node", "run", "--prefix", "my-nodes", "hostname")
        await self.server.program(1)
        by_ip = {one.ip: one for one in self.server.platform.sessions.made}
        one, two = by_ip[NODE.ip], by_ip[SECOND.ip]
        two.options["output"](b"a\nb")
        await walt.shows(b"node-2: a\n")
        one.options["output"](b"x\n")
        one.options["errors"](b"oh")
        await walt.shows(b"node-1: x\n")
        one.options["ended"](3)
        two.options["output"](b"c\nlast")
        two.options["ended"](0)
        self.assertEqual(await walt.ended, 1)
        self.assertEqual(walt.out, b"node-2: a\nnode-1: x\nnode-2: bc\nnode-2: last\n")
        self.assertEqual(walt.err, b"node-1: oh\nnode-1: exit status 3\n")
        walt = Walt(self.server, "node", "run", "--prefix", "node-1", "cat")
        program = await self.server.program(2)
        walt.write(b"data")
        walt.transport.closeStdin()
        await until(lambda: program.events == [b"data", "end"])
        program.options["output"](b"data")
        program.options["ended"](4)
        self.assertEqual(await walt.ended, 4)
        self.assertEqual((walt.out, walt.err), (b"node-1: data\n", b""))

    async def test_one_of_several_refused(self) -> None:
        """An error on one node is told in its place; the others go on."""
        original = self.server.platform.sessions.node_command

        def node_command(ip: str, command: str, **options):  # type: ignore[no-untyped-def]
            if ip == NODE.ip:
                raise RuntimeError("a bug")
            return original(ip, command, **options)

        self.patch(self.server.platform.sessions, "node_command", node_command)
        walt = Walt(self.server, "node", "run", "my-nodes", "hostname")
        program = await self.server.program()
        program.options["output"](b"two\n")
        program.options["ended"](0)
        self.assertEqual(await walt.ended, 1)
        self.assertEqual(walt.out, b"two\n")
        self.assertRegex(walt.err, b"^node-1: .*internal error")
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    async def test_connection_lost(self) -> None:
        """The loss of the server in the middle: told, rc 1."""
        walt = Walt(self.server, "node", "run", "node-1", "cat")
        program = await self.server.program()
        program.options["output"].__self__.connection.transport.abortConnection()
        self.assertEqual(await walt.ended, 1)
        self.assertIn(b"connection", walt.err)

    async def test_no_input_at_all(self) -> None:
        """A closed standard input is its end."""
        walt = Walt(self.server, "node", "run", "node-1", "ls", shell='"$@" <&-')
        program = await self.server.program()
        await until(lambda: program.events == ["end"])
        program.options["ended"](0)
        self.assertEqual(await walt.ended, 0)

    async def test_confirmation(self) -> None:
        """For the node of another user: yes goes on and keeps the rest of the input; no, the end
        of input: rc 1; anything else is asked again."""
        for data in (b"n\n", b"", b"No\n", b"j\nyess\nNO\n", b"y"):
            walt = Walt(self.server, "node", "run", BOBS.name, "cat")
            walt.write(data if data != b"y" else b"x")
            walt.transport.closeStdin()
            self.assertEqual(await walt.ended, 1)
            self.assertIn(b"Node bobs-node belongs to bob.", walt.err)
            self.assertTrue(walt.out.endswith(b"Aborted.\n"))
        self.assertEqual(walt.out.count(b"(y/n): "), 2)
        walt = Walt(self.server, "node", "run", BOBS.name, "cat")
        walt.write(b"y\nfor the command")
        walt.transport.closeStdin()
        program = await self.server.program()
        await until(lambda: "end" in program.events)
        self.assertEqual(program.events, [b"for the command", "end"])
        program.options["ended"](0)
        self.assertEqual(await walt.ended, 0)

    async def test_yes_is_yes_however_it_is_written(self) -> None:
        """y, yes, Yes and YES."""
        for number, word in enumerate((b"y", b"yes", b"Yes", b"YES")):
            walt = Walt(self.server, "node", "run", BOBS.name, "cat")
            walt.write(word + b"\n")
            walt.transport.closeStdin()
            program = await self.server.program(number)
            program.options["ended"](0)
            self.assertEqual(await walt.ended, 0)


class TerminalTests(TestCase):
    """With a real pseudo-terminal."""

    timeout = patient(20)

    def setUp(self) -> None:
        self.server = Server(self)

    async def test_shell(self) -> None:
        """Window size, raw keys, resize; the terminal is restored; status 0."""
        walt = Walt(self.server, "node", "shell", "node-1", terminal=True)
        before = walt.attributes()
        program = await self.server.program()
        terminal = program.options["terminal"]
        self.assertEqual((terminal.term, terminal.rows, terminal.columns), ("xterm", 24, 80))
        self.assertEqual(program.command, "")
        self.assertTrue(program.options["node_terminal"])
        await until(lambda: walt.attributes() != before)
        walt.write(b"\x03\x12\x1a\r")  # ctrl-C, ctrl-R, ctrl-Z and Enter are for the node
        await until(lambda: b"".join(one for one in program.events if isinstance(one, bytes))
                    == b"\x03\x12\x1a\r")
        walt.resize(50, 132)
        await until(lambda: (50, 132) in program.events)
        program.options["output"](b"the node says\r\n")
        await walt.shows(b"the node says\r\n")
        program.options["ended"](7)
        self.assertEqual(await walt.ended, 0)
        self.assertIn(b"/persist", walt.out)

    async def test_terminal_restored(self) -> None:
        """After a normal end, the loss of the server, and TERM."""
        for end, expected in (("normal", 3), ("lost", 1), ("term", 143)):
            self.server.platform.sessions.made.clear()
            walt = Walt(self.server, "node", "run", "--term", "node-1", "top", terminal=True)
            before = walt.attributes()
            program = await self.server.program()
            await until(lambda walt=walt, before=before: walt.attributes() != before)
            if end == "normal":
                program.options["ended"](3)
            elif end == "lost":
                program.options["output"].__self__.connection.transport.abortConnection()
            else:
                walt.transport.signalProcess("TERM")
            self.assertEqual(await walt.ended, expected)
            self.assertEqual(walt.left, before)

    async def test_busy_indicator(self) -> None:
        """The wheel turns with the server's label, and is erased at the end."""
        self.server.down()
        walt = Walt(self.server, "node", "wait", "node-1", terminal=True)
        await walt.shows(b"Waiting for bootup of node node-1... ")
        for wheel in (b"\\", b"|", b"/", b"-"):
            await walt.shows(b"... " + wheel)
        self.server.platform.status.booted(NODE.mac)
        self.assertEqual(await walt.ended, 0)
        last = walt.out.rsplit(b"\r", 2)
        self.assertEqual(last[1].strip(), b"")
        self.assertEqual(last[2], b"")

    async def test_busy_indicator_and_timeout(self) -> None:
        """It is erased before any other text."""
        self.server.down()
        walt = Walt(self.server, "node", "wait", "--timeout", "1", "node-1", terminal=True)
        self.assertEqual(await walt.ended, 1)
        self.assertTrue(walt.out.endswith(b" \rTimeout: some nodes are not booted yet.\r\n"))

    async def test_colours(self) -> None:
        """Titles are bold on a terminal, unless NO_COLOR is set or it cannot."""
        for variables, bold in (({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)):
            walt = Walt(self.server, "node", "show", terminal=True, variables=variables)
            self.assertEqual(await walt.ended, 0)
            self.assertEqual(b"\x1b[1mYou own the following nodes:\x1b[0m" in walt.out, bold)

    async def test_logo(self) -> None:
        """Beside the help, where the terminal has 256 colours and the room."""
        for term, columns, decorated in (
            ("xterm-256color", 200, True), ("xterm-256color", 80, False), ("xterm", 200, False),
        ):
            walt = Walt(
                self.server, "--help", terminal=True, variables={"TERM": term}, columns=columns
            )
            self.assertEqual(await walt.ended, 0)
            self.assertEqual(b"\x1b[38;5;" in walt.out, decorated, (term, columns))
        walt = Walt(self.server, "--help", variables={"TERM": "xterm-256color"})
        self.assertEqual(await walt.ended, 0)
        self.assertNotIn(b"\x1b", walt.out)

    async def test_interrupted_at_a_question(self) -> None:
        """Ctrl-C at a confirmation: Aborted, rc 130."""
        walt = Walt(self.server, "node", "run", BOBS.name, "ls", terminal=True)
        await walt.shows(b"(y/n): ")
        walt.write(b"\x03")
        self.assertEqual(await walt.ended, 130)
        self.assertIn(b"Aborted.", walt.out)

    async def test_many_lines(self) -> None:
        """More than 1000 lines of history ask first, on a terminal."""
        for number in range(LARGE + 1):
            self.server.platform.logs.write(NODE.mac, "exp", f"line {number}")
        walt = Walt(self.server, "log", "show", "--history", "full", terminal=True)
        await walt.shows(b"about 1001 log lines.")
        await walt.shows(b"(y/n): ")
        walt.write(b"n\n")
        self.assertEqual(await walt.ended, 1)
        self.assertNotIn(b"exp ->", walt.out)

    async def test_console(self) -> None:
        """A notice, Enter; keys alone are commands; ctrl-a d leaves with a reset."""
        walt = Walt(self.server, "node", "console", "node-1", terminal=True)
        await walt.shows(b"Press Enter")
        walt.write(b"\n")
        await until(lambda: self.server.platform.logs._subscribers)
        self.server.platform.logs.write(
            NODE.mac, "virtualconsole", repr(b"login: \x1bc"), mode="chunk"
        )
        await walt.shows(b"login: ")
        typed = self.server.virtual.typed
        for number, keys in enumerate((b"root\r", b"\x01d in a pasted block", b"\x03"), 1):
            walt.write(keys)
            await until(lambda number=number: len(typed) == number)
        await self.key(walt, b"\x01")
        walt.write(b"a")
        await until(lambda: len(typed) == 4)
        await self.key(walt, b"\x01")
        walt.write(b"d")
        self.assertEqual(await walt.ended, 0)
        self.assertEqual([data for _, data in typed],
                         [b"root\r", b"\x01d in a pasted block", b"\x03", b"\x01"])
        self.assertTrue(walt.out.endswith(b"\x1bcDisconnected from the console.\r\n"))
        attached = walt.out.partition(b"to give up.")[2]
        self.assertNotIn(b"Server is working", attached)  # no wheel amid what the node says

    async def test_console_left_by_keys_in_one_read(self) -> None:
        """Ctrl-a and its letter may arrive together; ctrl-a a, then ctrl-a d."""
        walt = Walt(self.server, "node", "console", "node-1", terminal=True)
        await walt.shows(b"Press Enter")
        walt.write(b"\n")
        await until(lambda: self.server.platform.logs._subscribers)
        walt.write(b"\x01a")
        await until(lambda: self.server.virtual.typed == [("node-1", b"\x01")])
        walt.write(b"\x01d")
        self.assertEqual(await walt.ended, 0)
        self.assertEqual(len(self.server.virtual.typed), 1)

    async def key(self, walt: Walt, key: bytes) -> None:
        """Type a key that is read alone, though nothing is sent for it."""
        assert walt.terminal is not None
        there, before = walt.terminal[1], bytes_read(walt.transport.pid)
        os.write(walt.transport.fd, key)
        # The kernel hands it over a moment later: an empty queue alone tells nothing.
        await until(lambda: bytes_read(walt.transport.pid) > before
                    and not any(fcntl.ioctl(there, termios.FIONREAD, bytes(4))))

    async def test_console_given_up(self) -> None:
        """Ctrl-C at the notice."""
        walt = Walt(self.server, "node", "console", "node-1", terminal=True)
        await walt.shows(b"Press Enter")
        walt.write(b"\x03")
        self.assertEqual(await walt.ended, 130)
        self.assertNotIn(b"Disconnected", walt.out)


class ImportTests(TestCase):
    timeout = patient(20)

    async def test_short_command(self) -> None:
        """What `walt node show` imports is short of everything heavy."""
        walt = Walt(
            Server(self), "node", "show", python=(sys.executable, "-X", "importtime")
        )
        self.assertEqual(await walt.ended, 0)
        names = {line.split(b"|")[-1].strip().decode() for line in walt.err.splitlines()}
        self.assertIn("walt.client.session", names)
        wrong = {name for name in names for one in FORBIDDEN
                 if name == one or name.startswith(one + ".")}
        site = {"typing", "threading"}  # a virtual environment's own start-up files may
        self.assertEqual(wrong - site, set())


def bytes_read(pid: int) -> int:
    """Return how many bytes a process has read so far (proc(5), io)."""
    with open(f"/proc/{pid}/io", encoding="ascii") as lines:
        return int(next(lines).removeprefix("rchar:"))


def python39() -> str:
    """Return a Python 3.9 that runs, or skip the test."""
    found = os.environ.get("WALT_PYTHON39") or shutil.which("python3.9")
    if found is None:
        raise SkipTest(without_python("3.9"))
    if subprocess.run([found, "-c", ""], capture_output=True, timeout=60).returncode:
        raise SkipTest(without_python("3.9 that runs"))
    return found


class OldPythonTests(TestCase):
    """Python 3.9 stays usable for the client (design D18)."""

    timeout = patient(20)

    async def test_commands(self) -> None:
        """Help, a listing and a session."""
        python = python39()
        server = Server(self)
        for words in (["-h"], ["help", "list"], ["node", "show"], ["log", "show", "-h"]):
            walt = Walt(server, *words, python=(python,))
            self.assertEqual(await walt.ended, 0, walt.err)
        walt = Walt(server, "node", "run", "node-1", "ls", python=(python,))
        program = await server.program()
        program.options["ended"](5)
        self.assertEqual(await walt.ended, 5, walt.err)


class OldSyntaxTests(SynchronousTestCase):
    def test_every_module(self) -> None:
        """Each module of walt.client, walt.common and walt.virtual parses as Python 3.9."""
        for package in ("client", "common", "virtual"):
            for path in (ROOT / "walt" / package).rglob("*.py"):
                ast.parse(path.read_text(), feature_version=(3, 9))
