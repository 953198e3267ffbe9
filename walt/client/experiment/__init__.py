"""An experiment is a file; what a run of it gave is an archive that others can compare.

`document` reads YAML with the lines of its values, `reading` makes an experiment (`model`) of it,
`casting` finds the nodes of its roles. `running` goes through a run, which it tells the server
about (`reporting`); `stepping` does its steps by commands that run once (`detached`) in shells that
are kept (`channels`), `finding` gets numbers out of what they left, `collecting` fetches what the
platform knows of it (`topology`; lines in a `log_file`, aligned by the `clocks` that `timing` asks,
and what `ptp` says): all into an `archive`. `holding` takes images and settings for that time;
`duties` are what is left to do at the end. `sealing`, `showing` and `comparing` (with `log_counts`
and `pairing`) work on archives alone, without a server; `replaying` and `fetching` find images on
another platform, or those that `images` keeps in an archive. A `program` measures by its own loop;
it imports `Run` from here.
"""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from walt.client.experiment.program import Run

__all__ = ["Run"]


def __getattr__(name: str) -> object:
    """Give `Run` to programs; commands do without what it imports."""
    if name != "Run":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from walt.client.experiment.program import Run

    return Run
