"""Programs of the server's machine that commands of walt become."""

from __future__ import annotations

import os
import sys

from walt.client.errors import Failure

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Sequence


def become(name: str, words: Sequence[str]) -> int:
    """Go on as a program of this installation. Raises Failure where the server is not."""
    program = os.path.join(os.path.dirname(sys.executable), name)
    if not os.access(program, os.X_OK):
        raise Failure(
            "this is for the machine of the server, and the walt command of its installation;"
            f" {name} is not beside {sys.executable}"
        )
    sys.stdout.flush()
    os.execv(program, [name, *words])  # noqa: S606 (a vector)
