"""This machine with a layer of its own above its files: programs change that layer only."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.patience import patient
from tests.system.netns import short_dir


class Overlaid:
    """The files of this machine, to be changed at will; what runs is not seen from inside."""

    def __init__(self, case: Any) -> None:
        self._place = short_dir(case)
        for name in ("upper", "work", "root"):
            (self._place / name).mkdir()

    def _argv(self, argv: Sequence[str]) -> list[str]:
        root = shlex.quote(str(self._place / "root"))
        layers = f"lowerdir=/,upperdir={self._place}/upper,workdir={self._place}/work"
        script = (
            f"mount -t overlay overlay -o {shlex.quote(layers)} {root}"
            f" && mount -t proc proc {root}/proc && mount --rbind /dev {root}/dev"
            f" && mount -t tmpfs tmpfs {root}/run"
            f" && exec chroot {root} {shlex.join(argv)}"
        )
        return [
            "unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation=private",
            "sh", "-ec", script,
        ]

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a program to its end."""
        return subprocess.run(
            self._argv(argv), capture_output=True, text=True, check=False,
            stdin=subprocess.DEVNULL, timeout=patient(120),
        )

    def start(self, *argv: str) -> subprocess.Popen[str]:
        """Start a program whose output is read."""
        return subprocess.Popen(
            self._argv(argv), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            stdin=subprocess.DEVNULL,
        )

    def at(self, path: str) -> Path:
        """Return where a file that was written inside is."""
        return self._place / "upper" / path.lstrip("/")
