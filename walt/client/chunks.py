"""Chunks of a console, which its log stream holds as Python writes bytes (`b'login: '`)."""

from __future__ import annotations

import ast
import re

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from walt.common.records import Record

# One literal and nothing else: what else Python reads could take long, or too much memory.
_LITERAL = re.compile(r"""b(?:'(?:[ -&(-\[\]-~]|\\[ -~])*'|"(?:[ !#-\[\]-~]|\\[ -~])*")""")
# Control functions of terminals (ECMA-48 §5.3 and §5.6): colours, moves, titles…
_CONTROLS = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-OQ-WYZ\\`-~])"
)
_ENDS = re.compile(r"\r*\n|\r+")


def console_bytes(line: str) -> bytes | None:
    """Return the bytes of a log line that holds a chunk, None when it is another text."""
    if _LITERAL.fullmatch(line) is None:
        return None
    try:
        found = ast.literal_eval(line)
    except (ValueError, SyntaxError):  # "\x" without digits
        return None
    return found if isinstance(found, bytes) else None


def readable(records: list[Record]) -> list[Record]:
    """Return records in which chunks of consoles are replaced by their lines of text.

    Control functions are left out, empty lines too: this is for people who read what a
    console said. What is left of control characters is for `walt.client.visible`.
    """
    found: list[Record] = []
    for record in records:
        stamp, issuer, stream, line = record
        chunk = console_bytes(line) if stream.endswith("console") else None
        if chunk is None:
            found.append(record)
            continue
        text = _CONTROLS.sub("", chunk.decode(errors="backslashreplace"))
        found += [(stamp, issuer, stream, word) for word in _ENDS.split(text) if word.strip()]
    return found
