"""How moments, sizes and rows of the server are written for people."""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from typing import Any

SECONDS, MINUTES, DAY = "%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d"


def cells(row: dict[str, Any]) -> dict[str, Any]:
    """Return an object of the server as tables show it.

    Names have dashes; yes and no, dates of this machine, sizes and models in short.
    """
    shown = {}
    for name, value in row.items():
        if isinstance(value, bool):
            value = "yes" if value else "no"
        elif name in ("created", "expires", "trouble_time") and value is not None:
            value = moment(value)
        elif name == "size" and value is not None:
            value = readable(value)
        elif name == "compatibility":
            from walt.common.models import compact_models

            value = compact_models(value)
        shown[name.replace("_", "-")] = value
    return shown


def moment(seconds: float, template: str = SECONDS) -> str:
    """Return a moment, in seconds since 1970, in the local time of this machine.

    One that no calendar has is a number: it comes from a server, or from others by it.
    """
    from time import localtime, strftime

    try:
        return strftime(template, localtime(seconds))
    except (OverflowError, ValueError, OSError):
        return f"{seconds:.3g}"


def readable(size: int) -> str:
    """Return a number of bytes in a few letters."""
    if size >= 1e9:
        return f"{size / 1e9:.1f} GB"
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def pip_install(package: str) -> str:
    """Return the command that installs a package for the Python that runs walt."""
    import shlex
    import sys

    return f"{shlex.quote(sys.executable)} -m pip install {package}"
