"""The Python tools of nodes, as processes, with the real listener of the server."""

from __future__ import annotations

import configparser
import fcntl
import importlib
import os
import pty
import shutil
import signal
import sys
import tempfile
import termios
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.fakes.transports import serve
from tests.patience import patient
from tests.server.streams.platform import FROM_NODE, Platform
from walt.node.logs.lines import MAX_LINE, Lines
from walt.node.logs.requests import BadRequest, Line, parse
from walt.node.logs.server import NoServer, server_address
from walt.node.serial.directives import Board, Problem, Record
from walt.node.setup import COMMANDS, NotPossible, install
from walt.server.domain.logs.model import clean_text

ROOT = Path(__file__).resolve().parents[2]


class RequestTests(SynchronousTestCase):
    def test_requests(self) -> None:
        """LOG and TSLOG, with the text as it was written."""
        for request, line in (
            (b"LOG exp  two  spaces ", Line(b"exp", None, b" two  spaces ")),
            (b"LOG exp", Line(b"exp", None, b"")),
            (b"TSLOG 1700000000.5 exp a b", Line(b"exp", 1700000000.5, b"a b")),
        ):
            self.assertEqual(parse(request), line)

    def test_refused(self) -> None:
        """What is no request is told."""
        for request in (
            b"", b"LOG", b"LOG ", b"TSLOG x exp a", b"TSLOG nan exp a", b"TSLOG inf exp a",
            b"MONITOR 1 0 0 24 80", b"\xff", b"LOG " + b"x" * 1001 + b" a",
        ):
            self.assertRaises(BadRequest, parse, request)

    @given(st.binary())
    def test_anything(self, request: bytes) -> None:
        """Any bytes are a line or refused."""
        try:
            self.assertTrue(parse(request).stream)
        except BadRequest:
            pass

    def test_address(self) -> None:
        """The file that the server writes; a system without one."""
        place = self.mktemp()
        Path(place).write_text(
            "# x\nexport walt_server_ip='192.168.1.1'\nexport walt_server_logs_port='12347'\n"
        )
        self.assertEqual(server_address(place), ("192.168.1.1", 12347))
        self.assertRaises(NoServer, server_address, "/nowhere")
        Path(place).write_text("export walt_server_ip='%(server_ip)s'\n")
        self.assertRaises(NoServer, server_address, place)


class LinesTests(SynchronousTestCase):
    def test_times(self) -> None:
        """A line has the time of its first byte."""
        lines = Lines()
        self.assertEqual(lines.feed(b"on", 1), [])
        self.assertEqual(lines.feed(b"e\r\ntwo\nth", 2), [(1, b"one"), (2, b"two")])
        self.assertEqual(lines.feed(b"ree\n", 3), [(2, b"three")])
        self.assertEqual(lines.feed(b"rest", 4), [])
        self.assertEqual(lines.rest(), [(4, b"rest")])
        self.assertEqual(lines.rest(), [])

    def test_no_end(self) -> None:
        """What never ends is a line at the limit."""
        lines = Lines()
        lines.feed(b"x" * MAX_LINE, 1)
        self.assertEqual(len(lines.feed(b"x", 2)), 1)

    @given(st.binary(max_size=40), st.integers(1, 5))
    def test_any_pieces(self, data: bytes, size: int) -> None:
        """Lines do not depend on how bytes come."""
        lines = Lines()
        found = []
        for at in range(0, len(data), size):
            found += lines.feed(data[at:at + size], at)
        found += lines.rest()
        expected = [one.rstrip(b"\r") for one in data.split(b"\n")]
        if not expected[-1]:
            expected.pop()
        self.assertEqual([line for _, line in found], expected)


