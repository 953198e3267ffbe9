"""NFSv4 by nfs-ganesha, a child of the server, for kernels without an NFS server.

Each node has exports of its own, for its address alone, under the paths that nodes
ask for: `Pseudo` paths stand in for the symbolic links of the kernel's exporter.
"""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import deferLater
from twisted.logger import Logger
from zope.interface import implementer

from walt.common.files import write_if_changed
from walt.server.domain.images.exports import ExportPlan, NodeExport
from walt.server.domain.images.ports import INfsExporter
from walt.server.runtime.child import ChildService, ChildSpec, end_left_over
from walt.server.runtime.process import Launcher

_log = Logger()

NODES = "/var/lib/walt/nodes"  # as nodes see it, whatever the state directory is
ASIDE = "/var/lib/walt/superseded"  # no node asks for it
MAX_EXPORT_ID = 65535  # a 16-bit number (ganesha-export-config(8)); 0 is its root


def _quoted(text: str | Path) -> str:
    value = str(text)
    if any(char in value for char in '"\n\\'):
        raise ValueError(f"a path that ganesha cannot hold: {value!r}")
    return f'"{value}"'


class ExportIds:
    """Numbers of exports, stable while the export exists.

    Ganesha tells exports apart by number when it reads its configuration again,
    and NFS file handles carry it: after a restart of the server the same export
    must have the same number, so it derives from what identifies the export.
    """

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def allocate(self, keys: Iterable[str]) -> dict[str, int]:
        """Return a number for each key; a clash moves to the next free one.

        Keys of the call before keep their numbers, and numbers that have just
        become free are not given again at once: ganesha would take another
        export for a change of the former one, and refuse it.
        """
        wanted = set(keys)
        found = {key: number for key, number in self._numbers.items() if key in wanted}
        taken = set(self._numbers.values())
        for key in sorted(wanted - found.keys()):
            digest = hashlib.sha256(key.encode()).digest()
            number = int.from_bytes(digest[:4], "big") % MAX_EXPORT_ID + 1
            while number in taken:
                number = number % MAX_EXPORT_ID + 1
            taken.add(number)
            found[key] = number
        self._numbers = found
        return found


@dataclass(frozen=True)
class Export:
    """One export: `pseudo` is the path that the client at address `client` mounts."""

    pseudo: str
    path: Path
    client: str
    writable: bool
    fsid: str

    @property
    def key(self) -> str:
        """What identifies it: ganesha cannot give another tree to an export that exists."""
        return f"{self.pseudo} {self.path}"


def exports_of(plan: ExportPlan) -> list[Export]:
    """Return the exports of a plan."""
    found = []
    for node in sorted(plan.nodes):
        image = plan.image_path(node.image_id)
        for alias in (node.ip, node.mac, node.name):
            if image is not None:
                fsid = _filesystem_id(node.image_id or "")
                found.append(Export(f"{NODES}/{alias}/fs", image, node.ip, False, fsid))
        if node.persist is not None:
            fsid = _filesystem_id(f"{node.mac} {node.persist.name}")
            for alias in (node.name, node.ip, node.mac):
                found.append(Export(f"{NODES}/{alias}/persist", node.persist, node.ip, True, fsid))
    return found


def superseded(
    before: Iterable[Export], now: Iterable[Export], mounted: Collection[Path]
) -> list[Export]:
    """Return the image exports to keep for nodes that still run on them.

    Those are exports of `before` whose path leads elsewhere in `now`, as long as
    their image is `mounted`: a node that was given another image needs the
    former one until it has rebooted.
    """
    trees = {one.pseudo: one.path for one in now}
    return [
        one for one in before
        if not one.writable and one.path in mounted
        and trees.get(one.pseudo, one.path) != one.path
    ]


def _filesystem_id(seed: str) -> str:
    """Return `major.minor`, two 63-bit numbers, stable for `seed`."""
    digest = hashlib.sha256(seed.encode()).digest()
    major, minor = (int.from_bytes(digest[at:at + 8], "big") >> 1 for at in (0, 8))
    return f"{major}.{minor}"


