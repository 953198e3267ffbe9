"""Network namespaces for tests, created and removed by the test itself."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.places import ON_DISK
from walt.server.adapters.network.namespace import inside
from walt.server.runtime.process import Launcher, Network

_numbers = itertools.count()


def why_not(*programs: str) -> str | None:
    """Return the reason why such tests cannot run here, None if they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [one for one in programs if shutil.which(one) is None]
    return f"not installed: {', '.join(missing)}" if missing else None


def sh(*argv: str, check: bool = True, stdin: str = "", timeout: float = 60) -> str:
    """Run a program of the test's set-up or a client and return its output."""
    done = subprocess.run(
        argv, input=stdin, capture_output=True, text=True, timeout=timeout, check=False
    )
    if check and done.returncode:
        raise AssertionError(f"{argv}: {done.stderr}{done.stdout}")
    return done.stdout


@dataclass(frozen=True)
class NamespaceLauncher(Launcher):
    """Starts every program inside one named namespace."""

    netns: str = ""

    def command(
        self, argv: Sequence[str], *, network: Network = "walt", death_signal: str = "KILL",
        credentials: Sequence[str] = (), new_session: bool = True,
    ) -> list[str]:
        """Return the vector, behind nsenter."""
        inner = super().command(
            argv, network=network, death_signal=death_signal, credentials=credentials,
            new_session=new_session,
        )
        return ["nsenter", f"--net=/run/netns/{self.netns}", "--", *inner]


class Namespace:
    """One named namespace with `lo` up."""

    def __init__(self, case: Any) -> None:
        self.name = f"walt-t{os.getpid()}-{next(_numbers)}"
        sh("ip", "netns", "add", self.name)
        case.addCleanup(sh, "ip", "netns", "del", self.name, check=False)
        self.run("ip", "link", "set", "lo", "up")

    @property
    def path(self) -> Path:
        """The file that stands for it."""
        return Path("/run/netns") / self.name

    @property
    def launcher(self) -> NamespaceLauncher:
        """What starts programs inside."""
        return NamespaceLauncher(netns=self.name)

    def inside(self) -> AbstractContextManager[None]:
        """Be in it for a moment: sockets opened meanwhile stay there."""
        return inside(self.path)

    def command(self, *argv: str) -> list[str]:
        """Return the vector that runs a program inside."""
        return ["nsenter", f"--net={self.path}", "--", *argv]

    def run(self, *argv: str, check: bool = True, stdin: str = "", timeout: float = 60) -> str:
        """Run a program inside."""
        return sh(*self.command(*argv), check=check, stdin=stdin, timeout=timeout)


def join(a: Namespace, name_a: str, b: Namespace, name_b: str) -> None:
    """Make a cable between two namespaces and set its ends up."""
    a.run(
        "ip", "link", "add", name_a, "type", "veth", "peer", "name", name_b, "netns", b.name
    )
    a.run("ip", "link", "set", name_a, "up")
    b.run("ip", "link", "set", name_b, "up")


def short_dir(case: Any) -> Path:
    """Return a new directory that daemons can traverse, removed after the test."""
    path = Path(tempfile.mkdtemp(prefix="wt", dir=ON_DISK))
    path.chmod(0o711)
    case.addCleanup(shutil.rmtree, path, True)
    return path