class BoardTests(SynchronousTestCase):
    def board(self, *lines: str) -> Board:
        board = Board()
        for line in ("LOGSTART", *lines):
            self.assertIs(board.line(line), None)
        return board

    def test_definitions(self) -> None:
        """Prefixes, separators, variables; other lines are not logged."""
        board = self.board(
            "LOGDEF radio ;T: : {nodeid}:TxStart:{}", "LOGDEF radio ;R : {nodeid}:RxStart",
            "LOGDEF long ;T:x , {1:>4}{0}", "LOGVAR nodeid af4e",
        )
        self.assertEqual(board.line(";T:aabb\r"), Record("radio", "af4e:TxStart:aabb"))
        self.assertEqual(board.line(" ;R"), Record("radio", "af4e:RxStart"))
        self.assertEqual(board.line(";T:x,a,b"), Record("long", "   ba"))
        self.assertIs(board.line("noise"), None)
        self.assertIs(board.line(""), None)
        board.line("LOGDEF other ;R : again")
        self.assertEqual(board.line(";R"), Record("other", "again"))

    def test_before_the_start(self) -> None:
        """Nothing counts before LOGSTART."""
        board = Board()
        self.assertIs(board.line("LOGDEF a ;R : x"), None)
        board.line("LOGSTART")
        self.assertIs(board.line(";R"), None)

    def test_refused(self) -> None:
        """Bad directives and formats are told; a format reaches texts only."""
        board = self.board("LOGVAR v x")
        for line in ("LOGDEF a ;", "LOGVAR x"):
            self.assertRaises(Problem, board.line, line)
        for template in (
            "{}{}", "{unknown}", "{", "{0.__class__}", "{v.__class__}", "{0[0]}",
            "{0:>9999999999}", "{0:{v}}",
        ):
            board.line(f"LOGDEF a ;R : {template}")
            self.assertRaises(Problem, board.line, ";R:one")

    @given(st.lists(st.text(max_size=30), max_size=6))
    def test_anything(self, lines: list[str]) -> None:
        """Any text logs, does nothing, or is refused."""
        board = self.board("LOGDEF a ; : {0}")
        for line in lines:
            try:
                board.line(";" + line)
                board.line(line)
            except Problem:
                pass


class SetupTests(SynchronousTestCase):
    def test_image(self) -> None:
        """Commands are linked, the service is enabled; twice does no harm."""
        root = Path(self.mktemp())
        (root / "opt/walt/bin").mkdir(parents=True)
        self.assertRaises(NotPossible, install, Path("/opt/walt"), root)
        for name in COMMANDS:
            (root / "opt/walt/bin" / name).touch()
        self.assertRaises(NotPossible, install, Path("/opt/walt"), root)  # no systemd
        (root / "etc/systemd").mkdir(parents=True)
        for _ in range(2):
            install(Path("/opt/walt"), root)
        self.assertEqual(
            os.readlink(root / "usr/local/bin/walt-log-monitor"), "/opt/walt/bin/walt-log-monitor"
        )
        units = root / "etc/systemd/system"
        self.assertIn("/usr/local/bin/walt-logs-daemon", (units / "walt-logs.service").read_text())
        self.assertTrue((units / "multi-user.target.wants/walt-logs.service").is_symlink())


    def test_entry_points(self) -> None:
        """The commands that are linked exist in the package."""
        config = configparser.ConfigParser()
        config.read(ROOT / "setup.cfg")
        scripts = dict(
            line.split(" = ") for line in
            config["options.entry_points"]["console_scripts"].strip().splitlines()
        )
        for name in (*COMMANDS, "walt-node-setup"):
            module, function = scripts[name].split(":")
            self.assertTrue(callable(getattr(importlib.import_module(module), function)), name)


# Those of nodes: /bin/sh of Debian, and what is left when an image has little else.
SHELLS = ("dash", "busybox sh")


class Tool(ProcessProtocol):
    """A tool that runs."""

    def __init__(self) -> None:
        self.output = b""
        self.ended: Deferred[int | None] = Deferred()

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        self.output += data

    def processEnded(self, reason: Any) -> None:
        self.ended.callback(reason.value.exitCode)


