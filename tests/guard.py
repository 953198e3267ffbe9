"""Every test of the suite is also a test that the server never blocks its reactor.

Under trial, and in the servers that system tests start, code of walt.server or
walt.common that runs in a turn of the reactor may not sleep, wait for a process,
for a disk (fsync), a lock, a name (getaddrinfo) or the database, and no turn in
which it runs may take more than 100 ms of CPU time. It opens files only where
`FILES` says why that is bounded. A breach is logged as an error, which fails the
test. `WALT_TEST_GUARD=0` switches the guard off.
"""

from __future__ import annotations

import builtins
import fcntl
import functools
import gc
import io
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any

import psycopg2
import psycopg2.extensions
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.python import log

from walt.rpc.arguments import Written
from walt.rpc.base import ApiProtocol, WaltCommand
from walt.server.runtime import turns
from walt.server.runtime.turns import TurnMonitor

# Programs and jobs of their own: they have no reactor to block.
FREE = ("walt.server.workers.", "walt.server.tools.")
# An import compiles what is recorded.
RECORDED = ("walt.server.trackexec.hook", "walt.server.trackexec.transform")
NOT_OURS = ("tests.", *FREE, *RECORDED, "importlib.", "_frozen_importlib")
# Who may open regular files in a turn, and why that is bounded. What is written there
# is not waited for: the page cache takes it (walt.common.files).
FILES: dict[str, str] = {
    # At the start, once: files of the installation, and what a server before left.
    "walt.server.http.pages": "the pages of help, some 100 KB",
    "walt.server.http.ui": "the files of the pages, some 500 KB",
    "walt.server.adapters.postgres.migrate": "the schema, some 10 KB",
    "walt.server.adapters.postgres.former": "the schema of older versions, some KB",
    "walt.server.adapters.postgres.cluster": "pg_hba.conf, a line",
    "walt.server.runtime.accounts": "directories of daemons; once, the leases of the pool",
    "walt.server.adapters.podman.repositories": "the account of one repository, a line",
    "walt.server.adapters.nbdkit.daemon": "the plugin, some KB",
    "walt.server.adapters.tftpd.loaders": "loader and script of iPXE, some 100 KB",
    "walt.server.adapters.tftpd.daemon": "the map of names, some lines",
    "walt.server.adapters.lldp.snmpd": "its configuration, some lines",
    "walt.server.adapters.lldp.lldpd": "its configuration, which is empty",
    "walt.server.adapters.timing.ptpd": "its configuration and its state, some lines",
    "walt.server.adapters.podman.options": "podman's list of images or containers",
    "walt.server.adapters.ssh.keys": "public keys and known_hosts, a line each",
    "walt.server.adapters.network.plans": "what a network is made of, a line",
    "walt.server.adapters.network.raised": "names of interfaces, some lines",
    "walt.server.adapters.network.links": "names and MACs of interfaces, some lines",
    "walt.server.adapters.network.namespace": "a marker, a line",
    "walt.server.adapters.tls.authority": "a key and two certificates, some KB",
    "walt.server.adapters.tls.boot_signatures": "two keys; images are read in pieces",
    "walt.server.adapters.vpn.sshd": "its configuration and the endpoint, some KB",
    "walt.server.adapters.vpn.requester_key": "a key, a line",
    "walt.server.adapters.vpn.host_keys": "keys of entry points, some lines",
    "walt.server.adapters.vpn.authority": "keys, a certificate, identities, a line each",
    "walt.server.adapters.nftables.firewall": "ip_forward, a digit (the kernel's, but in tests)",
    "walt.server.assembly.daemons": "resolv.conf, some lines",
    # At each change: a line or two for a device, an image or a mount.
    "walt.server.adapters.dhcpd.daemon": "dhcpd.conf; once, the leases of the pool",
    "walt.server.adapters.named.daemon": "two zones and named.conf",
    "walt.server.adapters.nbfs.exporter": "the exports of images, a line each",
    "walt.server.adapters.nfs.ganesha": "the exports",
    "walt.server.adapters.nfs.kernel": "the exports",
    "walt.server.adapters.tftpd.tree": "the names in the tree",
    "walt.server.adapters.podman.store": "labels of images, some 100 bytes each",
    # For each thing made: a file of one page or two.
    "walt.server.runtime.child": "a pid",
    "walt.server.adapters.qemu.hypervisor": "a script of iPXE",
    "walt.server.adapters.qemu.nics": "a MAC",
    "walt.server.adapters.podman.containers": "files of a container's options",
    "walt.server.adapters.podman.registry": "credentials of one transfer",
    # For each request.
    "walt.server.adapters.podman.builder": "the recipe of a build, 1 MiB at most",
    "walt.server.adapters.tftpd.boot_files": "opened, and read in pieces by who sends it",
    "walt.server.assembly.client_package": "one piece of the client's package, 64 KiB",
    "walt.server.streams.upload": "opened, and written in pieces as they arrive",
}
LOOK_EVERY = 0.01  # seconds of CPU time
# File systems made of the kernel's memory.
KERNEL = ("/proc/", "/sys/")
_reactor_thread: int | None = None
_best = 1.0  # seconds; see _slowness


