"""For programs of root that go where files are a stranger's: into an image, a container."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType


def import_nothing_more() -> None:
    """From now on Python reads no file by itself: no module, no source for a traceback.

    What it would find at its paths is not what was there before: a codec that an image brings
    would run with the rights of this program.
    """
    sys.path.clear()
    sys.path_importer_cache.clear()
    sys.meta_path.clear()
    sys.path_hooks.clear()
    sys.tracebacklimit = 0
    sys.excepthook = _tell
    sys.unraisablehook = lambda unraisable: _tell(
        unraisable.exc_type, unraisable.exc_value, unraisable.exc_traceback
    )


def _tell(
    kind: type[BaseException], value: BaseException | None, traceback: TracebackType | None
) -> None:
    sys.stderr.write(f"{kind.__name__}: {value}\n")
