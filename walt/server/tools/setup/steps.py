"""The shape of a step of the set-up, and those that are files.

A step is a value. It tells what is not as it should be (`lacks`, one line each; it changes
nothing), makes it so (`apply`, which may be cut at any point and called again), and takes back
what only the product has use for (`undo`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from walt.server.tools.setup.machine import Machine


class Step(Protocol):
    """See the module."""

    @property
    def title(self) -> str:
        """What it is about, in a few words."""

    def lacks(self) -> list[str]:
        """Tell what is to be done, one line for each thing."""

    def apply(self) -> None:
        """Do it. Raises WaltError, OSError."""

    def undo(self) -> None:
        """Take it back, as far as it is ours alone. Raises WaltError, OSError."""


@dataclass(frozen=True)
class OwnFile:
    """A file that is the product's: it has this text, always."""

    path: str
    text: str
    mode: int = 0o644


@dataclass(frozen=True)
class FirstFile:
    """A file of the administrator: written when there is none, never touched then."""

    path: str
    text: str
    mode: int = 0o644


@dataclass(frozen=True)
class Files:
    """Files with a meaning in common; `after` makes programs read what was written."""

    title: str
    machine: Machine
    files: Sequence[OwnFile | FirstFile]
    after: Callable[[], None] = lambda: None

    def _wrong(self) -> list[OwnFile | FirstFile]:
        return [
            file for file in self.files
            if self.machine.read(file.path) is None
            or (isinstance(file, OwnFile) and self.machine.read(file.path) != file.text)
        ]

    def lacks(self) -> list[str]:
        """See Step."""
        return [
            f"{file.path} is {'missing' if self.machine.read(file.path) is None else 'not current'}"
            for file in self._wrong()
        ]

    def apply(self) -> None:
        """See Step."""
        wrong = self._wrong()
        for file in wrong:
            self.machine.write(file.path, file.text, file.mode)
        if wrong:
            self.after()

    def undo(self) -> None:
        """Remove those that are ours."""
        for file in self.files:
            if isinstance(file, OwnFile):
                self.machine.at(file.path).unlink(missing_ok=True)
        self.after()


@dataclass(frozen=True)
class Links:
    """Symbolic links to programs of the virtual environment, by their paths.

    Something else that has such a name is somebody's, and is told, not replaced.
    """

    title: str
    machine: Machine
    links: Sequence[tuple[str, Path]]

    def _wrong(self) -> list[tuple[str, Path]]:
        return [(name, target) for name, target in self.links if self._target(name) != target]

    def _target(self, name: str) -> Path | None:
        place = self.machine.at(name)
        return place.readlink() if place.is_symlink() else None

    def _taken(self, name: str) -> bool:
        place = self.machine.at(name)
        return place.exists() and not place.is_symlink()

    def lacks(self) -> list[str]:
        """See Step."""
        return [
            f"{name} is a file of somebody else: move it away, and call this again"
            if self._taken(name) else f"{name} does not lead to {target}"
            for name, target in self._wrong()
        ]

    def apply(self) -> None:
        """See Step."""
        for name, target in self._wrong():
            place = self.machine.at(name)
            if self._taken(name):
                continue  # `lacks` goes on telling it
            beside = place.with_name(f".{place.name}.new")
            place.parent.mkdir(parents=True, exist_ok=True)
            beside.unlink(missing_ok=True)
            beside.symlink_to(target)
            beside.replace(place)

    def undo(self) -> None:
        """Remove those that lead to this installation."""
        for name, target in self.links:
            if self._target(name) == target:
                self.machine.at(name).unlink()
