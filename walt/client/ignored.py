"""What a directory to be built does not send: .containerignore and .dockerignore.

Patterns as podman and docker read them (Dockerfile reference, "dockerignore files"): the last
one that matches a path, or a directory above it, counts; `!` makes exceptions.
"""

from __future__ import annotations

import os
import re

from walt.client.errors import Failure

FILES = (".containerignore", ".dockerignore")  # the first one that is there
# The builder reads them, whatever is ignored.
NEEDED = frozenset((*FILES, "Dockerfile", "ContainerFile", "Containerfile"))
MAX_SIZE = 1 << 20  # bytes
_PIECE = re.compile(r"(?s)\*\*/|\*\*|\*|\?|\[\^?(?:\\.|[^\]\\])+\]|\\.|.")


def _expression(pattern: str) -> str:
    """Return the regular expression of a pattern, which matches whole paths."""
    made = []
    for piece in _PIECE.findall(pattern):
        if piece == "**/":
            made.append("(?:.*/)?")
        elif piece == "**":
            made.append(".*")
        elif piece == "*":
            made.append("[^/]*")
        elif piece == "?":
            made.append("[^/]")
        elif piece[0] == "[" and len(piece) > 2:
            made.append(piece)
        else:
            made.append(re.escape(piece[-1]))
    return "".join(made)


class Ignored:
    """The rules of one directory; `lines` are those of its file."""

    def __init__(self, lines: list[str]) -> None:
        self._rules: list[tuple[bool, re.Pattern[str]]] = []
        for line in lines:
            pattern = line.strip()
            if not pattern or line.startswith("#"):
                continue
            kept = pattern.startswith("!")
            pattern = os.path.normpath(pattern[kept:].strip()).lstrip("/")
            try:
                self._rules.append((kept, re.compile(f"(?s){_expression(pattern)}(?:/.*)?")))
            except re.error as error:
                raise Failure(f"{line.strip()!r} ignores nothing: {error}") from None
        self.has_exceptions = any(kept for kept, _ in self._rules)

    def __contains__(self, path: str) -> bool:
        """Tell whether a path, relative and without `./`, is not sent."""
        found = False
        for kept, rule in self._rules:
            if found == kept and rule.fullmatch(path):
                found = not kept
        return found and path not in NEEDED


def ignored_in(directory: str) -> Ignored:
    """Return the rules of a directory; none without a file of them. Raises Failure."""
    for name in FILES:
        path = os.path.join(directory, name)
        try:
            with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
                return Ignored(file.read(MAX_SIZE).splitlines())
        except FileNotFoundError:
            continue
        except OSError as error:
            raise Failure(f"cannot read {path}: {error.strerror}") from None
    return Ignored([])
