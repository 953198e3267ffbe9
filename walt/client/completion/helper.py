"""`walt-autocomplete-helper TYPE WORDS…`: candidates for the last word, separated by spaces.

For the completion of shells. Within 4 seconds, or not at all: any failure is a status
other than 0 and no output. `--debug` as first argument: no limit, errors are shown.
"""

from __future__ import annotations

import os
import signal
import sys

from walt.client import plugins
from walt.client.errors import Failure
from walt.client.session import Session

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Iterable

LIMIT = 4  # seconds
MAX_LOCAL = 1000
NO_SPACE_AFTER = ("/", ":", "=")
COPIES = ("NODE_CP_SRC", "NODE_CP_DST", "IMAGE_CP_SRC", "IMAGE_CP_DST")
PLACEHOLDER = "<relative-time>"  # shows the form of what may be typed


def main() -> None:
    """Print candidates and exit."""
    words = sys.argv[1:]
    output = 1
    if words[:1] == ["--debug"]:
        words.pop(0)
    else:
        signal.alarm(LIMIT)
        output = _silence()
    if len(words) < 2:
        print("usage: walt-autocomplete-helper [--debug] TYPE WORD...", file=sys.stderr)
        sys.exit(2)
    try:
        found = candidates(words[0], words[1:-1], words[-1])
    except Failure as failure:
        print(failure, file=sys.stderr)
        sys.exit(failure.status or 1)
    os.write(output, (" ".join(found) + "\n").encode(errors="surrogateescape"))


def _silence() -> int:
    """Have nothing asked and nothing shown; return where the candidates go."""
    output = os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    return output


def candidates(kind: str, words: list[str], partial: str) -> list[str]:
    """Return what `partial` may become, after `words`; Failure without server.

    What a shell would read as more than a plain word is left out: files of nodes may
    have any name. So is a single form of a date, which nobody can want inserted.
    """
    offered = plugins.call("shell-completion", kind, tuple(words), partial)
    found: list[str] = [
        str(candidate) for candidate in offered
    ] if offered is not None else Session().json(
        "cs.server.complete", "candidates", kind=kind, words=words, partial=partial
    )
    if offered is None and kind in COPIES:
        found = _merged(found, _local(kind, words, partial))
    found = [candidate for candidate in found if _is_plain(candidate.replace(PLACEHOLDER, ""))]
    if all(PLACEHOLDER in candidate for candidate in found):
        return []
    return found


def _is_plain(word: str) -> bool:
    return all(letter.isalnum() or letter in "-_./:=,+@%^~" for letter in word)


def _local(kind: str, words: list[str], partial: str) -> list[str]:
    """Return paths of this machine, where they make sense: one side of a copy is remote."""
    if ":" in partial:
        return []
    if kind.endswith("_DST"):
        after = words[words.index("cp") + 1:] if "cp" in words else []
        source = [word for word in after if not word.startswith("-")][:1]
        if not any(":" in word for word in source):
            return []
    before, slash, prefix = partial.rpartition("/")
    try:
        with os.scandir(os.path.expanduser(before + slash) or ".") as entries:
            return [
                before + slash + entry.name + ("/" if entry.is_dir() else "")
                for entry, _ in zip(_named(entries, prefix), range(MAX_LOCAL))
            ]
    except OSError:
        return []


def _named(entries: Iterable[os.DirEntry[str]], prefix: str) -> Iterable[os.DirEntry[str]]:
    return (
        entry for entry in entries
        if entry.name.startswith(prefix) and not (entry.name.startswith(".") and not prefix)
    )


def _merged(found: list[str], local: list[str]) -> list[str]:
    """Add candidates to those of the server; a single one gets no space again (server §7.5)."""
    if len(found) == 2 and found[0][:-1] == found[1][:-1] and [
        candidate[-1] for candidate in found
    ] == ["a", "b"] and found[0][:-1].endswith(NO_SPACE_AFTER):
        found = [found[0][:-1]]
    found = sorted([*found, *local])
    if len(found) == 1 and found[0].endswith(NO_SPACE_AFTER):
        return [found[0] + "a", found[0] + "b"]
    return found


if __name__ == "__main__":
    main()
