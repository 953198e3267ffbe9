"""The machine that is set up: its files below a root, and its programs."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zope.interface import Interface, implementer

from walt.common.errors import CommandFailed, Unavailable
from walt.common.files import write_durable

LONGEST = 3600.0  # seconds for one program: hundreds of packages may have to be fetched
LONGEST_COPY = 6 * 3600.0  # of those that copy a database, which may have logs of years
_COPY = ("pg_dump", "pg_restore", "psql", "vacuumdb")
LAST_LINES = 5  # of a program that failed, in what is told


@dataclass(frozen=True)
class Done:
    """How a program ended: its status, what it wrote to its standard output."""

    status: int
    output: str


class IPrograms(Interface):
    """Runs programs of the machine."""

    def call(argv: Sequence[str], more_env: Mapping[str, str]) -> Done:
        """Run a program to its end, without input, with `more_env` in its environment.

        Raises Unavailable when it is not installed or does not end.
        """


@implementer(IPrograms)
class Programs:
    """Those of this machine; what they say goes to a log, too."""

    def __init__(self, log: Callable[[str], object] = lambda text: None) -> None:
        self._log = log

    def call(self, argv: Sequence[str], more_env: Mapping[str, str]) -> Done:
        """See IPrograms."""
        longest = LONGEST_COPY if Path(argv[0]).name in _COPY else LONGEST
        try:
            done = subprocess.run(
                list(argv), stdin=subprocess.DEVNULL, capture_output=True, text=True,
                errors="replace", check=False, timeout=longest,
                env={**os.environ, "LC_ALL": "C.UTF-8", **more_env},
            )
        except FileNotFoundError:
            raise Unavailable(f"{argv[0]} is not installed") from None
        except subprocess.TimeoutExpired:
            raise Unavailable(f"{argv[0]} did not end within {longest:g} s") from None
        self._log(f"{' '.join(argv)}: status {done.returncode}\n{done.stdout}{done.stderr}")
        if done.returncode != 0:  # what went wrong stands at the end
            return Done(done.returncode, done.stdout + done.stderr)
        return Done(0, done.stdout or done.stderr)


class Machine:
    """What steps of the set-up look at and change. Paths are those of the machine itself."""

    def __init__(self, programs: IPrograms, root: Path = Path("/")) -> None:
        self.programs = programs
        self.root = root

    def at(self, path: Path | str) -> Path:
        """Return where a path of the machine is, seen from here."""
        return self.root / str(path).lstrip("/")

    def read(self, path: Path | str) -> str | None:
        """Return the text of a file, None when there is none."""
        try:
            return self.at(path).read_text(errors="surrogateescape")
        except FileNotFoundError:
            return None

    def write(self, path: Path | str, text: str, mode: int = 0o644) -> None:
        """Write a file that survives a power cut, with its directories."""
        place = self.at(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        write_durable(place, text.encode(errors="surrogateescape"), mode)

    def run(self, *argv: str, env: Mapping[str, str] | None = None) -> str:
        """Run a program that must succeed; return its output. Raises CommandFailed."""
        done = self.programs.call(argv, env or {})
        if done.status != 0:
            words = " / ".join(done.output.strip().splitlines()[-LAST_LINES:])
            raise CommandFailed(f"{' '.join(argv[:3])}… failed (status {done.status}): {words}")
        return str(done.output)

    def succeeds(self, *argv: str) -> bool:
        """Tell whether a program ends with status 0."""
        return bool(self.programs.call(argv, {}).status == 0)

    @property
    def has_systemd(self) -> bool:
        """Whether systemd runs this machine (sd_booted(3)); in a tree of files it does not."""
        return self.at("/run/systemd/system").is_dir()


def release(machine: Machine) -> str:
    """Return the code name of the machine's Debian, "" for what is none."""
    for line in (machine.read("/etc/os-release") or "").splitlines():
        key, _, value = line.partition("=")
        if key == "VERSION_CODENAME":
            return value.strip('"')
    return ""


class Memory:
    """What set-up remembers between two calls: a file in the state directory."""

    def __init__(self, machine: Machine, state: Path) -> None:
        self._machine, self.path = machine, state / "setup.json"

    def _load(self) -> dict[str, Any]:
        text = self._machine.read(self.path)
        try:
            found = json.loads(text or "{}")
        except ValueError:
            found = {}
        return found if isinstance(found, dict) else {}

    def packages(self) -> list[str]:
        """Return the Debian packages that were installed by set-up."""
        found = self._load().get("packages", [])
        return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []

    def add_packages(self, names: Sequence[str]) -> None:
        """Remember more of them; called before they are installed."""
        self._save(packages=sorted({*self.packages(), *names}))

    def _save(self, **more: Any) -> None:
        self._machine.write(self.path, json.dumps({**self._load(), **more}, indent=1) + "\n")
