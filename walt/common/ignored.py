"""What a build does not see of its directory: .containerignore and .dockerignore.

Patterns as podman and docker read them (Dockerfile reference, "dockerignore files"): the last
one that matches a path, or a directory above it, counts; `!` makes exceptions.
"""

from __future__ import annotations

import os
import re

FILES = (".containerignore", ".dockerignore")  # the first one that is there
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
    """The rules of one directory; `lines` are those of its file, `needed` never match.

    Raises ValueError for a line that is no pattern.
    """

    def __init__(self, lines: list[str], needed: frozenset[str] = frozenset()) -> None:
        self._needed = needed
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
                raise ValueError(f"{line.strip()!r} ignores nothing: {error}") from None
        self.has_exceptions = any(kept for kept, _ in self._rules)

    def __contains__(self, path: str) -> bool:
        """Tell whether a path, relative and without `./`, is not seen."""
        found = False
        for kept, rule in self._rules:
            if found == kept and rule.fullmatch(path):
                found = not kept
        return found and path not in self._needed
