"""Values of a YAML text, as they are written, with their lines; what is wrong is collected.

Scalars are not converted: 1.10 is no 1.1, and a command `true` is a text. What a value is meant
to be is known where it is read.
"""

from __future__ import annotations

import difflib
import re

from walt.client.errors import Failure
from walt.client.formats import pip_install

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Union

    # A text, None for nothing, a map or a list; values inside come with their lines.
    Content = Union[str, None, dict[str, tuple[int, Any]], list[tuple[int, Any]]]

LONGEST = 1 << 20  # characters of a file
DEEPEST = 20  # maps and lists inside each other
DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)\s*(ms|s|m|h)?")
SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}
WHOLE = re.compile(r"-?\d{1,18}")
_SURROGATE = re.compile("[\ud800-\udfff]")
TRUTHS = {"yes": True, "true": True, "on": True, "no": False, "false": False, "off": False}


class Errors(list["tuple[int, str]"]):
    """What is wrong with a file: pairs of a line, counted from 1, and a text."""

    def told(self, name: str) -> str:
        """Return all of it, a line each, in the order of the file."""
        return "\n".join(f"{name}:{line}: {text}" for line, text in sorted(self))


class Value:
    """A value, where it is (`line`, and `path` as in roles.sender.count), and its errors."""

    def __init__(self, content: Content, path: str, line: int, errors: Errors) -> None:
        self.content = content
        self.path = path
        self.line = line
        self._errors = errors

    def error(self, text: str) -> None:
        """Note what is wrong with it."""
        self._errors.append((self.line, f"{self.path or 'the file'}: {text}"))

    # -- what it is made of ------------------------------------------------------

    def fields(self, *known: str) -> dict[str, Value]:
        """Return the values of a map whose keys are among `known`, or any without them."""
        if not isinstance(self.content, dict):
            self.error("expected a map, `key: value`")
            return {}
        found = {}
        for key, (line, content) in self.content.items():
            child = Value(content, f"{self.path}.{key}".lstrip("."), line, self._errors)
            if known and key not in known:
                near = difflib.get_close_matches(key, known, 1)
                child.error(
                    f"there is no such key; did you mean {near[0]}?" if near
                    else f"there is no such key, only {', '.join(known)}"
                )
            else:
                found[key] = child
        return found

    def items(self) -> Iterator[Value]:
        """Yield the values of a list."""
        if not isinstance(self.content, list):
            self.error("expected a list, `- item`")
            return
        for number, (line, content) in enumerate(self.content):
            yield Value(content, f"{self.path}[{number}]", line, self._errors)

    # -- what it says ------------------------------------------------------------

    def text(self, longest: int = 10_000) -> str:
        """Return a text; numbers are texts, too."""
        if not isinstance(self.content, str):
            self.error("expected a text")
            return ""
        if len(self.content) > longest or "\0" in self.content:
            self.error(f"expected a text of at most {longest} characters, without NUL")
        return self.content

    def name(self, pattern: re.Pattern[str], what: str) -> str:
        """Return a text that a pattern matches."""
        text = self.text(200)
        if isinstance(self.content, str) and not pattern.fullmatch(text):
            self.error(f"{text[:60]!r} is not {what}")
        return text

    def whole(self, low: int, high: int) -> int:
        """Return a whole number."""
        text = self.content if isinstance(self.content, str) else ""
        if not WHOLE.fullmatch(text) or not low <= int(text) <= high:
            self.error(f"expected a whole number from {low} to {high}")
            return low
        return int(text)

    def yes(self) -> bool:
        """Return yes or no."""
        found = TRUTHS.get(self.content.lower()) if isinstance(self.content, str) else None
        if found is None:
            self.error("expected yes or no")
        return bool(found)

    def seconds(self, most: float) -> float:
        """Return a duration in seconds, of a number or a text such as 90s, 5m or 1h."""
        found = DURATION.fullmatch(self.content.strip()) if isinstance(self.content, str) else None
        if found is None:
            self.error("expected a duration, such as 30, 90s, 5m or 1h")
            return most
        seconds = float(found[1]) * SECONDS[found[2]]
        if not 0 < seconds <= most:
            self.error(f"expected a duration above 0, at most {most:g} s")
        return seconds


def read(text: str, errors: Errors) -> Value | None:
    """Return the content of a YAML text, None for what is none; what is wrong is in `errors`.

    Raises Failure where the library that reads YAML is missing.
    """
    if len(text) > LONGEST:
        errors.append((1, f"the file is longer than {LONGEST} characters"))
        return None
    try:
        from ruamel.yaml import YAML
        from ruamel.yaml.error import MarkedYAMLError
        from ruamel.yaml.events import AliasEvent
    except ImportError:
        raise Failure(
            "this needs the library ruamel.yaml in the Python that runs walt; run:"
            f" {pip_install('ruamel.yaml')}"
        ) from None
    try:
        depth = 0
        for event in YAML(pure=True).parse(text):
            if isinstance(event, AliasEvent):
                errors.append((event.start_mark.line + 1, "aliases (*name) are not understood"))
                return None
            kind = type(event).__name__
            depth += kind.endswith("StartEvent") - kind.endswith("EndEvent")
            if depth > DEEPEST:
                errors.append((event.start_mark.line + 1, "this is nested too deeply"))
                return None
        node = YAML(pure=True).compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        hint = "; indent with spaces, YAML knows no tabs there" \
            if "'\\t'" in str(error.problem) else ""
        errors.append((mark.line + 1 if mark else 1, f"this is no YAML: {error.problem}{hint}"))
        return None
    except Exception as error:  # what else trips the library over a text is no YAML, either
        errors.append((1, f"this is no YAML: {' '.join(str(error).split())[:200]}"))
        return None
    return Value(_content(node, errors), "", 1, errors)


def _content(node: Any, errors: Errors) -> Content:
    """Return what a node of YAML holds, nothing converted."""
    from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode

    if isinstance(node, SequenceNode):
        return [(_line(entry), _content(entry, errors)) for entry in node.value]
    if isinstance(node, MappingNode):
        found: dict[str, tuple[int, Any]] = {}
        for key, value in node.value:
            if not isinstance(key, ScalarNode) or _SURROGATE.search(key.value):
                errors.append((_line(key), "keys are texts"))
            elif key.value in found:
                errors.append((_line(key), f"{key.value[:60]} is there twice"))
            else:
                found[key.value] = (_line(key), _content(value, errors))
        return found
    if node is not None and not node.value.isprintable() and _SURROGATE.search(node.value):
        errors.append((_line(node), "half of a character (\\ud800 to \\udfff) is no text"))
        return None
    if node is None or (node.style is None and node.value in ("", "~", "null")):
        return None
    return str(node.value)


def _line(node: Any) -> int:
    return int(node.start_mark.line) + 1
