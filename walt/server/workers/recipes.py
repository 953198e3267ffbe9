"""Make the recipe that somebody sent ready for the builder: a program of its own.

`python -m walt.server.workers.recipes CONTEXT ROOT USER PODMAN KNOWN TARGET` writes to TARGET
what a podman of version PODMAN (4.9.4) is to build of the directory CONTEXT below ROOT, for
USER, and removes what it is not to see there; the file KNOWN has the full name of each image of
the platform, one a line. What is wrong is told on standard error. It is no job of a worker: the
parser takes address space that it does not give back, and workers have a limit of it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from walt.common.errors import Invalid, NotFound
from walt.server.adapters.podman import recipes
from walt.server.adapters.podman.statuses import IS_INVALID, IS_NOT_THERE


def main() -> int:
    """Do what the words of the command line say; return the exit status."""
    context, root, user, podman, known, target = sys.argv[1:]
    version = tuple(int(number) for number in podman.split(".") if number)
    try:
        names = frozenset(Path(known).read_text().splitlines())
        made = recipes.prepare(Path(context), Path(root), user, version, names)
        recipes.remove_ignored(Path(context), Path(root))
    except (Invalid, NotFound) as error:
        print(error, file=sys.stderr)
        return IS_INVALID if isinstance(error, Invalid) else IS_NOT_THERE
    Path(target).write_text(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