def render(
    exports: Sequence[Export], address: str, recovery: Path, aside: Sequence[Export] = (),
    numbers: ExportIds | None = None,
) -> str:
    """Return the text of ganesha's configuration.

    `address` is the server's in walt-net, `recovery` the directory of its client
    records: in the state directory, since servers must not share one, and short
    times, since nobody should wait 90 s after a crash. Exports `aside` exist
    under another path: handles of their clients stay valid. `numbers` are those
    of the configuration that ganesha has read before.
    """
    parts = [
        "NFS_CORE_PARAM {",
        "  Protocols = 4;",
        "  Enable_NLM = false;",
        "  Enable_RQUOTA = false;",
        f"  Bind_addr = {address};",
        "  NFS_Port = 2049;",
        "}",
        "NFSv4 {",
        "  RecoveryBackend = fs;",
        f"  RecoveryRoot = {_quoted(recovery)};",
        "  Lease_Lifetime = 15;",
        "  Grace_Period = 20;",
        "  Only_Numeric_Owners = true;",
        "}",
        "NFS_KRB5 {",
        "  Active_krb5 = false;",
        "}",
        "EXPORT_DEFAULTS {",
        "  SecType = sys;",
        "  Squash = No_Root_Squash;",
        "  Protocols = 4;",
        "  Transports = TCP;",
        "  Access_Type = None;",
        "}",
        "LOG {",
        "  Default_Log_Level = EVENT;",
        "}",
    ]
    ids = (numbers or ExportIds()).allocate(one.key for one in (*exports, *aside))
    kept = set(aside)
    for one in (*aside, *exports):
        number = ids[one.key]
        pseudo = f"{ASIDE}/{number}" if one in kept else one.pseudo
        parts += [
            "EXPORT {",
            f"  Export_Id = {number};",
            f"  Path = {_quoted(one.path)};",
            f"  Pseudo = {_quoted(pseudo)};",
            f"  Filesystem_Id = {one.fsid};",
            "  FSAL { Name = VFS; }",
            "  CLIENT {",
            f"    Clients = {one.client};",
            f"    Access_Type = {'RW' if one.writable else 'RO'};",
            "  }",
            "}",
        ]
    return "\n".join(parts) + "\n"


def persist_directories(plan: ExportPlan) -> list[Path]:
    """Return the read-write directories that must exist."""
    return sorted({node.persist for node in plan.nodes if node.persist is not None})


# It complains about a D-Bus, a keytab and a UDP port that it does not need here.
DIRECTORIES_AT_ONCE = 50  # made in one turn of the reactor: 1,000 take 0.4 s
HARMLESS = (":DBUS :", "krb5", "NFS V4 on UDP")