class ToolsTests(TestCase):
    timeout = patient(60)

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.platform = Platform()
        self.place = Path(tempfile.mkdtemp(prefix="wt", dir="/tmp"))
        self.addCleanup(shutil.rmtree, self.place)
        self.fifo = self.place / "logs.fifo"
        self.port: Any = None
        self.listen(0)

    def listen(self, number: int) -> None:
        self.connections: list[Any] = []

        def connection() -> Any:
            self.connections.append(self.platform.protocol(FROM_NODE))
            return self.connections[-1]

        factory = serve(connection)
        self.port = self.reactor.listenTCP(number, factory, interface="127.0.0.1")
        self.addCleanup(self.port.stopListening)
        self.number = self.port.getHost().port
        (self.place / "walt-env").write_text(
            f"export walt_server_ip='127.0.0.1'\nexport walt_server_logs_port='{self.number}'\n"
        )

    def tool(self, code: str, *words: str, terminal: bool = False) -> Any:
        """Start a tool; what it finds in fixed places on a node is in our directory."""
        tool: Any = Tool()
        set_up = (
            "import walt.node.logs.monitor as monitor, walt.node.serial.autolog as autolog\n"
            f"monitor.ENVIRONMENT = {str(self.place / 'walt-env')!r}\n"
            f"autolog.FIFO = {str(self.fifo)!r}\nautolog.TRACES = {str(self.place)!r} + '/traces'\n"
            "import walt.node.logs.daemon as daemon\ndaemon.IDLE = 0.5\n"
        )
        transport = self.reactor.spawnProcess(
            tool, sys.executable, [sys.executable, "-c", set_up + code, *words],
            {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "TERM": "xterm"},
            usePTY=terminal,
        )

        def end() -> Any:
            if not tool.ended.called:
                transport.signalProcess("KILL")
            return tool.ended

        self.addCleanup(end)
        return tool

    async def until(self, condition: Any) -> None:
        for _ in range(400):
            if condition():
                return
            await deferLater(self.reactor, 0.05, lambda: None)
        raise AssertionError("not reached")

    async def daemon(self) -> Any:
        """Start the daemon and wait for its FIFO."""
        daemon = self.tool("daemon.run()", "--fifo", str(self.fifo), "--environment",
                           str(self.place / "walt-env"))
        await self.until(lambda: self.fifo.exists() or daemon.ended.called)
        self.assertFalse(daemon.ended.called, daemon.output)
        return daemon

    async def test_daemon(self) -> None:
        """Lines of a FIFO, by stream; idle streams are closed; a stop loses nothing."""
        daemon = await self.daemon()
        with open(self.fifo, "wb", buffering=0) as fifo:
            fifo.write(b"TSLOG 1699999999.5 stamped a  line \nLOG exp1 one\nnonsense\n")
            fifo.write(b"LOG exp1 CLOSE\nLOG exp1 two\n")
            await self.until(lambda: len(self.platform.lines("exp1")) == 3)
            self.assertEqual(self.platform.lines("exp1"), ["one", "CLOSE", "two"])
            self.assertEqual(self.platform.stored("stamped"), [(1699999999.5, "a  line ")])
            # In time both streams were closed; the next line opens one again.
            await self.until(lambda: all(one.transport.disconnected for one in self.connections))
            before = len(self.connections)
            self.assertGreater(before, 1)
            fifo.write(b"LOG exp1 three\n" + b"".join(b"LOG many %d\n" % n for n in range(3000)))
            await self.until(lambda: "three" in self.platform.lines("exp1"))
            self.assertGreater(len(self.connections), before)
        os.kill(daemon.transport.pid, signal.SIGTERM)
        await self.until(lambda: (self.platform.lines("many"), daemon.ended.called)[1])
        self.assertEqual(await daemon.ended, 0)
        self.assertEqual(self.platform.lines("many"), [str(n) for n in range(3000)])
        self.assertEqual(self.platform.lines("exp1"), ["one", "CLOSE", "two", "three"])
        self.assertIn(b"nonsense", daemon.output)
        self.assertFalse(self.fifo.exists())

    async def test_last_words(self) -> None:
        """What is in the FIFO when the daemon is stopped arrives, without a last newline too."""
        daemon = await self.daemon()
        # Stopped as long as it takes to fill the FIFO, which then holds more than one reading.
        os.kill(daemon.transport.pid, signal.SIGSTOP)
        with open(self.fifo, "wb", buffering=0) as fifo:
            fcntl.fcntl(fifo, fcntl.F_SETPIPE_SZ, 1 << 20)
            fifo.write(b"".join(b"LOG many %d\n" % n for n in range(20_000)) + b"LOG many last")
            os.kill(daemon.transport.pid, signal.SIGTERM)
            os.kill(daemon.transport.pid, signal.SIGCONT)
            await self.until(lambda: (self.platform.lines("many"), daemon.ended.called)[1])
        self.assertEqual(await daemon.ended, 0)
        self.assertEqual(self.platform.lines("many"), [*map(str, range(20_000)), "last"])

    async def script(self, shell: str, words: str, data: bytes = b"") -> bytes:
        """Run a command with the scripts of nodes; return its output."""
        bin = self.place / shell.replace(" ", "-")
        if not bin.exists():
            bin.mkdir()
            for one in ("walt-log-cat", "walt-log-tee", "walt-log-echo"):
                text = (ROOT / "walt/node" / one).read_text()
                for there, here in (
                    ("#!/bin/sh", f"#!{shutil.which(shell.split()[0])} {shell.partition(' ')[2]}"),
                    ("exec /bin/sh ", f"exec {shell} "),
                    ("/bin/walt-env", f"{self.place}/walt-env"),
                    ("/var/lib/walt/logs.fifo", str(self.fifo)),
                ):
                    text = text.replace(there, here)
                (bin / one).write_text(text)
                (bin / one).chmod(0o755)
        tool: Any = Tool()
        transport = self.reactor.spawnProcess(
            tool, "/bin/sh", ["sh", "-c", words],
            {"PATH": f"{bin}:{os.environ['PATH']}", "HERE": str(self.place)},
        )
        transport.write(data)
        transport.closeStdin()
        # Tools wait for the receipt of the server, whose store is flushed by whoever looks.
        await self.until(lambda: (self.platform.lines("s"), tool.ended.called)[1])
        self.status = await tool.ended
        output: bytes = tool.output
        return output

    async def test_bytes_of_scripts(self) -> None:
        """Every byte of a line arrives, in each shell; a copy is the same to the last byte."""
        odd = bytes(n for n in range(1, 256) if n not in b"\n\r\xf7")
        data = b"a\0b\n\n\0\n" + odd + b"\nCR\r\n \\n %s \xc3\xa9\n-n\nlast\0x"
        expected = [clean_text(line) for line in data.replace(b"\r\n", b"\n").split(b"\n")]
        for shell in SHELLS:
            for command, copy in (
                ("walt-log-cat s", b""), ("walt-log-tee s", data),
                ("walt-log-cat --ts-local s", b""), ("walt-log-tee --ts-local s", data),
                ("walt-log-tee s > $HERE/out; cat $HERE/out", data),
            ):
                for ending in (b"", b"\n"):
                    self.platform.store.rows.clear()
                    copied = await self.script(shell, command, data + ending)
                    self.assertEqual(copied, copy and copy + ending, (shell, command))
                    self.assertEqual(self.platform.lines("s"), expected, (shell, command))
            self.platform.store.rows.clear()
            await self.script(shell, "walt-log-cat s")
            self.assertEqual(self.platform.lines("s"), [])

    async def test_line_that_looks_like_the_end(self) -> None:
        """It is a line as others, though what follows comes later."""
        for shell in SHELLS:
            for tool in ("walt-log-cat s", "walt-log-cat --ts s", "walt-log-tee s >&2"):
                self.platform.store.rows.clear()
                end = self.place / "end"
                writer = f"(echo CLOSE; while [ ! -e {end} ]; do sleep 0.1; done; echo next)"
                running = Deferred.fromCoroutine(self.script(shell, f"{writer} | {tool}"))
                await self.until(lambda: self.platform.lines("s"))
                end.touch()
                await running
                end.unlink()
                self.assertEqual(self.platform.lines("s"), ["CLOSE", "next"], (shell, tool))

    async def test_texts_of_scripts(self) -> None:
        """Several lines in one text are lines, each with the time given, with the daemon or not."""
        texts = {
            "'one\n17 two\n\nCLOSE'": ["one", "17 two", "", "CLOSE"], "a '  b' ''": ["a   b "],
            "'-n %s \\n'": ["-n %s \\n"], "'x\r'": ["x"], "'\n'": ["", ""],
        }
        for daemon in (False, True):
            if daemon:
                await self.daemon()
            for shell in SHELLS:
                for text, lines in texts.items():
                    for options in ("", "--timestamp 1699999999.5 "):
                        self.platform.store.rows.clear()
                        await self.script(shell, f"walt-log-echo {options}s {text}")
                        count = len(lines)
                        await self.until(
                            lambda count=count: len(self.platform.lines("s")) >= count
                        )
                        what = (daemon, shell, text)
                        self.assertEqual(self.platform.lines("s"), lines, what)
                        if options:
                            found = {stamp for stamp, _ in self.platform.stored("s")}
                            self.assertEqual(found, {1699999999.5}, what)
                await self.script(shell, "walt-log-echo 'two words' x")
                self.assertEqual(self.platform.lines("two words"), ["x"])
                self.platform.store.rows.clear()

    async def test_refusals_of_scripts(self) -> None:
        """Names and times that are none are told, and nothing is sent."""
        for shell in SHELLS:
            for words in (
                "walt-log-echo --ts now s x", "walt-log-echo --ts '' s x", "walt-log-echo s",
                "walt-log-echo --ts 1.2.3 s x", "walt-log-echo 's\nt' x", "walt-log-cat 's\nt'",
                "walt-log-cat", "walt-log-tee --bad s", "walt-log-echo '' x",
            ):
                self.assertTrue(await self.script(shell, words), words)
                self.assertEqual(self.status, 2, words)
        self.assertEqual(self.connections, [])

    async def test_server_away(self) -> None:
        """Lines written while the server is away come when it is back, each once."""
        await self.port.stopListening()
        await self.daemon()
        with open(self.fifo, "wb", buffering=0) as fifo:
            for number in range(100):
                fifo.write(b"LOG exp1 %d\n" % number)
            # They were read, and so there was nobody to send them to.
            await self.until(lambda: not any(fcntl.ioctl(fifo, termios.FIONREAD, bytes(4))))
        self.listen(self.number)
        await self.until(lambda: len(self.platform.lines("exp1")) >= 100)
        self.assertEqual(self.platform.lines("exp1"), [str(n) for n in range(100)])

    async def test_monitor(self) -> None:
        """The command has a terminal; its lines go to its stream; its status is returned."""
        monitor = self.tool(
            "monitor.run()", "sh", "-c", "test -t 1 && echo out; echo err >&2; printf end; exit 3",
        )
        monitor.transport.closeStdin()
        await self.until(lambda: (self._monitored(), monitor.ended.called)[1])
        self.assertEqual(await monitor.ended, 3)
        self.assertEqual(self._monitored(), ["START", "out", "err", "end", "END"])
        self.assertEqual(monitor.output, b"out\r\nerr\r\nend")

    async def test_monitored_terminal(self) -> None:
        """In a terminal, keys go to the command, control characters too."""
        monitor = self.tool("monitor.run()", "cat", terminal=True)
        await self.until(lambda: "START" in self._monitored())
        monitor.transport.write(b"typed\n\x04")
        await self.until(lambda: (self._monitored(), monitor.ended.called)[1])
        self.assertEqual(await monitor.ended, 0)
        self.assertEqual(self._monitored(), ["START", "typed", "typed", "END"])

    async def test_monitor_refusals(self) -> None:
        """No command, an unknown one: told, with the statuses of shells; an old name warns."""
        for code, words, status, text in (
            ("monitor.run()", [], 2, b"Usage"),
            ("monitor.run()", ["no-such-command"], 127, b"no such command"),
            ("monitor.run_deprecated()", ["true"], 0, b"use walt-log-monitor"),
        ):
            tool = self.tool(code, *words)
            await self.until(lambda tool=tool: (self._monitored(), tool.ended.called)[1])
            self.assertEqual(await tool.ended, status)
            self.assertIn(text, tool.output)

    def _monitored(self) -> list[str]:
        Deferred.fromCoroutine(self.platform.logs.flush())
        return [one.line for one in self.platform.store.lines if one.stream.endswith(".monitor")]

    async def test_serial_line(self) -> None:
        """What a board prints on a serial line, as it defined it; the end of the line ends it."""
        daemon = await self.daemon()
        board, line = pty.openpty()
        device = os.ttyname(line)
        os.write(board, b"old noise\n")
        autolog = self.tool("autolog.run()", device)
        await self.until(lambda: (self.place / "traces" / device.lstrip("/") / "in.log").exists())
        os.write(board, b"LOGDEF early ; : x\nLOGSTART\nLOGDEF radio ;T: : {id}:{}\nLOGVAR id 7\n"
                 b";T:a\xff\nnoise\nLOGDEF bad ;X : {0.x}\n;X:1\n;T:b\n")
        await self.until(lambda: len(self.platform.lines("radio")) == 2)
        self.assertEqual(self.platform.lines("radio"), ["7:a\\xff", "7:b"])
        self.assertGreater(self.platform.stored("radio")[0][0], 0)
        self.assertIn(b"cannot be applied", autolog.output)
        os.close(line)
        os.close(board)
        self.assertEqual(await autolog.ended, 0)
        refused = self.tool("autolog.run()", "/nowhere/ttyUSB0")
        self.assertEqual(await refused.ended, 1)
        self.assertIn(b"No such file", refused.output)
        os.kill(daemon.transport.pid, signal.SIGTERM)
        await daemon.ended
        alone = self.tool("autolog.run()", "/dev/null")
        self.assertEqual(await alone.ended, 1)
        self.assertIn(b"walt-logs-daemon first", alone.output)
