"""A whole server in a process of its own, in its own directories and namespace."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater

from tests import guard
from tests.patience import patient
from tests.places import ON_DISK
from tests.system.platform import missing_programs
from tests.system.processes import processes
from tests.system.records import faults
from walt.server.adapters.podman.options import Storage
from walt.server.runtime.process import ProcessResult, ProcessRunner

CACHE = Path(os.environ.get("WALT_TEST_CACHE", "/var/cache/walt"))
ROOT = Path(__file__).resolve().parents[2]
SERVER_IP = "192.168.181.1"
# Servers of tests are watched as the tests are; what is measured in benches is the server alone.
TWISTD = "tests.guard" if guard.wanted() else "twisted.scripts.twistd"


def why_not() -> str | None:
    """Return why a whole platform cannot run here, None if it can."""
    return missing_programs()


class _Server(ProcessProtocol):
    """One process of the server: what it was sent, and how it ended."""

    def __init__(self, log: Path) -> None:
        self._log = open(log, "ab")  # noqa: SIM115 (closed at the end of the process)
        self.ended: Deferred[int] = Deferred()
        self.status: int | None = None
        self.sent: set[int] = set()
        self.wrong: str | None = None

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        self._log.write(data)
        self._log.flush()

    def processExited(self, reason: Any) -> None:
        # twistd ends with the signal that stopped it, once everything is stopped.
        signal, code = reason.value.signal, reason.value.exitCode
        self.status = 0 if signal == SIGTERM else code if code is not None else -1
        if signal is not None and signal not in self.sent:
            self.wrong = f"the server was ended by signal {signal}, which nobody sent"
        elif signal is None and not self.sent:
            self.wrong = f"the server ended by itself, with status {code}"
        elif code:
            self.wrong = f"the server ended with status {code}"
        self._log.close()
        self.ended.callback(self.status)


class Program(ProcessProtocol):
    """A process that a test watches, kills, or gives input to."""

    def __init__(self) -> None:
        self.out = b""
        self.err = b""
        self.ended: Deferred[int | None] = Deferred()

    def outReceived(self, data: bytes) -> None:
        self.out += data

    def errReceived(self, data: bytes) -> None:
        self.err += data

    def processEnded(self, reason: Any) -> None:
        self.ended.callback(reason.value.exitCode)


class LivePlatform:
    """Start, use through the public commands, kill, restart and stop a server."""

    def __init__(
        self, reactor: Any, *, net: str = "192.168.181", prefix: int = 24,
        own_namespace: bool = True,
    ) -> None:
        self.reactor = reactor
        self.runner = ProcessRunner(reactor)
        self.base = Path(tempfile.mkdtemp(prefix="wl", dir=ON_DISK))
        self.base.chmod(0o711)
        for name in "srcl":
            (self.base / name).mkdir(mode=0o711)
        self.state, self.runtime = self.base / "s", self.base / "r"
        self.namespace = f"wl{os.getpid()}"
        self.config = self.base / "server.conf"
        self.net, self.prefix = net, prefix
        self.own_namespace = own_namespace
        self.enter: list[str] = []  # other words than nsenter's, to start it in the namespace
        self.server_environment: dict[str, str] = {}
        self.ui_port = 0  # where browsers find the pages; 0: nowhere
        self.write_config()
        self.log = self.base / "server.log"
        self.server: _Server | None = None
        self.pid = 0
        self._servers: list[_Server] = []
        self._expected: list[str] = []

    def expects(self, text: str) -> None:
        """Let an error whose record in the server's log, traceback included, has this text pass.

        To be called by a test that provokes it, with what no other error has.
        """
        self._expected.append(text)

    def write_config(self, extra: str = "") -> None:
        """Write server.conf with `extra` YAML lines."""
        namespace = f"  namespace: {self.namespace}\n" if self.own_namespace else ""
        self.config.write_text(
            f"network:\n{namespace}"
            f"  walt-net:\n    ip: {self.net}.1/{self.prefix}\n"
            f"state-dir: {self.state}\nruntime-dir: {self.runtime}\n"
            f"cache-dir: {self.base}/c\nlog-dir: {self.base}/l\n"
            "services:\n  http:\n    host-port: 0\n"
            f"    ui-port: {self.ui_port}\nvirtual:\n  accel: tcg\n" + extra
        )

    def environment(self, user: str = "alice") -> dict[str, str]:
        """Return the environment of client commands."""
        return {
            "WALT_SERVER": f"unix:{self.runtime}/rpc.sock", "WALT_USERNAME": user,
            "PYTHONPATH": str(ROOT),
        }

    async def import_image(self, variant: str = "small") -> None:
        """Put the small image, or another one, into the store, as the default one."""
        await self.runner.run(
            [
                sys.executable, "-m", "walt.server.tools.image_recipe", "--variant", variant,
                "--state-dir", str(self.state), "--runtime-dir", str(self.runtime),
                "--cache-dir", str(CACHE),
            ],
            timeout=600, env={"PYTHONPATH": str(ROOT)},
        )

    async def add_image(
        self, name: str, files: Mapping[str, str | Path], without: str | None = None,
        models: str | None = None,
    ) -> None:
        """Make an image: the small one, and executable `files` by path (texts, or files here).

        `without` is the path of something that it shall lack, `models` what it boots.
        """
        context = self.base / f"context-{name.replace('/', '-')}"
        for path, text in files.items():
            file = context / "tree" / path.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(text.encode() if isinstance(text, str) else text.read_bytes())
            file.chmod(0o755)
        # One by one: a directory would replace a link that the image has in its place (/bin).
        copies = [f"COPY tree/{path.lstrip('/')} {path}\n" for path in files]
        context.mkdir(exist_ok=True)
        (context / "Containerfile").write_text(
            "FROM docker.io/waltplatform/pc-x86-64-default:latest\n" + "".join(copies)
            + ("" if without is None else f'RUN ["rm", "-r", "{without}"]\n')
            + ("" if models is None else f'LABEL walt.node.models="{models}"\n')
        )
        storage = Storage.private(self.state, self.runtime)
        await self.runner.run(storage.podman(
            "build", "--quiet", "--pull=never", "--isolation", "chroot", "--layers=false",
            "--tag", f"docker.io/{name}:latest", str(context),
        ), timeout=120)

    async def type(self, node: str, text: str) -> None:
        """Type on the console of a virtual node."""
        code = (
            "import sys; from walt.client.session import Session;"
            "Session().call('cs.nodes.console_input', node=sys.argv[1], data=sys.argv[2].encode())"
        )
        await self.runner.run(
            [sys.executable, "-c", code, node, text], env=self.environment()
        )

    def spawn(self) -> None:
        """Start the server without waiting."""
        self.server = _Server(self.log)
        self._servers.append(self.server)
        argv = [
            sys.executable, "-c", f"from {TWISTD} import run; run()",
            "--nodaemon", "--pidfile=", "--logger", "walt.server.assembly.logging.observer",
            "walt-server", "--config", str(self.config),
        ]
        if not self.own_namespace:
            inside = ["nsenter", f"--net=/run/netns/{self.namespace}", "--"]
            argv = [*(self.enter or inside), *argv]
        transport = self.reactor.spawnProcess(
            self.server, argv[0], argv,
            {
                **os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1",
                **self.server_environment,
            },
            str(self.base),
        )
        self.pid = transport.pid

    async def start(self, patience: float = patient(40)) -> None:
        """Start the server and wait until it says hello."""
        self.spawn()
        assert self.server is not None
        limit = self.reactor.seconds() + patience
        while True:
            answer = await self.walt("device", "show")
            if answer.status == 0:
                return
            if self.server.status is not None or self.reactor.seconds() > limit:
                raise AssertionError(f"{self.last_log()}\nno server")
            await self.sleep(0.1)

    async def walt(self, *words: str, user: str = "alice", stdin: bytes = b"",
                   timeout: float = patient(180)) -> ProcessResult:
        """Run the walt command."""
        return await self.runner.run(
            [sys.executable, "-m", "walt.client.main", *words], check=False, timeout=timeout,
            env=self.environment(user), stdin=stdin,
        )

    async def ok(self, *words: str, **options: Any) -> str:
        """Run a walt command that must succeed; return its output."""
        result = await self.walt(*words, **options)
        if result.status != 0:
            raise AssertionError(
                f"{self.last_log()}\n{result.stdout.decode()}{result.stderr.decode()}"
                f"walt {' '.join(words)}: status {result.status}"
            )
        return result.stdout.decode()

    async def event(self, *words: str) -> ProcessResult:
        """Run walt-dhcp-event."""
        return await self.runner.run(
            [sys.executable, "-m", "walt.server.tools.dhcp_event", *words], check=False,
            env={"WALT_RPC_SOCKET": f"{self.runtime}/rpc.sock", "PYTHONPATH": str(ROOT)},
        )

    async def begins_to_boot(self, ip: str) -> None:
        """Ask for the boot script as the node of an address does: it gets its persistent data."""
        inside = ["nsenter", f"--net=/run/netns/{self.namespace}", "--"]
        address = ["ip", "address", "{}", f"{ip}/32", "dev", "walt-net"]
        await self.runner.run([*inside, *(word.format("add") for word in address)])

        async def is_answered() -> bool:
            done = await self.runner.run([
                *inside, "curl", "--silent", "--fail", "--interface", ip, "--output", "/dev/null",
                f"http://{self.net}.1/boot/start.ipxe",
            ], check=False, timeout=patient(40))
            return done.status == 0

        await self.until(is_answered, "the boot script is there", 60)
        await self.runner.run([*inside, *(word.format("del") for word in address)])

    async def machines(self, node: str = "") -> list[int]:
        """Return the processes of the machines of this platform, or of one virtual node.

        Other platforms may have nodes of the same name beside it.
        """
        named = re.escape(node) if node else r"\S+"
        found = await self.runner.run(
            ["pgrep", "-f", f"^qemu-system.* -name {named} .*{re.escape(str(self.runtime))}/"],
            check=False,
        )
        return [int(pid) for pid in found.stdout.split()]

    async def services(self) -> dict[str, dict[str, Any]]:
        """Return the rows of `walt advanced services` by name."""
        rows = json.loads(await self.ok("advanced", "services", "--json"))
        return {row["name"]: row for row in rows}

    async def until(
        self, condition: Any, what: str, patience: float = 60.0, every: float = 0.25
    ) -> Any:
        """Await an async condition until it is true, looking `every` so many seconds."""
        limit = self.reactor.seconds() + patient(patience)
        while True:
            found = await condition()
            if found:
                return found
            if self.reactor.seconds() > limit:
                raise AssertionError(f"{self.last_log()}\nnot reached: {what}")
            await self.sleep(every)

    def last_log(self) -> str:
        """Return the end of the server's output; the reason of a failure belongs behind it."""
        return self.log.read_text(errors="replace")[-4000:]

    def sleep(self, seconds: float) -> Deferred[None]:
        """Let the reactor turn."""
        return deferLater(self.reactor, seconds, lambda: None)

    def signal(self, number: int) -> None:
        """Send a signal to the server."""
        if self.server is not None:
            self.server.sent.add(number)
        os.kill(self.pid, number)

    async def stop(self, number: int = SIGTERM) -> int:
        """End the server and return its status."""
        server = self.server
        if server is None or server.status is not None:
            return server.status if server is not None and server.status is not None else 0
        with suppress(ProcessLookupError):
            self.signal(number)
        return await server.ended.addTimeout(patient(90), self.reactor)

    def left_overs(self) -> list[str]:
        """Return what a stopped server must not leave: processes, mounts, namespaces."""
        found = [
            f"process {command}" for pid, command in processes().items()
            if str(self.base) in command and pid != os.getpid()
        ]
        mounts = Path("/proc/self/mounts").read_text()
        found += [f"mount {line}" for line in mounts.splitlines() if str(self.base) in line]
        if Path(f"/run/netns/{self.namespace}").exists():
            found.append(f"namespace {self.namespace}")
        return found

    async def close(self) -> None:
        """Stop everything and remove the directories.

        Raises AssertionError for an error in the log that nobody expects, and for a
        server that ended otherwise than it was told.
        """
        try:
            await self.stop()
        except TimeoutError:
            await self.stop(SIGKILL)
            raise AssertionError(f"SIGTERM does not end the server: {self.told()}") from None
        finally:
            text = self.told() if self.log.exists() else ""
            for line in Path("/proc/self/mounts").read_text().splitlines():
                place = line.split()[1]
                if place.startswith(str(self.base)):
                    await self.runner.run(["umount", "-l", place], check=False)
            shutil.rmtree(self.base, ignore_errors=True)
        wrong = [one.wrong for one in self._servers if one.wrong is not None]
        wrong += faults(text, self._expected)
        if wrong:
            raise AssertionError("\n".join(wrong))

    def told(self) -> str:
        """Return the server's log."""
        return self.log.read_text(errors="replace")
