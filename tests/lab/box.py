"""The server of the lab: a Debian with systemd, on which the product is installed."""

from __future__ import annotations

import shlex
import shutil
import socket
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from tests.lab.image import LabImage
from tests.lab.machine import ACCEL, CPU, Board, Machine, cable
from tests.lab.write_log import replay
from tests.patience import patient
from tests.places import ON_DISK
from walt.common.errors import Unavailable
from walt.server.runtime.process import ProcessResult, ProcessRunner

START = patient(200)  # seconds until a guest answers
# Patience for services on a busy machine; what the lab has no use for and takes long to start.
KERNEL_OPTIONS = " ".join((
    "root=/dev/vda rw console=ttyS0 net.ifnames=0 quiet systemd.default_timeout_start_sec=900",
    "modprobe.blacklist=cfg80211,iTCO_wdt,ahci,kvm_amd,kvm_intel,powernow_k8,aesni_intel",
    *(f"systemd.mask={one}" for one in (
        "postgresql.service", "apt-daily.timer", "apt-daily-upgrade.timer",
        "e2scrub_reap.service", "dpkg-db-backup.timer", "user@0.service",
        # At boot it may take the pid file of rpc.statd from the kernel's NFS server, which then
        # waits for the time-out above. A server with that one has no such package.
        "nfs-ganesha.service", "nfs-ganesha-lock.service",
    )),
))
B = TypeVar("B", bound=Board)
NET = "192.168.77"
SERVER = f"{NET}.1"
MEMORY = 4096  # MiB


