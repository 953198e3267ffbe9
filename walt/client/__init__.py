"""The walt command, and the Python API: standard library only on the ordinary path."""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from walt.client.scripting.root import Api

    api: Api


def __getattr__(name: str) -> object:
    """Make `from walt.client import api` cost nothing to those who do not use it."""
    if name != "api":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from walt.client.scripting.root import API

    return API
