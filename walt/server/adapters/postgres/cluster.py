"""The embedded PostgreSQL cluster: a private child on a unix socket (design D3)."""

from __future__ import annotations

from pathlib import Path

from walt.common.errors import Unavailable
from walt.common.files import write_if_changed
from walt.server.runtime.accounts import give_directory
from walt.server.runtime.child import ChildSpec
from walt.server.runtime.process import ProcessRunner

USER = "postgres"
INSTALLATIONS = Path("/usr/lib/postgresql")
# Of each Debian. Another one on a machine is somebody's, who may remove it again.
VERSIONS = {"bookworm": 15, "trixie": 17}
RELEASE = Path("/etc/os-release")


def binaries(root: Path = INSTALLATIONS) -> Path:
    """Return the directory of the newest PostgreSQL of the distribution.

    Raises Unavailable when there is none.
    """
    found = sorted(
        (path for path in root.glob("*/bin") if (path / "postgres").exists()),
        key=lambda path: int(path.parent.name) if path.parent.name.isdigit() else 0,
    )
    if not found:
        raise Unavailable("PostgreSQL is not installed; run: apt-get install postgresql")
    return found[-1]


def _own(root: Path, about: Path) -> Path:
    """Return the directory of the PostgreSQL of this Debian, the newest where that is not there."""
    try:
        lines = about.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, name = line.partition("=")
        if key == "VERSION_CODENAME":
            found = root / str(VERSIONS.get(name.strip('"'), "none")) / "bin"
            if (found / "postgres").exists():
                return found
    return binaries(root)


def binaries_for(data: Path, root: Path = INSTALLATIONS, about: Path = RELEASE) -> Path:
    """Return the directory of the PostgreSQL that reads a data directory; for a new one, Debian's.

    `about` tells which Debian this is (os-release(5)). An upgrade of Debian brings the next one
    beside that which made the files, and which alone can read them. Raises Unavailable.
    """
    try:
        version = (data / "PG_VERSION").read_text().strip()
    except FileNotFoundError:
        return _own(root, about)
    found = root / version / "bin"
    if not version.isdigit() or not (found / "postgres").exists():
        raise Unavailable(
            f"the database in {data} was made by PostgreSQL {version[:20]}, which is not installed"
            f" any more; run: apt-get install postgresql-{version[:20]}, or restore a backup in an"
            " empty state directory (walt help show backup)"
        )
    return found


def as_user() -> tuple[str, ...]:
    """Return the setpriv options that make a child run as the database user."""
    return ("--reuid", USER, "--regid", USER, "--clear-groups")


def embedded_dsn(runtime: Path) -> str:
    """Return how to connect to the database `walt` of the server of a runtime directory."""
    return f"host={runtime / 'postgres'} dbname=walt user=root"


def initdb(bin_dir: Path, data: Path) -> list[str]:
    """Return the command that makes a cluster, to be run as the database user."""
    return [
        str(bin_dir / "initdb"), "-D", str(data), "-U", "root", "-E", "UTF8",
        "--locale=C.UTF-8", "--auth=peer", "--no-instructions",
    ]


class Cluster:
    """The data directory and the socket directory of one private cluster."""

    def __init__(self, state: Path, runtime: Path, runner: ProcessRunner) -> None:
        self.data = state / "postgres"
        self.sockets = runtime / "postgres"
        self.dsn = embedded_dsn(runtime)
        # Not in the data directory, which is not root's.
        self._access = state / "pg_hba.conf"
        self._runner = runner

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self.sockets / ".s.PGSQL.5432"

    @property
    def maintenance_dsn(self) -> str:
        """How to connect before the database exists."""
        return f"host={self.sockets} dbname=postgres user=root"

    async def prepare(self) -> None:
        """Create directories and, the first time, the cluster.

        Raises Unavailable (not installed, no such user) or CommandFailed (no space…).
        """
        bin_dir = binaries_for(self.data)
        try:
            for path in (self.sockets, self.data):
                give_directory(path, USER)
        except KeyError:
            raise Unavailable(f"there is no user {USER}; install package postgresql") from None
        if not (self.data / "PG_VERSION").exists():
            await self._runner.run(
                initdb(bin_dir, self.data), timeout=300, credentials=as_user(), cwd="/",
            )
        # Only root of this machine, through the unix socket.
        write_if_changed(self._access, "local all root peer\n")

    def spec(self) -> ChildSpec:
        """Return how the server process is run.

        INT ends it without waiting for its clients; QUIT is the emergency stop.
        """
        return ChildSpec(
            "postgres",
            (
                str(binaries_for(self.data) / "postgres"), "-D", str(self.data),
                "-k", str(self.sockets),
                "-c", f"hba_file={self._access}",
                "-c", "listen_addresses=", "-c", "log_min_messages=warning",
                "-c", "shared_buffers=64MB", "-c", "max_connections=60",
                "-c", "log_min_error_statement=panic",
                # A statement whose requester left ends soon.
                "-c", "client_connection_check_interval=2s",
            ),
            cwd="/", death_signal="QUIT", credentials=as_user(),
            stop_signals=(("INT", 30.0), ("QUIT", 10.0), ("KILL", 5.0)),
        )
