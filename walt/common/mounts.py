"""What is mounted where, as this process sees it."""

from __future__ import annotations

from pathlib import Path


def mount_points() -> list[str]:
    """Return every mount point of this process's view (proc(5), mountinfo), oldest first."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        return [_unescape(line.split()[4]) for line in table]


def is_mounted(path: Path) -> bool:
    """Tell whether a file system is mounted exactly at `path`."""
    return str(path) in mount_points()


def mounted_below(path: Path) -> list[Path]:
    """Return the mount points at `path` and below it, in an order to unmount them."""
    found = [
        point for point in mount_points() if point == str(path) or point.startswith(f"{path}/")
    ]
    return [Path(point) for point in reversed(found)]


def _unescape(text: str) -> str:
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text
