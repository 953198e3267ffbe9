"""walt-node-setup: run in an image, once this package is in a virtual environment there."""

from __future__ import annotations

import os
import sys
from pathlib import Path

COMMANDS = ("walt-logs-daemon", "walt-log-monitor", "walt-monitor", "walt-serial-autolog")
UNIT = "walt-logs.service"


class NotPossible(Exception):
    """The set-up was refused; the text says why."""


def install(environment: Path, root: Path = Path("/")) -> list[str]:
    """Link the commands of a virtual environment, enable the service; return what was done.

    `root` is the file system to change; `environment` is its path seen from inside. What is
    there already is replaced. Raises NotPossible.
    """
    bin_inside = environment / "bin"
    missing = [
        name for name in COMMANDS
        if not os.path.lexists(root / str(bin_inside / name).lstrip("/"))
    ]
    if missing:
        raise NotPossible(f"{bin_inside} has no {', '.join(missing)}; install the package again")
    done = []
    for name in COMMANDS:
        _link(root / "usr/local/bin" / name, bin_inside / name)
        done.append(f"/usr/local/bin/{name}")
    units = root / "etc/systemd/system"
    if not any((root / place).is_dir() for place in ("etc/systemd", "lib/systemd")):
        raise NotPossible("this image has no systemd; start walt-logs-daemon in your own way")
    (units / "multi-user.target.wants").mkdir(parents=True, exist_ok=True)
    unit = units / UNIT
    if unit.is_symlink():
        unit.unlink()
    unit.write_text((Path(__file__).parent / UNIT).read_text())
    _link(units / "multi-user.target.wants" / UNIT, Path("/etc/systemd/system") / UNIT)
    return [*done, f"/etc/systemd/system/{UNIT} (enabled)"]


def _link(place: Path, target: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(place):
        place.unlink()
    place.symlink_to(target)


def run() -> None:
    """Set up the system in which this runs."""
    if sys.prefix == sys.base_prefix:
        sys.exit(
            "walt-node-setup: install the package in a virtual environment first;"
            " `walt help show log-monitor` tells how"
        )
    try:
        for line in install(Path(sys.prefix)):
            print(line)
    except NotPossible as error:
        sys.exit(f"walt-node-setup: {error}")
    except OSError as error:
        sys.exit(f"walt-node-setup: {error.filename}: {error.strerror}")