class BlockingCall(AssertionError):
    """Code of the server waited inside a turn of the reactor."""


class LongTurn(AssertionError):
    """Code of the server kept the reactor for too long."""


class CrowdedTurn(AssertionError):
    """So much arrived at once that a turn was too long, though each event was dealt with soon."""


@dataclass(frozen=True)
class Culprit:
    """Who makes a call in a turn: `place` is the nearest code of ours, `module` the server's."""

    place: str
    module: str


def culprit() -> Culprit | None:
    """Return which code of the server makes the present call, None if it may.

    Libraries and this module are looked through. walt.common answers to the module
    of the server that called it; what a test calls itself is the test's affair.
    """
    if threading.get_ident() != _reactor_thread:
        return None
    frame = sys._getframe(2)
    found: Culprit | None = None
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name.startswith(("walt.", "tests.")) and name != __name__:
            place = f"{name} line {frame.f_lineno}"
            if name.startswith("walt.common."):
                found = found or Culprit(place, name)
            elif name.startswith("walt.server.") and not name.startswith(FREE):
                return Culprit(found.place if found else place, name)
            else:
                return None
        frame = frame.f_back  # type: ignore[assignment]
    return found


def _tell(what: str, who: Culprit) -> None:
    log.err(BlockingCall(f"{what} in a turn of the reactor, from {who.place} ({who.module})"))


def guarded(
    function: Callable[..., Any], what: str,
    harmless: Callable[..., bool] = lambda *words, **options: False,
) -> Callable[..., Any]:
    """Return `function`, which logs an error when the server calls it in a turn.

    `harmless` gets the arguments, and tells whether such a call never waits.
    """

    @functools.wraps(function)
    def checked(*words: Any, **options: Any) -> Any:
        who = culprit()
        if who is not None and not harmless(*words, **options):
            _tell(what, who)
        return function(*words, **options)

    return checked


