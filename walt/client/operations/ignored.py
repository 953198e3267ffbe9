"""What the command does not send of a directory that is to be built."""

from __future__ import annotations

import os

from walt.client.errors import Failure
from walt.common.ignored import FILES, Ignored

# The builder reads them, whatever is ignored.
NEEDED = frozenset((*FILES, "Dockerfile", "ContainerFile", "Containerfile"))
MAX_SIZE = 1 << 20  # bytes


def ignored_in(directory: str) -> Ignored:
    """Return the rules of a directory; none without a file of them. Raises Failure."""
    for name in FILES:
        path = os.path.join(directory, name)
        try:
            with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
                return Ignored(file.read(MAX_SIZE).splitlines(), NEEDED)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise Failure(f"cannot read {path}: {error.strerror}") from None
        except ValueError as error:
            raise Failure(str(error)) from None
    return Ignored([])
