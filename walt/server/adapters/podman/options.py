"""Where the server's own podman storage is, as options of podman (design D10)."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple


class Storage(NamedTuple):
    """A podman storage: `root` None means the system's."""

    root: Path | None = None
    runroot: Path | None = None

    @classmethod
    def private(cls, state: Path, runtime: Path) -> Storage:
        """Return the storage of a server with these state and runtime directories.

        podman refuses a runroot above 50 characters: `runtime` has 40 at most.
        """
        return cls(state / "containers" / "storage", runtime / "containers")

    @property
    def graph_root(self) -> Path:
        """The directory that holds `overlay` and `overlay-images`."""
        return self.root or Path("/var/lib/containers/storage")

    def places(self) -> tuple[Path, ...]:
        """Return the directories that hold it."""
        return (self.graph_root, self.runroot or Path("/run/containers/storage"))

    def protect(self) -> None:
        """Make a storage of the server's own inaccessible to other accounts.

        Set-user-id programs of images are in it as images have them.
        """
        if self.root is not None:
            self.root.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.root.parent.chmod(0o700)

    def options(self) -> tuple[str, ...]:
        """Return the global options that select this storage."""
        if self.root is None or self.runroot is None:
            return ()
        return (
            "--root", str(self.root), "--runroot", str(self.runroot),
            "--storage-driver", "overlay",
        )

    def may_hold(self, kind: str, text: str) -> bool:
        """Tell whether the list of `images` or `containers` holds a text.

        Read without podman, which leaves a mount behind when it is killed: a server
        that finds nothing at its start need not run it.
        """
        try:
            listed = self.graph_root / f"overlay-{kind}" / f"{kind}.json"
            return text in listed.read_text(errors="replace")
        except OSError:
            return False

    def changes_of(self, names: Collection[str]) -> list[Path]:
        """Return the directories in which containers keep what they wrote.

        podman tells it of running containers alone (containers/storage, containers.json).
        """
        found = []
        for kind in ("containers", "volatile-containers"):
            try:
                listed = json.loads((self.graph_root / "overlay-containers" / f"{kind}.json")
                                    .read_text())
                found += [
                    self.graph_root / "overlay" / container["layer"] / "diff"
                    for container in listed
                    if set(container.get("names") or ()) & set(names)
                ]
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                continue
        return found

    def podman(self, *words: str) -> list[str]:
        """Return the argument vector of a podman command on this storage."""
        return ["podman", *self.options(), *words]
