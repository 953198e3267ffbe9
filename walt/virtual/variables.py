"""Settings of the boot language: what `${name}` stands for (spec node-protocols §8.4)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote

from walt.common.errors import Invalid

MAX_TEXT = 4096  # characters of a value, and of a line once its settings are replaced
MAX_SETTINGS = 256
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_REFERENCE = re.compile(r"\$\{([^${}]*)\}")  # innermost: no other one inside
_INTERFACE = re.compile(r"net(?:[0-9]{1,2}|X)/")
MAX_REPLACED = 256  # references of one line


def _key(name: str) -> str:
    """Return a name without the interface in front of it: there is only one."""
    return _INTERFACE.sub("", name, count=1)


class Variables:
    """The settings of one boot; unknown ones are empty."""

    def __init__(self, known: Mapping[str, str]) -> None:
        self._values = dict(known)

    def set(self, name: str, value: str) -> None:
        """Give a setting a value; an empty one removes it. Raises Invalid."""
        key = _key(name.partition(":")[0])
        if _NAME.fullmatch(key) is None:
            raise Invalid(f"{name[:64]!r} is not a valid name for a setting")
        if not value:
            self._values.pop(key, None)
            return
        if len(value) > MAX_TEXT or len(self._values) >= MAX_SETTINGS:
            raise Invalid("the settings of a boot script are too long, or too many")
        self._values[key] = value

    def get(self, reference: str) -> str:
        """Return the value for `name`, `netX/name` or `name:type`, empty when not set."""
        name, _, form = reference.partition(":")
        value = self._values.get(_key(name), "")
        if form == "hexhyp":
            return value.replace(":", "-")
        if form == "hexraw":
            return value.replace(":", "")
        if form == "uristring":
            return quote(value, safe="")
        return value

    def expand(self, text: str) -> str:
        """Return a text with its references replaced, innermost first. Raises Invalid."""
        for _ in range(MAX_REPLACED):
            text, found = _REFERENCE.subn(lambda match: self.get(match[1]), text, count=1)
            if len(text) > MAX_TEXT:
                break
            if not found:
                return text
        raise Invalid("a line of a boot script is too long, or has too many settings")