@implementer(INfsExporter)
class GaneshaExporter(Service):
    """Run ganesha.nfsd and give it the plan.

    `directory` holds its configuration and recovery state (state directory),
    `runtime` its pid file; `address` is the server's in walt-net. `reactor` gives
    spawnProcess and callLater. The daemon starts with the first export and gets
    SIGHUP when the plan changed.
    """

    name = "nfs"

    def __init__(
        self, reactor: Any, launcher: Launcher, *, directory: Path, runtime: Path, address: str,
        program: str = "/usr/bin/ganesha.nfsd",
    ) -> None:
        self._reactor = reactor
        self._directory = directory
        self._address = address
        self._config = directory / "ganesha.conf"
        self._recovery = directory / "recovery"
        self._pid_file = runtime / "ganesha.pid"
        self._own_pid_file = runtime / "ganesha.own.pid"
        self._plan: ExportPlan | None = None
        self._exports: list[Export] = []
        self._aside: list[Export] = []
        self._ids = ExportIds()
        self._ready: list[Deferred[None]] = []
        self._serving: int | None = None  # pid of the daemon that finished starting
        self._reload_later = False
        spec = ChildSpec(
            "ganesha",
            (program, "-F", "-f", str(self._config), "-L", "STDERR", "-N", "NIV_EVENT",
             "-p", str(self._own_pid_file)),
            stop_signals=(("TERM", 5.0), ("KILL", 5.0)),
        )
        self.child = ChildService(
            reactor, launcher, spec, on_line=self._on_line, pid_file=self._pid_file
        )

    def startService(self) -> None:
        """Allow the daemon to run: it starts with the first plan that has exports."""
        super().startService()
        for directory in (self._directory, self._recovery, self._pid_file.parent):
            directory.mkdir(parents=True, exist_ok=True)
        end_left_over(self._pid_file, signal.SIGKILL)
        self._own_pid_file.unlink(missing_ok=True)

    def stopService(self) -> Deferred[None]:
        """End the daemon; fires when it is gone."""
        super().stopService()
        return self._end()

    def _end(self) -> Deferred[None]:
        if self.child.running:
            return self.child.stopService()
        return succeed(None)

    async def withdraw(self) -> None:
        """Export nothing any more."""
        self._plan = None
        self._exports, self._aside = [], []
        await self._end()

    async def apply(self, plan: ExportPlan) -> None:
        """Export exactly what the plan says; see INfsExporter."""
        if plan == self._plan and self.child.running:
            return
        for number, directory in enumerate(persist_directories(plan), 1):
            directory.mkdir(parents=True, exist_ok=True)
            if number % DIRECTORIES_AT_ONCE == 0:
                await deferLater(self._reactor, 0, lambda: None)
        self._plan = plan
        wanted = exports_of(plan)
        aside = superseded(
            (*self._exports, *self._aside), wanted, {image.path for image in plan.images}
        )
        moved = {one.pseudo for one in wanted}
        trees = {one.key for one in wanted}
        present = [one for one in self._exports if one.pseudo not in moved or one.key in trees]
        self._exports, self._aside = wanted, aside
        if not self.child.running:
            self._write(wanted, aside)
            if wanted:
                self.child.startService()
                await self._until_ready()
            return
        # One path, one export: what had the path goes aside before another takes it.
        await self._reload(present, aside)
        await self._reload(wanted, aside)

    def _write(self, exports: Sequence[Export], aside: Sequence[Export]) -> bool:
        text = render(exports, self._address, self._recovery, aside, self._ids)
        return write_if_changed(self._config, text, 0o600)

    async def _reload(self, exports: Sequence[Export], aside: Sequence[Export]) -> None:
        if not self._write(exports, aside):
            return
        if self._serving is not None and self._serving == self.child.pid:
            self.child.signal("HUP")
        else:
            # A signal during its start would be lost.
            self._reload_later = True
        await self._until_ready()

    def _until_ready(self) -> Deferred[None]:
        ready: Deferred[None] = Deferred()
        self._ready.append(ready)
        patience = self._reactor.callLater(10.0, self._give_up, ready)
        return ready.addBoth(lambda result: (patience.active() and patience.cancel(), result)[1])

    def _give_up(self, ready: Deferred[None]) -> None:
        _log.warn("ganesha did not confirm its exports within 10 s; see its lines above")
        self._ready.remove(ready)
        ready.callback(None)

    def _on_line(self, line: str) -> None:
        # Its log ends these steps: start-up, and reading the configuration again.
        if "NFS SERVER INITIALIZED" in line:
            self._serving = self.child.pid
            if self._reload_later:
                self._reload_later = False
                self.child.signal("HUP")
                return
            self._confirm()
        elif "Reread exports complete" in line:
            self._confirm()
        elif any(word in line for word in HARMLESS):
            return
        elif ":CRIT :" in line or ":FATAL :" in line or ":MAJ :" in line:
            _log.info("ganesha: {line}", line=line)

    def _confirm(self) -> None:
        waiting, self._ready = self._ready, []
        for one in waiting:
            one.callback(None)


def usable(program: str = "/usr/bin/ganesha.nfsd") -> bool:
    """Tell whether ganesha is installed."""
    return os.access(program, os.X_OK)


def exported_nodes(plan: ExportPlan) -> list[NodeExport]:
    """Return the nodes that get at least one export."""
    return [
        node for node in plan.nodes
        if node.persist is not None or plan.image_path(node.image_id) is not None
    ]
