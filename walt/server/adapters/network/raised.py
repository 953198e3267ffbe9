"""Interfaces that were down before a network was made of them, and are to be down after it."""

from __future__ import annotations

from pathlib import Path

from walt.common.files import write_atomic
from walt.server.domain.network.firewall import is_interface_name

# Another text whenever the machine has started anew (random(4)): interfaces are as its own
# configuration wants them then.
BOOT = Path("/proc/sys/kernel/random/boot_id")


class Raised:
    """Their names, on the disk of the server's `state`: who undoes it may be another process."""

    def __init__(self, state: Path, boot: Path = BOOT) -> None:
        self._file = state / ".raised"
        self._boot = boot

    def __contains__(self, name: str) -> bool:
        return name in self._names()

    def add(self, name: str) -> None:
        """Remember that an interface was down."""
        self._write(self._names() | {name})

    def drop(self, name: str) -> None:
        """Forget it: it is down again, or somebody else wants it up."""
        names = self._names()
        if name in names:
            self._write(names - {name})

    def _names(self) -> frozenset[str]:
        try:
            boot, *names = self._file.read_text().split()
            if boot != self._boot.read_text().strip():
                return frozenset()
        except (OSError, ValueError):
            return frozenset()
        return frozenset(filter(is_interface_name, names))

    def _write(self, names: frozenset[str]) -> None:
        if names:
            lines = [self._boot.read_text().strip(), *sorted(names)]
            write_atomic(self._file, "".join(f"{line}\n" for line in lines))
        else:
            self._file.unlink(missing_ok=True)