def _guarded_open(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function`, which opens files, for those who may."""

    @functools.wraps(function)
    def checked(path: Any, *words: Any, **options: Any) -> Any:
        who = culprit()
        only_a_name = bool(words) and isinstance(words[0], int) and words[0] & os.O_PATH
        if not (who is None or who.module in FILES or isinstance(path, int) or only_a_name):
            name = os.fsdecode(path)
            if not name.startswith(KERNEL) and _is_regular(name, options.get("dir_fd")):
                _tell(f"opening {name}", who)
        return function(path, *words, **options)

    return checked


def _is_regular(path: str, directory: int | None) -> bool:
    """Tell whether a file is, or would be, one whose content lies on a disk."""
    try:
        return stat.S_ISREG(os.stat(path, dir_fd=directory).st_mode)
    except FileNotFoundError:
        return True
    except OSError:
        return False


def _asks_nobody(host: Any, *words: Any, **options: Any) -> bool:
    """Tell whether the address of a host is no name, so that no resolver is asked."""
    return host is None or isIPAddress(str(host)) or isIPv6Address(str(host).partition("%")[0])


def _tells_numbers(address: Any, flags: int) -> bool:
    return bool(flags & socket.NI_NUMERICHOST)


def _takes_no_lock(descriptor: Any, how: int, *words: Any) -> bool:
    return bool(how & (fcntl.LOCK_NB | fcntl.LOCK_UN))


class _Cursor(psycopg2.extensions.cursor):
    """A cursor of a connection that waits for the database."""

    def execute(self, *words: Any, **options: Any) -> Any:
        """Execute a statement, but in no turn."""
        if (who := culprit()) is not None:
            _tell("waiting for the database", who)
        return super().execute(*words, **options)


def _guarded_connect(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def checked(*words: Any, **options: Any) -> Any:
        if options.get("async") or options.get("async_"):
            return function(*words, **options)
        if (who := culprit()) is not None:
            _tell("waiting for the database", who)
        made = function(*words, **options)
        if made.cursor_factory is None:
            made.cursor_factory = _Cursor
        return made

    return checked


class _Socket(socket.socket):
    def connect(self, address: Any) -> None:
        if self.gettimeout() != 0 and (who := culprit()) is not None:
            _tell(f"a blocking connection to {address!r}", who)
        super().connect(address)


def _is_ours(frame: FrameType | None) -> bool:
    """Tell whether code of the server is at work: itself, or a library that it called."""
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name != __name__ and name.startswith(NOT_OURS):
            return False  # a test, a program of its own, or an import
        if name.startswith(("walt.server.", "walt.common.")):
            return name != turns.__name__
        frame = frame.f_back
    return False


def _event(frame: FrameType | None) -> object:
    """Return what the reactor deals with: a reader or writer, or a delayed call."""
    while frame is not None:
        if frame.f_code.co_name in ("_doReadOrWrite", "runUntilCurrent"):
            return frame.f_locals.get("selectable") or frame.f_locals.get("call")
        frame = frame.f_back
    return None


class Attribution(TurnMonitor):
    """Measures turns, and tells of one only when the server's part was too long.

    A turn of a test often does the work of a day: what the test and its fakes did
    themselves is told apart by looking every 10 ms.
    """

    def __init__(self, reactor: Any) -> None:
        self._looks: list[object] = []
        super().__init__(reactor, self._tell)

    def _begin(self) -> None:
        self._looks = []
        super()._begin()
        signal.setitimer(signal.ITIMER_PROF, LOOK_EVERY, LOOK_EVERY)

    def _sample(self, number: int, frame: Any) -> None:
        # What a test does without a reactor keeps nobody waiting.
        if _reactor_thread is not None and _is_ours(frame):
            self._looks.append(_event(frame))
            if len(self._looks) * LOOK_EVERY > turns.LIMIT and not self._stack:
                super()._sample(number, frame)

    def _tell(self, spent: float, stack: str) -> None:
        if not stack or spent <= turns.LIMIT * _slowness():
            return
        # An event that was seen at most half of that time did not keep the reactor alone.
        longest = max(self._looks.count(one) for one in self._looks)
        kind = LongTurn if longest * 2 > len(self._looks) else CrowdedTurn
        log.err(kind(f"a turn of {spent * 1000:.0f} ms of CPU time:\n{stack}"))


def _loop() -> float:
    """Return the CPU seconds that a fixed work takes."""
    begun = time.thread_time()
    sum(range(20_000))
    return time.thread_time() - begun


def _slowness() -> float:
    """Return how much slower the processor is now than it was at its best, 1 or more.

    Its units are shared by threads and by machines: a second of CPU time on a busy one does
    less, up to three times.
    """
    global _best
    times = sorted(_loop() for _ in range(9))
    _best = min(_best, times[0])
    return max(1.0, times[4] / _best)


def _forgive_collections(monitor: TurnMonitor) -> None:
    """A full garbage collection goes through the heap of the whole test run: not counted."""
    begun = 0.0

    def collecting(phase: str, info: dict[str, int]) -> None:
        nonlocal begun
        if phase == "start":
            begun = time.thread_time()
        else:
            monitor.forgive(time.thread_time() - begun)

    gc.callbacks.append(collecting)


def _forgive_forks(reactor: Any, monitor: TurnMonitor) -> None:
    """A fork copies the page tables of the whole test run: not counted."""
    spawn = reactor.spawnProcess

    def spawn_process(*words: Any, **options: Any) -> Any:
        begun = time.thread_time()
        try:
            return spawn(*words, **options)
        finally:
            monitor.forgive(time.thread_time() - begun)

    reactor.spawnProcess = spawn_process


def described(answering: Callable[..., None]) -> Callable[..., None]:
    """Return `ApiProtocol._answer` for answers whose JSON is as `walt.rpc.rows` says."""

    @functools.wraps(answering)
    def checked(
        self: ApiProtocol, ask: bytes | None, command: type[WaltCommand], result: dict[str, Any]
    ) -> None:
        for name, kind in command.response:
            value = result.get(name.decode())
            if getattr(kind, "shape", None) is None or (value is None and kind.optional):
                continue
            if isinstance(value, Written):
                value = json.loads(b"".join(value.parts))
            wrong = list(kind.shape.errors(value))
            if wrong:
                raise AssertionError(f"{command.__name__} answers {wrong[:5]}: see walt.rpc.rows")
        answering(self, ask, command, result)

    return checked


def watch_calls() -> None:
    """Replace what may wait by what tells of it."""
    time.sleep = guarded(time.sleep, "time.sleep")
    subprocess.Popen.wait = guarded(  # type: ignore[method-assign]
        subprocess.Popen.wait, "waiting for a process"
    )
    subprocess.Popen.communicate = guarded(  # type: ignore[method-assign]
        subprocess.Popen.communicate, "waiting for a process"
    )
    socket.socket = _Socket  # type: ignore[misc]
    for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex", "gethostbyaddr"):
        setattr(socket, name, guarded(getattr(socket, name), f"socket.{name}", _asks_nobody))
    socket.getnameinfo = guarded(socket.getnameinfo, "socket.getnameinfo", _tells_numbers)
    for name in ("fsync", "fdatasync", "sync"):
        setattr(os, name, guarded(getattr(os, name), f"os.{name}"))
    for name in ("flock", "lockf"):
        setattr(fcntl, name, guarded(getattr(fcntl, name), f"fcntl.{name}", _takes_no_lock))
    for module in (builtins, io, os):
        module.open = _guarded_open(module.open)  # type: ignore[attr-defined]
    os.supports_dir_fd.add(os.open)  # type: ignore[attr-defined]
    psycopg2.connect = _guarded_connect(psycopg2.connect)
    ApiProtocol._answer = described(ApiProtocol._answer)  # type: ignore[method-assign]


def watch_turns(reactor: Any, *, alone: bool) -> None:
    """Measure the turns of `reactor`; `alone`: the process is a server, and nothing else."""
    _slowness()
    monitor = Attribution(reactor)
    monitor.start()
    if not alone:
        _forgive_collections(monitor)
        _forgive_forks(reactor, monitor)
    loop = reactor.mainLoop

    def main_loop() -> None:
        global _reactor_thread
        monitor.restart_turn()
        _reactor_thread = threading.get_ident()
        try:
            loop()
        finally:
            _reactor_thread = None
            signal.setitimer(signal.ITIMER_PROF, 0)

    reactor.mainLoop = main_loop


def wanted() -> bool:
    """Tell whether this process runs tests, which the guard watches."""
    return "twisted.scripts.trial" in sys.modules and os.environ.get("WALT_TEST_GUARD") != "0"


def install_under_trial() -> None:
    """Watch this process if it runs tests."""
    if wanted():
        from twisted.internet import reactor

        watch_calls()
        watch_turns(reactor, alone=False)


def run() -> None:
    """Be twistd, watched: what system tests start as a server."""
    from twisted.internet import reactor
    from twisted.scripts.twistd import run as twistd

    watch_calls()
    watch_turns(reactor, alone=True)
    twistd()
