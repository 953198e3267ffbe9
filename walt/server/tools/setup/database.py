"""The step that brings the database to the PostgreSQL of this Debian.

An upgrade of Debian brings the next PostgreSQL beside that which made the files, and which
alone can read them. All is copied by a dump, which stays as a backup; the new cluster is made
beside the old one, compared with it, and takes its place at once (renameat2(2)), so that a cut
leaves the one or the other whole. The old one stays until `--drop-former-database`. What can
refuse does so while the server runs.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from walt.common.errors import CommandFailed, Unavailable, WaltError
from walt.common.files import write_atomic, write_durable
from walt.common.mounts import is_mounted
from walt.server.adapters.postgres.cluster import (
    INSTALLATIONS,
    USER,
    VERSIONS,
    as_user,
    initdb,
)
from walt.server.config.model import Paths
from walt.server.runtime.accounts import give_directory
from walt.server.runtime.child import process_start, recorded_process
from walt.server.tools.setup.downtime import Downtime
from walt.server.tools.setup.machine import Machine, release
from walt.server.tools.setup.settling import refuse_without_room, settle

BACKUPS = Path("/var/backups/walt")
WORK = "postgres-upgrade"  # below the state directory, while it is done
KEEP = "walt-server-setup --keep-postgresql"
PATIENCE = "600"  # seconds that a server may take to recover after a power failure
# Times the size of the old cluster: its dump, which is compressed, and the new one.
ROOM_OF_DUMP, ROOM_OF_NEW = 1.0, 1.5
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
    """See the module. `installations` has a directory for each PostgreSQL.

    `keep`: the database stays with the one that made it, as long as that is installed.
    """

    machine: Machine
    paths: Paths
    downtime: Downtime
    installations: Path = INSTALLATIONS
    keep: bool = False
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

    @property
    def _record(self) -> Path:
        """Where the server looks for a PostgreSQL that was left, and ends it."""
        return self.machine.at(self.paths.service_runtime("postgres.pid"))

    def _version(self, data: Path) -> int | None:
        """Return the version that made a cluster."""
        try:
            return int((data / "PG_VERSION").read_text())
        except (FileNotFoundError, ValueError):
            return None

    def _target(self) -> int | None:
        """Return the version of this Debian, None where it is not installed."""
        version = VERSIONS.get(release(self.machine))
        if version is None or not (self._bin(version) / "postgres").exists():
            return None
        return version

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
        old, newest = self._version(self._data), self._target()
        if self.keep or old is None or newest is None or old >= newest:
            return []
        return [f"the database was made by PostgreSQL {old}, and {newest} is installed"]

    def apply(self) -> None:
        """See Step. The server ends meanwhile, when nothing can refuse any more."""
        if self._exchanged():
            self._keep_former()
        old, newest = self._version(self._data), self._target()
        if self.keep or old is None or newest is None or old >= newest:
            return
        if not (self._bin(old) / "postgres").exists():
            raise Unavailable(
                f"the database was made by PostgreSQL {old}, which is not installed any more:"
                f" install its package again (postgresql-{old}, from the Debian that this machine"
                " had before), and call this again"
            )
        try:
            self._refuse(self._size())
        except Unavailable as error:
            raise Unavailable(f"{error}; to go on with PostgreSQL {old}: {KEEP}") from None
        self._stop_server()
        self._clear(old, newest)
        self._make_work()
        unfinished, content = self._dump(old, newest)
        self._load(newest, unfinished, content)
        settle(unfinished, self.machine.at(BACKUPS / f"walt-postgresql-{old}.dump"))
        _exchange(self._new, self._data)
        self._keep_former()

    def back_up(self, name: str) -> Path | None:
        """Stop the server, and write a dump of its database; return its path on the machine.

        `name` is that of the file, which gets a number where an earlier one has it. None: there is
        no database. The server runs until nothing can refuse any more.
        """
        if self._exchanged():
            self._keep_former()
        version = self._version(self._data)
        if version is None:
            return None
        if not (self._bin(version) / "postgres").exists():
            raise Unavailable(
                f"the database was made by PostgreSQL {version}, which is not installed: nothing"
                f" can copy it; run: apt-get install postgresql-{version}"
            )
        refuse_without_room({self.machine.at(BACKUPS): int(ROOM_OF_DUMP * self._size())})
        self._stop_server()
        self._clear(version, version)
        self._make_work()
        unfinished, _ = self._dump(version, version)
        copy = settle(unfinished, self.machine.at(BACKUPS / name))
        shutil.rmtree(self._work)
        return BACKUPS / copy.name

    # -- before ----------------------------------------------------------------

    def _refuse(self, size: int) -> None:
        """Raise Unavailable with what would be in the way of the new cluster."""
        state = self.machine.at(self.paths.state)
        if is_mounted(self._data):
            raise Unavailable(
                f"{self._data} is a file system of its own: a new cluster cannot take its place;"
                f" move it into {state}, or mount that"
            )
        refuse_without_room(
            {self.machine.at(BACKUPS): int(ROOM_OF_DUMP * size), state: int(ROOM_OF_NEW * size)},
            # What a call that was cut has left goes first.
            {state: _size(self._work)},
        )
        with tempfile.TemporaryDirectory(prefix=f"{WORK}-", dir=state) as trial:
            one, other = Path(trial) / "one", Path(trial) / "other"
            one.mkdir()
            other.mkdir()
            try:
                _exchange(one, other)
            except OSError as error:
                raise Unavailable(
                    f"the file system of {state} cannot exchange two directories"
                    f" ({error.strerror}), as is needed for a new cluster"
                ) from None

    def _size(self) -> int:
        return _size(self._data)

    def _stop_server(self) -> None:
        self.downtime.begin()
        pid = recorded_process(self._record)
        if pid is not None and not self._is_left_over(pid):
            raise Unavailable(
                f"the server runs, with its database (process {pid}), and was not started by what"
                " starts it on this machine: end walt-server-daemon, and call this again"
            )

    def _is_left_over(self, pid: int) -> bool:
        """Tell whether a process is a PostgreSQL that a call which was killed has started."""
        try:
            # Its process, data directory, start, port, directory of its socket.
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return lines[0].strip() == str(pid) and lines[4:5] == [str(self._sockets)]

    def _make_work(self) -> None:
        self._work.mkdir(mode=0o755)
        self._work.chmod(0o711)  # its user goes through to its own directory

    def _clear(self, old: int, newest: int) -> None:
        """Remove what a call that was cut has left, its servers first."""
        for version, data in ((old, self._data), (newest, self._new)):
            if (data / "postmaster.pid").exists():
                with contextlib.suppress(WaltError):  # of one that a power failure ended
                    self._control(version, data, "stop", "-m", "fast")
        shutil.rmtree(self._work, ignore_errors=True)

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
            "listen_addresses": "", **dict(option.split("=", 1) for option in options),
        }
        # pg_ctl hands them to a shell.
        words = " ".join(f"-c {name}='{value}'" for name, value in given.items())
        log = self._sockets / "log"
        try:
            self._control(version, data, "-l", str(log), "-o", words, "start")
        except CommandFailed as error:
            told = log.read_text(errors="replace")[-1000:] if log.exists() else ""
            raise CommandFailed(f"{error} {told}".strip()) from None
        except KeyboardInterrupt:
            with contextlib.suppress(WaltError):
                self._control(version, data, "stop", "-m", "fast")
            raise
        try:
            if data == self._data:
                pid = int((data / "postmaster.pid").read_text().split()[0])
                write_atomic(self._record, f"{pid} {process_start(pid)}\n")
            yield
        finally:
            self._control(version, data, "stop", "-m", "fast")
            if data == self._data:
                self._record.unlink(missing_ok=True)

    def _query(self, version: int, text: str) -> str:
        return self.machine.run(
            str(self._bin(version) / "psql"), "--no-psqlrc", "--quiet", "--tuples-only",
            "--no-align", f"--host={self._sockets}", "--username=root", "--dbname=walt",
            "--set=ON_ERROR_STOP=1", f"--command={text}",
        )

    def _dump(self, old: int, newest: int) -> tuple[Path, str]:
        """Write a dump; return where it is, without its name yet, and what is in the database."""
        place = self.machine.at(BACKUPS)
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        unfinished = place / "walt-postgresql.new"
        unfinished.unlink(missing_ok=True)
        os.close(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        with self._serving(old, self._data):
            content = self._query(newest, _CONTENT)
            self.machine.run(
                str(self._bin(newest) / "pg_dump"), "--format=custom", "--create",
                f"--host={self._sockets}", "--username=root", "--dbname=walt",
                f"--file={unfinished}",
            )
        return unfinished, content

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


def _size(place: Path) -> int:
    """Return how many bytes the files below a directory have."""
    found = 0
    for path in place.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # the server runs
            if path.is_file() and not path.is_symlink():
                found += path.stat().st_size
    return found


def former_clusters(machine: Machine, state: Path) -> list[Path]:
    """Return the clusters of older versions that were kept, as paths of the machine."""
    return sorted(
        state / path.name for path in machine.at(state).glob("postgres-[0-9]*")
        if (path / "PG_VERSION").exists()
    )


def drop_former(machine: Machine, state: Path) -> list[Path]:
    """Remove these clusters; return their paths. Raises OSError."""
    found = former_clusters(machine, state)
    for cluster in found:
        shutil.rmtree(machine.at(cluster))
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