def free_port() -> int:
    """Return a port of the loopback that nothing listens on at this moment."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Box:
    """One guest on a disk of its own, which goes when it is closed.

    `disk` is what it starts from. Interface eth0 leads to the harness, eth1 to walt-net with its
    board; eth2 is another one there, for who attacks.
    """

    def __init__(self, reactor: Any, image: LabImage, disk: Path | None = None) -> None:
        self.reactor = reactor
        self.runner = ProcessRunner(reactor)
        self.image = image
        self.place = Path(tempfile.mkdtemp(prefix="wlab-", dir=ON_DISK))
        self.disk = self.place / "disk.qcow2"
        self._under = image.disk if disk is None else disk
        self._machine = Machine(reactor, "server", self.place)
        self._port = 0
        self._log: Path | None = None  # of the writes since it was switched on
        self.boards: list[Board] = []

    # -- power ---------------------------------------------------------------

    async def _layer(self, under: Path) -> None:
        """Make its disk a new one, above another."""
        kind = "qcow2" if under.suffix == ".qcow2" else "raw"
        await self.runner.run(
            ["qemu-img", "create", "-q", "-f", "qcow2", "-F", kind, "-b", str(under),
             str(self.disk)]
        )

    async def start(self, archive: Path | None = None, *, logged: bool = False) -> None:
        """Switch it on, and wait until it answers; `archive` is a file it sees as a disk.

        `logged`: what it writes and flushes is written down, for `power_cut`.
        """
        if not self.disk.exists():
            await self._layer(self._under)
        self._log = None
        drive = ["-drive", f"file={self.disk.name},format=qcow2,if=virtio"]
        if logged:
            self._under = self.disk
            self.disk = self.place / f"disk-{len(list(self.place.glob('disk*')))}.qcow2"
            await self._layer(self._under)
            self._log = self.place / "writes"
            self._log.write_bytes(b"")
            drive = [
                "-drive", "if=none,id=d,driver=blklogwrites,file.driver=qcow2,"
                          f"file.file.filename={self.disk.name},log.driver=file,"
                          f"log.filename={self._log.name}",
                # Each write is one of data.
                "-device", "virtio-blk-pci,drive=d,discard=off,write-zeroes=off",
            ]
        for name in ("cable1.server", "ssh"):
            (self.place / name).unlink(missing_ok=True)
        self._port = free_port()
        more = [] if archive is None else [
            "-drive", f"file={archive},format=raw,if=virtio,readonly=on"
        ]
        self._machine.power_on([
            "qemu-system-x86_64", "-M", "q35,graphics=off", *ACCEL, *CPU, "-smp", "2",
            "-m", str(MEMORY), "-nodefaults", "-display", "none", "-no-reboot",
            "-serial", f"file:{self._machine.serial.name}",
            "-kernel", str(self.image.kernel), "-initrd", str(self.image.initrd),
            "-append", KERNEL_OPTIONS,
            *drive, *more,
            "-netdev", f"user,id=u,restrict=on,hostfwd=tcp:127.0.0.1:{self._port}-:22",
            "-device", "virtio-net-pci,netdev=u,romfile=",
            *cable("server", 1, "p1"), "-netdev", "hubport,id=q1,hubid=1,netdev=p1",
            "-netdev", "hubport,id=w,hubid=1",
            "-device", "virtio-net-pci,netdev=w,mac=52:54:00:aa:00:01,romfile=",
            "-netdev", "hubport,id=x,hubid=1",
            "-device", "virtio-net-pci,netdev=x,mac=52:54:00:aa:00:02,romfile=",
        ])

        async def answers() -> bool:
            if not self._machine.runs:
                raise AssertionError(self._machine.last_words())
            try:
                return (await self.try_to("true", timeout=patient(30))).status == 0
            except Unavailable:
                return False

        await self.until(answers, "the guest answers", START)

    async def power_cut(self, *, losing: bool = False) -> None:
        """End it as a power failure does: what it has not written to its disk is lost.

        `losing`: so is what it has not flushed; it was started `logged`.
        """
        await self._machine.cut()
        if self._log is not None and losing:
            self.disk.unlink()
            await self._layer(self._under)
            await deferToThread(replay, self._log, self.disk)

    async def power_off(self) -> None:
        """Shut it down in order."""
        await self.try_to("systemctl poweroff", timeout=patient(30))
        await self._machine.off().addTimeout(patient(120), self.reactor)

    async def close(self) -> None:
        """End all machines and remove their files."""
        for one in (*self.boards, self._machine):
            await one.cut()
        shutil.rmtree(self.place, ignore_errors=True)

    def board(self) -> Board:
        """Return a board at the other end of the cable."""
        return self.attach(Board)

    def attach(self, kind: type[B]) -> B:
        """Return a board of a kind at the other end of the cable, where one is at a time."""
        board = kind(self.reactor, self.place)
        self.boards.append(board)
        return board

    # -- commands --------------------------------------------------------------

    async def try_to(
        self, command: str, *, stdin: bytes = b"", timeout: float = patient(60),
        on_line: Callable[[str], None] | None = None,
    ) -> ProcessResult:
        """Run a command of the shell, as root; return how it ended."""
        return await self.runner.run(
            self._ssh(command), check=False, timeout=timeout, stdin=stdin, on_line=on_line,
        )

    def _ssh(self, command: str) -> list[str]:
        return [
            "ssh", "-q", "-F", "none", "-i", str(self.image.key), "-p", str(self._port),
            "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o",
            "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=15",
            # One connection for all commands: each log-in takes seconds.
            "-o", "ControlMaster=auto", "-o", "ControlPersist=yes",
            "-o", f"ControlPath={self.place}/ssh",
            "root@127.0.0.1", command,
        ]

    async def run(
        self, command: str, *, stdin: bytes = b"", timeout: float = patient(60)
    ) -> str:
        """Run a command of the shell that must succeed; return its output."""
        done = await self.try_to(command, stdin=stdin, timeout=timeout)
        if done.status != 0:
            raise AssertionError(
                f"{await self.journal()}\n{done.stdout.decode(errors='replace')[-3000:]}\n"
                f"{done.stderr.decode(errors='replace')[-3000:]}\n{command}: status {done.status}"
            )
        return done.stdout.decode(errors="replace")

    async def put(self, path: str, data: bytes, mode: str = "644") -> None:
        """Write a file there, with its directories."""
        where = shlex.quote(path)
        await self.run(
            f"mkdir -p $(dirname {where}) && cat > {where} && chmod {mode} {where}",
            stdin=data, timeout=patient(120),
        )

    async def fetch(self, path: str, target: Path) -> None:
        """Copy a file of it here."""
        with target.open("wb") as stream:
            await self.runner.run(
                self._ssh(f"cat {shlex.quote(path)}"), timeout=patient(200),
                output_fd=stream.fileno(),
            )

    async def walt(
        self, *words: str, user: str = "alice", stdin: bytes = b"", timeout: float = patient(180)
    ) -> ProcessResult:
        """Run the walt command there."""
        return await self.try_to(
            f"WALT_SERVER=unix:/run/walt/rpc.sock WALT_USERNAME={shlex.quote(user)}"
            f" /opt/walt/bin/walt {shlex.join(words)}", stdin=stdin, timeout=timeout,
        )

    async def ok(self, *words: str, **options: Any) -> str:
        """Run a walt command that must succeed; return its output."""
        done = await self.walt(*words, **options)
        text = done.stdout.decode(errors="replace")
        if done.status != 0:
            raise AssertionError(
                f"walt {' '.join(words)}: status {done.status}\n{text}\n"
                f"{done.stderr.decode(errors='replace')}\n{await self.journal()}"
            )
        return text

    async def journal(self) -> str:
        """Return the last lines of the server, for messages."""
        done = await self.try_to("journalctl -b --no-pager -u walt-server -o cat | tail -n 40")
        return done.stdout.decode(errors="replace")[-5000:]

    # -- waiting ---------------------------------------------------------------

    async def until(
        self, condition: Callable[[], Awaitable[Any]], what: str, patience: float,
        every: float = 1.0,
    ) -> Any:
        """Await an async condition until it is true."""
        limit = self.reactor.seconds() + patience
        while True:
            found = await condition()
            if found:
                return found
            if self.reactor.seconds() > limit:
                words = [one.last_words() for one in (self._machine, *self.boards)]
                raise AssertionError(f"not reached: {what}\n{await self.journal()}\n{words}")
            await self.sleep(every)

    def sleep(self, seconds: float) -> Deferred[None]:
        """Let the reactor turn."""
        return deferLater(self.reactor, seconds, lambda: None)

    async def until_active(self) -> None:
        """Wait until the service of the server, which is enabled, is active."""

        async def active() -> bool:
            done = await self.try_to("systemctl is-active walt-server")
            state = done.stdout.decode().strip()
            if state == "failed":
                raise AssertionError(f"the service failed\n{await self.journal()}")
            return state == "active"

        await self.until(active, "walt-server is active", patient(120))
