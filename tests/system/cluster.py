"""One private PostgreSQL cluster for a test run, a fresh database for each test."""

from __future__ import annotations

import atexit
import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from contextlib import closing, suppress
from pathlib import Path

import psycopg2
from psycopg2 import sql

from tests.places import ON_DISK
from walt.common.errors import Unavailable
from walt.server.adapters.postgres.cluster import as_user, binaries

_numbers = itertools.count()
_running: list[SharedCluster] = []


def why_not() -> str | None:
    """Return why no cluster can run here, None if one can."""
    if os.geteuid() != 0:
        return "needs root, to become the user postgres"
    try:
        binaries()
        pwd.getpwnam("postgres")
    except (Unavailable, KeyError) as error:
        return str(error)
    return None


class SharedCluster:
    """A cluster that ends with the test run."""

    def __init__(self) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="wp", dir=ON_DISK))
        self.base.chmod(0o711)
        self.data = self.base / "d"
        self.data.mkdir()
        for directory in (self.base, self.data):
            shutil.chown(directory, "postgres", "postgres")
        self.data.chmod(0o700)
        user = ["setpriv", "--pdeathsig", "QUIT", *as_user(), "--"]
        subprocess.run(
            [*user, str(binaries() / "initdb"), "-D", str(self.data), "-U", "root", "-E", "UTF8",
             "--locale=C.UTF-8", "--auth=trust", "-N"],
            check=True, stdout=subprocess.DEVNULL, cwd="/",
        )
        self._argv = [
            *user, str(binaries() / "postgres"), "-D", str(self.data), "-k", str(self.base),
            "-c", "listen_addresses=", "-c", "fsync=off", "-c", "log_min_messages=panic",
        ]
        self.start()
        atexit.register(self.end)

    def spawn(self) -> None:
        """Start the server, without waiting."""
        self._process = subprocess.Popen(self._argv, cwd="/", stderr=subprocess.DEVNULL)

    def set(self, name: str, value: str) -> None:
        """Change a setting of the server (one that needs no restart), and wait until it is so."""
        with closing(psycopg2.connect(self.dsn("postgres"))) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(
                    sql.SQL("ALTER SYSTEM SET {} = %s").format(sql.Identifier(name)), (value,)
                )
                cursor.execute("SELECT pg_reload_conf()")
        for _ in range(200):
            with closing(psycopg2.connect(self.dsn("postgres"))) as connection, \
                    connection.cursor() as cursor:
                cursor.execute("SELECT current_setting(%s)", (name,))
                if cursor.fetchall() == [(value,)]:
                    return
            time.sleep(0.05)
        raise AssertionError(f"{name} is not {value}")

    @property
    def pid(self) -> int:
        """The process of the server."""
        return self._process.pid

    def runs(self) -> bool:
        """Tell whether the server has not ended."""
        return self._process.poll() is None

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        self.spawn()
        for _ in range(200):
            try:
                psycopg2.connect(self.dsn("postgres")).close()
                return
            except psycopg2.OperationalError:
                time.sleep(0.05)
        raise AssertionError("PostgreSQL does not answer")

    def kill(self) -> None:
        """Kill the server as a crash would."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        for pid in [*children.read_text().split(), str(self._process.pid)]:
            with suppress(ProcessLookupError):
                os.kill(int(pid), 9)
        self._process.wait()

    def dsn(self, database: str) -> str:
        """Return how to connect to a database."""
        return f"host={self.base} dbname={database} user=root"

    def fresh(self) -> str:
        """Make an empty database and return how to connect to it."""
        name = f"t{next(_numbers)}"
        connection = psycopg2.connect(self.dsn("postgres"))
        connection.autocommit = True
        connection.cursor().execute(f"CREATE DATABASE {name}")
        connection.close()
        return self.dsn(name)

    def end(self) -> None:
        """End the server and remove its files."""
        atexit.unregister(self.end)
        self._process.send_signal(2)
        self._process.wait()
        shutil.rmtree(self.base, ignore_errors=True)


def shared() -> SharedCluster:
    """Return the cluster of this run."""
    if not _running:
        _running.append(SharedCluster())
    return _running[0]
