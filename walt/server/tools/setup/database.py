"""The step that brings the database to the newest PostgreSQL of this Debian.

An upgrade of Debian brings the next PostgreSQL beside that which made the files, and which
alone can read them. All is copied by a dump, which stays as a backup; the new cluster is made
beside the old one, compared with it, and takes its place at once (renameat2(2)), so that a cut
leaves the one or the other whole. The old one stays until `--drop-former-database`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from walt.common.errors import CommandFailed, Unavailable, WaltError
from walt.common.files import write_durable
from walt.server.adapters.postgres.cluster import (
    INSTALLATIONS,
    USER,
    as_user,
    binaries,
    initdb,
)
from walt.server.config.model import Paths
from walt.server.runtime.accounts import give_directory
from walt.server.runtime.child import recorded_process
from walt.server.tools.setup.former import settle
from walt.server.tools.setup.machine import Machine
from walt.server.tools.setup.systemd import UNIT

BACKUPS = Path("/var/backups/walt")
WORK = "postgres-upgrade"  # below the state directory, while it is done
PATIENCE = "600"  # seconds that a server may take to recover after a power failure
ROOM = 2.5  # times the size of the old cluster: the dump and the new one
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # fcntl.h, linux/fs.h
_libc = ctypes.CDLL(None, use_errno=True)
# One line for each table and each sequence: how many rows, how far it has counted.
_CONTENT = """
SELECT format('%I.%I', n.nspname, c.relname) || ' ' || CASE c.relkind WHEN 'S' THEN
 coalesce(pg_sequence_last_value(c.oid)::text, '-') ELSE (xpath('/row/n/text()', query_to_xml(
 format('SELECT count(*) AS n FROM %I.%I', n.nspname, c.relname), false, true, '')))[1]::text END
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'S') AND n.nspname !~ '^(pg_|information_schema$)' ORDER BY 1
"""


@dataclass(frozen=True)
class ClusterStep:
    """See the module. `installations` has a directory for each PostgreSQL."""

    machine: Machine
    paths: Paths
    installations: Path = INSTALLATIONS
    title: str = "PostgreSQL"

    @property
    def _data(self) -> Path:
        return self.machine.at(self.paths.state / "postgres")

    @property
    def _work(self) -> Path:
        return self.machine.at(self.paths.state / WORK)

    @property
    def _new(self) -> Path:
        return self._work / "cluster"

    @property
    def _sockets(self) -> Path:
        return self.machine.at(self.paths.runtime / WORK)

    def _version(self, data: Path) -> int | None:
        """Return the version that made a cluster."""
        try:
            return int((data / "PG_VERSION").read_text())
        except (FileNotFoundError, ValueError):
            return None

    def _newest(self) -> int | None:
        try:
            return int(binaries(self.machine.at(self.installations)).parent.name)
        except (Unavailable, ValueError):
            return None

    def _bin(self, version: int) -> Path:
        return self.machine.at(self.installations / str(version) / "bin")

    def _exchanged(self) -> bool:
        """Tell whether a cut has left the old cluster under the name of the new one."""
        new, data = self._version(self._new), self._version(self._data)
        return new is not None and data is not None and new < data

    def lacks(self) -> list[str]:
        """See Step."""
        if self._exchanged():
            return ["the former database has not its name yet"]
        old, newest = self._version(self._data), self._newest()
        if old is None or newest is None or old >= newest:
            return []
        return [f"the database was made by PostgreSQL {old}, and {newest} is installed"]

    def apply(self) -> None:
        """See Step. The server ends first; it is started again by its own step."""
        if self._exchanged():
            self._keep_former()
        old, newest = self._version(self._data), self._newest()
        if old is None or newest is None or old >= newest:
            return
        if not (self._bin(old) / "postgres").exists():
            raise Unavailable(
                f"the database was made by PostgreSQL {old}, which is not installed any more:"
                f" install its package again (postgresql-{old}, from the Debian that this machine"
                " had before), and call this again"
            )
        self._stop_server()
        self._clear(old, newest)
        self._check_room()
        self._work.mkdir(mode=0o755)
        self._work.chmod(0o711)  # its user goes through to its own directory
        dump = self.machine.at(BACKUPS) / f"walt-postgresql-{old}.dump"
        content = self._dump(old, newest, dump)
        self._load(newest, dump, content)
        _exchange(self._new, self._data)
        self._keep_former()

    def back_up(self, dump: Path) -> None:
        """Stop the server, and write a dump of its database, if there is one."""
        version = self._version(self._data)
        if version is None or self._exchanged():
            return
        self._stop_server()
        self._clear(version, version)
        self._work.mkdir(mode=0o755)
        self._work.chmod(0o711)
        self._dump(version, version, dump)
        shutil.rmtree(self._work)

    # -- before ----------------------------------------------------------------

    def _stop_server(self) -> None:
        machine = self.machine
        if machine.has_systemd and machine.succeeds("systemctl", "--quiet", "is-active", UNIT):
            machine.run("systemctl", "stop", UNIT)
        if recorded_process(machine.at(self.paths.service_runtime("postgres.pid"))) is not None:
            raise Unavailable("the server runs, with its database: stop it, and call this again")

    def _clear(self, old: int, newest: int) -> None:
        """Remove what a call that was cut has left, its servers first."""
        for version, data in ((old, self._data), (newest, self._new)):
            if (data / "postmaster.pid").exists():
                with contextlib.suppress(WaltError):  # of one that a power failure ended
                    self._control(version, data, "stop", "-m", "fast")
        shutil.rmtree(self._work, ignore_errors=True)

    def _check_room(self) -> None:
        size = sum(
            one.stat().st_size for one in self._data.rglob("*")
            if one.is_file() and not one.is_symlink()
        )
        for place in (self.machine.at(self.paths.state), self.machine.at(BACKUPS)):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            free = shutil.disk_usage(place).free
            if free < ROOM * size:
                raise Unavailable(
                    f"{place} has {free >> 20} MiB left; to bring the database to the new"
                    f" PostgreSQL takes {int(ROOM * size) >> 20} MiB there"
                )

    # -- both servers ------------------------------------------------------------

    def _as_user(self, *argv: str) -> str:
        return self.machine.run("env", "--chdir=/", "setpriv", *as_user(), "--", *argv)

    def _control(self, version: int, data: Path, *words: str) -> None:
        self._as_user(
            str(self._bin(version) / "pg_ctl"), "-D", str(data), "-w", "-t", PATIENCE, "-s", *words
        )

    @contextmanager
    def _serving(self, version: int, data: Path, *options: str) -> Iterator[None]:
        """Have a server of a version at work on a cluster; root alone reaches it."""
        give_directory(self._sockets, USER)
        access = self._work / "pg_hba.conf"
        write_durable(access, b"local all root peer\n")
        given = {
            "unix_socket_directories": str(self._sockets), "hba_file": str(access),
            "listen_addresses": "", **dict(one.split("=", 1) for one in options),
        }
        # pg_ctl hands them to a shell.
        words = " ".join(f"-c {name}='{value}'" for name, value in given.items())
        log = self._sockets / "log"
        try:
            self._control(version, data, "-l", str(log), "-o", words, "start")
        except CommandFailed as error:
            told = log.read_text(errors="replace")[-1000:] if log.exists() else ""
            raise CommandFailed(f"{error} {told}".strip()) from None
        try:
            yield
        finally:
            self._control(version, data, "stop", "-m", "fast")

    def _query(self, version: int, text: str) -> str:
        return self.machine.run(
            str(self._bin(version) / "psql"), "--no-psqlrc", "--quiet", "--tuples-only",
            "--no-align", f"--host={self._sockets}", "--username=root", "--dbname=walt",
            "--set=ON_ERROR_STOP=1", f"--command={text}",
        )

    def _dump(self, old: int, newest: int, dump: Path) -> str:
        """Write a dump that survives a power failure; return what is in the database."""
        dump.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        unfinished = dump.with_suffix(".new")
        unfinished.unlink(missing_ok=True)
        os.close(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        with self._serving(old, self._data):
            content = self._query(newest, _CONTENT)
            self.machine.run(
                str(self._bin(newest) / "pg_dump"), "--format=custom", "--create",
                f"--host={self._sockets}", "--username=root", "--dbname=walt",
                f"--file={unfinished}",
            )
        settle(unfinished, dump)
        return content

    def _load(self, newest: int, dump: Path, content: str) -> None:
        """Make the new cluster, and compare it with what was in the old one."""
        give_directory(self._new, USER)
        self._as_user(*initdb(self._bin(newest), self._new))
        # Not flushed as it goes on: all of it is, at the end.
        with self._serving(newest, self._new, "fsync=off", "full_page_writes=off"):
            self.machine.run(
                str(self._bin(newest) / "pg_restore"), "--create", "--exit-on-error",
                f"--host={self._sockets}", "--username=root", "--dbname=postgres", str(dump),
            )
            found = self._query(newest, _CONTENT)
            if found != content:
                wrong = sorted({*content.splitlines()} ^ {*found.splitlines()})
                raise Unavailable(
                    "the copy of the database is not what it was made of, and is not used;"
                    f" rows: {', '.join(wrong[:10])}"
                )
            self.machine.run(
                str(self._bin(newest) / "vacuumdb"), "--analyze-only", "--quiet",
                f"--host={self._sockets}", "--username=root", "--dbname=walt",
            )
        self._as_user(
            str(self._bin(newest) / "initdb"), "--sync-only", "-D", str(self._new)
        )

    # -- after -------------------------------------------------------------------

    def _keep_former(self) -> None:
        """Give the old cluster the name under which it stays."""
        name = self.machine.at(self.paths.state) / f"postgres-{self._version(self._new)}"
        place, number = name, 1
        while place.exists():
            number += 1
            place = name.with_name(f"{name.name}.{number}")
        self._new.rename(place)
        shutil.rmtree(self._work, ignore_errors=True)
        shutil.rmtree(self._sockets, ignore_errors=True)

    def undo(self) -> None:
        """The database stays."""


def former_clusters(machine: Machine, state: Path) -> list[Path]:
    """Return the clusters of older versions that were kept, as paths of the machine."""
    return sorted(
        state / one.name for one in machine.at(state).glob("postgres-[0-9]*")
        if (one / "PG_VERSION").exists()
    )


def drop_former(machine: Machine, state: Path) -> list[Path]:
    """Remove these clusters; return their paths. Raises OSError."""
    found = former_clusters(machine, state)
    for one in found:
        shutil.rmtree(machine.at(one))
    return found


def _exchange(one: Path, other: Path) -> None:
    """Let two directories change their names at once. Raises OSError."""
    done = _libc.renameat2(
        _AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE
    )
    if done != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(one), None, str(other))
    for directory in {one.parent, other.parent}:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
